"""The reference server in this process: on a thread of its own, listening on a real socket."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from protocol.frames import Ack
from reference_server.config import Config
from reference_server.core.hub import Hub
from reference_server.core.peer import Peer
from reference_server.net.listener import Listener
from reference_server.store.base import Log, Store
from reference_server.store.memory import MemoryLog, MemoryStore
from reference_server.store.open import retention
from reference_server.store.sqlite import SqliteStore
from tests.support.raw_client import PATIENCE, RawClient

KIB = 1024
UNLIMITED: dict[str, Any] = {
    f"{what}_{limit}": 10**6 for what in ("publish", "join", "history") for limit in ("rate", "burst")
}
"""Settings without rate limits, for tests of something else."""


T = TypeVar("T")
Post = Callable[..., None]
MakeStore = Callable[[Config, Post], Store]


class HeldStore(MemoryStore):
    """A store whose commits and opens complete when the test says so, on the server's thread."""

    def __init__(self, config: Config, post: Post) -> None:
        super().__init__(retention(config))
        self._post = post
        self.held: list[Callable[[], None]] = []
        self.opening: list[tuple[str, str, Callable[[Log, bool], None]]] = []
        self.hold_opens = False
        self.hold_commits = True

    def open(
        self, key: str, name: str, done: Callable[[Log, bool], None], damaged: Callable[[], None] = lambda: None
    ) -> None:
        self.opening.append((key, name, done))
        if not self.hold_opens:
            self._post(self.end_opens)

    def end_opens(self) -> None:
        """Load all rooms that are waited for, and only then call back, as a store with slow loads does."""
        opening, self.opening = self.opening, []
        callbacks: list[Callable[[], None]] = []
        for key, name, done in opening:
            super().open(key, name, lambda log, created, done=done: callbacks.append(partial(done, log, created)))  # type: ignore[misc]
        for call in callbacks:
            call()

    def make_stable(self, heads: list[tuple[MemoryLog, int]]) -> None:
        step = partial(super().make_stable, heads)
        self.held.append(step) if self.hold_commits else step()


class Server:
    """A server on a thread of its own."""

    def __init__(self, config: Config, make: MakeStore | None) -> None:
        self._config, self._make = config, make
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.faults: list[str] = []  # reports of the event loop's exception handler

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
        self.state = self.hub.state
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
        """Call `action` on the server's thread, and return its result."""

        async def act() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(act(), self.loop).result(PATIENCE)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition is true on the server's thread."""
        deadline = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < deadline, "the condition never became true"

    def stop(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has already ended
            self.loop.call_soon_threadsafe(self.listener._end)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def serving(make: MakeStore | None = None, **settings: object) -> Iterator[Server]:
    """A server on a free port, in memory unless `data` is set. It must end without an unhandled exception."""
    settings = {"port": 0, "memory": "data" not in settings, **settings}
    server = Server(Config(**settings), make)  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        server.stop()
    assert server.faults == []


def peer_of(server: Server, raw: RawClient) -> Peer:
    """The server's peer of a connection."""
    return next(peer for peer in server.hub.peers if peer.member == raw.welcome.member)


def held_for(peer: Peer) -> int:
    """The octets that the server holds for a client."""
    return peer.link.waiting() + sum(map(len, peer.conn._out))


def fill(server: Server, room: str, count: int, size: int) -> None:
    """Publish `count` messages of `size` octets to a room, and leave it."""
    with RawClient(server.port, name="filler") as filler:
        ref = filler.join(room).room
        for _ in range(count):
            publish = filler.publish(ref, bytes(size))
            filler.send(publish)
            filler.expect(Ack)
            filler.messages(1)


def block(server: Server, raw: RawClient, publisher: RawClient, ref: int) -> None:
    """Publish until the server can no longer write to `raw`, which does not read."""
    peer = peer_of(server, raw)
    while peer.writable:
        publisher.send(publisher.publish(ref, bytes(32 * KIB)))
        publisher.expect(Ack)
        publisher.messages(1)


@asynccontextmanager
async def in_this_loop(**settings: Any) -> AsyncIterator[int]:
    """The port of a reference server in the event loop that runs."""
    config = Config(port=0, memory=True, drain_ms=0, linger_ms=100, **settings)
    listener = Listener(config, lambda post, failed: MemoryStore(retention(config)))
    _, port = await listener.start()
    running = asyncio.create_task(listener.run())
    try:
        yield port
    finally:
        listener.drain()
        await running
