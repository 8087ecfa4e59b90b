"""The file of accounts is locked, moved, emptied or overwritten while a server runs, or missing when one starts."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.faults.stage.command import command
from benchmarks.faults.stage.process import Refused, Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import STORE, Family, Run, Scene
from protocol.codec import encode
from protocol.frames import Hello
from protocol.registry import HEADER_SIZE, MAGIC, PREFACE_SIZE

FILE = "accounts.sqlite3"
SAID = "the accounts cannot be read"
NOTICED_SECONDS = 20.0
STALLED_SECONDS = 5.0
"""How long no publish may be acknowledged: SQLite waits 10 s for a file that another program has locked."""


async def accounts(run: Run, outcome: Outcome) -> None:
    """Rooms go on, guests get no plain name, and the log says so."""
    rng = run.rng("accounts")
    server = Server(run.directory / "accounts")
    await command("user", "add", "ada", "--iterations", "4096", "--data", str(server.data), said="correct horse")
    ways = (_locked, _moved, _emptied, _overwritten) * 15 if run.long else (_locked, _emptied)
    async with (scene := Scene(server, rng, window=32)):
        scene.publish()
        for way in ways:
            with way(server.data / FILE):
                await _noticed(scene, outcome, way.__name__)
            outcome.faults += 1
            run.progress(f"accounts {outcome.faults} of {len(ways)}")
        await scene.finish(outcome)
    await _slip(server, outcome)


async def _noticed(scene: Scene, outcome: Outcome, way: str) -> None:
    """Wait until the server has noticed, and meanwhile for ACKs; then ask for the account's name as a guest."""
    server, before, newest = scene.server, scene.server.log().count(SAID), 0
    begun = since = time.monotonic()
    stalled = 0.0
    while server.log().count(SAID) == before and time.monotonic() - begun < NOTICED_SECONDS:
        await asyncio.sleep(0.02)
        count = sum(len(member.acked) for member in scene.publishers)
        stalled = max(stalled, time.monotonic() - since)
        if count > newest:
            newest, since = count, time.monotonic()
    if stalled > STALLED_SECONDS:
        outcome.breach("recovery", f"{way}: nobody got an ACK for {stalled:.1f} s")
    outcome.notes["longest time without an ACK, s"] = round(
        max(stalled, float(outcome.notes.get("longest time without an ACK, s", 0))), 2
    )
    if server.log().count(SAID) == before:
        outcome.breach("names", f"{way}: the log does not say that the accounts cannot be read")
    if (name := await _welcomed(server.port, "ada")) != "~ada":
        outcome.breach("names", f"{way}: a guest was let in as {name!r}")


async def _welcomed(port: int, name: str) -> str:
    """The name that a server gives to a guest who asks for `name`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(MAGIC + bytes((1, 1, 0, 0)) + encode(Hello(name, "ANONYMOUS", b"", request=1)))
    await reader.readexactly(PREFACE_SIZE)
    head = await reader.readexactly(HEADER_SIZE)
    body = await reader.readexactly(int.from_bytes(head[:4], "big"))
    writer.close()
    return body[9 : 9 + body[8]].decode()  # after the member


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None, timeout=30)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # from its next change on
        connection.execute("UPDATE accounts SET created_ms = created_ms + 1")
        yield


@contextmanager
def _moved(file: Path) -> Iterator[None]:
    away = file.rename(file.with_name("away"))
    yield
    away.rename(file)


@contextmanager
def _emptied(file: Path) -> Iterator[None]:
    content = file.read_bytes()
    file.write_bytes(b"")
    yield
    file.write_bytes(content)


@contextmanager
def _overwritten(file: Path) -> Iterator[None]:
    content = file.read_bytes()
    file.write_bytes(bytes(reversed(content)))
    yield
    file.write_bytes(content)


async def _slip(server: Server, outcome: Outcome) -> None:
    """A server whose settings name a file that is not there does not start."""
    slip = Server(server.data, environment={"ROOMWIRE_ACCOUNTS": str(server.data / "acounts.sqlite3")})
    outcome.faults += 1
    try:
        await slip.start()
    except Refused as refused:
        if "expected the file of accounts, found none" not in str(refused):
            outcome.breach("names", f"refused without saying why: {str(refused)[-200:]}")
        return
    outcome.breach("names", "a server started without the accounts that it was to have")
    await slip.kill()


FAMILIES = (
    Family("accounts", "accounts that are locked, moved, empty, overwritten", (*STORE, "names", "recovery"), accounts),
)
