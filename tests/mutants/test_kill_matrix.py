"""Every mutant is killed, every case kills a mutant, and every requirement that can be tested is proved by a kill.

The matrix in conformance/data/kill_matrix.json says what kills what; `python -m tests.mutants.kill_matrix` writes it.
These tests hold it against the cases, against SPEC.md, and against the mutants: each is tried with the cases that
killed it.
"""

import json
import re

import pytest

from conformance.cli import main
from conformance.commands.cases import all_cases
from conformance.report import gaps
from conformance.report.coverage import MATRIX, STATUSES, Mutant, coverage, matrix, problems
from conformance.server.cases import server_cases
from conformance.spec.tables import load
from tests.mutants.catalogue import CLIENT_MODULES, CODEC_MODULES, MUTANTS, SERVER_MODULES
from tests.mutants.kill_matrix import cases_for, run, unchanged
from tests.mutants.servers import ServerMutant, trial
from tests.support.places import ROOT

MATRIX_ROWS = {row.name: row for row in matrix()}
CASES = {case.id: case for case in all_cases()}
ROLES = ("server", "codec", "client")
TRIED_HERE = [name for name in MUTANTS if not name.startswith("client/")]
"""tests/conformance/client/test_mutants.py tries the client mutants."""
KILLED = {id for row in MATRIX_ROWS.values() for id in row.kills}
ROWS = {row.id: row for row in coverage(load(), list(CASES.values()), list(MATRIX_ROWS.values()))}
EXCUSED = gaps.load().requirements


@pytest.mark.parametrize("name", TRIED_HERE)
def test_mutant_is_killed_as_the_matrix_says(name: str) -> None:
    row = MATRIX_ROWS[name]
    tried = [case for case in cases_for(MUTANTS[name]) if case.id in row.kills or (row.watch and not row.kills)]
    found = run(MUTANTS[name], tried)
    assert set(row.kills) <= set(found.kills), found.ends
    if not row.kills:
        assert set(row.watch) & set(found.watched), found.ends
    assert found.errors == []


def test_matrix_rows_of_the_mutants() -> None:
    assert list(MATRIX_ROWS) == list(MUTANTS)
    assert {name: row.breaks for name, row in MATRIX_ROWS.items()} == {name: m.breaks for name, m in MUTANTS.items()}


def test_every_mutant_is_killed() -> None:
    assert [name for name, row in MATRIX_ROWS.items() if not row.kills and not row.watch] == []


def test_slugs_and_descriptions() -> None:
    modules = {"server": SERVER_MODULES, "codec": CODEC_MODULES, "client": CLIENT_MODULES}
    declared = [mutant for role in modules.values() for module in role for mutant in module.MUTANTS]
    assert len(declared) == len(MUTANTS), "two mutants of a role have the same slug"
    assert [m.slug for m in declared if len(m.slug) > 40 or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", m.slug)] == []
    assert [m.slug for m in declared if not re.fullmatch(r"[A-Z].*[^.]\.", m.description)] == []


def test_unchanged_servers_pass_every_case() -> None:
    """A case that failed on every server would kill every mutant, and prove nothing."""
    ends, errors = unchanged(server_cases())
    assert errors == []
    fine = ("pass", "unsupported")
    assert {id: end for id, end in ends.items() if not all(text.startswith(fine) for text in end)} == {}
    assert [id for id, end in ends.items() if "pass" not in end] == []


def test_server_that_changes_no_frame_judges_unfinished_ones() -> None:
    """A mutant that reads whole frames leaves the checks of a header, and its time, to the server."""
    through = ServerMutant("through", "Passes each frame on.", receives=lambda connection, frame: [frame])
    cases = [case for id, case in CASES.items() if id.startswith("server/5.2/")]
    ends, errors = trial(through, cases)
    assert {id: end for id, end in ends.items() if end != "pass"} == {}
    assert errors == []


@pytest.mark.parametrize("role", ROLES)
def test_every_case_kills_or_is_excused(role: str) -> None:
    mine = {id for id, case in CASES.items() if case.role == role}
    excused = {id for id in gaps.load().cases if id in mine}
    assert mine - KILLED - excused == set(), "these cases kill nothing, and conformance/data/gaps.toml does not say why"
    assert excused & KILLED == set(), "these cases kill a mutant: remove them from conformance/data/gaps.toml"


@pytest.mark.parametrize("id", [row.id for row in ROWS.values() if row.level.startswith("MUST")])
def test_every_requirement_is_proved_or_excused(id: str) -> None:
    proved = ROWS[id].status == "proved"
    assert proved or id in EXCUSED, f"no kill proves it, and conformance/data/gaps.toml does not say why: {ROWS[id]}"
    assert not (proved and id in EXCUSED), f"{id} is proved: remove it from conformance/data/gaps.toml"


def test_unknown_ids() -> None:
    assert problems(load(), list(CASES.values()), list(MATRIX_ROWS.values())) == []
    unknown = Mutant("server/unknown", ("RW-NONE-1",), ("server/7.9/gone",), ())
    assert len(problems(load(), list(CASES.values()), [unknown])) == 2


def test_coverage_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["coverage"]) == 0
    out = capsys.readouterr().out
    assert all(id in out for id in load().requirements)
    assert main(["coverage", "--format", "json", "--status", "untestable"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["status"] for row in document["requirements"]} == {"untestable"}
    assert all(row["reason"] for row in document["requirements"])
    assert set(document["counts"]["server"]) == set(STATUSES)
    unknown = Mutant("server/unknown", ("RW-NONE-1",), (), ())
    monkeypatch.setattr("conformance.commands.coverage.matrix", lambda: [unknown])
    assert main(["coverage"]) == 1
    assert "RW-NONE-1" in capsys.readouterr().out


def test_matrix_is_data_of_the_package() -> None:
    assert MATRIX.is_relative_to(ROOT / "conformance")
    assert json.loads(MATRIX.read_text(encoding="utf-8"))["version"] == 1
