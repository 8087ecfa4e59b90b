"""Servers that break one rule each: the reference server in this process, with one behaviour changed.

A `Broken` says which requirements it breaks, and how: most change frames on their way out (`says`) or in (`hears`),
where nothing of the server's inside matters; some override a function of it (`patch`), or what a store is after a
crash (`boot`). `trial` runs cases against one of them, or against the whole server with the same settings.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from conformance.harness.case import Case
from conformance.harness.options import Options
from conformance.harness.tls import authority
from conformance.harness.verdicts import CaseEnd, Failed, Unsupported
from conformance.server.context import Context
from conformance.server.target import LaunchedServer
from conformance.wire.octets import HEADER, Header, decode, encode, read_header, split_frames
from protocol.errors import RemoteProtocolError
from protocol.frames import Frame, Unknown
from protocol.registry import MAGIC, PREFACE_SIZE
from protocol.server import ServerConnection
from reference_server.config import Config
from reference_server.core import retention
from reference_server.net.listener import Listener
from reference_server.store.base import Retention
from reference_server.store.memory import MemoryStore
from tests.support.accounts import ADMINS, PASSWORDS, accounts_file

FAST: dict[str, Any] = {
    "preface_ms": 1200,
    "handshake_ms": 1200,
    "frame_ms": 1200,
    "heartbeat_ms": 2000,
    "linger_ms": 300,
    "drain_ms": 300,
    "publish_rate": 10**6,
    "publish_burst": 10**6,
    "join_rate": 10**6,
    "join_burst": 10**6,
    "history_rate": 10**6,
    "history_burst": 10**6,
    "room_rate": 10**6,
    "account_connections": 10**6,
    "memory": True,
}
"""Settings with which a time-out is soon over and nothing is limited."""

OPTIONS = Options(timeout=0.8, patience=6.5, ready=5.0, limits={"stall_ms": 1_000})
WHOLE_OPTIONS = Options(timeout=10.0, patience=20.0, ready=10.0, limits={"stall_ms": 1_000})
"""For what has to pass: a busy machine must not make it fail."""


class Wrong(NamedTuple):
    """A frame of the client that breaks something, as it came."""

    error: RemoteProtocolError
    header: Header
    octets: bytes


Heard = Frame | Unknown | Wrong
Piece = Frame | Unknown | Wrong | bytes
Says = Callable[["Alteration", Any], Iterable[Piece]]
Hears = Callable[["Alteration", Any], Iterable[Piece]]
Boot = Callable[[MemoryStore | None, Retention], MemoryStore]


class Alteration:
    """What is changed on one connection. `notes` are its own, `world` is shared by all of its server.

    `more` says how many frames come behind this one in the same segment; what is put into `extra` is said next.
    """

    def __init__(self, broken: "Broken", world: dict[str, Any], conn: ServerConnection) -> None:
        self.broken = broken
        self.world = world
        self.conn = conn
        self.notes: dict[str, Any] = {}
        self.more = 0
        self.extra: list[Piece] = []
        self._greeted_in = self._greeted_out = False
        self._unread = b""

    def hear(self, data: bytes) -> bytes:
        """What the server reads in place of what the client sent."""
        if self.broken.hears is None:
            return data
        self._unread += data
        heard = b""
        if not self._greeted_in:
            if not self._unread.startswith(MAGIC[: len(self._unread)]):
                heard, self._unread = self._unread, b""
                return heard
            if len(self._unread) < PREFACE_SIZE:
                return b""
            heard, self._unread = self._unread[:PREFACE_SIZE], self._unread[PREFACE_SIZE:]
            self._greeted_in = True
        frames, self._unread = split_frames(self._unread)
        for at, octets in enumerate(frames):
            self.more = len(frames) - at - 1
            heard += _octets(self.broken.hears(self, _read(octets)))
        return heard

    def say(self, data: bytes) -> bytes:
        """What the client reads in place of what the server said."""
        said = b""
        if not self._greeted_out and data:
            said, data = data[:PREFACE_SIZE], data[PREFACE_SIZE:]
            self._greeted_out = True
            if self.broken.preface:
                said = self.broken.preface(said)
        frames, _ = split_frames(data)
        pieces: list[Piece] = []
        for octets in frames:
            frame = decode(read_header(octets), octets[HEADER.size :], "S")
            pieces += self.broken.says(self, frame) if self.broken.says else [frame]
        if self.broken.batch:
            pieces = self.broken.batch(self, pieces)
        extra, self.extra = self.extra, []
        return said + _octets([*pieces, *extra])


def _read(octets: bytes) -> Heard:
    header = read_header(octets)
    try:
        return decode(header, octets[HEADER.size :], "C")
    except RemoteProtocolError as error:
        return Wrong(error, header, octets)


def _octets(pieces: Iterable[Piece]) -> bytes:
    return b"".join(
        piece.octets if isinstance(piece, Wrong) else piece if isinstance(piece, bytes) else encode(piece)
        for piece in pieces
    )


def volatile(old: MemoryStore | None, retention: Retention) -> MemoryStore:
    """A store that begins anew with each start."""
    return MemoryStore(retention)


@dataclass(frozen=True)
class Broken:
    """A server with one behaviour changed; `breaks` are the requirements that it does not keep any more.

    The cases that name these are tried on it, or those in `only`, where it can be told by no others.
    """

    name: str
    breaks: tuple[str, ...]
    says: Says | None = None
    hears: Hears | None = None
    batch: Callable[[Alteration, list[Piece]], list[Piece]] | None = None
    preface: Callable[[bytes], bytes] | None = None
    make: type[Alteration] = Alteration
    patch: Callable[[pytest.MonkeyPatch], None] | None = None
    boot: Boot = volatile
    config: dict[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    accounts: bool = False
    tls: bool = False


class Served(LaunchedServer):
    """A server in this process that can be crashed and drained like one of its own process."""

    def __init__(self, broken: Broken, ready: float = 10.0, limits: Mapping[str, int] = MappingProxyType({})) -> None:
        super().__init__(broken.name, ready, limits, authority().trust if broken.tls else None)
        self.broken = broken
        self.world: dict[str, Any] = {"starts": 0}
        self._store: MemoryStore | None = None
        self._listener: Listener | None = None

    @property
    def side_by_side(self) -> bool:
        return True

    async def start(self) -> None:
        settings = {**FAST, **self.limits, **self.broken.config}
        if self.broken.accounts:
            settings["accounts"] = str(accounts_file())
        if self.broken.tls:
            settings |= {"tls_cert": str(authority().cert), "tls_key": str(authority().key)}
        config = Config(port=0, **settings)
        retention = Retention(messages=config.retention_messages, remember_ids=config.dedupe_ms > 0)
        self._store = store = self.broken.boot(self._store, retention)
        self.world["starts"] += 1
        token = _SERVED.set(self)
        try:
            self._listener = Listener(config, lambda post, failed: store)
            self.host, self.port = await self._listener.start()
        finally:
            _SERVED.reset(token)

    async def crash(self) -> None:
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        listener.cut()
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await self.crash()

    def drain(self) -> None:
        assert self._listener is not None
        self._listener.drain()

    def another(self, **limits: int) -> "Served":
        return Served(self.broken, self.ready, {**self.limits, **limits})


_SERVED: ContextVar[Served] = ContextVar("served")
"""The server that a connection is one of: what serves it runs in the context in which it was started."""


@contextlib.contextmanager
def altered(broken: Broken) -> Iterator[None]:
    """While it lasts every connection of every server in this process is altered so."""
    receive, send = ServerConnection.receive_data, ServerConnection.data_to_send
    alterations: dict[ServerConnection, Alteration] = {}

    def of(conn: ServerConnection) -> Alteration:
        if conn not in alterations:
            alterations[conn] = broken.make(broken, _SERVED.get().world, conn)
        return alterations[conn]

    def receive_data(conn: ServerConnection, data: bytes, now: float) -> Iterator[Any]:
        heard = of(conn).hear(data)
        return receive(conn, heard, now) if heard else iter(())

    def data_to_send(conn: ServerConnection, now: float) -> bytes:
        return of(conn).say(send(conn, now))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention, "INTERVAL_SECONDS", 0.1)
        if broken.says or broken.hears or broken.batch or broken.preface or broken.make is not Alteration:
            patch.setattr(ServerConnection, "receive_data", receive_data)
            patch.setattr(ServerConnection, "data_to_send", data_to_send)
        if broken.patch:
            broken.patch(patch)
        yield


def trial(broken: Broken, cases: Sequence[Case], options: Options = OPTIONS) -> tuple[dict[str, str], list[str]]:
    """How cases end on a broken server, and what went wrong inside of it.

    An end is "pass", "kill REQUIREMENT" (the case's own assertion), "watch REQUIREMENT" (what is watched on every
    connection), or another word with the reason: "unsupported", "no verdict".
    """
    with altered(broken):
        return asyncio.run(_trial(broken, cases, options))


async def _trial(broken: Broken, cases: Sequence[Case], options: Options) -> tuple[dict[str, str], list[str]]:
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(repr(context)))
    slots = asyncio.Semaphore(16)
    if broken.accounts:
        options = replace(options, accounts=PASSWORDS, admins=ADMINS)
    served = Served(broken, options.ready)
    await served.start()

    async def one(case: Case) -> tuple[str, str]:
        async with slots:
            return case.id, await _end(case, Context(served, options))

    try:
        return dict(await asyncio.gather(*map(one, cases))), errors
    finally:
        await served.stop()


async def _end(case: Case, context: Context) -> str:
    try:
        await asyncio.wait_for(case.run(context), 3 * context.options.patience)
        await context.finish()
    except Failed as failure:
        return f"{'watch' if failure.passive else 'kill'} {failure.requirement or case.requirements[0]}"
    except Unsupported as end:
        return f"unsupported: {end}"
    except CaseEnd as end:
        return f"no verdict: {type(end).__name__}: {end}"
    except TimeoutError:
        return "no verdict: did not come to its end"
    finally:
        await context.close()
    return "pass"


def fresh_id() -> bytes:
    """An id of a publish of this moment."""
    return int(time.time() * 1000).to_bytes(6, "big") + os.urandom(10)
