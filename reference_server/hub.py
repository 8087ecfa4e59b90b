"""The server without I/O and without a clock: peers, rooms, and what happens in a tick.

A tick is one turn of the event loop. Whatever arrives in it is parsed, sequenced and appended to the logs of rooms; at
its end `flush` commits, answers what became stable, and hands each room's new octets to its members, one write each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from protocol.events import ConnectionTerminated
from protocol.registry import Code
from reference_server.caretaker import Caretaker
from reference_server.clock import ServerClock
from reference_server.config import Config
from reference_server.handshake import Handshake
from reference_server.joiner import Historian, Joiner
from reference_server.limits import AddressBook
from reference_server.peer import Link, Peer
from reference_server.publisher import Publisher
from reference_server.room import Room
from reference_server.store import Log, Store

log = logging.getLogger("roomwire.server")

REFUSED_AT_ONCE = 32
"""How many connections beyond the caps may be there to be told so."""


class Host(Protocol):
    """What drives the hub."""

    def now(self) -> float:
        """Seconds of a steady clock, the same throughout a tick."""

    def schedule_flush(self) -> None:
        """Have `Hub.flush` called at the end of this tick."""


class Hub:
    """All of the server's state."""

    def __init__(
        self, config: Config, store: Store, host: Host, wall_ms: int, random_number: Callable[[], int], address: str
    ) -> None:
        self.config = config
        self.times = config.times
        self.store = store
        self.max_body = store.raise_max_body(config.max_body)
        self.host = host
        self.address = address
        self._random_number = random_number
        self._clock = ServerClock(wall_ms, store.last_time_ms, host.now())
        self.server_id = config.server_id or self.new_member()
        self.addresses = AddressBook(config.address_connections, config.room_rate)
        self.handshake = Handshake(self)
        self.joiner = Joiner(self)
        self.historian = Historian(self)
        self.publisher = Publisher(self)
        self.caretaker = Caretaker(self)
        self.peers: set[Peer] = set()
        self.rooms: dict[str, Room] = {}
        self._refused = 0  # peers that are here only to be told that there is no room for them
        self.waiting: set[Peer] = set()  # peers whose next reply waits for a commit, or for its turn
        self.draining = False
        self.failed: Exception | None = None
        self._touched: set[Peer] = set()
        self._changed: set[Room] = set()
        self._appended: set[str] = set()  # keys, for a room may be let go and loaded again before the commit is done
        self._scheduled = False
        self._next_ref = 0

    # --- time and numbers

    @property
    def now(self) -> float:
        """Seconds, the same throughout a tick."""
        return self.host.now()

    def clock_ms(self) -> int:
        """The server's clock: UTC milliseconds."""
        return self._clock.ms(self.host.now())

    def new_member(self) -> int:
        """RW-WELCOME-1: 64 random bits, not 0."""
        return self._random_number() or 1

    # --- peers

    def accept(self, link: Link, address: str) -> Peer:
        """A new connection. One beyond the caps is let in as far as HELLO, to be told why it is refused.

        There is room to tell that to a few: where too many wait to be told, or just wait, the peer is gone at once. So
        they can keep neither descriptors nor the places of others.
        """
        allowed = self.addresses.connect(address) and len(self.peers) - self._refused < self.config.max_connections
        allowed = allowed and not self.draining  # RW-DRAIN-6: accepted just before the listener was closed
        peer = Peer(self, link, address, self.now, full=not allowed)
        self.peers.add(peer)
        self._refused += peer.full
        if self._refused > REFUSED_AT_ONCE:
            peer.lost(self.now)
        return peer

    def peer_gone(self, peer: Peer) -> None:
        """The peer's link is closed."""
        self.peers.discard(peer)
        self._refused -= peer.full
        self.waiting.discard(peer)
        self.addresses.disconnect(peer.address)

    # --- rooms

    def add_room(self, room_log: Log) -> Room:
        """Load a room; its ref is never used again (RW-MODEL-7)."""
        self._next_ref += 1
        room = self.rooms[room_log.key] = Room(self._next_ref, room_log, self.config.quiet_members)
        return room

    def room_left(self, room: Room) -> None:
        """A member has left: the others are told, or the room is let go (RW-JOIN-3)."""
        if room.members:
            self.room_changed(room)
        elif self.rooms.get(room.key) is room:
            del self.rooms[room.key]
            self._changed.discard(room)
            self.store.release(room.log)

    # --- the tick

    def touched(self, peer: Peer) -> None:
        """The peer may have something to write."""
        self._touched.add(peer)
        self._schedule()

    def room_changed(self, room: Room) -> None:
        """Some member of the room may have something to receive."""
        self._changed.add(room)
        self._schedule()

    def appended(self, room: Room) -> None:
        """The room's log was appended to: it is committed at the end of the tick."""
        self._appended.add(room.key)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.host.schedule_flush()

    def flush(self) -> None:
        """The end of a tick."""
        self._scheduled = False
        if self.failed is not None:
            self._write_out()
            return
        if self._appended:
            appended, self._appended = self._appended, set()
            self.store.commit(lambda: self._committed(appended))
        if self.waiting:
            self._settle()
        self._flush_rooms()
        self._write_out()

    def _committed(self, appended: set[str]) -> None:
        """What was appended up to some tick is stable now: ACKs first (RW-PROMISE-11), then the streams."""
        self._changed.update(self.rooms[key] for key in appended if key in self.rooms)
        self._settle()
        self._schedule()

    def _settle(self) -> None:
        waiting, self.waiting = self.waiting, set()
        for peer in waiting:
            peer.settle()

    def _flush_rooms(self) -> None:
        changed, self._changed = self._changed, set()
        for room in changed:
            if not room.flush():
                self.room_changed(room)
            room.trim_tail()

    def _write_out(self) -> None:
        now = self.now
        touched, self._touched = self._touched, set()
        for peer in touched:
            peer.write_out(now)

    # --- time-outs and housekeeping

    def sweep(self) -> None:
        """To be called several times in a heartbeat, and in the shortest time-out."""
        now = self.now
        for peer in tuple(self.peers):
            peer.sweep(now)
        if self.failed is None:
            self.caretaker.sweep(now)

    # --- the end

    def drain(self) -> None:
        """Begin to end: tell every client, and answer what it still asks (section 8.6)."""
        self.draining = True
        for peer in tuple(self.peers):
            if peer.conn.state == "OPEN":
                peer.conn.drain(DRAIN_RETRY_MS, self.config.jitter_ms, "the server is about to end")
                self.touched(peer)
            elif peer.conn.state not in ("CLOSING", "CLOSED"):
                peer.goaway(Code.SHUTDOWN, self.now, retry_ms=DRAIN_RETRY_MS)

    def finish_drain(self) -> None:
        """The drain time is over: GOAWAY(SHUTDOWN) for those who are still there."""
        for peer in tuple(self.peers):
            if peer.conn.state == "DRAINING":
                peer.conn.finish_drain(self.now)
                self.touched(peer)

    def fail(self, error: Exception) -> None:
        """The store has failed: nothing is acknowledged any more (RW-PROMISE-7)."""
        if self.failed is not None:
            return
        self.failed = error
        for peer in tuple(self.peers):
            peer.goaway(Code.INTERNAL, self.now, retry_ms=DRAIN_RETRY_MS, text="the server failed")

    # --- the log for people

    def log_welcome(self, peer: Peer) -> None:
        """A client was let in."""
        log.info("client connected", extra={"peer": peer.address, "client": peer.name, "member": f"{peer.member:016x}"})

    def log_end(self, peer: Peer, event: ConnectionTerminated) -> None:
        """A connection ended, and why."""
        code = "" if event.code is None else code_name(event.code)
        extra = {"peer": peer.address, "client": peer.name, "code": code, "by_peer": event.by_peer, "text": event.text}
        log.info("client disconnected", extra=extra)


DRAIN_RETRY_MS = 1_000


def code_name(code: int) -> str:
    """A code for people, known or not."""
    return Code(code).name if code in Code.__members__.values() else str(code)
