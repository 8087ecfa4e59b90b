"""HISTORY: pages of a room's log, read and told in portions (SPEC.md, section 7.18)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from protocol.frames import History, HistoryEnd
from protocol.registry import Code, Flag
from reference_server.core.credit import MESSAGE_COST
from reference_server.core.limits import TokenBucket
from reference_server.core.messages import message_octets
from reference_server.core.peer import Peer
from reference_server.core.state import Context
from reference_server.store.base import Log, Record

READ_AT_ONCE = 128
"""How many messages are read at once: the store's thread and ours share one interpreter."""


class Historian:
    """Pages of a room's log."""

    def __init__(self, hub: Context) -> None:
        self._hub = hub

    def history(self, peer: Peer, history: History) -> None:
        """Answer HISTORY."""
        if history.end and history.end < history.start:  # RW-HISTORY-4
            text = f"end: expected at least start ({history.start}) or 0, found {history.end}"
            peer.refuse(history, Code.RANGE_INVALID, text)
            return
        member = peer.memberships.get(history.room)
        if member is None:
            peer.refuse(history, Code.NOT_JOINED, "you are not in that room")
            return
        log, config, now = member.room.log, self._hub.config, self._hub.now
        if peer.history_bucket is None:
            peer.history_bucket = TokenBucket(config.history_burst, now)
        wait_ms = peer.history_bucket.take(config.history_rate, config.history_burst, now)
        if wait_ms:
            peer.refuse(history, Code.RATE_LIMITED, "too much history at once", wait_ms)
            return
        low = min(max(history.start, log.oldest), log.head + 1)
        high = max(low, min(history.end or log.head + 1, log.head + 1))
        limit = min(history.limit or config.history_messages, config.history_messages)
        newest = bool(history.flags & Flag.NEWEST)
        first, end = (max(low, high - limit), high) if newest else (low, min(high, low + limit))

        def start(done: Callable[[], None]) -> None:
            def collected(records: deque[Record]) -> None:
                _Answer(peer, history, log, records, (low, high), done).go_on()

            _Reading(log, end, config.history_octets, newest, collected).start(first)

        peer.run(start)


class _Answer:
    """Tells one answer to HISTORY, in the turns of its client: others have theirs in between. One such answer is held
    for a client, not all that it asked for (RW-LAG-1)."""

    __slots__ = ("_done", "_history", "_log", "_peer", "_records", "_sent", "_whole")

    def __init__(
        self,
        peer: Peer,
        history: History,
        log: Log,
        records: deque[Record],
        whole: tuple[int, int],
        done: Callable[[], None],
    ) -> None:
        self._peer, self._history, self._log, self._records, self._done = peer, history, log, records, done
        self._whole = whole
        self._sent = (records[0].seq, records[-1].seq + 1) if records else (whole[0], whole[0])

    def go_on(self) -> None:
        """Tell as much as may be told in this tick, and the rest in later ones."""
        peer, records = self._peer, self._records
        if not peer.closing:
            conn, ref, request = peer.conn, self._history.room, self._history.request
            count = min(len(records), max(1, conn.credit // MESSAGE_COST))
            conn.credit -= count * MESSAGE_COST
            if count:
                octets = [message_octets(records.popleft(), ref, request) for _ in range(count)]
                conn.send_part(request, b"".join(octets))
            if records:
                peer.when_taken(self.go_on)
                return
            more = 0 if self._sent == self._whole else Flag.MORE  # RW-HISTORY-5
            conn.send(HistoryEnd(*self._sent, self._log.oldest, flags=more, request=request, room=ref))
        peer.when_taken(self._done)


class _Reading:
    """Reads [first, end), of which about `octets` are kept, but at least one record: the first ones, or the `newest`.

    An object rather than functions within each other: these refer to each other, and what they have read would stay
    until the collector comes.
    """

    __slots__ = ("_ahead", "_busy", "_done", "_end", "_kept", "_log", "_newest", "_octets", "_size")

    def __init__(self, log: Log, end: int, octets: int, newest: bool, done: Callable[[deque[Record]], None]) -> None:
        self._log, self._end, self._octets, self._newest, self._done = log, end, octets, newest, done
        self._kept: deque[Record] = deque()
        self._size = 0
        self._ahead: deque[int] = deque()  # where the next portion begins
        self._busy = False

    def start(self, first: int) -> None:
        """Read, and hand what is kept to `done`."""
        if first < self._end:
            self._read(first - 1)
        else:
            self._done(self._kept)

    def _read(self, after: int) -> None:
        ahead = self._ahead
        ahead.append(after)
        if not self._busy:  # else the store has answered at once: a portion is not read within another
            self._busy = True
            while ahead:
                after = ahead.popleft()
                octets = self._octets if self._newest else max(1, self._octets - self._size)
                self._log.read(after, min(self._end - 1 - after, READ_AT_ONCE), octets, self._portion)
            self._busy = False

    def _portion(self, records: list[Record]) -> None:
        full = not records
        for record in records:
            full = self._keep(record)
            if full:
                break
        if full or self._kept[-1].seq + 1 >= self._end:
            self._done(self._kept)
        else:
            self._read(self._kept[-1].seq)

    def _keep(self, record: Record) -> bool:
        """Whether that is all."""
        kept, size = self._kept, len(record.payload) + len(record.fields)
        if kept and record.seq != kept[-1].seq + 1:  # trimmed meanwhile: what is told must have no hole
            if not self._newest:
                return True
            kept.clear()
            self._size = 0
        if record.seq >= self._end or (kept and not self._newest and self._size + size > self._octets):
            return True
        kept.append(record)
        self._size += size
        while len(kept) > 1 and self._size > self._octets:
            oldest = kept.popleft()
            self._size -= len(oldest.payload) + len(oldest.fields)
        return False
