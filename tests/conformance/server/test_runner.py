"""Running cases against a server that dies."""

import asyncio
import signal
from dataclasses import replace

from conformance.harness.options import Options
from conformance.harness.verdicts import Result, Verdict
from conformance.server.runner import ServerRunner
from conformance.server.target import LaunchedServer
from conformance.spec.tables import load
from tests.support.suite import SERVER, select


def test_server_that_dies_in_a_case() -> None:
    """The process dies in the middle of a case: CRASH, and the next case finds it started again."""
    cases = [*select("server/7.15/echo"), *select("server/7.7/same-opaque")]
    killed = False
    target = LaunchedServer(f"{SERVER} --memory", 15.0)

    async def murderous(context: object) -> None:
        nonlocal killed
        killed = True
        target.program.send_signal(signal.SIGKILL)
        await cases[0].run(context)

    async def run() -> list[Result]:
        try:
            await target.start()
            runner = ServerRunner(target, load(), Options(timeout=1.0, patience=1.0, jobs=1), lambda result: result)
            return await runner.run([replace(cases[0], run=murderous), cases[1]])
        finally:
            await target.stop()

    crashed, after = asyncio.run(run())
    assert killed
    assert crashed.verdict is Verdict.CRASH
    assert "SIGKILL" in crashed.reason
    assert after.verdict is Verdict.PASS
