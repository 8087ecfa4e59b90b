"""The reference client's adapter in this process, in place of a program that the suite launches."""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import TypeVar

from conformance.client.target import Launch, Running
from reference_client.adapter import Adapter

T = TypeVar("T")


class _Lines:
    """The adapter's standard input."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(limit=2**24)
        self._closed = False

    def write(self, data: bytes) -> None:
        if not self._closed:
            self.reader.feed_data(data)

    async def drain(self) -> None:
        """Return at once: the buffer is never full."""

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.reader.feed_eof()


class InProcess:
    """An adapter that runs as a task."""

    def __init__(self, host: str, port: int) -> None:
        self.stdin = _Lines()
        self.stdout = asyncio.StreamReader(limit=2**24)
        self.stderr = ""
        self.unread = 0
        self._task = asyncio.create_task(self._run(host, port))

    @property
    def died(self) -> str:
        if not self._task.done():
            return ""
        return "ended with status 1" if self.stderr or self._task.cancelled() else "ended with status 0"

    async def _serve(self, host: str, port: int) -> None:
        await Adapter(host, port, self._write).run(self.stdin.reader)

    async def _run(self, host: str, port: int) -> None:
        try:
            await self._serve(host, port)
        except Exception as error:
            self.stderr = repr(error)
        finally:
            self.stdout.feed_eof()

    def _write(self, line: str) -> None:
        if not self.stdout.at_eof() and not self._task.done():
            self.stdout.feed_data(line.encode() + b"\n")

    async def wait(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._task), seconds)
        return self._task.done()

    async def stop(self, *, kill: bool = False) -> None:
        self.stdin.close()
        if not await self.wait(0.05 if kill else 5.0):
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


async def _launch(host: str, port: int) -> Running:
    return InProcess(host, port)


async def run_to_the_end(run: Awaitable[T]) -> T:
    """Await `run`, then end the tasks that clients have left in the loop."""
    try:
        return await run
    finally:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for _ in range(3):  # the loop closes aborted transports in its next turns
            await asyncio.sleep(0)


launch: Launch = _launch
