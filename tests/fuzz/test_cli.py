"""`roomwire-check fuzz` as a command."""

from pathlib import Path

import pytest

from conformance.cli import main


def test_server_that_does_not_listen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "server", "--connect", "127.0.0.1:1", "--max-time", "1"]) == 3
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[limits]\nwindows = 9\n")
    assert main(["fuzz", "server", "--exec", "x {port}", "--config", str(file)]) == 2
    assert main(["fuzz", "server", "--exec", "x {nonsense}"]) == 2
    assert "windows" in capsys.readouterr().err


@pytest.mark.parametrize("role", ["server", "codec"])
def test_help(role: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["fuzz", role, "--help"])
    assert end.value.code == 0
    assert "roomwire-check fuzz" in capsys.readouterr().out
