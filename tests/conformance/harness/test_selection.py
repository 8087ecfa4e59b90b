"""Selecting cases: by id or glob, requirement, section, level and words."""

import pytest

from conformance.commands.cases import all_cases
from conformance.harness.selection import Selection, SelectionError
from conformance.spec.tables import load

_ALL = all_cases()


def _ids(**parts: object) -> list[str]:
    return [case.id for case in Selection(**parts).of(_ALL, load())]  # type: ignore[arg-type]


def test_selection_by_pattern() -> None:
    assert _ids(patterns=["server/7.9/already-joined"]) == ["server/7.9/already-joined"]
    assert _ids(patterns=["server/7.9/already*"]) == ["server/7.9/already-joined", "server/7.9/already-joined-spelling"]
    assert _ids(patterns=["server/7.9"]) == _ids(patterns=["server/7.9/*"])


def test_selection_by_section() -> None:
    assert _ids(patterns=["server/7"]) == [id for id in _ids(sections=["7"]) if id.startswith("server/")]
    assert set(_ids(sections=["7"])) > set(_ids(sections=["7.9"]))
    assert not any(id.startswith(("server/7.1/", "server/7.10/")) for id in _ids(sections=["7.9"]))


def test_selection_by_requirement() -> None:
    assert all("RW-JOIN-1" in case.requirements for case in Selection(requirements=["RW-JOIN-1"]).of(_ALL, load()))
    assert _ids(requirements=["RW-JOIN-2"]) == ["server/7.9/too-many-rooms"]


def test_selection_by_level() -> None:
    assert _ids(patterns=["server"], levels=["SHOULD"]) == [
        "server/8.6/refuses-new",
        "server/13/account-full",
        "server/15/rates-outlive-connections",
    ]


def test_selection_by_words() -> None:
    assert _ids(words="waits and not (8.4 or 5.1)", patterns=["server/5.2", "server/8.4"])
    assert set(_ids(words="process")) == {case.id for case in _ALL if "process" in case.tags}
    assert _ids(patterns=["server/7.9"], words="spelling or fresh") != []


@pytest.mark.parametrize("words", ["and", "a and", "(a", "a)", "not", "a b", "or b", "not " * 9_999 + "a", "(" * 9_999])
def test_words_that_are_not_an_expression(words: str) -> None:
    with pytest.raises(SelectionError):
        Selection(words=words).of(_ALL, load())


def test_selection_of_unknown_names() -> None:
    with pytest.raises(SelectionError):
        Selection(requirements=["RW-NONE-1"]).of(_ALL, load())
    with pytest.raises(SelectionError):
        Selection(sections=["99"]).of(_ALL, load())
