"""JOIN and HISTORY: reading a room's log from a place in it (SPEC.md, sections 7.9, 7.18 and 9.1)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from protocol.errors import NameInvalid
from protocol.frames import History, HistoryEnd, Join, Joined
from protocol.names import key, normalise
from protocol.registry import Code, Flag
from reference_server.context import Context
from reference_server.cursor import join_point
from reference_server.limits import TokenBucket
from reference_server.peer import Peer
from reference_server.relay import message_octets
from reference_server.room import Room
from reference_server.store import Log, Record

FULL_RETRY_MS = 5_000

READ_AT_ONCE = 128
"""How many messages are read at once for HISTORY: the store's thread and ours share one interpreter."""


class Joiner:
    """Lets peers into rooms."""

    def __init__(self, hub: Context) -> None:
        self._hub = hub

    def join(self, peer: Peer, join: Join) -> None:
        """Answer JOIN, with the checks in the order of section 7.9."""
        hub, config = self._hub, self._hub.config
        try:
            name = normalise(join.name)
            room_key = key(name)
        except NameInvalid as error:
            peer.refuse(join, Code.NAME_INVALID, str(error))
            return
        room = hub.rooms.get(room_key)
        if room is not None and peer in room.members:  # RW-JOIN-1
            text = "you are in that room already"
            peer.refuse(join, Code.ALREADY_JOINED, text, room=room.ref)
            return
        if len(peer.memberships) >= config.max_rooms:  # RW-JOIN-2
            peer.refuse(join, Code.TOO_MANY_ROOMS, f"you may be in {config.max_rooms} rooms")
            return
        if room is not None and len(room.members) >= config.max_members:
            peer.refuse(join, Code.ROOM_FULL, "the room is full", FULL_RETRY_MS)
            return
        if room is None and len(hub.rooms) >= config.max_open_rooms:
            peer.refuse(join, Code.SERVER_FULL, "too many rooms are open", FULL_RETRY_MS)
            return
        if peer.join_bucket is None:
            peer.join_bucket = TokenBucket(config.join_burst, hub.now)
        wait_ms = peer.join_bucket.take(config.join_rate, config.join_burst, hub.now)
        if wait_ms:
            peer.refuse(join, Code.RATE_LIMITED, "too many joins at once", wait_ms)
            return
        if room is not None:
            self._enter(peer, join, room)
            return

        def start(done: Callable[[], None]) -> None:
            def opened(log: Log, _created: bool) -> None:
                self._opened(peer, join, log)
                done()

            hub.store.open(room_key, name, opened)

        peer.run(start)

    def _opened(self, peer: Peer, join: Join, log: Log) -> None:
        hub = self._hub
        room = hub.rooms.get(log.key)
        if room is not None:
            hub.store.release(log)  # somebody else opened it meanwhile; one room holds one log
        if peer.closing:
            if room is None:
                hub.store.release(log)
            return
        if room is None and not log.tail:
            code, wait_ms, text = Code.RATE_LIMITED, 0, "too many new rooms from your address"
            if not hub.config.create_rooms:
                code, text = Code.NO_SUCH_ROOM, "there is no such room"
            else:
                wait_ms = hub.addresses.create_room(peer.address, hub.now)
            if wait_ms or code == Code.NO_SUCH_ROOM:
                hub.store.release(log)
                peer.refuse(join, code, text, wait_ms)
                return
        self._enter(peer, join, room or hub.add_room(log))

    def _enter(self, peer: Peer, join: Join, room: Room) -> None:
        """JOINED and the attachment are one step (RW-CURSOR-3)."""
        log = room.log
        cap = self._hub.config.replay_messages
        start, gap = join_point(log.head, log.oldest, log.epoch, join.epoch, join.since, cap)
        wants_roster = bool(join.flags & Flag.ROSTER)
        member = room.attach(peer, start - 1, wants_roster)
        peer.memberships[room.ref] = member
        flags = (Flag.GAP if gap else 0) | (Flag.QUIET if room.quiet else 0)
        peer.conn.send(
            Joined(
                log.epoch, log.head, start, log.oldest, len(room.members), log.name,
                flags=flags, request=join.request, room=room.ref,
            )
        )  # fmt: skip
        if wants_roster and not room.quiet:
            peer.write_stream(room.roster())
        self._hub.tally.joins += 1
        self._hub.room_changed(room)


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
            count = min(len(records), max(1, conn.allowance))
            conn.allowance -= count
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
                self._log.read(after, min(self._end - 1 - after, READ_AT_ONCE), self._octets, self._portion)
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
        if kept and record.seq != kept[-1].seq + 1:  # trimmed meanwhile: what is left must have no hole
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
