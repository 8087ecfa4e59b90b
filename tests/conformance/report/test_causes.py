"""Groups of results with one cause."""

import pytest

from conformance.report.causes import by_cause, cause


@pytest.mark.parametrize(
    ("got", "other"),
    [
        ("nothing within 1 s", "nothing within 0.25 s"),
        ("WELCOME name='u-0123456789-1'", "WELCOME name='u-00aa11bb22-17'"),
        ("JOINED name='ci_0123456789-1'", "JOINED name='ci_00aa11bb22-17'"),
        ("ERROR(NOT_JOINED) request=3", "ERROR(NOT_JOINED) request=40"),
        ("type 0x8abc", "type 0x8abd"),
    ],
)
def test_same_cause(got: str, other: str) -> None:
    assert cause(("FAIL", "RW-X-1", "OK", got, "")) == cause(("FAIL", "RW-X-1", "OK", other, ""))


@pytest.mark.parametrize(
    "other",
    [
        ("WARN", "RW-X-1", "OK", "nothing", ""),
        ("FAIL", "RW-X-2", "OK", "nothing", ""),
        ("FAIL", "RW-X-1", "ACK", "nothing", ""),
        ("FAIL", "RW-X-1", "OK", "ERROR(FORBIDDEN)", ""),
        ("FAIL", "RW-X-1", "", "", "died"),
    ],
)
def test_other_cause(other: tuple[str, str, str, str, str]) -> None:
    assert cause(("FAIL", "RW-X-1", "OK", "nothing", "")) != cause(other)


def test_groups_in_their_order() -> None:
    rows = [("FAIL", "RW-X-1", "OK", text, "") for text in ("b 1", "a", "b 2")]
    rows += [("CRASH", f"RW-X-{number}", "", "", f"the program ended with status {number}") for number in (1, 2)]
    assert by_cause(rows, lambda row: row) == [[rows[0], rows[2]], [rows[1]], rows[3:]]
