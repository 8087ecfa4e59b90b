"""A case stands in the module of its section, and says in one sentence what an implementation must do."""

import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from conformance.client.cases import client_cases
from conformance.commands.cases import all_cases
from conformance.harness.case import Case, check
from conformance.server.cases import server_cases
from conformance.spec.tables import load
from tests.support.places import ROOT

CASES = {"server": server_cases(), "client": client_cases()}
ALL = all_cases()


def sections(cases: list[Case]) -> dict[str, set[str]]:
    """The sections of the cases by module, without those that a step defines for several modules."""
    found = defaultdict(set)
    for case in cases:
        found[case.run.__module__].add(case.section)
    return {module: numbers for module, numbers in found.items() if not module.endswith(".steps")}


@pytest.mark.parametrize("role", CASES)
def test_sections_in_docstrings_of_modules(role: str) -> None:
    named = {}
    for module in sections(CASES[role]):
        subject = (sys.modules[module].__doc__ or "").splitlines()[0].partition(":")[0]
        named[module] = set(re.findall(r"\d+(?:\.\d+)?", subject))
    assert named == sections(CASES[role])


@pytest.mark.parametrize("role", CASES)
def test_modules_of_cases(role: str) -> None:
    files = {path.stem for path in Path(ROOT, "conformance", role, "cases").glob("*.py")} - {"__init__", "steps"}
    assert {module.rpartition(".")[2] for module in sections(CASES[role])} == files


def test_descriptions_of_cases() -> None:
    first_lines = {case: case.summary.splitlines()[0] for case in ALL}
    assert [line for case, line in first_lines.items() if not re.match(rf"The {case.role}\b.*[.]$", line)] == []


def test_requirements_of_cases() -> None:
    check(ALL, load())
    assert len([case for case in ALL if case.role == "server"]) > 300
    for case in ALL:
        others = {"server": "client", "client": "server"}.get(case.role)
        about = [load().requirements[name] for name in case.requirements]
        assert [r.id for r in about if r.binds == others and f"a {case.role}" not in r.text] == [], case.id
