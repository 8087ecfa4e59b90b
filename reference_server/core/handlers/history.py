"""HISTORY: pages of a room's log, read and sent in portions (SPEC.md, section 7.18)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from protocol.frames import History, HistoryEnd
from protocol.registry import Code, Flag
from reference_server.core.credit import MESSAGE_COST
from reference_server.core.handlers.join import DAMAGED_RETRY_MS
from reference_server.core.limits import TokenBucket
from reference_server.core.messages import message_octets
from reference_server.core.peer import Peer
from reference_server.store.base import Log, Record

READ_AT_ONCE = 128
"""How many messages are read at once: the store's thread shares the interpreter with the event loop."""


def history(peer: Peer, frame: History, now: float) -> None:
    """Answer HISTORY, with the checks in the order of section 7.18."""
    if frame.end and frame.end < frame.start:  # RW-HISTORY-4
        text = f"end: expected at least start ({frame.start}) or 0, found {frame.end}"
        peer.refuse(frame, Code.RANGE_INVALID, text)
        return
    member = peer.memberships.get(frame.room)
    if member is None:
        peer.refuse(frame, Code.NOT_JOINED, "you are not in that room")
        return
    log, config = member.room.log, peer.state.config
    if peer.history_bucket is None:
        peer.history_bucket = TokenBucket(config.history_burst, now)
    wait_ms = peer.history_bucket.take(config.history_rate, config.history_burst, now)
    if wait_ms:
        peer.refuse(frame, Code.RATE_LIMITED, "too much history at once", wait_ms)
        return
    low = min(max(frame.start, log.oldest), log.head + 1)
    high = max(low, min(frame.end or log.head + 1, log.head + 1))
    limit = min(frame.limit or config.history_messages, config.history_messages)
    newest = bool(frame.flags & Flag.NEWEST)
    first, end = (max(low, high - limit), high) if newest else (low, min(high, low + limit))

    def start(done: Callable[[], None]) -> None:
        def collected(records: deque[Record]) -> None:
            if log.key in peer.state.damaged_rooms:
                if not peer.closing:
                    peer.refuse(frame, Code.UNAVAILABLE, "the room's log is damaged", DAMAGED_RETRY_MS)
                done()
                return
            _Reply(peer, frame, log, records, (low, high), done).go_on()

        _Reading(log, end, config.history_octets, newest, collected).start(first)

    peer.run(start)


class _Reply:
    """Sends what was read, as the client's credit allows, so that others are served in between. The server holds one
    such reply for a client, not all that the client asked for (RW-LAG-1)."""

    __slots__ = ("_done", "_frame", "_log", "_peer", "_records", "_sent", "_whole")

    def __init__(
        self,
        peer: Peer,
        frame: History,
        log: Log,
        records: deque[Record],
        whole: tuple[int, int],
        done: Callable[[], None],
    ) -> None:
        self._peer, self._frame, self._log, self._records, self._done = peer, frame, log, records, done
        self._whole = whole
        self._sent = (records[0].seq, records[-1].seq + 1) if records else (whole[0], whole[0])

    def go_on(self) -> None:
        """Send as much as the credit of this tick allows, and the rest in later ticks."""
        peer, records = self._peer, self._records
        if not peer.closing:
            conn, ref, request = peer.conn, self._frame.room, self._frame.request
            count = min(len(records), max(1, conn.credit // MESSAGE_COST))
            conn.credit -= count * MESSAGE_COST
            if count:
                octets = [message_octets(records.popleft(), ref, request) for _ in range(count)]
                conn.send_part(request, b"".join(octets))
            if records:
                peer.when_writable(self.go_on)
                return
            more = 0 if self._sent == self._whole else Flag.MORE  # RW-HISTORY-5
            conn.send(HistoryEnd(*self._sent, self._log.oldest, flags=more, request=request, room=ref))
        peer.when_writable(self._done)


class _Reading:
    """Reads [first, end), and keeps about `octets` of it, but at least one record: the first ones, or the `newest`.

    It is an object because functions within each other would refer to each other, and what they have read would stay
    until the garbage collector runs.
    """

    __slots__ = ("_ahead", "_busy", "_done", "_end", "_kept", "_log", "_newest", "_octets", "_size")

    def __init__(self, log: Log, end: int, octets: int, newest: bool, done: Callable[[deque[Record]], None]) -> None:
        self._log, self._end, self._octets, self._newest, self._done = log, end, octets, newest, done
        self._kept: deque[Record] = deque()
        self._size = 0
        self._ahead: deque[int] = deque()  # where the next portion begins
        self._busy = False

    def start(self, first: int) -> None:
        """Read, and hand to `done` what is kept."""
        if first < self._end:
            self._read(first - 1)
        else:
            self._done(self._kept)

    def _read(self, after: int) -> None:
        ahead = self._ahead
        ahead.append(after)
        if not self._busy:  # else the store has answered at once: the loop that is running reads on
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
        """Keep a record; whether that is all."""
        kept, size = self._kept, len(record.payload) + len(record.fields)
        if kept and record.seq != kept[-1].seq + 1:  # trimmed meanwhile: the reply must have no hole
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
