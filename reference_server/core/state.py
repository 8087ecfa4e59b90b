"""What all parts of the server share: settings, clock, numbers, open rooms, and what is due at the end of a tick."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Protocol

from reference_server.accounts import Accounts
from reference_server.config import Config
from reference_server.core.clock import ServerClock
from reference_server.core.counters import Counters
from reference_server.core.credit import ReadyQueue
from reference_server.core.limits import AddressBook, Rates
from reference_server.core.room import Room
from reference_server.store.base import Log, Store


class Host(Protocol):
    """What drives the server."""

    def now(self) -> float:
        """Seconds of a steady clock."""

    def schedule_flush(self) -> None:
        """Have `Hub.flush` called at the end of this tick."""

    def schedule_credit(self) -> None:
        """Have `Hub.give_credit` called in `credit.ROUND_SECONDS`."""

    def drain(self) -> None:
        """Begin to end (section 8.6)."""


class Writer(Protocol):
    """A peer, as far as the end of a tick is concerned."""

    def settle(self) -> None:
        """Send the replies that are due."""

    def write_out(self, now: float) -> None:
        """Hand the transport what this tick made."""

    def give_credit(self, frames: int) -> None:
        """Go on with what exceeded the credit of a tick, up to this many frames."""


class Context:
    """The state that rooms, peers and requests have in common. `Hub` is the one that acts on it."""

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
        rates = Rates(
            (config.publish_rate, config.publish_burst),
            (config.join_rate, config.join_burst),
            (config.history_rate, config.history_burst),
        )
        self.addresses = AddressBook(
            config.address_connections, config.room_rate, config.auth_rate, rates, local=config.local_limits
        )
        self.accounts: Accounts | None = None  # None: this server has no accounts
        self.draining = False
        self.counters = Counters()
        self.rooms: dict[str, Room] = {}
        self.waiting: set[Writer] = set()  # peers whose next reply waits for a commit, or for its turn
        self.ready_queue = ReadyQueue(host.schedule_credit)
        self._touched: set[Writer] = set()
        self._changed: set[Room] = set()
        self._appended: set[str] = set()  # keys, for a room may be let go and loaded again before the commit is done
        self._scheduled = False
        self._next_ref = 0

    # --- time and numbers

    @property
    def now(self) -> float:
        """Seconds of a steady clock."""
        return self.host.now()

    def clock_ms(self, now: float) -> int:
        """The server's clock at `now`: UTC milliseconds."""
        return self._clock.ms(now)

    def new_member(self) -> int:
        """RW-WELCOME-1: 64 random bits, not 0."""
        return self._random_number() or 1

    def nonce(self) -> bytes:
        """192 random bits, in base64."""
        return base64.b64encode(b"".join(self._random_number().to_bytes(8, "big") for _ in range(3)))

    # --- rooms

    def add_room(self, log: Log) -> Room:
        """Load a room; its ref is never used again (RW-MODEL-7)."""
        self._next_ref += 1
        room = self.rooms[log.key] = Room(self._next_ref, log, self.config.quiet_members)
        return room

    def room_left(self, room: Room) -> None:
        """A member has left: the others are told, or the room is let go (RW-JOIN-3)."""
        if room.members:
            self.room_changed(room)
        elif self.rooms.get(room.key) is room:
            del self.rooms[room.key]
            self._changed.discard(room)
            self.counters.deliveries += room.delivered
            self.store.release(room.log)

    # --- the tick

    def touched(self, peer: Writer) -> None:
        """The peer may have something to write."""
        self._touched.add(peer)
        if not self._scheduled:
            self._schedule()

    def room_changed(self, room: Room) -> None:
        """Some member of the room may have something to receive."""
        self._changed.add(room)
        self._schedule()

    def appended(self, room: Room) -> None:
        """A message was appended to the room's log: it is committed at the end of the tick."""
        self.counters.appended += 1
        self._appended.add(room.key)
        if not self._scheduled:
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.host.schedule_flush()
