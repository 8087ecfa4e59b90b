"""A launched client, as the suite sees it."""

import asyncio

import pytest

from conformance.client.runner import ClientRunner
from conformance.client.target import ClientTarget
from conformance.harness.options import Options
from conformance.harness.process import Unreachable
from conformance.harness.verdicts import ContractBroken
from conformance.spec.tables import load
from conformance.wire.log import WireLog
from tests.support import virtual_time


class _Pipe:
    """Commands that a program takes piece by piece."""

    def __init__(self, pieces: int) -> None:
        self.unread = 1_000
        self.pieces = pieces

    def write(self, data: bytes) -> None:
        """Has room for everything."""

    async def drain(self) -> None:
        for _ in range(self.pieces):
            await asyncio.sleep(4.0)
            self.unread -= 100
        if self.unread:
            await asyncio.Event().wait()

    def close(self) -> None:
        """Has nothing to end."""


class _Program:
    """A program that reads its standard input slowly, and whose last words arrive as it is stopped."""

    died = stderr = ""

    def __init__(self, pieces: int, said: bytes = b"") -> None:
        self.stdin = _Pipe(pieces)
        self.stdout = asyncio.StreamReader()
        self.stdout.feed_data(said)

    @property
    def unread(self) -> int:
        return self.stdin.unread

    async def wait(self, seconds: float) -> bool:
        return False

    async def stop(self, *, kill: bool = False) -> None:
        """Reads the rest of the standard error."""
        self.stderr = "last words"


async def _flush(pieces: int) -> int:
    target = ClientTarget(_Program(pieces), 5.0, WireLog())
    await target.flush()
    return target.program.unread


def test_client_that_reads_commands_slowly() -> None:
    """A busy machine makes a client slow: it has not stopped as long as it takes octets."""
    assert virtual_time.run(_flush(10)) == 0


@pytest.mark.parametrize("pieces", [0, 3])
def test_client_that_stops_reading_commands(pieces: int) -> None:
    with pytest.raises(ContractBroken, match="nothing read for 5 s"):
        virtual_time.run(_flush(pieces))


@pytest.mark.parametrize("said", [b"", b"no greeting\n", b'{"ready": true, "contract": 1, "features": []}\n'])
def test_last_words_of_a_client_that_does_not_get_ready(said: bytes) -> None:
    """All of its standard error is told, also what arrives a moment after its end."""

    async def probe() -> None:
        async def launch(host: str, port: int) -> _Program:
            return _Program(0, said)

        await ClientRunner(launch, load(), Options(timeout=1.0, ready=1.0), lambda result: result).run([])

    with pytest.raises(Unreachable) as reason:
        virtual_time.run(probe())
    assert reason.value.stderr == "last words"
