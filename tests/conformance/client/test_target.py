"""A launched client, as the suite sees it."""

import asyncio

import pytest

from conformance.client.target import ClientTarget
from conformance.harness.verdicts import ContractBroken
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
    """A program that reads its standard input slowly."""

    died = stderr = ""

    def __init__(self, pieces: int) -> None:
        self.stdin = _Pipe(pieces)
        self.stdout = asyncio.StreamReader()

    @property
    def unread(self) -> int:
        return self.stdin.unread

    async def wait(self, seconds: float) -> bool:
        return False

    async def stop(self, *, kill: bool = False) -> None:
        """Has nothing to end."""


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
