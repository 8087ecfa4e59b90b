"""A server and its clients in one process, with a network that delays, splits and cuts, a store that crashes, a clock.

`World` drives the real `Hub` and real `Session`s, and replaces only time, transport and storage. The script (calls from
outside) and one seeded `random.Random` decide what happens, so that each run can be repeated.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from reference_client import events
from reference_client.session.session import Session
from reference_server.config import Config
from reference_server.core.credit import ROUND_SECONDS
from reference_server.core.hub import Hub
from reference_server.core.peer import Peer
from reference_server.store.base import Log, Record, Retention, epoch_of, ignore
from reference_server.store.id_index import IdIndex
from reference_server.store.memory import MemoryLog, MemoryStore
from reference_server.store.progress import Progress
from tests.support.wiretap import WireTap

HIGH_WATER = 8 * 1024
"""Octets in flight to one client above which its link says that it is full."""

COMMIT_SECONDS = (0.0, 0.0, 0.001, 0.05, 2.0)

STORE_SECONDS = (0.0, 0.0, 0.001, 0.3)

WALL_MS = 1_800_000_000_000


class Killed(BaseException):
    """The server's process ends at once. A BaseException, so that no code of the server catches it."""


class SlowLog(MemoryLog):
    """A log whose reads complete later."""

    __slots__ = ("durable_ms", "world")
    world: World
    durable_ms: int
    """The time of the message at its head."""

    def walk(self) -> None:
        self.world.step()
        super().walk()
        self.world.step()

    def read(self, after: int, limit: int, octets: int, done: Callable[[list[Record]], None]) -> None:
        read = super().read
        self.world.store.later(lambda: read(after, limit, octets, done))

    def forget(self, before_ms: int) -> None:
        forget = super().forget
        self.world.store.write(lambda: forget(before_ms))


class CrashingStore(MemoryStore):
    """A durable store whose commits take time, and which loses uncommitted messages in a crash."""

    durable = True

    def __init__(self, world: World, retention: Retention) -> None:
        super().__init__(retention, world.rng.randbytes)
        self._world = world
        self._incarnations = 0  # of the server process
        self._noted: Progress | None = None
        self.on_disk: dict[MemoryLog, int] = {}  # the heads that a crash leaves

    def note_clock(self, progress: Progress) -> None:
        if self.waiting:
            self._noted = progress  # with the next commit
        else:
            self.write(lambda: setattr(self, "progress", progress))

    def make_stable(self, heads: list[tuple[MemoryLog, int]]) -> None:
        self._world.step()
        durable = [(log, head, log.last_time_ms) for log, head in heads]
        progress, self._noted = self._noted, None
        make_stable = super().make_stable

        def become_durable() -> None:
            self._world.step()
            for log, _, time_ms in durable:
                assert isinstance(log, SlowLog)
                log.durable_ms = max(log.durable_ms, time_ms)
            self.on_disk.update(heads)
            self.progress = progress or self.progress
            self._world.step()  # on disk, before the server knows
            make_stable(heads)
            self._world.step()

        self.write(become_durable, self._world.rng.choice(COMMIT_SECONDS))

    def write(self, become_durable: Callable[[], None], seconds: float = 0.0) -> None:
        """Nothing overtakes what is written earlier, so that a prefix becomes durable."""
        process = self._incarnations
        self._world.commit_at = max(self._world.commit_at, self._world.now + seconds)
        self._world.at(self._world.commit_at, lambda: become_durable() if process == self._incarnations else None)

    def open(
        self, key: str, name: str, done: Callable[[Log, bool], None], damaged: Callable[[], None] = lambda: None
    ) -> None:
        def opened() -> None:
            created = key not in self._logs
            if created:
                log = self._logs[key] = SlowLog(self, key, name, epoch_of(self._incarnation, key))
                log.world = self._world
                log.durable_ms = 0
            super(CrashingStore, self).open(key, name, lambda log, _created: done(log, created))

        self.later(opened)

    def later(self, call: Callable[[], None]) -> None:
        """Call in a moment, unless the process has ended by then."""
        process = self._incarnations
        delay = self._world.rng.choice(STORE_SECONDS)
        self._world.after(delay, lambda: call() if process == self._incarnations else None)

    def crash(self) -> None:
        """Lose what was not durable, and close all logs."""
        self._incarnations += 1
        self.waiting.clear()
        self._noted = None
        for key, log in list(self._logs.items()):
            log.users = 0
            log.head = self.on_disk.get(log, 0)
            log.moved = ignore
            log._proposals.clear()
            del log._records[max(0, log.head + 1 - log.oldest) :]
            assert isinstance(log, SlowLog)
            log.last_time_ms = log.durable_ms
            keep_ids(log, log.head)
            if not log.tail:
                del self._logs[key]
        self.last_time_ms = max((log.last_time_ms for log in self._logs.values()), default=0)


def keep_ids(log: MemoryLog, head: int) -> None:
    """Forget the ids of the messages behind `head`."""
    ids, log._ids = log._ids, IdIndex()
    for id in ids._values:
        known = ids.get(id)
        if known is not None and known.seq <= head:
            log._ids.add(id, known)


class Pipe:
    """One direction of a connection: octets arrive in order, late, and in other segments than they were written in."""

    def __init__(self, world: World, deliver: Callable[[bytes], None]) -> None:
        self._world = world
        self._deliver = deliver
        self._queue: deque[bytes] = deque()
        self._next = 0.0
        self.octets = 0
        self.closed = False
        self.held = False  # the receiver does not read

    def write(self, octets: bytes) -> None:
        self._queue.append(octets)
        self.octets += len(octets)
        self._plan()

    def hold(self, held: bool) -> None:
        self.held = held
        if not held:
            for _ in range(len(self._queue) + 1):
                self._plan()

    def rush(self) -> None:
        """Deliver the octets in flight now, if the receiver reads: the network has them even if their sender dies."""
        while self._queue and not self.closed and not self.held:
            octets = self._queue.popleft()
            self.octets -= len(octets)
            self._deliver(octets)

    def _plan(self) -> None:
        world = self._world
        self._next = max(self._next, world.now) + world.rng.choice((0.0, 0.0, 0.001, 0.02))
        world.at(self._next, self._arrive)

    def _arrive(self) -> None:
        if self.closed or self.held or not self._queue:
            return
        octets = self._queue.popleft()
        if len(octets) > 1 and self._world.rng.random() < 0.3:
            cut = self._world.rng.randrange(1, len(octets))
            self._queue.appendleft(octets[cut:])
            octets = octets[:cut]
            self._plan()
        self.octets -= len(octets)
        self._deliver(octets)


class Connection:
    """A transport between a client and the server: the server's `Link` and the client's socket."""

    def __init__(self, world: World, client: Client) -> None:
        self.world = world
        self.client = client
        self.open = True
        self.tap = WireTap()
        self.to_server = Pipe(world, self._at_server)
        self.to_client = Pipe(world, self._at_client)
        self.silent = False
        self._full = False
        assert world.hub is not None
        self.peer: Peer = world.hub.accept(self, "")

    # --- the server's side: peer.Link

    def write(self, octets: bytes) -> None:
        if self.open:
            self.world.step()
            self.tap.from_server(octets)
            self.to_client.write(octets)
            self.world.step()
            if not self._full and self.to_client.octets > HIGH_WATER:
                self._full = True
                self.peer.blocked(self.world.now)

    def pause_reading(self) -> None:
        self.to_server.hold(True)

    def resume_reading(self) -> None:
        self.to_server.hold(False)

    def close(self) -> None:
        """Close after all octets are written; then the client sees the end of the stream."""
        self.world.after(0.05, self.cut)

    def waiting(self) -> int:
        return self.to_client.octets

    # --- octets

    def _at_server(self, octets: bytes) -> None:
        if not self.silent:
            self.tap.from_client(octets)
            self.peer.receive(octets, self.world.now)

    def _at_client(self, octets: bytes) -> None:
        if self.silent:
            return
        self.client.received(self, octets)
        if self._full and self.to_client.octets <= HIGH_WATER // 2 and self.open:
            self._full = False
            self.peer.unblocked(self.world.now)

    def cut(self) -> None:
        """End the connection for both ends, and lose the octets in flight."""
        if self.open:
            self.open = False
            self.to_client.closed = self.to_server.closed = True
            if self.world.hub is not None:
                self.peer.lost(self.world.now)
            self.client.lost(self)


@dataclass
class Published:
    """A publish of a client, and its outcome."""

    room: str
    payload: bytes
    outcome: events.Published | events.PublishFailed | None = None


@dataclass
class Client:
    """A Session, and all events that it reported."""

    world: World
    name: str
    session: Session
    connection: Connection | None = None
    log: list[events.Event] = field(default_factory=list)
    published: dict[int, Published] = field(default_factory=dict)
    _timer: float | None = None

    def received(self, connection: Connection, octets: bytes) -> None:
        if connection is self.connection:
            self.session.receive_data(octets, self.world.now)
            self.pump()

    def lost(self, connection: Connection) -> None:
        if connection is self.connection:
            self.connection = None
            self.session.connection_lost(self.world.now)
            self.pump()

    def join(self, room: str, history: int = 0) -> None:
        if room not in self.session.rooms() and not self.session.closed:
            self.session.join(room, self.world.now, history=history)
            self.pump()

    def leave(self, room: str) -> None:
        if room in self.session.rooms():
            self.session.leave(room, self.world.now)
            self.pump()

    def publish(self, room: str, count: int) -> None:
        for _ in range(count):
            if room not in self.session.rooms() or room in self.leaving:
                return
            self.world.messages += 1
            payload = f"{self.name}:{self.world.messages}".encode()
            ticket = self.session.publish(room, payload, self.world.now)
            self.published[ticket] = Published(room, payload)
        self.pump()

    def hold(self, holding: bool) -> None:
        """The application takes no messages for a while, though the client reads on, or takes them again."""
        if holding:
            self.session.hold()
        elif self.session.holding:
            self.session.release(self.world.now)
        self.pump()

    @property
    def leaving(self) -> set[str]:
        return {room for room in self.session.rooms() if self.session._room(room).leaving}

    def pump(self) -> None:
        """Send octets, take the events, and schedule the next time-out."""
        session, world = self.session, self.world
        octets = session.data_to_send(world.now)
        if octets and self.connection is not None:
            self.connection.to_server.write(octets)
        while (event := session.next_event()) is not None:
            self.log.append(event)
            if isinstance(event, events.Published | events.PublishFailed):
                self.published[event.ticket].outcome = event
        if session.should_close and self.connection is not None:
            world.after(0.01, self.connection.cut)
        if session.reconnect_at is not None and self.connection is None:
            world.at(max(world.now, session.reconnect_at), self._connect)
        timeout = session.next_timeout()
        if timeout is not None and (self._timer is None or timeout < self._timer or self._timer <= world.now):
            self._timer = timeout
            world.at(max(world.now, timeout), self._time_out)

    def _connect(self) -> None:
        session, now = self.session, self.world.now
        if self.connection is not None or session.reconnect_at is None or session.reconnect_at > now:
            return
        if self.world.hub is None or self.world.hub.state.draining:
            session.connect_failed(now, "connection refused")
        else:
            session.connect(now)
            self.connection = Connection(self.world, self)
        self.pump()

    def _time_out(self) -> None:
        self._timer = None
        self.session.handle_timeout(self.world.now)
        self.pump()


class World:
    """The server, its clients, the network between them, and the time."""

    def __init__(self, seed: int, clients: int, config: Config) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.commit_at = 0.0
        self.messages = 0
        self.wrong_ms = 0
        """By how much the wall clock is ahead of the time."""
        self.fuse = 0
        """The number of steps of append, commit, acknowledge and deliver until the server is killed; 0 for never."""
        self.config = config
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.taps: list[WireTap] = []
        retention = Retention(config.retention_messages, None, config.retention_ms, bool(config.dedupe_ms))
        self.store = CrashingStore(self, retention)
        self.hub: Hub | None = None
        self.start_server()
        self.clients = [
            Client(self, f"c{index}", Session(f"c{index}", random.Random(self.rng.random()), 0.0))
            for index in range(clients)
        ]
        for client in self.clients:
            client.pump()

    # --- hub.Host, and time

    def schedule_flush(self) -> None:
        hub = self.hub
        self.after(0.0, lambda: hub.flush() if hub is not None and hub is self.hub else None)

    def schedule_credit(self) -> None:
        hub = self.hub
        self.after(ROUND_SECONDS, lambda: hub.give_credit() if hub is not None and hub is self.hub else None)

    def at(self, time: float, call: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (time, self._count, call))

    def after(self, delay: float, call: Callable[[], None]) -> None:
        self.at(self.now + delay, call)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, call = heapq.heappop(self._agenda)
            try:
                call()
            except Killed:
                for client in self.clients:
                    if client.connection is not None and self.rng.random() < 0.5:
                        client.connection.to_client.rush()
                self.crash()
        self.now = until

    # --- the server

    def step(self) -> None:
        """Mark the place between two steps, where the server may be killed. Raises Killed."""
        if self.fuse:
            self.fuse -= 1
            if not self.fuse:
                raise Killed

    def start_server(self) -> None:
        clock = _Clock(self)
        self.hub = Hub(self.config, self.store, clock, self._random, "simulated")
        self._sweep(self.hub)

    def _random(self) -> int:
        return self.rng.getrandbits(64)

    def _sweep(self, hub: Hub) -> None:
        if hub is self.hub:
            for _ in hub.sweep():
                pass
            self.after(0.5, lambda: self._sweep(hub))

    def crash(self) -> None:
        """Kill the server: connections break, messages that were not durable are lost. It soon starts again."""
        if self.hub is None:
            return
        self.hub = None
        self.store.crash()
        for client in self.clients:
            if client.connection is not None:
                client.connection.cut()
        self.after(self.rng.choice((0.0, 0.5, 3.0)), self._restart)

    def _restart(self) -> None:
        if self.hub is None:
            self.start_server()

    def drain(self) -> None:
        """Drain the server as at SIGTERM. It starts again after a while."""
        if self.hub is None or self.hub.state.draining:
            return
        hub = self.hub
        hub.drain()

        def finish() -> None:
            if self.hub is hub:
                hub.finish_drain()
                self.after(1.0, end)

        def end() -> None:
            if self.hub is hub:
                self.crash()

        self.after(1.0, finish)

    def log_of(self, room: str) -> MemoryLog | None:
        return self.store._logs.get(room)


class _Clock:
    """The hub's host: the time of the world, and a flush at the end of the tick."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        return self._world.now

    def wall_ms(self) -> int:
        return WALL_MS + int(self._world.now * 1000) + self._world.wrong_ms

    def schedule_flush(self) -> None:
        self._world.schedule_flush()

    def schedule_credit(self) -> None:
        self._world.schedule_credit()

    def drain(self) -> None:
        self._world.drain()
