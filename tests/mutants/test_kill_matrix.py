"""Every case fails on a broken peer, and every requirement that can be tested is broken by one that a case finds.

The matrix in conformance/data/kill_matrix.json says which; `python -m tests.mutants.kill_matrix` writes it. Here it is
held against the cases, against SPEC.md, and against the broken peers as they are now: each is tried with the cases
that killed it.
"""

import json

import pytest

from conformance.cli import main
from conformance.commands.cases import all_cases
from conformance.report import gaps
from conformance.report.coverage import MATRIX, STATUSES, Broken, coverage, matrix, problems
from conformance.server.cases import server_cases
from conformance.spec.tables import load
from tests.mutants.kill_matrix import PEERS, broken_by, cases_for, run, whole

MATRIX_ROWS = {peer.name: peer for peer in matrix()}
CASES = {case.id: case for case in all_cases()}
PROVED_ROLES = ("server", "codec", "client")
TRIED_HERE = ("server", "codec")  # tests/conformance/test_client_role.py tries the broken clients
AT_ONCE = 6  # broken peers in a test
KILLED = {id for peer in MATRIX_ROWS.values() for id in peer.kills}
ROWS = {row.id: row for row in coverage(load(), list(CASES.values()), list(MATRIX_ROWS.values()))}

EXCUSED = gaps.load().requirements


def _groups() -> list[list[str]]:
    names = [name for name in PEERS if name.partition("/")[0] in TRIED_HERE]
    return [names[at : at + AT_ONCE] for at in range(0, len(names), AT_ONCE)]


@pytest.mark.parametrize("names", _groups(), ids=lambda names: names[0].replace(" ", "-"))
def test_broken_peers_are_found_as_the_matrix_says(names: list[str]) -> None:
    for name in names:
        row = MATRIX_ROWS[name]
        tried = [case for case in cases_for(PEERS[name]) if case.id in row.kills or (row.watch and not row.kills)]
        found = run(PEERS[name], tried)
        unsaid = [case for case in tried if found.ends.get(case.id, "").startswith("no verdict")]
        if unsaid:  # a busy machine: that said nothing of the peer
            again = run(PEERS[name], unsaid)
            found.ends.update(again.ends)
            found.errors.extend(again.errors)
        assert set(row.kills) <= set(found.kills), (name, found.ends)
        if not row.kills:
            assert set(row.watch) & set(found.watched), (name, found.ends)
        assert found.errors == [], name


def test_matrix_is_of_these_broken_peers() -> None:
    mine = {name: peer for name, peer in MATRIX_ROWS.items() if name.partition("/")[0] in PROVED_ROLES}
    assert sorted(mine) == sorted(PEERS)  # other tests may have imported the modules in another order
    assert {name: peer.breaks for name, peer in mine.items()} == {name: broken_by(p) for name, p in PEERS.items()}


def test_every_broken_peer_is_found() -> None:
    assert [name for name, peer in MATRIX_ROWS.items() if not peer.kills and not peer.watch] == []


def test_whole_servers_pass_what_kills_broken_ones() -> None:
    """A case that failed on every server would kill every broken one, and prove nothing."""
    ends = whole(server_cases())
    fine = {"pass", "unsupported", "no verdict: Informative"}  # on a busy machine there may be nothing to judge
    wrong = {id: end for id, end in ends.items() if any(not text.startswith(tuple(fine)) for text in end)}
    assert wrong == {}
    never = [id for id, end in ends.items() if "pass" not in end]
    assert never == []


@pytest.mark.parametrize("role", PROVED_ROLES)
def test_every_case_kills_or_says_why_not(role: str) -> None:
    mine = {id for id, case in CASES.items() if case.role == role}
    excused = {id for id in gaps.load().cases if id in mine}
    assert mine - KILLED - excused == set(), "kill nothing, and conformance/data/gaps.toml does not say why"
    assert excused & KILLED == set(), "kill something: strike them off conformance/data/gaps.toml"


@pytest.mark.parametrize("id", [row.id for row in ROWS.values() if row.level.startswith("MUST")])
def test_every_requirement_is_proved_or_says_why_not(id: str) -> None:
    proved = ROWS[id].status == "proved"
    assert proved or id in EXCUSED, f"nothing proves it, and conformance/data/gaps.toml does not say why: {ROWS[id]}"
    assert not (proved and id in EXCUSED), f"{id} is proved: strike it off conformance/data/gaps.toml"


def test_nobody_names_what_does_not_exist() -> None:
    assert problems(load(), list(CASES.values()), list(MATRIX_ROWS.values())) == []
    stranger = Broken("server/strange", ("RW-NONE-1",), ("server/7.9/gone",), ())
    assert len(problems(load(), list(CASES.values()), [stranger])) == 2


def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["coverage"]) == 0
    out = capsys.readouterr().out
    assert all(id in out for id in load().requirements)
    assert main(["coverage", "--format", "json", "--status", "untestable"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["status"] for row in document["requirements"]} == {"untestable"}
    assert all(row["reason"] for row in document["requirements"])
    assert set(document["counts"]["server"]) == set(STATUSES)
    stranger = Broken("server/strange", ("RW-NONE-1",), (), ())
    monkeypatch.setattr("conformance.commands.coverage.matrix", lambda: [stranger])
    assert main(["coverage"]) == 1
    assert "RW-NONE-1" in capsys.readouterr().out


def test_matrix_is_data_of_the_package() -> None:
    assert MATRIX.is_relative_to(MATRIX.parent.parent)
    assert json.loads(MATRIX.read_text(encoding="utf-8"))["version"] == 1
