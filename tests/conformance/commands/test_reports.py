"""The commands compare and report."""

import json
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.harness.exit_status import CONFORMS, FAILS, USAGE
from conformance.harness.verdicts import Verdict
from conformance.report import results
from tests.support.reports import HOSTILE, Outline, document, unsafe


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, other = (tmp_path / name for name in ("good", "bad", "other"))
    for path, verdicts in ((good, [Verdict.PASS] * 2), (bad, [Verdict.PASS, Verdict.CRASH])):
        results.write(document(verdicts, name=HOSTILE), path)
    results.write({**document([Verdict.PASS]), "role": "codec"}, other)
    assert main(["compare", str(good), str(good)]) == CONFORMS
    assert main(["compare", str(bad), str(good)]) == CONFORMS
    capsys.readouterr()
    assert main(["compare", str(good), str(bad)]) == FAILS
    out = capsys.readouterr().out
    assert "PASS -> CRASH" in out
    assert unsafe(out) == set()
    assert main(["compare", str(good), str(bad), "--format", "json"]) == FAILS
    assert [item["change"] for item in json.loads(capsys.readouterr().out)] == ["worse"]
    assert main(["compare", str(good), str(other)]) == USAGE


def test_report_of_several_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, verdicts in (("one", [Verdict.PASS] * 3), ("two", [Verdict.FAIL] * 2)):
        (tmp_path / name).mkdir()
        results.write(document(verdicts, name=name), tmp_path / name / "results.json")
    output = tmp_path / "both"
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "two" / "results.json"), "--output", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output / "index.html")
    outline = Outline((output / "index.html").read_text(encoding="utf-8"))
    cases = [item for item in outline.all("details") if item.get("class") == "case"]
    assert len(cases) == 3
    assert all("data-differs" in case for case in cases)
    assert [case["data-verdicts"] for case in cases] == ["FAIL PASS", "FAIL PASS", "PASS"]


@pytest.mark.parametrize("text", ["", "[]", "{}", "nothing", "[" * 100_000, '{"format": {}}', "\0"])
def test_files_that_are_not_results(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    path.write_text(text, encoding="utf-8")
    assert main(["compare", str(path), str(path)]) == USAGE
    assert main(["report", str(path), "--output", str(tmp_path / "out")]) == USAGE
    assert main(["report", str(tmp_path / "absent"), "--output", str(tmp_path / "out")]) == USAGE
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
