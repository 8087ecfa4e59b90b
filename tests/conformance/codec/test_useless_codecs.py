"""The suite against codecs that do nothing right, and one that loses frames that arrive in pieces."""

import json
import shlex
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.harness.exit_status import FAILS, NOTHING, UNREACHABLE
from tests.support.places import ROOT
from tests.support.suite import PYTHON

_READY = "{'ready': True, 'contract': 1, 'name': 'x', 'version': '1', 'features': []}"
_HEAD = f"import json, sys, os\ndef say(x): print(json.dumps(x), flush=True)\nsay({_READY})\n"
_LOOP = _HEAD + "for line in sys.stdin:\n    r = json.loads(line)\n    "
_NOT_STARTING = {
    "wrong greeting": "print('hello', flush=True); input()",
    "wrong contract": 'print(\'{"ready": true, "contract": 9}\', flush=True); input()',
    "dies at once": "raise SystemExit(3)",
    "nests before ready": "print('[' * 100_000, flush=True); input()",
    "floods before ready": "while True: print('x' * 100000, end='')",
}
_USELESS = {
    "silent": _HEAD + "sys.stdin.read()",
    "rubbish": _LOOP + "print('rubbish', flush=True)",
    "list": _LOOP + "say([1, 2])",
    "nests": _LOOP + "print('[' * 100_000, flush=True)",
    "wrong id": _LOOP + "say({'id': 0, 'error': 'MALFORMED'})",
    "dies": _LOOP + "sys.exit(1)",
    "killed": _LOOP + "os.abort()",
    "floods": _LOOP + "sys.stdout.write('x' * 10_000_000)",
    "rejects": _LOOP + "say({'id': r['id'], 'error': 'MALFORMED'})",
    "accepts": _LOOP + "say({'id': r['id'], 'frame': 'PING', 'value': {}})",
    "constant frames": _LOOP + "say({'id': r['id'], 'frames': [], 'need_more': True, 'hex': ''})",
}


def _program(tmp_path: Path, source: str) -> str:
    path = tmp_path / "codec.py"
    path.write_text(source, encoding="utf-8")
    return f"{PYTHON} {shlex.quote(str(path))}"


@pytest.mark.parametrize("name", _USELESS)
def test_cases_at_a_useless_codec(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A crash, a time-out or a constant answer never counts as a refusal, and never passes."""
    command = _program(tmp_path, _USELESS[name])
    status = main(["codec", "--exec", command, "--format", "json", "--timeout", "0.5"])
    document = json.loads(capsys.readouterr().out)
    assert status == FAILS
    assert "PASS" not in document["counts"]
    assert "HARNESS_ERROR" not in document["counts"]


@pytest.mark.parametrize("name", _NOT_STARTING)
def test_command_at_a_program_that_does_not_start(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = _program(tmp_path, _NOT_STARTING[name])
    assert main(["codec", "--exec", command, "--format", "ndjson"]) == UNREACHABLE
    assert json.loads(capsys.readouterr().out)["error"]


def test_codec_that_supports_nothing(tmp_path: Path) -> None:
    command = _program(tmp_path, _LOOP + "say({'id': r['id'], 'unsupported': r['op']})")
    assert main(["codec", "--exec", command, "codec/7.6"]) == NOTHING


def test_codec_that_loses_frames_in_pieces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    source = (
        "import json, sys\nfrom conformance.codec.reference import answer\n"
        f"print(json.dumps({_READY}), flush=True)\n"
        "for line in sys.stdin:\n    r = json.loads(line)\n    a = answer(r)\n"
        "    if r['op'] == 'feed' and len(r['chunks']) == 2: a = {**a, 'frames': []}\n"
        "    print(json.dumps(a), flush=True)\n"
    )
    assert main(["codec", "--exec", _program(tmp_path, source), "codec/7.6", "--format", "json"]) == FAILS
    results = json.loads(capsys.readouterr().out)["results"]
    failed = {result["id"].split("/")[2] for result in results if result["verdict"] != "PASS"}
    assert failed == {"feed"}
