"""Server mutants: the reference server in this process with one behaviour changed, so that it breaks a rule.

A `ServerMutant` names the requirements that it breaks and says how: most change the frames that the server sends
(`sends`) or receives (`receives`) and know nothing of its inside; some override a function of it (`patch`), or what its
store holds after a crash (`store`). `trial` runs cases against a mutant. The mutants are in server/.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import pytest

from conformance.harness.case import Case
from conformance.harness.options import Options
from conformance.harness.tls import authority
from conformance.harness.verdicts import CaseEnd, Failed, Inconclusive, Unsupported, own_failure
from conformance.server.context import Context
from conformance.server.target import SHORT, LaunchedServer
from conformance.wire.octets import HEADER, Header, decode, encode, read_header, split_frames
from protocol.errors import RemoteProtocolError
from protocol.frames import Frame, Unknown
from protocol.registry import MAGIC, PREFACE_SIZE
from protocol.server import ServerConnection
from reference_server.config import Config
from reference_server.net.listener import Listener
from reference_server.store.base import Retention
from reference_server.store.memory import MemoryStore
from tests.support import virtual_time
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
"""Settings with short time-outs and without rate limits."""

_WALL_MS = int((time.time() - time.monotonic()) * 1000)  # by which wall clocks are ahead of virtual ones

OPTIONS = Options(timeout=0.8, patience=6.5, ready=5.0, limits={"stall_ms": 1_000})


class Invalid(NamedTuple):
    """A frame of the client that breaks a rule, as it arrived."""

    error: RemoteProtocolError
    header: Header
    octets: bytes


Received = Frame | Unknown | Invalid
Sent = Frame | Unknown | Invalid | bytes
Sends = Callable[["MutantConnection", Any], Iterable[Sent]]
Receives = Callable[["MutantConnection", Any], Iterable[Sent]]
Writes = Callable[["MutantConnection", list[Sent]], list[Sent]]
MakeStore = Callable[[MemoryStore | None, Retention], MemoryStore]


class MutantConnection:
    """What a mutant changes on one connection. `notes` belong to the connection, `world` to the whole server.

    The server reads octets as they come, if it `lends`; otherwise a frame when it is whole.
    `more` says how many frames follow this one in the same segment. Frames put into `extra` are sent with the next
    write.
    """

    lends = True

    def __init__(self, mutant: "ServerMutant", world: dict[str, Any], conn: ServerConnection) -> None:
        self.mutant = mutant
        self.world = world
        self.conn = conn
        self.notes: dict[str, Any] = {}
        self.more = 0
        self.extra: list[Sent] = []
        self._preface_received = self._preface_sent = False
        self._unread = b""
        self._lent = 0  # octets of an unfinished frame that the server has: it checks the header, and its time

    def receive(self, data: bytes) -> bytes:
        """What the server reads in place of the octets that the client sent: each frame as the mutant changes it."""
        if self.mutant.receives is None:
            return data
        self._unread += data
        received = b""
        if not self._preface_received:
            if not self._unread.startswith(MAGIC[: len(self._unread)]):
                received, self._unread = self._unread, b""
                return received
            if len(self._unread) < PREFACE_SIZE:
                return b""
            received, self._unread = self._unread[:PREFACE_SIZE], self._unread[PREFACE_SIZE:]
            self._preface_received = True
        frames, self._unread = split_frames(self._unread)
        if frames:
            self._withdraw()
        for at, octets in enumerate(frames):
            self.more = len(frames) - at - 1
            received += _octets(self.mutant.receives(self, _read(octets)))
        if self.lends:
            lent, self._lent = self._lent, len(self._unread)
            received += self._unread[lent:]
        return received

    def _withdraw(self) -> None:
        """Takes back what the server has of a frame that is whole now: the mutant says what it reads instead."""
        reader, lent, self._lent = self.conn._reader, self._lent, 0
        if lent and reader.buffered >= lent:
            reader._buffer = bytes(reader._buffer[reader._start : len(reader._buffer) - lent])
            reader._start, reader._needed = 0, HEADER.size

    def send(self, data: bytes) -> bytes:
        """What the client reads in place of the octets that the server wrote."""
        sent = b""
        if not self._preface_sent and data:
            sent, data = data[:PREFACE_SIZE], data[PREFACE_SIZE:]
            self._preface_sent = True
            if self.mutant.preface:
                sent = self.mutant.preface(sent)
        frames, _ = split_frames(data)
        pieces: list[Sent] = []
        for octets in frames:
            frame = decode(read_header(octets), octets[HEADER.size :], "S")
            changed = self.mutant.sends(self, frame) if self.mutant.sends else [frame]
            # What stays as it is need not be encoded again, unless `writes` looks at it.
            pieces += changed if self.mutant.writes else [octets if piece is frame else piece for piece in changed]
        if self.mutant.writes:
            pieces = self.mutant.writes(self, pieces)
        extra, self.extra = self.extra, []
        return sent + _octets([*pieces, *extra])


def _read(octets: bytes) -> Received:
    header = read_header(octets)
    try:
        return decode(header, octets[HEADER.size :], "C")
    except RemoteProtocolError as error:
        return Invalid(error, header, octets)


def _octets(pieces: Iterable[Sent]) -> bytes:
    return b"".join(
        piece.octets if isinstance(piece, Invalid) else piece if isinstance(piece, bytes) else encode(piece)
        for piece in pieces
    )


class Durable(MemoryStore):
    """A store that survives what the tests do to its server."""

    durable = True
    _largest = 0

    def raise_max_body(self, max_body: int) -> int:
        self._largest = max(self._largest, max_body)
        return self._largest

    def close(self) -> None:
        """Keeps everything."""


def volatile(old: MemoryStore | None, retention: Retention) -> MemoryStore:
    """A new store for each start."""
    return MemoryStore(retention)


def durable(old: MemoryStore | None, retention: Retention) -> MemoryStore:
    """The same store for each start."""
    return old or Durable(retention)


@dataclass(frozen=True)
class ServerMutant:
    """A server with one behaviour changed; `breaks` are the requirements that it no longer keeps.

    It is tried with the cases that cite these requirements, or with those of `only` where no others can notice.
    `sends` changes each frame that it sends, `receives` each frame that it receives, `writes` all frames of one write.
    """

    ROLE: ClassVar = "server"

    slug: str
    description: str
    breaks: tuple[str, ...] = ()
    sends: Sends | None = None
    receives: Receives | None = None
    writes: Writes | None = None
    preface: Callable[[bytes], bytes] | None = None
    connection: type[MutantConnection] = MutantConnection
    patch: Callable[[pytest.MonkeyPatch], None] | None = None
    store: MakeStore = volatile
    config: dict[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    accounts: bool = False
    tls: bool = False

    def settings(self, offered: Mapping[str, int]) -> dict[str, Any]:
        """The settings of a server to which these limits are offered."""
        return {**FAST, **offered, **self.config}


UNCHANGED = ServerMutant("unchanged", "Breaks nothing.")
UNCHANGED_DURABLE = ServerMutant("unchanged-durable", "Breaks nothing, and is durable.", store=durable)


class MutantServer(LaunchedServer):
    """A server in this process that can be crashed and drained like one in a process of its own."""

    def __init__(
        self, mutant: ServerMutant, ready: float = 10.0, limits: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        super().__init__(mutant.slug, ready, limits, authority().trust if mutant.tls else None)
        self.mutant = mutant
        self.world: dict[str, Any] = {"starts": 0}
        self._store: MemoryStore | None = None
        self._listener: Listener | None = None

    @property
    def side_by_side(self) -> bool:
        return True

    async def start(self) -> None:
        settings = self.mutant.settings(self.limits)
        if self.mutant.accounts:
            settings["accounts"] = str(accounts_file())
        if self.mutant.tls:
            settings |= {"tls_cert": str(authority().cert), "tls_key": str(authority().key)}
        config = Config(port=0, **settings)
        retention = Retention(messages=config.retention_messages, remember_ids=config.dedupe_ms > 0)
        self._store = store = self.mutant.store(self._store, retention)
        self.world["starts"] += 1
        token = SERVER.set(self)
        try:
            self._listener = Listener(config, lambda post, failed: store)
            self.host, self.port = await self._listener.start()
        finally:
            SERVER.reset(token)

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

    def another(self, **limits: int) -> "MutantServer":
        kept = {name: value for name, value in self.limits.items() if name not in SHORT}
        return MutantServer(self.mutant, self.ready, {**kept, **limits})


SERVER: ContextVar[MutantServer] = ContextVar("server")
"""The server of a connection: its callbacks run in the context in which it was started."""


@contextlib.contextmanager
def mutated(mutant: ServerMutant) -> Iterator[None]:
    """Changes every connection of every server in this process while the block runs."""
    receive, send = ServerConnection.receive_data, ServerConnection.data_to_send
    connections: dict[ServerConnection, MutantConnection] = {}

    def of(conn: ServerConnection) -> MutantConnection:
        if conn not in connections:
            connections[conn] = mutant.connection(mutant, SERVER.get().world, conn)
        return connections[conn]

    def receive_data(conn: ServerConnection, data: bytes, now: float) -> Iterator[Any]:
        received = of(conn).receive(data)
        return receive(conn, received, now) if received else iter(())

    def data_to_send(conn: ServerConnection, now: float) -> bytes:
        return of(conn).send(send(conn, now))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reference_server.core.retention.INTERVAL_SECONDS", 0.1)
        patch.setattr(Listener, "wall_ms", lambda listener: _WALL_MS + int(listener.now() * 1000))
        changes_frames = mutant.sends or mutant.receives or mutant.writes or mutant.preface
        if changes_frames or mutant.connection is not MutantConnection:
            patch.setattr(ServerConnection, "receive_data", receive_data)
            patch.setattr(ServerConnection, "data_to_send", data_to_send)
        if mutant.patch:
            mutant.patch(patch)
        yield


def trial(mutant: ServerMutant, cases: Sequence[Case], options: Options = OPTIONS) -> tuple[dict[str, str], list[str]]:
    """How cases end on a server mutant, and the exceptions that its event loop met.

    An end is "pass", "kill REQUIREMENT" (the case's own assertion), "watch REQUIREMENT" (an invariant that every
    connection is held to), or another word with the reason: "unsupported", "no verdict".
    """
    with mutated(mutant):
        return virtual_time.run(_trial(mutant, cases, options))


async def _trial(mutant: ServerMutant, cases: Sequence[Case], options: Options) -> tuple[dict[str, str], list[str]]:
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(repr(context)))
    slots = asyncio.Semaphore(16)
    if mutant.accounts:
        options = replace(options, accounts=PASSWORDS, admins=ADMINS)
    server = MutantServer(mutant, options.ready)
    await server.start()

    async def one(case: Case) -> tuple[str, str]:
        async with slots:
            return case.id, await _end(case, Context(server, options))

    try:
        return dict(await asyncio.gather(*map(one, cases))), errors
    finally:
        await server.stop()


async def _end(case: Case, context: Context) -> str:
    try:
        await asyncio.wait_for(case.run(context), 3 * context.options.patience)
        await context.finish()
    except (Failed, Inconclusive) as end:
        failure = own_failure(case.id, end)
        if not isinstance(failure, Failed):
            return f"no verdict: {type(end).__name__}: {end}"
        return f"{'watch' if failure.passive else 'kill'} {failure.requirement or case.requirements[0]}"
    except Unsupported as end:
        return f"unsupported: {end}"
    except CaseEnd as end:
        return f"no verdict: {type(end).__name__}: {end}"
    except TimeoutError:
        return "no verdict: did not end in time"
    finally:
        await context.close()
    return "pass"


def fresh_id() -> bytes:
    """A new id of a PUBLISH, with the time of now."""
    return int(time.time() * 1000).to_bytes(6, "big") + os.urandom(10)
