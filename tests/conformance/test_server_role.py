"""The suite against the reference server as a program of its own; test_kill_matrix.py has the broken servers."""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.harness.case import Case
from conformance.harness.exit_status import CONFORMS, INTERRUPTED
from conformance.harness.options import Options
from conformance.harness.process import Program
from conformance.harness.verdicts import Result, Verdict
from conformance.server.cases import server_cases
from conformance.server.runner import ServerRunner
from conformance.server.target import LaunchedServer
from conformance.spec.tables import load
from conformance.wire.octets import frame
from protocol.frames import (
    Frame,
    Unknown,
)
from tests.support.accounts import ADMINS, PASSWORDS, accounts_file

_SERVER = f"{shlex.quote(sys.executable)} -m reference_server.cli --port {{port}}"
_OPTIONS = Options(timeout=1.0, patience=1.0, jobs=8)

_TOLD = """
import os, sys
from reference_server.cli import main
print(os.getpid(), file=open(sys.argv[1], "a"))
sys.exit(main(["--memory", "--port", sys.argv[2]]))
"""

Change = Callable[[Frame | Unknown], list[Frame | Unknown]]


def _whole(tmp_path: Path) -> list[str]:
    """Options for a target that has all that there is."""
    config = tmp_path / "accounts.toml"
    tables = {"accounts": PASSWORDS, "admins": ADMINS}
    with config.open("w", encoding="utf-8") as file:
        for table, accounts in tables.items():
            print(
                f"[{table}]",
                *(f"{json.dumps(name)} = {json.dumps(word)}" for name, word in accounts.items()),
                sep="\n",
                file=file,
            )
    return ["--tls", "--config", str(config)]


@pytest.mark.parametrize("whole", [False, True], ids=["in-memory", "durable-with-accounts-and-tls"])
def test_reference_server_conforms(whole: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accounts = shlex.quote(str(accounts_file()))
    store = f"--data {{dir}} --accounts {accounts} --tls-cert {{cert}} --tls-key {{key}}" if whole else "--memory"
    more = _whole(tmp_path) if whole else []
    selected = ["--format", "json", "-k", "not waits and not slow and not 8.6/ends"]
    status = main(["server", "--exec", f"{_SERVER} {store}", *more, *selected])
    document = json.loads(capsys.readouterr().out)
    failures = {r["id"]: (r["expected"], r["got"], r["reason"]) for r in document["results"] if r["verdict"] == "FAIL"}
    assert failures == {}
    assert status == CONFORMS, document["counts"]
    assert document["counts"]["PASS"] > (430 if whole else 350)


def _case(id: str) -> Case:
    return next(case for case in server_cases() if case.id == id)


def test_dying_server_is_a_crash() -> None:
    """The process dies in the middle of a case: CRASH, and the next case finds it started again."""
    cases = [_case("server/7.15/echo"), _case("server/7.7/same-opaque")]
    killed = False
    target = LaunchedServer(f"{_SERVER} --memory", 15.0)

    async def murderous(context: object) -> None:
        nonlocal killed
        killed = True
        target.program.send_signal(signal.SIGKILL)
        await cases[0].run(context)

    async def run() -> list[Result]:
        try:
            await target.start()
            runner = ServerRunner(target, load(), replace(_OPTIONS, jobs=1), lambda result: result)
            return await runner.run([replace(cases[0], run=murderous), cases[1]])
        finally:
            await target.stop()

    crashed, after = asyncio.run(run())
    assert killed
    assert crashed.verdict is Verdict.CRASH
    assert "SIGKILL" in crashed.reason
    assert after.verdict is Verdict.PASS


def test_program_keeps_the_end_of_its_stderr() -> None:
    async def run() -> tuple[str, str]:
        source = "import sys; sys.stderr.write('x' * 100000 + 'the end'); sys.exit(3)"
        program = await Program.start([sys.executable, "-c", source], {})
        assert await program.wait(10)
        await program.stop()
        return program.died, program.stderr

    died, stderr = asyncio.run(run())
    assert died == "ended with status 3"
    assert stderr == "" or stderr.endswith("the end")
    assert frame(6)[:4] == bytes(4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_reports_what_it_found_and_leaves_no_server(number: signal.Signals, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    target = [sys.executable, "-c", _TOLD, str(pids), "{port}"]
    command = [sys.executable, "-m", "conformance.cli", "server", "--exec", shlex.join(target)]
    arguments = ["--report", str(tmp_path / "report"), "--jobs", "1", "--format", "ndjson"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        while json.loads(run.stdout.readline()).get("verdict") != "PASS":  # the end of the output is no JSON
            pass
        run.send_signal(number)
        run.stdout.read()
        assert run.wait(60) == INTERRUPTED
    results = json.loads((tmp_path / "report" / "results.json").read_text("utf-8"))["results"]
    assert 0 < len(results) < len(server_cases())
    for pid in pids.read_text("ascii").split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
