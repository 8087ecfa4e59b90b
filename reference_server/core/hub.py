"""The server without I/O and without a clock: what happens in a tick, at a time-out, and at the end.

A tick is one turn of the event loop. Whatever arrives in it is parsed, sequenced and appended to the logs of rooms; at
its end `flush` commits, answers what became stable, and hands each room's new octets to its members, one write each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from protocol.registry import Code
from reference_server.accounts import Accounts
from reference_server.config import Config
from reference_server.core.handlers import Requests
from reference_server.core.limits import Spent
from reference_server.core.peer import Link, Peer
from reference_server.core.retention import RetentionSweeper
from reference_server.core.state import Context, Host
from reference_server.store.base import Store

log = logging.getLogger("roomwire.server")

REFUSED_AT_ONCE = 32
"""How many connections beyond the caps may be there to be told so."""

DRAIN_RETRY_MS = 1_000

SWEPT_AT_ONCE = 256
"""How many peers are looked at without a pause: a fraction of a millisecond."""


class Hub(Context):
    """The server: its context, its peers, and the tick."""

    def __init__(
        self, config: Config, store: Store, host: Host, wall_ms: int, random_number: Callable[[], int], address: str
    ) -> None:
        super().__init__(config, store, host, wall_ms, random_number, address)
        self.requests = Requests(self)
        self.retention = RetentionSweeper(self)
        self.peers: set[Peer] = set()
        self._refused = 0  # peers that are here only to be told that there is no room for them
        self.failed: Exception | None = None

    # --- peers

    def accept(self, link: Link, address: str) -> Peer:
        """A new connection. One beyond the caps is let in as far as HELLO, to be told why it is refused.

        There is room to tell that to a few: where too many wait to be told, or just wait, the peer is gone at once. So
        they can keep neither descriptors nor the places of others.
        """
        allowed = self.addresses.connect(address) and len(self.peers) - self._refused < self.config.max_connections
        allowed = allowed and not self.draining  # RW-DRAIN-6: accepted just before the listener was closed
        peer = Peer(self, self.requests, self.peer_gone, link, address, full=not allowed)
        self.peers.add(peer)
        self.counters.accepted += 1
        if allowed:
            peer.publish_bucket, peer.join_bucket, peer.history_bucket = self.addresses.take_over(address)
        self._refused += peer.full
        if self._refused > REFUSED_AT_ONCE:
            peer.lost(self.now)
        return peer

    def peer_gone(self, peer: Peer) -> None:
        """The peer's link is closed."""
        self.peers.discard(peer)
        self._refused -= peer.full
        self.waiting.discard(peer)
        self.ready_queue.discard(peer)
        self.requests.gone(peer)
        spent = Spent(peer.publish_bucket, peer.join_bucket, peer.history_bucket)
        self.addresses.disconnect(peer.address, spent, self.now)

    # --- accounts

    def use_accounts(self, accounts: Accounts | None) -> None:
        """Let in who has one of these accounts from now on. Whose account is gone, or has another password, is sent
        away (RW-SASL-8)."""
        before, self.accounts = self.accounts, accounts
        for peer in tuple(self.peers) if before is not None else ():
            if not peer.account:
                continue
            old = before.find(peer.account) if before else None
            new = accounts.find(peer.account) if accounts else None
            if old is None or new is None or old.keys != new.keys:
                log.info("account revoked", extra={"peer": peer.address, "client": peer.name})
                peer.goaway(Code.ACCOUNT_REVOKED, self.now, text="the account was removed, or has another password")

    # --- the tick

    def flush(self) -> None:
        """The end of a tick."""
        self._scheduled = False
        if self.failed is not None:
            self._write_out()
            return
        if self._appended:
            appended, self._appended = self._appended, set()
            count, begun = self.counters.appended, self.now
            self.store.commit(lambda: self._committed(appended, count, begun))
        if self.waiting:
            self._settle()
        self._flush_rooms()
        self._write_out()

    def give_credit(self) -> None:
        """Let some of the peers go on that used up their credit in an earlier tick."""
        self.ready_queue.give_credit()

    def _committed(self, appended: set[str], count: int, begun: float) -> None:
        """What was appended up to some tick is stable now: ACKs first (RW-PROMISE-11), then the streams."""
        self.counters.committed(count, self.now - begun)
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

    @property
    def health(self) -> str:
        """ "serving", or why not: "draining" or "failed"."""
        if self.failed is not None:
            return "failed"
        return "draining" if self.draining else "serving"

    # --- time-outs and housekeeping

    def sweep(self) -> Iterator[None]:
        """What time has brought, to be exhausted several times in a heartbeat and in the shortest time-out.

        It yields often, so that whoever has something to do at once can do it between two of ten thousand peers.
        """
        now = self.now
        for number, peer in enumerate(tuple(self.peers), 1):
            if not peer.gone:
                peer.sweep(now)
            if number % SWEPT_AT_ONCE == 0:
                yield
                now = self.now
        if self.failed is None:
            yield from self.retention.sweep(now)

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
