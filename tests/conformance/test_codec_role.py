"""The codec role tried on the project's own codec, and on programs that are useless."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.codec.values import differences
from conformance.harness.exit_status import CONFORMS, FAILS, NOTHING, UNREACHABLE, USAGE
from tests.support.places import ROOT

_REFERENCE = f"{shlex.quote(sys.executable)} -m conformance.codec.reference"
_READY = "{'ready': True, 'contract': 1, 'name': 'x', 'version': '1', 'features': []}"
_HEAD = f"import json, sys, os\ndef say(x): print(json.dumps(x), flush=True)\nsay({_READY})\n"
_LOOP = _HEAD + "for line in sys.stdin:\n    r = json.loads(line)\n    "

_USELESS = {
    "never ready": "import sys; sys.stdin.read()",
    "wrong greeting": "print('hello', flush=True); input()",
    "wrong contract": 'print(\'{"ready": true, "contract": 9}\', flush=True); input()',
    "dies at once": "raise SystemExit(3)",
    "floods before ready": "while True: print('x' * 100000, end='')",
}

_HOPELESS = {
    "silent": _HEAD + "sys.stdin.read()",
    "rubbish": _LOOP + "print('rubbish', flush=True)",
    "list": _LOOP + "say([1, 2])",
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
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(path))}"


def test_own_codec_conforms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["codec", "--exec", _REFERENCE, "--format", "json"]) == CONFORMS
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == {"PASS": document["selected"]}
    assert document["selected"] > 500


@pytest.mark.parametrize("name", _HOPELESS)
def test_useless_codecs_pass_nothing(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A crash, a time-out or a constant answer is never a rejection, and never good."""
    command = _program(tmp_path, _HOPELESS[name])
    status = main(["codec", "--exec", command, "--format", "json", "--timeout", "0.5"])
    document = json.loads(capsys.readouterr().out)
    assert status == FAILS
    assert "PASS" not in document["counts"]
    assert "HARNESS_ERROR" not in document["counts"]


@pytest.mark.parametrize("name", [name for name in _USELESS if name != "never ready"])
def test_codecs_that_do_not_start(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = _program(tmp_path, _USELESS[name])
    assert main(["codec", "--exec", command, "--format", "ndjson"]) == UNREACHABLE
    assert json.loads(capsys.readouterr().out)["error"]


def test_codec_that_is_no_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["codec", "--exec", "./there-is-no-such-program"]) == UNREACHABLE
    assert main(["codec", "--exec", "'"]) == USAGE
    assert main(["codec", "--exec", "x {port}"]) == USAGE
    assert "there-is-no-such-program" in capsys.readouterr().out


def test_everything_unsupported_is_nothing(tmp_path: Path) -> None:
    command = _program(tmp_path, _LOOP + "say({'id': r['id'], 'unsupported': r['op']})")
    assert main(["codec", "--exec", command, "codec/7.6"]) == NOTHING


def test_a_codec_that_forgets_a_frame_in_pieces_is_found(
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


def test_values_may_differ_where_appendix_b_says_so() -> None:
    value = {"text": "a\ufffdb", "flags": 0x7FFF, "request": 1, "room": 0, "fields": []}
    assert not differences("OK", value, {**value, "flags": 0})
    assert not differences("OK", value, {**value, "text": "a\ufffd\ufffdb"})
    assert differences("OK", value, {**value, "flags": 1})
    assert differences("OK", value, {**value, "request": "1"})
    assert differences("OK", value, {**value, "request": True})
    assert differences("OK", value, {**value, "more": 1})
    assert differences("OK", value, [])
