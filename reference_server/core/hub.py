"""The server without I/O and without a clock: what happens in a tick, at a time-out, and at the end.

A tick is one turn of the event loop. The server parses all that arrives in it, and proposes publishes to the rooms'
logs. At its end `flush` commits, sends the replies that are due, and hands each room's new octets to its members, in
one write each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from protocol.registry import Code
from reference_server.accounts import Accounts
from reference_server.config import Config
from reference_server.core.disk import DiskWatch
from reference_server.core.handlers import HANDLERS
from reference_server.core.handlers.join import DAMAGED_RETRY_MS
from reference_server.core.limits import Spent
from reference_server.core.peer import Link, Peer
from reference_server.core.retention import RetentionSweeper
from reference_server.core.state import Host, ServerState
from reference_server.store.base import Store, StoreError

log = logging.getLogger("roomwire.server")

REFUSED_AT_ONCE = 32
"""How many connections beyond the caps may wait to be told why they are refused."""

DRAIN_RETRY_MS = 1_000

SWEPT_AT_ONCE = 256
"""How many peers are looked at without a pause: a fraction of a millisecond."""


class Hub:
    """The server: its peers, and the tick. All parts of it share `state`."""

    def __init__(
        self, config: Config, store: Store, host: Host, random_number: Callable[[], int], address: str
    ) -> None:
        self.state = ServerState(config, store, host, random_number, address)
        store.on_damage = self._room_damaged
        store.on_stable = self._stable
        self.retention = RetentionSweeper(self.state)
        self.disk = DiskWatch(store)
        self.peers: set[Peer] = set()
        self._refused = 0  # peers that are only here to be told that the server is full
        self.failed: Exception | None = None

    @property
    def health(self) -> str:
        """ "serving", or why not: "draining", "failed", or "stuck" if the store does not answer."""
        if self.failed is not None:
            return "failed"
        if self.disk.stuck(self.state.now):
            return "stuck"
        return "draining" if self.state.draining else "serving"

    # --- peers

    def accept(self, link: Link, address: str) -> Peer:
        """Accept a connection. One beyond the caps gets as far as HELLO, to be told why it is refused.

        At most REFUSED_AT_ONCE can wait to be told; a further one is closed at once. So refused connections take
        neither descriptors nor places from others.
        """
        state = self.state
        allowed = state.addresses.connect(address) and len(self.peers) - self._refused < state.config.max_connections
        allowed = allowed and not state.draining  # RW-DRAIN-6: accepted just before the listener was closed
        peer = Peer(state, HANDLERS, self.peer_gone, link, address, full=not allowed)
        self.peers.add(peer)
        state.counters.accepted += 1
        if allowed:
            peer.publish_bucket, peer.join_bucket, peer.history_bucket = state.addresses.take_over(address)
        self._refused += peer.full
        if self._refused > REFUSED_AT_ONCE:
            peer.lost(state.now)
        return peer

    def peer_gone(self, peer: Peer) -> None:
        """The peer's link is closed."""
        state = self.state
        self.peers.discard(peer)
        self._refused -= peer.full
        state.unsettled.discard(peer)
        state.ready_queue.discard(peer)
        if peer.account:
            state.account_disconnected(peer.account)
        spent = Spent(peer.publish_bucket, peer.join_bucket, peer.history_bucket)
        state.addresses.disconnect(peer.address, spent, state.now)

    # --- accounts

    def use_accounts(self, accounts: Accounts | None) -> None:
        """Use these accounts from now on. Close connections whose account was removed or whose password changed
        (RW-SASL-8)."""
        before, self.state.accounts = self.state.accounts, accounts
        self.state.accounts_current = True
        for peer in tuple(self.peers) if before is not None else ():
            if not peer.account:
                continue
            old = before.find(peer.account) if before else None
            new = accounts.find(peer.account) if accounts else None
            if old is None or new is None or old.keys != new.keys:
                log.info("account revoked", extra={"peer": peer.address, "client": peer.name})
                text = "the account was removed, or has another password"
                peer.goaway(Code.ACCOUNT_REVOKED, self.state.now, text=text)

    def keep_accounts(self) -> None:
        """There are accounts that cannot be read: keep the old ones. If there were none, nobody can log in, and guests
        get a ~ from now on."""
        if self.state.accounts is None:
            self.use_accounts(Accounts.none(self.state.nonce()))
        self.state.accounts_current = False

    # --- rooms

    def _room_damaged(self, key: str, error: StoreError) -> None:
        """Close the room until the store is repaired; the others go on."""
        state = self.state
        if key not in state.damaged_rooms:
            state.damaged_rooms.add(key)
            text = "a room is damaged, and closed until roomwire-server verify --repair"
            log.error(text, extra={"room": key, "error": str(error)})
        room = state.rooms.get(key)
        if room is None:
            return
        for member in tuple(room.members.values()):
            room.evict(member, Code.ROOM_CLOSED, DAMAGED_RETRY_MS, "the room's log is damaged")

    # --- the tick

    def flush(self) -> None:
        """End a tick."""
        state = self.state
        state.flush_scheduled = False
        if self.failed is not None:
            self._write_out()
            return
        if state.proposals:
            state.proposals = False
            self._commit()
        if state.unsettled:
            self._settle()
        self._flush_rooms()
        self._write_out()

    def give_credit(self) -> None:
        """Let some of the peers go on that used up their credit in an earlier tick."""
        self.state.ready_queue.give_credit()

    def _commit(self) -> None:
        counters, begun = self.state.counters, self.state.now
        before = counters.appended
        self.state.store.commit()
        if counters.appended != before:
            self.disk.commit_begun(begun, counters.appended)
            self._stable(0)

    def _stable(self, count: int) -> None:
        """So many messages have become stable: their ACKs go first (RW-PROMISE-11), then the streams."""
        state, counters = self.state, self.state.counters
        if count:
            counters.stable += count
            counters.commit_messages.observe(count)
        for begun in self.disk.commits_ended(counters.stable):
            counters.commit_seconds.observe(state.now - begun)
        state.schedule_flush()

    def _settle(self) -> None:
        unsettled, self.state.unsettled = self.state.unsettled, set()
        for peer in unsettled:
            peer.settle()

    def _flush_rooms(self) -> None:
        changed, self.state.changed_rooms = self.state.changed_rooms, set()
        for room in changed:
            if not room.flush():
                self.state.room_changed(room)
            room.trim_tail()

    def _write_out(self) -> None:
        now = self.state.now
        unwritten, self.state.unwritten = self.state.unwritten, set()
        for peer in unwritten:
            peer.write_out(now)

    # --- time-outs and housekeeping

    def sweep(self) -> Iterator[None]:
        """Do what is due by now; to be exhausted several times in a heartbeat and in the shortest time-out.

        It yields often, so that the caller can serve clients between two of ten thousand peers.
        """
        now = self.state.now
        for number, peer in enumerate(tuple(self.peers), 1):
            if not peer.gone:
                peer.sweep(now)
            if number % SWEPT_AT_ONCE == 0:
                yield
                now = self.state.now
        if self.failed is None:
            self.retention.check_clock(now, alone=not self.peers)
            yield from self.retention.sweep(now)

    # --- the end

    def drain(self) -> None:
        """Begin to drain: tell every client, and answer what it still asks (section 8.6)."""
        state = self.state
        state.draining = True
        for peer in tuple(self.peers):
            if peer.conn.state == "OPEN":
                peer.conn.drain(DRAIN_RETRY_MS, state.config.jitter_ms, "the server is about to end")
                state.touched(peer)
            elif peer.conn.state not in ("CLOSING", "CLOSED"):
                peer.goaway(Code.SHUTDOWN, state.now, retry_ms=DRAIN_RETRY_MS)

    def finish_drain(self) -> None:
        """The drain time is over: send GOAWAY(SHUTDOWN) to the clients that are still there."""
        for peer in tuple(self.peers):
            if peer.conn.state == "DRAINING":
                peer.conn.finish_drain(self.state.now)
                self.state.touched(peer)

    def fail(self, error: Exception) -> None:
        """The store has failed: from now on nothing is acknowledged (RW-PROMISE-7)."""
        if self.failed is not None:
            return
        self.failed = error
        for peer in tuple(self.peers):
            peer.goaway(Code.INTERNAL, self.state.now, retry_ms=DRAIN_RETRY_MS, text="the server failed")
