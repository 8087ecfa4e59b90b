"""A room: a log, and members that are cursors into it (SPEC.md, sections 3 and 9).

Nothing is queued for a member. `flush` hands each member that can be written to what the log holds after its cursor:
the same octets to all members whose cursor is the same.
"""

from __future__ import annotations

from typing import Protocol

from protocol.codec import encode
from protocol.connection import retry_flag
from protocol.frames import Evicted, Presence, Roster, RosterEntry
from protocol.registry import HELLO_MAX_BODY, Code, Flag, PresenceKind
from reference_server.core.credit import PORTION_OCTETS, READS_AT_ONCE
from reference_server.core.messages import message_octets
from reference_server.store.base import Log, Record

TAIL_OCTETS = 1024 * 1024
"""How many octets of a room's newest messages are held encoded while some member is behind; the store reads older
ones."""

READ_TAIL_OCTETS = 64 * 1024
"""How many octets of them are held when all members have read them, for clients that come back in a moment."""

READ_MESSAGES = 512
"""How many records are read from the store at once."""


class Subscriber(Protocol):
    """A peer, as far as a room needs it: what PRESENCE says of it, whether it can take more, and how to write to it."""

    member: int
    name: str
    account: str
    writable: bool
    reads: int
    """Portions that the store is reading for it."""
    output_full: bool
    """It is handed no more messages in this tick."""
    output_pending: bool
    """Some room has more for it, and left it out because of that."""

    def write_stream(self, octets: bytes) -> None:
        """Write frames of a room's stream."""

    def read_done(self, room: Room) -> None:
        """The store has read what it was behind in `room`."""

    def evicted(self, member: Member, octets: bytes) -> None:
        """Its membership has ended; `octets` are the EVICTED."""


class Member:
    """One peer's place in one room."""

    __slots__ = (
        "attached",
        "cursor",
        "peer",
        "presence_from",
        "reading",
        "refused",
        "room",
        "roster_stale",
        "wants_roster",
    )

    def __init__(self, peer: Subscriber, room: Room, cursor: int, wants_roster: bool) -> None:
        self.peer = peer
        self.room = room
        self.cursor = cursor
        self.wants_roster = wants_roster
        self.attached = True
        self.reading = False  # records for it are being read from the store
        self.refused = False  # the last publish of this membership was (RW-ORDER-1): `store.base.Chain`
        self.roster_stale = False  # PRESENCE was left out (RW-ROSTER-3)
        self.presence_from = 0


class Room:
    """A room that is loaded: it has members, or had until a moment ago."""

    __slots__ = (
        "_behind",
        "_presence",
        "_tail",
        "_tail_first",
        "_tail_octets",
        "delivered",
        "key",
        "log",
        "members",
        "quiet",
        "quiet_above",
        "ref",
    )

    def __init__(self, ref: int, log: Log, quiet_above: int) -> None:
        self.ref = ref
        self.log = log
        self.key = log.key
        self.quiet_above = quiet_above
        self.quiet = False
        self.delivered = 0  # messages handed to members
        self.members: dict[Subscriber, Member] = {}
        self._tail: list[bytes] = []  # encoded MESSAGEs, the first of which has the seq _tail_first
        self._tail_first = log.head + 1
        self._tail_octets = 0
        self._behind = False  # some member has not been handed all stable messages
        self._presence: list[bytes] = []  # of this tick

    # --- the newest messages

    def moved(self, records: list[Record]) -> None:
        """Hold the MESSAGEs of what has become stable: encoded once, the same for all members (RW-MODEL-2)."""
        ref = self.ref
        octets = [message_octets(record, ref) for record in records]
        self._tail += octets
        self._tail_octets += sum(map(len, octets))

    def trim_tail(self) -> None:
        """Drop the oldest encoded messages, down to half of what may be held."""
        limit = TAIL_OCTETS if self._behind else min(TAIL_OCTETS, READ_TAIL_OCTETS)
        if self._tail_octets <= limit:
            return
        count = 0
        while self._tail_octets > limit // 2:
            self._tail_octets -= len(self._tail[count])
            count += 1
        del self._tail[:count]
        self._tail_first += count

    # --- members

    def attach(self, peer: Subscriber, cursor: int, wants_roster: bool) -> Member:
        """Make `peer` a member whose stream begins after `cursor`. The others are told (RW-PRESENCE-4)."""
        member = Member(peer, self, cursor, wants_roster)
        self.members[peer] = member
        if not self.quiet:
            if len(self.members) > self.quiet_above:
                self.quiet = True
                self._presence.append(self._quiet_presence())
            else:
                self._presence.append(self._presence_of(peer, PresenceKind.JOINED))
        member.presence_from = len(self._presence)
        return member

    def detach(self, member: Member, kind: PresenceKind | None) -> None:
        """End a membership; the others are told unless `kind` is None (RW-DRAIN-5)."""
        member.attached = False
        del self.members[member.peer]
        if not self.members:
            self.quiet = False
            self._presence.clear()
        elif kind is not None and not self.quiet:
            self._presence.append(self._presence_of(member.peer, kind))

    def _presence_of(self, peer: Subscriber, kind: PresenceKind) -> bytes:
        flags = Flag.VERIFIED if peer.account else 0
        return encode(Presence(kind, peer.member, peer.name, flags=flags, room=self.ref))

    def _quiet_presence(self) -> bytes:
        return encode(Presence(PresenceKind.QUIET, 0, "", room=self.ref))

    def roster(self) -> bytes:
        """ROSTER frames with the members as they are now (RW-ROSTER-2)."""
        entries = [RosterEntry(p.member, Flag.VERIFIED if p.account else 0, p.name) for p in self.members]
        per_frame = (HELLO_MAX_BODY - 2) // 74  # an entry has at most 74 octets, so that any max_body will do
        chunks = [entries[at : at + per_frame] for at in range(0, len(entries), per_frame)] or [[]]
        frames = []
        for index, chunk in enumerate(chunks):
            flags = (0 if index else Flag.RESET) | (Flag.MORE if index + 1 < len(chunks) else 0)
            frames.append(encode(Roster(tuple(chunk), flags=flags, room=self.ref)))
        return b"".join(frames)

    def evict(self, member: Member, code: Code, retry_ms: int = 0, text: str = "") -> None:
        """End a membership by the server's will."""
        self.detach(member, PresenceKind.LEFT)  # RW-PRESENCE-3
        member.peer.evicted(member, encode(Evicted(code, retry_ms, text, flags=retry_flag(code), room=self.ref)))

    # --- delivery

    def flush(self) -> bool:
        """Hand every member that can take it what comes after its cursor. False if some can take more at once."""
        presence, self._presence = self._presence, []
        head = self.log.head
        portions: dict[int, tuple[int, bytes]] = {}  # what comes after a cursor: the next cursor, and octets
        suffixes: dict[int, bytes] = {}  # octets of `presence` from an index on
        done = True
        delivered = 0
        self._behind = False
        for member in tuple(self.members.values()):
            peer, cursor = member.peer, member.cursor
            if not peer.writable:
                self._skip(member, presence, head)
                continue
            if cursor < head and not member.reading:
                if peer.output_full:
                    peer.output_pending = True
                else:
                    portion = portions.get(cursor)
                    if portion is None:
                        portion = portions[cursor] = self._portion(cursor, head)
                    if portion[1]:
                        delivered += portion[0] - cursor
                        member.cursor = portion[0]
                        peer.write_stream(portion[1])
                        done = done and portion[0] == head
                    else:
                        self._read_behind(member)
                        if not member.attached:  # the store answered at once, and the messages were gone
                            continue
            if presence:
                self._write_presence(member, presence, suffixes)
            self._behind = self._behind or member.cursor < head
            if member.roster_stale:
                self._repair_roster(member)
        self.delivered += delivered
        return done

    def _skip(self, member: Member, presence: list[bytes], head: int) -> None:
        """The member cannot be written to: its stream waits at its cursor, PRESENCE is left out (RW-ROSTER-3)."""
        self._behind = self._behind or member.cursor < head
        if len(presence) > member.presence_from:
            member.roster_stale = True
        member.presence_from = 0

    def _write_presence(self, member: Member, presence: list[bytes], suffixes: dict[int, bytes]) -> None:
        """Tell the member who came and left since it joined."""
        start = member.presence_from
        if start < len(presence):
            octets = suffixes.get(start)
            if octets is None:
                octets = suffixes[start] = b"".join(presence[start:])
            member.peer.write_stream(octets)
        member.presence_from = 0

    def _portion(self, cursor: int, head: int) -> tuple[int, bytes]:
        """(new cursor, octets) from the encoded tail; no octets when the tail begins later."""
        start = cursor + 1 - self._tail_first
        if start < 0:
            return cursor, b""
        end = head + 1 - self._tail_first
        tail = self._tail
        octets = b"".join(tail[start : min(end, start + 256)])
        if end - start <= 256 and len(octets) <= PORTION_OCTETS:
            return head, octets
        size, at = 0, start
        while at < end and size < PORTION_OCTETS:
            size += len(tail[at])
            at += 1
        return self._tail_first + at - 1, b"".join(tail[start:at])

    def _read_behind(self, member: Member) -> None:
        """Have the store read for one member what is no longer in the encoded tail."""
        peer, cursor = member.peer, member.cursor
        member.reading = True
        peer.reads += 1
        peer.output_full = peer.output_full or peer.reads >= READS_AT_ONCE

        def done(records: list[Record]) -> None:
            member.reading = False
            peer.read_done(self)
            if not member.attached:
                return
            if not records or records[0].seq != cursor + 1:
                self.evict(member, Code.LAGGED, text="messages after your cursor are gone")  # RW-LAG-3
            else:
                member.cursor = records[-1].seq
                self.delivered += len(records)
                peer.write_stream(b"".join([message_octets(record, self.ref) for record in records]))

        self.log.read(cursor, READ_MESSAGES, PORTION_OCTETS, done)

    def _repair_roster(self, member: Member) -> None:
        """RW-ROSTER-3: after PRESENCE was left out send a roster, or that the room is quiet and has none."""
        member.roster_stale = False
        if self.quiet:
            member.peer.write_stream(self._quiet_presence())  # RW-QUIET-1
        elif member.wants_roster:
            member.peer.write_stream(self.roster())
