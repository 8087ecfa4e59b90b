"""Every requirement of SPEC.md is checked somewhere, or conformance/data/gaps.toml says why not.

A requirement is checked when a case of the suite names it or judges by it, when a test cites it in a docstring or a
comment, or when the table below names a test for it. Two citations check nothing: the requirement that a frame of a
case breaks on purpose, and a comment in a program that keeps the requirement.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.commands.cases import all_cases
from conformance.report import gaps
from conformance.spec.tables import REQUIREMENT_ID, load
from tests.support.places import ROOT

SPEC = load()
UNTESTABLE = gaps.load().untestable
UNKNOWN_IDS = {"RW-NONE-1", "RW-NOT-1"}
"""Ids that tests of the suite use as those of requirements that do not exist."""
NO_EVIDENCE = {"documents/test_requirements.py", "documents/test_spec.py", "documents/test_spec_document.py"}

TESTED_BY = {
    "RW-MODEL-10": "client/test_session_recovery.py::test_old_epoch_is_not_shown_twice",
    "RW-PREFACE-1": "documents/test_spec.py::test_prefaces_of_connections",
    "RW-PREFACE-8": "client/test_session_recovery.py::test_foreign_preface",
    "RW-REQUEST-5": "client/test_session.py::test_window_is_respected",
    "RW-REQUEST-8": "protocol/test_connections.py::test_unexpected_frame_ends_the_connection",
    "RW-TYPE-5": "protocol/test_connections.py::test_unknown_sequenced_frame_moves_the_cursor",
    "RW-TYPE-6": "protocol/test_codec.py::test_unknown_frame_with_seq",
    "RW-CHECK-3": "protocol/test_connections.py::test_every_transition_is_reached",
    "RW-HELLO-1": "documents/test_spec.py::test_prefaces_of_connections",
    "RW-AUTH-1": "client/test_session_recovery.py::test_challenge_is_declined",
    "RW-DRAIN-4": "client/test_session_recovery.py::test_draining",
    "RW-RECONNECT-1": "client/test_client.py::test_publish_across_a_lost_connection",
    "RW-RECONNECT-2": "client/test_session_recovery.py::test_goaway_sets_the_wait",
    "RW-RECONNECT-3": "client/test_session_recovery.py::test_backoff_doubles",
    "RW-CURSOR-4": "protocol/test_connections.py::test_stream_moves_the_cursor_once",
    "RW-STREAM-1": "protocol/test_connections.py::test_stream_moves_the_cursor_once",
    "RW-STREAM-2": "protocol/test_connections.py::test_hole_in_the_stream_ends_the_connection",
    "RW-STREAM-3": "protocol/test_connections.py::test_unexpected_frame_ends_the_connection",
    "RW-QUIET-3": "client/test_session.py::test_roster_and_presence",
    "RW-LAG-5": "client/test_session_refusals.py::test_kicked",
    "RW-LAG-6": "client/test_session_refusals.py::test_evicted_while_publishing",
    "RW-ID-1": "client/test_session.py::test_ids_hold_the_time_of_the_server",
    "RW-DEDUPE-8": "client/test_session_recovery.py::test_no_blind_repeat",
    "RW-ORDER-4": "client/test_session_refusals.py::test_refused_publishes_are_repeated_in_order",
}
"""Tests whose subject is a requirement, but whose text does not cite it."""


def files() -> Iterator[Path]:
    """Every file of the repository that may cite a requirement."""
    for path in sorted(ROOT.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(ROOT).parts)
        if path.suffix in (".py", ".md", ".jsonl", ".toml") and not hidden:
            yield path


def citations() -> dict[str, set[str]]:
    """The files that cite a requirement, as paths from the root, by requirement."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in files():
        for name in REQUIREMENT_ID.findall(path.read_text(encoding="utf-8")):
            found[name].add(path.relative_to(ROOT).as_posix())
    return found


def is_test(path: str) -> bool:
    """Whether a file that cites a requirement checks it."""
    return path.startswith("tests/") and path.removeprefix("tests/") not in NO_EVIDENCE


def judged() -> Iterator[str]:
    """The requirements that the suite judges by: ids as whole strings, except those in `breaks=`."""
    for path in (ROOT / "conformance").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        keywords = [word for node in nodes if isinstance(node, ast.Call) for word in node.keywords]
        breaks = {id(word.value) for word in keywords if word.arg == "breaks"}
        for node in nodes:
            if isinstance(node, ast.Constant) and id(node) not in breaks:
                yield from {str(node.value)} & SPEC.requirements.keys()


CITED = citations()
NAMED = {name for case in all_cases() for name in case.requirements}
TESTED = {name for name, paths in CITED.items() if any(map(is_test, paths))}
# A requirement that binds only clients is mentioned, and not checked, by a case for servers.
JUDGED = {name for name in judged() if SPEC.requirements[name].binds != "client"}
CHECKED = NAMED | JUDGED | TESTED | TESTED_BY.keys()


@pytest.mark.parametrize("name", SPEC.requirements)
def test_requirement_is_checked_or_excused(name: str) -> None:
    if name in UNTESTABLE:
        assert name not in CHECKED, f"{name} is checked: remove it from conformance/data/gaps.toml"
    else:
        assert name in CHECKED, f"no case and no test is about {name}: {SPEC.requirements[name].text}"


def test_cited_ids_exist() -> None:
    assert not UNKNOWN_IDS & SPEC.requirements.keys()
    assert {name: sorted(CITED[name]) for name in CITED.keys() - SPEC.requirements.keys() - UNKNOWN_IDS} == {}


@pytest.mark.parametrize("name", TESTED_BY)
def test_tested_by_entry_exists(name: str) -> None:
    file, _, test = TESTED_BY[name].partition("::")
    assert name in SPEC.requirements
    assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)
