"""The commands list and decode."""

import io
import json
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.harness.exit_status import NOTHING, USAGE
from conformance.spec.tables import load


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "server/7.9", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["section"] for row in rows} == {"7.9"}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["server/7.9/alredy-joined"], "did you mean server/7.9/already-joined"),
        (["already-joined"], "did you mean server/7.9/already-joined"),
        (["RW-JOIN-1"], "use --requirement RW-JOIN-1"),
        (["--section", "7.99"], "did you mean 7.9 (JOIN)"),
        (["--section", "join"], "did you mean 7.9 (JOIN)"),
        (["--requirement", "rw-jon-1"], "did you mean RW-JOIN-1"),
    ],
)
def test_name_that_nothing_has(arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", *arguments]) in (NOTHING, USAGE)
    assert hint in capsys.readouterr().err


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


def test_decode_of_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example = load().examples["JOIN"].hex(" ", 4)
    assert main(["decode", *example.split()]) == 0
    assert main(["decode", example]) == 0
    first, second = capsys.readouterr().out.split("JOIN")[1:]
    assert first.strip() == second.strip()
    assert main(["decode", "F55"]) == USAGE
    assert main(["decode", "no such file"]) == USAGE
    assert main(["decode", "\0"]) == USAGE
    (tmp_path / "f552").write_bytes(load().examples["PING"])
    assert main(["decode", "f552"]) == 0  # a file of that name comes first
    assert "PING" in capsys.readouterr().out


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
