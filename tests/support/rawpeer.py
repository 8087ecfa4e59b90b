"""Servers and peers of real sockets: a server on a thread of this process, a client that says what it is told."""

import asyncio
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from protocol.codec import decode, encode
from protocol.frames import (
    Ack,
    Frame,
    Goaway,
    Hello,
    History,
    Join,
    Joined,
    Message,
    Publish,
    Unknown,
    Welcome,
    extension,
)
from protocol.framing import FrameReader
from protocol.registry import LIMITS, PREFACE_SIZE
from reference_server.cli import retention
from reference_server.config import Config
from reference_server.core.hub import Hub
from reference_server.core.peer import Peer
from reference_server.net.listener import Listener
from reference_server.store.base import Log, Store
from reference_server.store.memory import MemoryStore
from reference_server.store.sqlite import SqliteStore

PATIENCE = 20.0
"""Seconds after which a test that waits has failed. Nothing is measured by it."""

PREFACE = bytes.fromhex("F5525750 0101 0000")

KIB = 1024
FREE: dict[str, Any] = {
    f"{what}_{limit}": 10**6 for what in ("publish", "join", "history") for limit in ("rate", "burst")
}
"""No rate limits, for tests of something else."""


T = TypeVar("T")
F = TypeVar("F")
Post = Callable[..., None]
MakeStore = Callable[[Config, Post], Store]


class RawPeer:
    """One connection. `hello=False` leaves it before its preface; `buffer` bounds what the kernel takes for it."""

    def __init__(
        self, port: int, *, hello: bool = True, name: str = "ada", buffer: int = 0, history: bool = True
    ) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = FrameReader(LIMITS["max_body"].high)
        self.unread: list[Frame | Unknown] = []  # received, and passed over by `expect`
        self._numbers = itertools.count(2)
        if hello:
            self.send(PREFACE)
            assert self.octets(PREFACE_SIZE)[4] == 1
            fields = (extension("history"),) if history else ()
            self.send(Hello(name, "ANONYMOUS", b"", fields, request=1))
            self.welcome = self.expect(Welcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *what: bytes | Frame | Unknown) -> None:
        """Send octets and frames, all at once."""
        self.socket.sendall(b"".join(item if isinstance(item, bytes) else encode(item) for item in what))

    def octets(self, count: int) -> bytes:
        """Exactly `count` octets, or fewer at the end of the stream."""
        got = b""
        while len(got) < count and (more := self.socket.recv(count - len(got))):
            got += more
        return got

    def frame(self) -> Frame | Unknown | None:
        """The next frame; None at the end of the stream. A reset raises ConnectionResetError."""
        if self.unread:
            return self.unread.pop(0)
        return self._next()

    def _next(self) -> Frame | Unknown | None:
        while (raw := self.reader.next_frame()) is None:
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self.reader.feed(data)
        return decode(raw, "S")

    def expect(self, kind: type[F], where: Callable[[F], bool] = lambda frame: True) -> F:
        """The first frame of this kind that fits; those before it are kept for `frame`."""
        for index, frame in enumerate(self.unread):
            if isinstance(frame, kind) and where(frame):
                del self.unread[index]
                return frame
        while (found := self._next()) is not None:
            if isinstance(found, kind) and where(found):
                return found
            self.unread.append(found)
        raise AssertionError(f"the stream ended without {kind.__name__}, after {len(self.unread)}: {self.unread[-5:]}")

    def rest(self) -> list[Frame | Unknown]:
        """Everything up to the end of the stream."""
        frames = []
        while (frame := self.frame()) is not None:
            frames.append(frame)
        return frames

    def goaway(self) -> Goaway:
        """The GOAWAY that ends the stream, and its end."""
        last = self.rest()[-1]
        assert isinstance(last, Goaway), last
        return last

    def goaway_code(self) -> int:
        """The code of a GOAWAY, without waiting for the end of the stream."""
        return self.expect(Goaway).code

    def request(self) -> int:
        """A request number that was not used before."""
        return next(self._numbers)

    def id(self, age_ms: int = 0) -> bytes:
        """A new id of a message."""
        return (self.welcome.now_ms - age_ms).to_bytes(6, "big") + os.urandom(10)

    def join(self, name: str, *, epoch: int = 0, since: int = 0, flags: int = 0) -> Joined:
        """Join and wait."""
        request = self.request()
        self.send(Join(name, epoch, since, flags=flags, request=request))
        return self.expect(Joined, lambda joined: joined.request == request)

    def publish(self, room: int, payload: bytes = b"hi", *, flags: int = 0, id: bytes | None = None) -> Publish:
        """A PUBLISH that is yet to be sent."""
        return Publish(id or self.id(), 1, payload, flags=flags, request=self.request(), room=room)

    def history(self, room: int, start: int = 1, end: int = 0, limit: int = 0, flags: int = 0) -> History:
        """A HISTORY that is yet to be sent."""
        return History(start, end, limit, flags=flags, request=self.request(), room=room)

    def messages(self, count: int) -> list[Message]:
        """The next messages of a stream."""
        return [self.expect(Message, lambda message: not message.request) for _ in range(count)]


class HeldStore(MemoryStore):
    """A store whose commits and opens end when the test says so, on the server's thread."""

    def __init__(self, config: Config, post: Post) -> None:
        super().__init__(retention(config))
        self._post = post
        self.held: list[Callable[[], None]] = []
        self.opening: list[tuple[str, str, Callable[[Log, bool], None]]] = []
        self.hold_opens = False
        self.hold_commits = True

    def open(self, key: str, name: str, done: Callable[[Log, bool], None]) -> None:
        self.opening.append((key, name, done))
        if not self.hold_opens:
            self._post(self.end_opens)

    def end_opens(self) -> None:
        """Load all rooms that are waited for, and only then tell those who wait, as a store does that loads later."""
        opening, self.opening = self.opening, []
        told: list[Callable[[], None]] = []
        for key, name, done in opening:
            super().open(key, name, lambda log, created, done=done: told.append(partial(done, log, created)))  # type: ignore[misc]
        for tell in told:
            tell()

    def commit(self, done: Callable[[], None]) -> None:
        heads = [(log, log.tail) for log in self._unstable]
        self._unstable.clear()

        def step() -> None:
            for log, head in heads:
                log.head = head
            done()

        self.held.append(step) if self.hold_commits else step()


class Server:
    """A server on a thread of its own. `run` executes something there."""

    def __init__(self, config: Config, make: MakeStore | None) -> None:
        self._config, self._make = config, make
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.faults: list[str] = []  # what the event loop's exception handler was told

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(PATIENCE)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(
            lambda loop, context: self.faults.append(f"{context['message']}: {context.get('exception')!r}")
        )
        self.listener = Listener(self._config, self._open)
        self.hub: Hub = self.listener.hub
        self.port = (await self.listener.start())[1]
        self._ready.set()
        await self.listener.run()

    def _open(self, post: Post, failed: Callable[[Exception], None]) -> Store:
        if self._make is not None:
            self.store = self._make(self._config, post)
        elif self._config.memory:
            self.store = MemoryStore(retention(self._config))
        else:
            self.store = SqliteStore(Path(self._config.data), retention(self._config), post, failed)
        return self.store

    def run(self, action: Callable[[], T]) -> T:
        """The result of `action` on the server's thread."""

        async def act() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self.loop).result(PATIENCE)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true on the server's thread."""
        deadline = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < deadline, "it never came true"

    def stop(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has ended by itself
            self.loop.call_soon_threadsafe(self.listener._end)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def serving(make: MakeStore | None = None, **settings: object) -> Iterator[Server]:
    """A server on a free port, in memory unless `data` is set. It must not have met an exception it did not expect."""
    settings = {"port": 0, "memory": "data" not in settings, **settings}
    server = Server(Config(**settings), make)  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        server.stop()
    assert server.faults == []


def peer_of(server: Server, raw: RawPeer) -> Peer:
    """The server's side of a connection."""
    return next(peer for peer in server.hub.peers if peer.member == raw.welcome.member)


def held_for(peer: Peer) -> int:
    """Octets that the server keeps for a client."""
    return peer.link.waiting() + sum(map(len, peer.conn._out))


def fill(server: Server, room: str, count: int, size: int) -> None:
    """Publish to a room, and leave it."""
    with RawPeer(server.port, name="filler") as filler:
        ref = filler.join(room).room
        for _ in range(count):
            publish = filler.publish(ref, bytes(size))
            filler.send(publish)
            filler.expect(Ack)
            filler.messages(1)


def block(server: Server, raw: RawPeer, publisher: RawPeer, ref: int) -> None:
    """Publish until `raw`, which does not read, cannot be written to."""
    peer = peer_of(server, raw)
    while peer.writable:
        publisher.send(publisher.publish(ref, bytes(32 * KIB)))
        publisher.expect(Ack)
        publisher.messages(1)
