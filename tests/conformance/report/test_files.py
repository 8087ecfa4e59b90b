"""The files that `--report` writes."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from conformance.cli import main
from conformance.harness.exit_status import CONFORMS, UNREACHABLE, USAGE
from conformance.report import results
from conformance.spec.tables import load
from tests.support.suite import CODEC, PYTHON

PING = "codec/7.6/decode/ping-client"


def test_files_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made" / "here"
    arguments = ["codec", "--exec", CODEC, "codec/7.6", "--report", str(folder), "--seed", "77"]
    assert main(arguments) == CONFORMS
    assert {path.name for path in folder.iterdir()} == {"index.html", "results.json", "junit.xml", "badge.json"}
    found = results.read(folder)
    assert found["run"]["command"] == ["roomwire-check", *arguments]
    assert found["run"]["seed"] == 77
    assert found["implementation"]["name"] == "roomwire reference"
    ping = next(result for result in found["results"] if result["id"] == PING)
    assert ping["verdict"] == "PASS"
    assert ping["sentence"] == load().requirements[ping["requirement"]].text
    assert [item["by"] for item in ping["trace"]] == ["suite", "peer"]
    assert [field[2] for field in ping["trace"][0]["fields"] if field[0] == 16] == ["opaque"]
    assert PING in (folder / "index.html").read_text(encoding="utf-8")
    assert capsys.readouterr().err == ""


def test_target_that_does_not_start(tmp_path: Path) -> None:
    command = f"{PYTHON} -c pass"
    assert main(["codec", "--exec", command, "--report", str(tmp_path)]) == UNREACHABLE
    found = results.read(tmp_path)
    assert found["error"]
    assert found["results"] == []
    assert "Not reachable" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "badge.json").read_text(encoding="utf-8"))["message"] == "not tested"
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().get("errors") == "1"


def test_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as caught:
        main(["codec", "--exec", CODEC, PING, "--report", str(tmp_path / "file")])
    assert caught.value.code == USAGE
    assert main(["codec", "--exec", CODEC, PING, "--report", str(tmp_path / "file" / "below")]) == USAGE
    out, err = capsys.readouterr()
    assert "PASS" not in out
    assert "expected a folder, found a file" in err
    assert "Not a directory" in err
