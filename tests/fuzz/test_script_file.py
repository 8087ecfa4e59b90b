"""Scripts as replay files."""

from pathlib import Path

import pytest

from conformance.fuzz import script_file
from conformance.harness.replay_file import ReplayError


@pytest.mark.parametrize("text", ["", "{}", '{"roomwire_replay": 1, "fuzz": "server"}', "\x00", "[1]"])
def test_files_of_another_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(ReplayError):
        script_file.read(path)
    with pytest.raises(ReplayError):
        script_file.read(tmp_path / "none")


def test_client_script_without_steps(tmp_path: Path) -> None:
    """A client that fails the handshake has such a script."""
    script_file.ScriptFile("client", 7, [], "RW-HELLO-1").write(tmp_path / "file.jsonl")
    assert script_file.read(tmp_path / "file.jsonl") == script_file.ScriptFile("client", 7, [], "RW-HELLO-1")
