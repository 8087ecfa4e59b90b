"""The state that all parts of the server share: settings, clock, numbers, open rooms, what the tick's end has to do."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from protocol.registry import CONTENT_RESERVE
from reference_server.accounts import Accounts
from reference_server.config import Config
from reference_server.core.clock import AHEAD_MS, ServerClock
from reference_server.core.counters import Counters
from reference_server.core.credit import ReadyQueue
from reference_server.core.limits import AddressBook, Rates
from reference_server.core.room import Room
from reference_server.store.base import Log, Record, Store, ignore
from reference_server.store.progress import Progress


class Host(Protocol):
    """What drives the server."""

    def now(self) -> float:
        """Seconds of a steady clock."""

    def schedule_flush(self) -> None:
        """Have `Hub.flush` called at the end of this tick."""

    def schedule_credit(self) -> None:
        """Have `Hub.give_credit` called in `credit.ROUND_SECONDS`."""

    def wall_ms(self) -> int:
        """The wall clock: UTC milliseconds. It may step at any time."""

    def drain(self) -> None:
        """Begin to drain (section 8.6)."""


class Writer(Protocol):
    """A peer, as far as the end of a tick needs it."""

    def settle(self) -> None:
        """Send the replies that are due."""

    def write_out(self, now: float) -> None:
        """Hand the transport what this tick made."""

    def give_credit(self, frames: int) -> None:
        """Go on with what exceeded the credit of a tick, up to this many frames."""


class ServerState:
    """What the parts of one server know in common. `Hub` empties the sets of what the tick's end has to do.

    `random_number` returns 64 random bits; `address` is where the server listens.
    """

    def __init__(
        self, config: Config, store: Store, host: Host, random_number: Callable[[], int], address: str
    ) -> None:
        self.config = config
        self.times = config.times
        self.store = store
        self.max_body = store.raise_max_body(config.max_body)
        self.content_limit = self.max_body - CONTENT_RESERVE  # octets of payload and relayed fields (RW-PUBLISH-1)
        self.host = host
        self.address = address
        self._random_number = random_number
        self.start_clock(store.progress)
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
        self.accounts_current = True  # as they are in their file
        self.account_connections: Counter[str] = Counter()  # by the accounts' keys
        self.draining = False
        self.counters = Counters()
        self.rooms: dict[str, Room] = {}
        self.damaged_rooms: set[str] = set()  # their keys
        self._next_ref = 0

        self.ready_queue = ReadyQueue(host.schedule_credit)
        self.unsettled: set[Writer] = set()  # peers whose next reply waits for a commit, or for credit
        self.unwritten: set[Writer] = set()  # peers that may have something to write
        self.changed_rooms: set[Room] = set()  # rooms some members of which may have something to receive
        self.proposals = False  # whether some log has any, for the store to commit
        self.flush_scheduled = False

    # --- time and numbers

    def start_clock(self, progress: Progress) -> None:
        """Read the wall clock: at the start, or while no client is connected."""
        span_ms = max(self.config.retention_ms, self.config.dedupe_ms + AHEAD_MS)
        progress = progress.settled(self.store.last_time_ms)
        self.clock = ServerClock(self.host.wall_ms(), progress, span_ms, self.now)
        self.note_clock()

    def note_clock(self) -> None:
        """Have the store keep how far the time has come."""
        self.clock_noted = self.now
        self.store.note_clock(self.clock.progress(self.clock_noted, self.store.last_time_ms))

    @property
    def now(self) -> float:
        """Seconds of a steady clock."""
        return self.host.now()

    def new_member(self) -> int:
        """RW-WELCOME-1: 64 random bits, not 0."""
        return self._random_number() or 1

    def nonce(self) -> bytes:
        """192 random bits, in base64."""
        return base64.b64encode(b"".join(self._random_number().to_bytes(8, "big") for _ in range(3)))

    # --- rooms and accounts

    def add_room(self, log: Log) -> Room:
        """Load a room; its ref is never used again (RW-MODEL-7)."""
        self._next_ref += 1
        room = self.rooms[log.key] = Room(self._next_ref, log, self.config.quiet_members)

        def moved(records: list[Record]) -> None:
            room.moved(records)
            self.room_changed(room)

        log.moved = moved
        return room

    def room_left(self, room: Room) -> None:
        """A member has left: tell the others, or unload the empty room (RW-JOIN-3)."""
        if room.members:
            self.room_changed(room)
        elif self.rooms.get(room.key) is room:
            del self.rooms[room.key]
            self.changed_rooms.discard(room)
            self.counters.deliveries += room.delivered
            room.log.moved = ignore
            self.store.release(room.log)

    def account_disconnected(self, key: str) -> None:
        """A connection of the account has ended (RW-SASL-10)."""
        self.account_connections[key] -= 1
        if not self.account_connections[key]:
            del self.account_connections[key]

    # --- what the end of the tick has to do

    def touched(self, peer: Writer) -> None:
        """The peer may have something to write."""
        self.unwritten.add(peer)
        if not self.flush_scheduled:
            self.schedule_flush()

    def room_changed(self, room: Room) -> None:
        """Some members of the room may have something to receive."""
        self.changed_rooms.add(room)
        self.schedule_flush()

    def proposed(self) -> None:
        """Something was proposed to a room's log: the end of the tick commits it."""
        self.proposals = True
        if not self.flush_scheduled:
            self.schedule_flush()

    def schedule_flush(self) -> None:
        """Have the tick end."""
        if not self.flush_scheduled:
            self.flush_scheduled = True
            self.host.schedule_flush()
