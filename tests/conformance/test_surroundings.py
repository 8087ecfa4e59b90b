"""The command in odd surroundings: modules of the user's own beside it, an optimizing interpreter, a full disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT
from tests.support.suite import CODEC

_ROLE = [sys.executable, "-m", "conformance", "list", "codec/7.6"]


def _run(command: list[str], folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_module_of_the_same_name_beside_it(tmp_path: Path) -> None:
    for name in ("protocol", "json", "construct"):
        (tmp_path / f"{name}.py").write_text("print('the module of somebody else')")
    run = _run(_ROLE, tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    (tmp_path / "json.py").unlink()
    pytest_ = [sys.executable, "-m", "pytest", "--pyargs", "conformance", "--roomwire-codec", CODEC]
    run = _run(pytest_, tmp_path)
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "needs a package protocol, and Python finds" in run.stderr
    assert "rename that file" in run.stderr


def test_selftest_beside_a_module_of_the_suites_name(tmp_path: Path) -> None:
    """`roomwire-check` as it is installed: its own folder is before the working directory, or that is not there."""
    (tmp_path / "conformance.py").write_text("print('the module of somebody else')")
    code = "import sys; sys.path.remove(''); from conformance.cli import main; sys.exit(main(['selftest']))"
    run = _run([sys.executable, "-c", code], tmp_path)
    assert (run.returncode, run.stderr) == (0, "")


def test_interpreter_without_docstrings(tmp_path: Path) -> None:
    run = _run(_ROLE, tmp_path, PYTHONOPTIMIZE="2")
    assert run.returncode == 2
    assert "PYTHONOPTIMIZE=2" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_full_disk(tmp_path: Path) -> None:
    (tmp_path / "results.json").symlink_to("/dev/full")
    command = [sys.executable, "-m", "conformance", "codec", "--exec", CODEC, "codec/7.6", "--report", str(tmp_path)]
    run = _run(command, ROOT)
    assert run.returncode == 2
    assert "12 PASS" in run.stdout
    assert "no report: " in run.stderr
    assert "No space left on device" in run.stderr
    with open("/dev/full", "w") as full:
        listed = subprocess.run(_ROLE, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert listed.returncode == 2
    assert listed.stderr == "roomwire-check: the output: No space left on device\n"
