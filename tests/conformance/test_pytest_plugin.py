"""The cases as test items of pytest."""

import importlib.metadata
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.harness.exit_status import UNREACHABLE
from conformance.spec.tables import load
from tests.support.places import ROOT
from tests.support.suite import CLIENT, CODEC, PYTHON

_SERVE = """
import asyncio, sys
from conformance.commands.selftest_server import SmallServer

async def run():
    server = await asyncio.start_server(SmallServer(sys.argv[2]).connected, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(run())
"""


def _pytest(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    installed = any(point.name == "roomwire" for point in importlib.metadata.entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "conformance.pytest_entry"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, "--pyargs", "conformance", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    (directory / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)


def test_cases_as_items(tmp_path: Path) -> None:
    script = tmp_path / "serve.py"
    script.write_text(_SERVE)
    command = f"{PYTHON} {shlex.quote(str(script))} {{port}} wrong-code"
    run = _pytest(tmp_path, "--roomwire-exec", command, "-k", "7.13 and (ok or left) or RW-JOIN-1 or 7.20", "-rs")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "FAIL server/7.9/already-joined: " in run.stdout
    assert load().requirements["RW-JOIN-1"].text in run.stdout
    assert "expected ERROR(ALREADY_JOINED)" in run.stdout
    assert "UNSUPPORTED: WELCOME does not name the extension admin" in run.stdout


def test_run_without_a_server(tmp_path: Path) -> None:
    assert _pytest(tmp_path, "--roomwire-server", "127.0.0.1:1", "-k", "RW-JOIN-1").returncode == UNREACHABLE
    assert _pytest(tmp_path, "--roomwire-server", "nowhere").returncode == pytest.ExitCode.USAGE_ERROR
    run = _pytest(tmp_path)
    assert run.returncode != 0
    assert "--roomwire-server HOST:PORT" in run.stdout


@pytest.mark.parametrize(
    ("option", "command", "words", "said"),
    [
        ("--roomwire-codec", CODEC, "7.6 and ping or RW-FRAME-7", "codec/"),
        ("--roomwire-client", CLIENT, "7.7 or RW-HELLO-4", "client/"),
    ],
)
def test_other_roles(option: str, command: str, words: str, said: str, tmp_path: Path) -> None:
    run = _pytest(tmp_path, option, command, "-k", words, "-rA")
    assert run.returncode == 0, run.stdout + run.stderr
    passed = [line for line in run.stdout.splitlines() if line.startswith("PASSED")]
    assert len(passed) > 1
    assert all(f"::{said}" in line for line in passed)


def test_failures_of_other_roles(tmp_path: Path) -> None:
    script = tmp_path / "codec.py"
    script.write_text(
        "from conformance.codec import reference\nreference.answer = lambda request: {}\nreference.main()\n"
    )
    command = f"{PYTHON} {shlex.quote(str(script))}"
    run = _pytest(tmp_path, "--roomwire-codec", command, "-k", "7.6/decode/ping")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "FAIL codec/7.6/decode/ping" in run.stdout
    assert f"again: roomwire-check codec --exec {shlex.quote(command)}" in run.stdout
    for option in ("--roomwire-codec", "--roomwire-client"):
        assert _pytest(tmp_path, option, "/nowhere/no-such-program", "-k", "7.6 or 7.7").returncode == UNREACHABLE


def test_two_targets(tmp_path: Path) -> None:
    run = _pytest(tmp_path, "--roomwire-codec", "a", "--roomwire-client", "b")
    assert run.returncode == pytest.ExitCode.USAGE_ERROR
    assert "give one of --roomwire-client, --roomwire-codec" in run.stderr


def test_run_without_options(request: pytest.FixtureRequest) -> None:
    assert not request.config.pluginmanager.has_plugin("roomwire-suite")
