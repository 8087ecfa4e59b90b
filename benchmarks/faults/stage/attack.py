"""Clients that flood a server, in their own process: `python -m benchmarks.faults.stage.attack KIND PORT COUNT`.

The process prints "flooding" once all clients are in the room, and goes on until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from benchmarks.servers.targets import ROOT
from protocol.codec import encode
from protocol.frames import Field, Hello, History, Join, Leave, Ping
from protocol.registry import MAGIC, FieldType, FrameType

ROOM = "red"


class Attacker:
    """A connection that writes as fast as the server reads; without `reads`, it reads nothing itself."""

    def __init__(self, port: int, frames: Callable[[int], bytes], reads: bool) -> None:
        self.port = port
        self.frames = frames
        self.reads = reads
        self.began = asyncio.Event()

    async def run(self) -> None:
        """Flood until cancelled; connect again after each lost connection."""
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            reading = None
            try:
                writer.write(MAGIC + bytes((1, 1, 0, 0)))
                await reader.readexactly(8)
                extension = Field(FieldType.EXTENSION, b"\x07history")
                hello = Hello("flood", "ANONYMOUS", b"", fields=(extension,), request=1)
                writer.write(encode(hello) + encode(Join(ROOM, 0, 0, request=2)))
                ref = 0
                while not ref:
                    head = await reader.readexactly(16)
                    await reader.readexactly(int.from_bytes(head[:4], "big"))
                    if int.from_bytes(head[4:6], "big") == FrameType.JOINED:
                        ref = int.from_bytes(head[12:16], "big")
                if self.reads:
                    reading = asyncio.ensure_future(_read_all(reader))
                while not writer.is_closing():
                    writer.write(self.frames(ref))
                    self.began.set()
                    await writer.drain()
                    await asyncio.sleep(0)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.02)
            finally:
                if reading is not None:
                    reading.cancel()
                writer.transport.abort()


async def _read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(65536):
        pass


def _pings(_ref: int) -> bytes:
    return encode(Ping(bytes(8))) * 200


def _churn(ref: int) -> bytes:
    frames = (encode(Leave(request=7, room=ref)), encode(Join(ROOM, 0, 0, request=8)))
    return b"".join(frames) * 20


def _history(ref: int) -> bytes:
    return encode(History(1, 0, 0, request=9, room=ref)) * 20


async def _connects(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(MAGIC + bytes((1, 1, 0, 0)))
            await asyncio.sleep(0)
            writer.transport.abort()
        except OSError:
            await asyncio.sleep(0.01)


FRAMES: dict[str, tuple[Callable[[int], bytes], bool]] = {
    "PING": (_pings, True),
    "PING, not read": (_pings, False),
    "JOIN and LEAVE": (_churn, True),
    "HISTORY": (_history, True),
    "HISTORY, not read": (_history, False),
}
"""By kind: the frames that are sent again and again, and whether the replies are read."""

CONNECTS = "connects"
KINDS = (*FRAMES, CONNECTS)


@asynccontextmanager
async def attack(kind: str, port: int, count: int) -> AsyncIterator[None]:
    """A process with `count` attackers, which flood while the context is open."""
    command = [sys.executable, "-m", "benchmarks.faults.stage.attack", kind, str(port), str(count)]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield
    finally:
        process.kill()
        await process.communicate()


def _give_way() -> None:
    """Lower the priority of this process: it stands for other machines, which take no CPU time from this one."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    with suppress(OSError):  # with autogroups, each session has its own share of the CPU, which must be lowered, too
        Path("/proc/self/autogroup").write_text("19", encoding="ascii")


async def _attack(kind: str, port: int, count: int) -> None:
    _give_way()
    if kind == CONNECTS:
        print("flooding", flush=True)
        await asyncio.gather(*(_connects(port) for _ in range(count)))
        return
    attackers = [Attacker(port, *FRAMES[kind]) for _ in range(count)]
    tasks = [asyncio.ensure_future(attacker.run()) for attacker in attackers]
    for attacker in attackers:
        await attacker.began.wait()
    print("flooding", flush=True)
    await asyncio.gather(*tasks)


if __name__ == "__main__":
    asyncio.run(_attack(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
