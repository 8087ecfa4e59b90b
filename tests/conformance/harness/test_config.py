"""Config files, with which implementers describe a target."""

from pathlib import Path

import pytest

from conformance.cli import main
from conformance.harness.config import Config, ConfigError
from conformance.harness.exit_status import USAGE


def test_config(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(
        '[features]\nascii-names = true\nno-retention = false\n[limits]\nframe_ms = 9\n[accounts]\nada = "x"\n'
    )
    assert Config.read(path) == Config(frozenset({"ascii-names"}), {"frame_ms": 9}, {"ada": "x"})


@pytest.mark.parametrize(
    "text",
    [
        "[feature]",
        "[features]\nflying = true",
        "[features]\nascii-names = 1",
        "[limits]\nspeed = 1",
        "[limits]\nframe_ms = true",
        "[limits]\nheartbeat_ms = 1",
        "[accounts]\nada = 1",
        "limits = 3",
        "not toml",
    ],
)
def test_malformed_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        Config.read(path)
    assert main(["server", "--connect", "127.0.0.1:1", "--config", str(path)]) == USAGE
