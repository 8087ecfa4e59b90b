"""start.sh, test.sh and .ci/run as real processes, in a folder of their own.

They install a toy distribution with a build backend of its own there, so that they need no network. Its server, linters
and pytest print how they were called.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import ROOT
from tests.support.tools import PACKAGES, needs

TOOLS = ("sh", "dirname", "cksum", "grep", "tail", "rm")

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "roomwire"
version = "0.1.0"
"""

BACKEND = '''
"""Builds a wheel of modules that print their name and arguments, and fail if FAIL names them."""
import zipfile

TOY = """import json, os, sys
def main():
    print(json.dumps([{0!r}, *sys.argv[1:]]))
    sys.exit(os.environ.get("FAIL") == {0!r})
if __name__ == "__main__":
    main()
"""

METADATA = """Metadata-Version: 2.1
Name: roomwire
Version: 0.1.0
Provides-Extra: dev
"""

def build_editable(folder, config_settings=None, metadata_directory=None):
    info = "roomwire-0.1.0.dist-info"
    files = {name + ".py": TOY.format(name) for name in ("server", "ruff", "mypy", "pytest")}
    files[info + "/METADATA"] = METADATA
    files[info + "/WHEEL"] = "Wheel-Version: 1.0\\nGenerator: toy\\nRoot-Is-Purelib: true\\nTag: py3-none-any"
    files[info + "/entry_points.txt"] = "[console_scripts]\\nroomwire-server = server:main"
    files[info + "/RECORD"] = "".join(name + ",,\\n" for name in [*files, info + "/RECORD"])
    with zipfile.ZipFile(folder + "/roomwire-0.1.0-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
    return "roomwire-0.1.0-py3-none-any.whl"

build_wheel = build_editable
'''


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the scripts and the toy distribution. Its path has a space."""
    folder = tmp_path / "rooms and wires"
    (folder / ".ci").mkdir(parents=True)
    for name in ("start.sh", "test.sh", "setup.sh", ".ci/run"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "backend.py").write_text(BACKEND)
    return folder


@pytest.fixture
def bare_path(tmp_path: Path) -> Path:
    """A folder for $PATH with the programs that the scripts call, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        (folder / tool).symlink_to(shutil.which(tool) or pytest.skip(f"{tool} is not installed"))
    return folder


def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script from another folder, without a package index or user settings, by default with this Python."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PYTHON": sys.executable}
    return subprocess.run(
        [str(script), *arguments],
        cwd=script.parent.parent,
        env={**kept, **offline, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def only_line(process: subprocess.CompletedProcess[str]) -> str:
    """The only line that a failed script printed."""
    assert process.returncode != 0
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("roomwire: ")
    return line


def python_that(file: Path, prelude: str) -> str:
    """An interpreter that runs `prelude` before each -c program."""
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -c "{prelude}\n$3"\n')
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize(
    "port", ["0", "65536", "100000", "99999999999999999999", "-1", "07117", "7117x", "1.5", " 7117", ""]
)
def test_bad_port(checkout: Path, port: str) -> None:
    process = run(checkout / "start.sh", port)
    assert only_line(process) == f"roomwire: the port must be a number from 1 to 65535, found: {port}"
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("script", ["start.sh", "test.sh"])
def test_old_python(checkout: Path, tmp_path: Path, script: str) -> None:
    old = python_that(tmp_path / "python3.9", "import sys; sys.version_info = (3, 9, 2, 'final', 0)")
    line = only_line(run(checkout / script, PYTHON=old))
    assert line == f"roomwire: needs Python 3.11 or newer, but PYTHON={old} is 3.9.2"
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("script", ["start.sh", "test.sh"])
def test_invalid_python(checkout: Path, script: str) -> None:
    line = only_line(run(checkout / script, PYTHON="no-such-python"))
    assert line == "roomwire: needs Python 3.11 or newer, but PYTHON=no-such-python is not a Python that runs"


@pytest.mark.parametrize("script", ["start.sh", "test.sh"])
def test_missing_python(checkout: Path, bare_path: Path, script: str) -> None:
    line = only_line(run(checkout / script, PYTHON="", PATH=str(bare_path)))
    assert line == "roomwire: needs Python 3.11 or newer, found none as python3.11, python3.12, python3.13 or python3"


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_python_without_virtual_environments(checkout: Path, tmp_path: Path, module: str) -> None:
    bare = python_that(tmp_path / "bare", f"import sys; sys.modules['{module}'] = None")
    line = only_line(run(checkout / "start.sh", PYTHON=bare))
    assert line.startswith(f"roomwire: {bare} lacks the module venv or ensurepip")


def test_order_of_preference(checkout: Path, bare_path: Path) -> None:
    """A launcher without a Python and an old Python are skipped; python3.13 comes before python3."""
    python_that(bare_path / "python3.11", "raise SystemExit(127)")
    python_that(bare_path / "python3.12", "import sys; sys.version_info = (3, 9, 2, 'final', 0)")
    for name in ("python3.13", "python3"):
        fake = bare_path / name
        venv = f'if [ "$2" = -m ]; then echo "{name} tried"; exit 1; fi'
        fake.write_text(f'#!/bin/sh\n{venv}\nexec "{sys.executable}" "$@"\n')
        fake.chmod(0o755)
    process = run(checkout / "start.sh", PYTHON="", PATH=str(bare_path))
    assert process.returncode == 1
    assert process.stderr.splitlines()[-1] == "roomwire: making .venv failed: python3.13 tried"


def test_one_environment_after_another(checkout: Path) -> None:
    """Making an environment is slow, so one serves start.sh and test.sh, and another the installation that fails."""
    first_and_later_starts(checkout)
    checks_and_tests(checkout)
    failing_installation(checkout)


def first_and_later_starts(checkout: Path) -> None:
    """The first run sets up, the second only starts. The port and further arguments reach the server."""
    first = run(checkout / "start.sh", "7200", "--store", "a b")
    assert (first.returncode, first.stderr.count("\n")) == (0, 3), first.stderr
    assert json.loads(first.stdout) == ["server", "--port", "7200", "--store", "a b"]

    second = run(checkout / "start.sh", PYTHON="")
    assert second.stderr == "roomwire: starting the server on port 7117\n"
    assert json.loads(second.stdout) == ["server", "--port", "7117"]

    third = run(checkout / "start.sh", "--help")
    assert json.loads(third.stdout) == ["server", "--port", "7117", "--help"]


def checks_and_tests(checkout: Path) -> None:
    """All checks run even if one fails, pytest last. With arguments only pytest runs, and gets them."""
    passed = run(checkout / "test.sh")
    assert passed.returncode == 0, passed.stderr
    assert passed.stderr.count("\n") == 1, "what start.sh made is completed, not made again"
    calls = [json.loads(line) for line in passed.stdout.splitlines() if line.startswith("[")]
    assert [call[0] for call in calls] == ["ruff", "ruff", "mypy", "pytest"]
    assert passed.stdout.splitlines()[-1] == '["pytest", "-n", "3", "--dist", "worksteal"]'

    for tool in ("ruff", "mypy", "pytest"):
        failed = run(checkout / "test.sh", FAIL=tool)
        assert failed.returncode == 1
        assert failed.stderr == ""
        assert failed.stdout.splitlines()[-1] == '["pytest", "-n", "3", "--dist", "worksteal"]'

    chosen = run(checkout / "test.sh", "-k", "one or two")
    assert chosen.stdout == '["pytest", "-n", "3", "--dist", "worksteal", "-k", "one or two"]\n'

    started = run(checkout / "start.sh")
    assert started.stderr == "roomwire: starting the server on port 7117\n", "an environment of dev is also one of run"


def failing_installation(checkout: Path) -> None:
    """A changed pyproject.toml makes another environment. The last line says why that failed, and no stamp is left."""
    with (checkout / "pyproject.toml").open("a") as pyproject:
        pyproject.write("# changed\n")
    (checkout / "backend.py").write_text(BACKEND.replace("Provides-Extra: dev", "Requires-Dist: nobody-has-it"))
    process = run(checkout / "start.sh")
    assert process.returncode == 1
    assert "installing" in process.stderr
    last = process.stderr.splitlines()[-1]
    assert last.startswith("roomwire: installation failed: ERROR: ")
    assert "nobody-has-it" in last
    assert not (checkout / ".venv" / "roomwire-stamp").exists()


def test_ci(checkout: Path) -> None:
    """.ci/run runs test.sh with bash, with CI set and an empty standard input."""
    (checkout / "test.sh").write_text('echo "$CI ${BASH_VERSION:+bash} $(cat)"; exit 3\n')
    folder = checkout / "bin"
    folder.mkdir()
    for program in PACKAGES:  # so that none is installed
        (folder / program).touch(0o755)
    process = run(checkout / ".ci/run", PATH=f"{folder}:{os.environ['PATH']}")
    assert (process.returncode, process.stdout) == (3, "true bash \n")


def test_ci_installs_what_tests_need() -> None:
    named = dict(re.findall(r'^(packages|programs)="(.*)"$', (ROOT / ".ci/run").read_text(), re.MULTILINE))
    assert set(named["programs"].split()) == set(PACKAGES)
    assert set(named["packages"].split()) == {package for line in PACKAGES.values() for package in line.split()}


@needs("shellcheck")
def test_shellcheck() -> None:
    names = ["start.sh", "test.sh", "setup.sh", ".ci/run"]
    process = subprocess.run(["shellcheck", *names], cwd=ROOT, capture_output=True, text=True)
    assert process.stdout == ""
