"""The skeletons that `init` writes."""

import json
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.harness.exit_status import CONFORMS, FAILS, USAGE
from tests.support.suite import PYTHON, SERVER


def test_codec_skeleton(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["init", "codec", "--output", str(tmp_path)]) == CONFORMS
    assert main(["init", "codec", "--output", str(tmp_path)]) == USAGE
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    arguments = ["codec", "--exec", f"{PYTHON} codec_adapter.py", "--baseline", "roomwire-baseline.toml"]
    assert main([*arguments, "--format", "json"]) == CONFORMS
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts["PASS"] >= 50
    assert set(counts) == {"PASS", "UNSUPPORTED"}


def test_client_skeleton(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["init", "client", "--output", str(tmp_path)]) == CONFORMS
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    command = f"{PYTHON} client_adapter.py {{host}} {{port}}"
    assert main(["client", "--exec", command, "client/7.7", "--format", "json"]) in (CONFORMS, FAILS)
    assert json.loads(capsys.readouterr().out)["counts"]["PASS"] >= 1


def test_server_skeleton(tmp_path: Path) -> None:
    assert main(["init", "server", "--output", str(tmp_path)]) == CONFORMS
    files = ["--config", str(tmp_path / "roomwire-server.toml"), "--baseline", str(tmp_path / "roomwire-baseline.toml")]
    assert main(["server", "--exec", f"{SERVER} --memory", *files, "server/7.13"]) == CONFORMS
    assert "@" not in (tmp_path / "roomwire.yml").read_text().replace("@v4", "").replace("@v5", "")
