"""The command `replay`, against the reference server."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.harness.exit_status import CONFORMS, UNREACHABLE, USAGE
from tests.support.suite import OPTIONS, SERVER, run_at_small_server, select


def test_nothing_to_shrink(tmp_path: Path) -> None:
    [failed] = run_at_small_server("wrong-code", select("server/7.13/ok"), replace(OPTIONS, replay_dir=tmp_path))
    assert main(["replay", failed.replay, "--exec", f"{SERVER} --memory", "--shrink", str(tmp_path / "short")]) == USAGE
    assert not (tmp_path / "short").exists()


def test_replay_of_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = replace(OPTIONS, replay_dir=tmp_path)
    [failed] = run_at_small_server("wrong-code", select("server/7.13/not-joined"), options)
    assert main(["replay", failed.replay, "--exec", f"{SERVER} --memory", "--format", "json"]) == CONFORMS
    assert json.loads(capsys.readouterr().out)["counts"] == {"PASS": 1}
    assert main(["replay", failed.replay, "--connect", "127.0.0.1:1"]) == UNREACHABLE


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "nonsense", '{"roomwire_replay": 9, "case": "server/3/x"}\n{"do": "eof"}']
)
def test_replay_of_another_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(text)
    assert main(["replay", str(path), "--connect", "127.0.0.1:1"]) == USAGE


_HEADER = {
    "roomwire_replay": 1, "case": "server/3/x", "requirement": "RW-JOIN-1", "expected": "a", "got": "b", "names": "ab",
}  # fmt: skip


@pytest.mark.parametrize(
    ("header", "step", "said"),
    [
        ({"case": "server"}, {"do": "eof"}, "expected a case of a server"),
        ({"requirement": ["RW"]}, {"do": "eof"}, "SPEC.md does not have"),
        ({"names": ""}, {"do": "eof"}, "hexadecimal digits"),
        ({}, {"do": "nonsense"}, "step 1: expected one of"),
        ({}, {"do": "eof", "peer": "B"}, "the peer 'B' has not connected"),
        ({}, {"do": "connect", "peer": "A", "buffer": -5}, "'buffer' is missing or malformed"),
        ({}, {"do": "restart", "limits": {"window": "x"}}, "'limits' is missing or malformed"),
    ],
)
def test_replay_of_odd_steps(
    tmp_path: Path, header: dict[str, object], step: dict[str, object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is sent, so this is wrong usage and no fault of the suite."""
    path = tmp_path / "file.jsonl"
    path.write_text(json.dumps({**_HEADER, **header}) + "\n" + json.dumps(step))
    assert main(["replay", str(path), "--connect", "127.0.0.1:1"]) == USAGE
    assert said in capsys.readouterr().err


def test_replay_of_deep_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text("[" * 100_000)
    assert main(["replay", str(path), "--connect", "127.0.0.1:1"]) == USAGE
    assert "nested too deeply" in capsys.readouterr().err
