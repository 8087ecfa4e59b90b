"""Baselines: expected failures, stale entries, and files that are malformed."""

import json
import shlex
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.harness.baseline import BaselineError, read
from conformance.harness.exit_status import CONFORMS, FAILS, USAGE
from tests.support.suite import CODEC, PYTHON


def _arguments(tmp_path: Path, text: str) -> list[str]:
    """A run of a few cases with a baseline of this text."""
    path = tmp_path / "baseline.toml"
    path.write_text(text, encoding="utf-8")
    return ["codec", "--exec", CODEC, "codec/7.6", "--format", "json", "--baseline", str(path)]


def test_entry_of_a_case_that_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = '"codec/7.6/decode/ping-client" = "ticket 1"'
    assert main(_arguments(tmp_path, f"[expected-failures]\n{entry}\n")) == FAILS
    assert json.loads(capsys.readouterr().out)["counts"]["XPASS"] == 1


def test_entry_without_a_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = '"codec/7.6/decode/was-renamed" = "ticket 2"'
    assert main(_arguments(tmp_path, f"[expected-failures]\n{entry}\n")) == FAILS
    assert json.loads(capsys.readouterr().out)["stale"] == ["codec/7.6/decode/was-renamed"]


def test_entry_of_another_role(tmp_path: Path) -> None:
    assert main(_arguments(tmp_path, '[expected-failures]\n"server/7.9/gone" = "another role"\n')) == CONFORMS


@pytest.mark.parametrize("text", ["expected-failures = 3", "not toml"])
def test_malformed_baseline(tmp_path: Path, text: str) -> None:
    assert main(_arguments(tmp_path, text)) == USAGE


def test_entry_without_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "baseline.toml"
    path.write_text('[expected-failures]\n"codec/7.6/decode/ping-client" = ""\n', encoding="utf-8")
    with pytest.raises(BaselineError):
        read(path)


def test_baseline_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(BaselineError):
        read(tmp_path / "absent.toml")


def test_expected_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (
        'import json, sys\nprint(\'{"ready": true, "contract": 1}\', flush=True)\n'
        "for line in sys.stdin: print(json.dumps({'id': json.loads(line)['id'], 'error': 'X'}), flush=True)"
    )
    program = tmp_path / "codec.py"
    program.write_text(source, encoding="utf-8")
    path = tmp_path / "baseline.toml"
    path.write_text('[expected-failures]\n"codec/7.6/decode/ping-client" = "ticket 1"\n', encoding="utf-8")
    command = f"{PYTHON} {shlex.quote(str(program))}"
    arguments = ["codec", "--exec", command, "codec/7.6/decode/ping-client", "--baseline", str(path)]
    assert main(arguments) == CONFORMS
    assert "XFAIL" in capsys.readouterr().out
