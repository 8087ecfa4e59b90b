"""The commands list, explain, describe and decode."""

import io
import json
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.commands.cases import all_cases
from conformance.harness.exit_status import USAGE
from conformance.spec.tables import load


def test_list_and_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "server/7.9", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["section"] for row in rows} == {"7.9"}
    assert main(["explain", "server/7.9/already-joined"]) == 0
    out = capsys.readouterr().out
    assert load().requirements["RW-JOIN-1"].text in out
    assert main(["explain", "RW-JOIN-1"]) == 0
    assert "server/7.9/already-joined" in capsys.readouterr().out


@pytest.mark.parametrize("role", ["server", "client", "codec"])
def test_explain_of_a_case(role: str, capsys: pytest.CaptureFixture[str]) -> None:
    for case in [case for case in all_cases() if case.role == role][::25]:
        assert main(["explain", case.id]) == 0
        out = capsys.readouterr().out
        assert "async def " in out
        assert "await " in out or "Context" in out


@pytest.mark.parametrize("name", load().frames)
def test_describe(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", name.lower()]) == 0
    out = capsys.readouterr().out
    assert all(part.name in out for part in load().bodies[name])
    assert "MALFORMED" not in out or "requirement" in out or name not in ("PING", "OK")


@pytest.mark.parametrize("annotate", [[], ["--annotate"]])
def test_decode(annotate: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "frames.hex"
    path.write_text("F5525750 01 01 0000 # preface\n" + load().examples["JOIN"].hex(), encoding="ascii")
    assert main(["decode", str(path), *annotate]) == 0
    assert '"lobby"' in capsys.readouterr().out
    path.write_bytes(load().examples["PUBLISH"] + b"\x00")
    assert main(["decode", str(path), *annotate]) == 0
    assert "PUBLISH" in capsys.readouterr().out
    assert main(["decode", str(tmp_path / "absent")]) == USAGE


def test_decode_of_hostile_octets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Control and bidirectional characters of a peer do not reach the terminal."""
    name = "\x1b[31m\u202eevil".encode()
    octets = bytes([0, 0, 0, 17 + len(name)]) + bytes.fromhex("0010 0000 00000001 00000000")
    octets += bytes([len(name)]) + name + bytes(16)
    for arguments in (["decode", "-"], ["decode", "-", "--annotate"]):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(octets)))
        assert main(arguments) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "evil" in out
