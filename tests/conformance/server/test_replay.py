"""Replay files of failed cases, run again against other servers."""

import asyncio
import shlex
from dataclasses import replace
from pathlib import Path

from conformance.harness.verdicts import Result, Verdict
from conformance.server import replay
from conformance.server.runner import ServerRunner
from conformance.server.target import LaunchedServer
from conformance.spec.tables import load
from tests.support.accounts import accounts_file
from tests.support.suite import OPTIONS, SERVER, run_at_small_server, select


def test_replay_at_other_servers(tmp_path: Path) -> None:
    options = replace(OPTIONS, replay_dir=tmp_path)
    cases = select("server/7.13/not-joined", "server/7.9/already-joined", "server/7.13/ok")
    for failed in run_at_small_server("wrong-code", cases, options):
        assert failed.verdict is Verdict.FAIL
        script = replay.read(Path(failed.replay))
        [again] = run_at_small_server("wrong-code", [script.case])
        assert (again.id, again.verdict, again.requirement) == (failed.id, Verdict.FAIL, failed.requirement)
        [other] = run_at_small_server("", [script.case])
        assert other.verdict is Verdict.PASS, (other.expected, other.got, other.reason)


def test_replay_of_an_unexpected_frame(tmp_path: Path) -> None:
    options = replace(OPTIONS, replay_dir=tmp_path)
    [failed] = run_at_small_server("echo-before-ack", select("server/7.17/order-of-one-connection"), options)
    script = replay.read(Path(failed.replay))
    [again] = run_at_small_server("echo-before-ack", [script.case])
    assert (again.verdict, again.requirement) == (Verdict.FAIL, "RW-PROMISE-11")
    [other] = run_at_small_server("", [script.case])
    assert other.verdict is not Verdict.FAIL


def test_login_has_no_replay_file(tmp_path: Path) -> None:
    """Its proof is for one nonce of the server: sent again, it would be wrong at any server."""

    async def run() -> list[Result]:
        target = LaunchedServer(f"{SERVER} --memory --accounts {shlex.quote(str(accounts_file()))}", 15.0)
        await target.start()
        options = replace(OPTIONS, replay_dir=tmp_path, accounts={"Ada": "not her password"})
        try:
            return await ServerRunner(target, load(), options, lambda result: result).run(select("server/13/scram"))
        finally:
            await target.stop()

    [failed] = asyncio.run(run())
    assert (failed.verdict, failed.requirement, failed.replay) == (Verdict.FAIL, "RW-SCRAM-5", "")
