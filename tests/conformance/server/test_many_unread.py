"""The case that floods a server with PINGs, at one that is slow meanwhile."""

import asyncio
from itertools import count

from conformance.commands.selftest_server import SmallServer, serving
from conformance.harness.options import Options
from conformance.harness.verdicts import Result, Verdict
from conformance.server.runner import ServerRunner
from conformance.server.target import ServerTarget
from conformance.spec.tables import load
from tests.support import virtual_time
from tests.support.suite import select


def test_server_that_is_slow_during_the_flood() -> None:
    """It answers another connection after twenty seconds, as on a busy machine: what counts is that it does."""

    async def run() -> list[Result]:
        server, connections = SmallServer(""), count()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(20.0 * bool(next(connections)))
            await server.connected(reader, writer)

        async with serving(connected) as port:
            runner = ServerRunner(ServerTarget("127.0.0.1", port, 5.0), load(), Options(timeout=5.0), lambda end: end)
            return await runner.run(select("server/7.7/many-unread"))

    [result] = virtual_time.run(run())
    assert result.verdict is Verdict.PASS, result
