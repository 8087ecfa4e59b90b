"""The option --last-failed, and the record that it reads."""

import json
import shlex
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.commands import last_failed
from conformance.harness.exit_status import CONFORMS, FAILS
from conformance.harness.verdicts import Verdict
from tests.support.reports import results
from tests.support.suite import PYTHON

_WRONG_UNTIL_MENDED = """
import pathlib
from conformance.codec import reference
answer = reference.answer
def wrong(request):
    found = answer(request)
    return {**found, "frame": "PONG"} if "frame" in found else found
if not pathlib.Path("mended").exists():
    reference.answer = wrong
reference.main()
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def test_record_of_several_runs() -> None:
    good, bad, other = results([Verdict.PASS, Verdict.FAIL, Verdict.CRASH])
    last_failed.note("server", "./target", [good, bad, other])
    assert last_failed.read("server", "./target") == {bad.id, other.id}
    assert last_failed.read("server", "./another") == frozenset()
    assert last_failed.read("client", "./target") == frozenset()
    last_failed.note("server", "./target", results([Verdict.PASS, Verdict.PASS]))
    assert last_failed.read("server", "./target") == {other.id}


def test_cache_that_cannot_be_used(cache: Path) -> None:
    cache.write_text("a file in the place of the folder")
    last_failed.note("server", "./target", results([Verdict.FAIL]))
    assert last_failed.read("server", "./target") == frozenset()


@pytest.mark.parametrize("text", ["", "{}", "[1, null]", "nonsense"])
def test_record_that_is_damaged(text: str, cache: Path) -> None:
    last_failed.note("server", "./target", results([Verdict.FAIL]))
    [path] = (cache / "roomwire-check").iterdir()
    path.write_text(text)
    assert last_failed.read("server", "./target") == frozenset()


def _run(command: str, *more: str) -> int:
    return main(["codec", "--exec", command, "--format", "json", "codec/7.6", *more])


def test_only_what_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "codec.py").write_text(_WRONG_UNTIL_MENDED)
    command = f"{PYTHON} {shlex.quote(str(tmp_path / 'codec.py'))}"
    assert _run(command) == FAILS
    found = json.loads(capsys.readouterr().out)["results"]
    failed = [item["id"] for item in found if item["verdict"] != "PASS"]
    assert 0 < len(failed) < len(found)
    (tmp_path / "mended").touch()
    assert _run(command, "--last-failed") == CONFORMS
    assert [item["id"] for item in json.loads(capsys.readouterr().out)["results"]] == failed
    assert _run(command, "--last-failed") == CONFORMS
    out, err = capsys.readouterr()
    assert len(json.loads(out)["results"]) == len(found)
    assert "no selected case is known to have failed" in err
