"""The list of what the suite does not show: its form, and its order."""

import pytest

from conformance.report.gaps import load, parse
from conformance.spec import tables

REASON = '"A reason that is long enough."'


def test_requirements_in_document_order() -> None:
    for listed in (load().untestable, load().unproved):
        assert list(listed) == [name for name in tables.load().requirements if name in listed]


@pytest.mark.parametrize(
    "text",
    [
        "[untestable]\n[unproved]",
        "[untestable]\n[unproved]\n[cases]\n[later]",
        '[untestable]\nRW-A-1 = "short"\n[unproved]\n[cases]',
        "[untestable]\nRW-A-1 = 3\n[unproved]\n[cases]",
        f'[untestable]\n[unproved]\n[cases]\n"server/3/a" = {{ kind = "later", reason = {REASON} }}',
        f"[untestable]\nRW-A-1 = {REASON}\n[unproved]\nRW-A-1 = {REASON}\n[cases]",
    ],
)
def test_malformed_list(text: str) -> None:
    with pytest.raises(ValueError, match=r"gaps\.toml"):
        parse(text)


def test_requirements_of_both_tables() -> None:
    gaps = parse(f"[untestable]\nRW-A-1 = {REASON}\n[unproved]\nRW-A-2 = {REASON}\n[cases]")
    assert set(gaps.requirements) == {"RW-A-1", "RW-A-2"}
