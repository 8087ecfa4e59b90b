"""results.json: its schema, files that are refused, and the mutants that cases kill."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from conformance.harness.verdicts import Verdict
from conformance.report import results
from tests.support.reports import SCHEMA, SENT, document, unsafe


def test_results_of_every_verdict(tmp_path: Path) -> None:
    found = document(list(Verdict))
    assert results.mismatches(found, SCHEMA) == []
    results.write(found, tmp_path / "results.json")
    assert results.read(tmp_path) == json.loads(json.dumps(found))
    assert (tmp_path / "results.json").read_bytes().isascii()
    assert {result["verdict"] for result in found["results"]} == set(Verdict)
    assert found["implementation"]["name"] == "tidy/1.0"
    assert all(name in found["requirements"] for result in found["results"] for name in result["requirements"])
    assert not any(item["untested"] for name, item in found["requirements"].items() if name == "RW-MODEL-1")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["results", 0, "verdict"], 3, "results.results[0].verdict: expected string"),
        (["results", 0, "trace", 0, "by"], "moon", "'moon' is not one of"),
        (["results", 0, "trace", 0, "at"], True, "expected number"),
        (["results"], {}, "results.results: expected array"),
        (["run", "seed"], "1", "expected integer or null"),
        (["run"], {}, "results.run: date is missing"),
        (["counts", "PASS"], None, "expected integer"),
        (["format"], 2, "format 2, this program reads 1"),
    ],
)
def test_results_that_do_not_fit_the_schema(tmp_path: Path, path: list[Any], value: Any, said: str) -> None:
    found = json.loads(json.dumps(document([Verdict.PASS])))
    inner = found
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    (tmp_path / "results.json").write_text(json.dumps(found), encoding="ascii")
    with pytest.raises(results.ResultsError, match=re.escape(said)):
        results.read(tmp_path)


def test_kills_by_case(tmp_path: Path) -> None:
    path = tmp_path / "kill_matrix.json"
    assert results.read_kills(path) == {}
    peers = {"server/is-deaf": {"breaks": [], "kills": ["a", "b"]}, "server/is-rude": {"breaks": [], "kills": ["b"]}}
    path.write_text(json.dumps({"version": 1, "peers": peers}), encoding="utf-8")
    assert results.read_kills(path) == {"a": ["is-deaf"], "b": ["is-deaf", "is-rude"]}
    assert all(isinstance(names, list) for names in results.read_kills().values())


def test_octets_of_the_peer_are_hostile() -> None:
    """The tests of reports rely on it."""
    assert len(unsafe(SENT.decode())) > 5
    assert b"<script>" in SENT
