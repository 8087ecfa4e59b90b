"""SECURITY.md and the program agree: limits, and the evidence for the thirty checks."""

import fnmatch
import re
from dataclasses import fields

from conformance.commands.cases import all_cases
from protocol.registry import LIMITS
from reference_server.accounts import ITERATIONS, SHORTEST_PASSWORD
from reference_server.config import Config
from reference_server.core.credit import FRAMES_PER_ROUND, FRAMES_PER_TICK
from reference_server.core.hub import REFUSED_AT_ONCE
from reference_server.net.sockets import RESERVED_DESCRIPTORS
from reference_server.net.transport import HIGH_WATER
from tests.support.places import ROOT

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
FIXED = {
    "refused at once": REFUSED_AT_ONCE,
    "reserved descriptors": RESERVED_DESCRIPTORS,
    "talk at once": FRAMES_PER_TICK,
    "turn": FRAMES_PER_ROUND,
    "high water": HIGH_WATER,
    "password": SHORTEST_PASSWORD,
    "iterations": ITERATIONS,
}
NO_LIMITS = {"port", "metrics_port", "server_id"}


def rows(heading: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    part = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_limits_are_those_of_the_server() -> None:
    config = Config()
    limits = {field.name: getattr(config, field.name) for field in fields(Config) if type(field.default) is int}
    expected = {name: limit.default for name, limit in LIMITS.items()} | limits | FIXED
    said = {name.strip("`"): int(default) for name, default, _ in rows("Limits")}
    assert said == {name: value for name, value in expected.items() if name not in NO_LIMITS}


def test_thirty_checks_are_shown() -> None:
    table = rows("The thirty checks")
    assert [int(number) for number, _, _ in table] == list(range(1, 31))
    known = [case.id for case in all_cases()]
    for number, _, shown in table:
        found = re.findall(r"`([^`]+)`", shown)
        assert found, number
        for each in found:
            if each.startswith("tests/"):
                file, _, name = each.partition("::")
                assert f"\ndef {name}(" in (ROOT / file).read_text(encoding="utf-8"), each
            else:
                assert fnmatch.filter(known, each), each


def test_named_files_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)", TEXT)
    assert len(named) > 20
    for file in named:
        assert (ROOT / file).exists(), file
