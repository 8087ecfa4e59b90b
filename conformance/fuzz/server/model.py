"""What a server may do: its rooms, logs, cursors, ids, presence and limits, as far as a client can know them.

The model is told of every frame of every connection of a script. As soon as what a server says does not fit, it names
the broken requirement. It has no I/O. It accepts what MAY happen: refusals for lack of capacity, a gap because of a
small replay cap, logs that were trimmed, a volatile log that starts again while the room is empty.
"""

from dataclasses import dataclass, field
from typing import Protocol

from conformance.fuzz.failure import Content, fail
from conformance.server.invariants import name_key
from conformance.wire.text import frame_line
from protocol.frames import Ack, HistoryEnd, Joined, Message, Presence, Publish, Welcome
from protocol.registry import Code, Flag, PresenceKind

CAPACITY = frozenset({Code.RATE_LIMITED, Code.ROOM_FULL, Code.SERVER_FULL, Code.UNAVAILABLE})
"""Refusals for lack of capacity, which a server may give to any request whose checks list them."""

NO_CAP = 2**53


class Member(Protocol):
    """A connection, as far as other members of its rooms see it."""

    label: str
    streams: "dict[int, Stream]"

    @property
    def member(self) -> int:
        """Its number in WELCOME."""

    @property
    def granted(self) -> str:
        """Its name in WELCOME."""


@dataclass(frozen=True)
class Entry:
    """What is known of one message. `sender` is 0 while only an ACK has told of it, and no MESSAGE."""

    id: bytes
    time_ms: int
    content: Content
    sender: int = 0
    name: str = ""


@dataclass
class Fate:
    """What became of an id in a room: the place of its message, if that is known.

    `sent` counts copies that are not answered yet, `unknown` copies that never will be. `acked`: an ACK has come.
    """

    content: Content
    seq: int = 0
    time_ms: int = 0
    unknown: int = 0
    sent: int = 0
    acked: bool = False


@dataclass
class Stream:
    """A membership as the model sees it: what the server still owes the member."""

    room: "Room"
    next: int
    asked_roster: bool
    due: list[tuple[int, int, str]] = field(default_factory=list)  # PRESENCE: kind, member, name
    seen: list[tuple[int, int, str]] = field(default_factory=list)  # PRESENCE that has come and is not compared yet
    roster_due: bool = False
    view: dict[int, str] = field(default_factory=dict)
    in_roster: bool = False
    slow: bool = False  # it has not read for a while, so the server may have left PRESENCE out
    departed: int = 0  # the kind of PRESENCE that others got of this member before it learned of its end
    refused: bool = False  # its last PUBLISH was refused
    last_seq: int = 0


@dataclass
class Room:
    """A room of the script. `members` are the clients in it. `ghosts` may still be members: their end was not seen."""

    number: int
    epoch: int = 0
    ref: int = 0
    name: str = ""
    oldest: int = 1
    head: int = 0
    log: dict[int, Entry] = field(default_factory=dict)
    fates: dict[bytes, Fate] = field(default_factory=dict)
    order: list[bytes] = field(default_factory=list)
    members: dict[Member, Stream] = field(default_factory=dict)
    ghosts: dict[int, str] = field(default_factory=dict)
    quiet: bool = False
    old_epochs: set[int] = field(default_factory=set)

    @property
    def unknown(self) -> int:
        """How many messages may be in the log that no client was told of."""
        return sum(1 for fate in self.fates.values() if fate.unknown and not fate.seq)

    def start_again(self, epoch: int) -> None:
        """The room has a log of another epoch, which is empty as far as clients know."""
        if self.epoch:
            self.old_epochs.add(self.epoch)
        self.epoch, self.oldest, self.head = epoch, 1, 0
        self.log.clear()
        self.fates.clear()
        self.order.clear()


@dataclass
class Model:
    """The server. `limits` are those that are known to be in force; `durable` is what WELCOME said.

    `settled`: the network has no hidden state, so the server has already done all that it will do by itself.
    """

    limits: dict[str, int] = field(default_factory=dict)
    settled: bool = False
    rooms: dict[int, Room] = field(default_factory=dict)
    refs: dict[int, int] = field(default_factory=dict)
    members_seen: set[int] = field(default_factory=set)
    durable: bool = False
    dedupe_ms: int = 0
    clock_ms: int = 0
    ascii_only: bool | None = None
    cap: int = NO_CAP
    lively: int = 0  # the most members of a room that was not quiet
    refusals: dict[Code, int] = field(default_factory=dict)
    restarted: bool = False
    draining: bool = False

    def __post_init__(self) -> None:
        self.cap = self.limits.get("replay_messages", NO_CAP)

    def room(self, number: int) -> Room:
        """Returns the room with that number."""
        return self.rooms.setdefault(number, Room(number))

    def tolerate(self, code: int) -> None:
        """Counts a refusal that a server may give at any time."""
        self.refusals[Code(code)] = self.refusals.get(Code(code), 0) + 1

    def welcomed(self, welcome: Welcome) -> None:
        """WELCOME has come. Raises Failed."""
        line = frame_line(welcome)
        if welcome.member in self.members_seen:
            fail("RW-WELCOME-1", "a member number of its own", line)
        self.members_seen.add(welcome.member)
        if welcome.now_ms < self.clock_ms:
            fail("RW-ID-4", f"a clock of at least {self.clock_ms}", line)
        self.clock_ms = welcome.now_ms
        self.durable = bool(welcome.flags & Flag.DURABLE)
        self.dedupe_ms = welcome.dedupe_ms

    # --- joining

    def joined(
        self, client: Member, room: Room, joined: Joined, asked: str, cursor: tuple[int, int], *, roster: bool
    ) -> Stream:
        """JOINED has come. `asked` is the room's name in JOIN, `cursor` its (epoch, since). Raises Failed."""
        line = frame_line(joined)
        if joined.room != room.ref and all(stream.slow for stream in room.members.values()):
            for member in list(room.members):  # evicted, and the room started again
                room.members.pop(member).departed = int(PresenceKind.LEFT)
        self._same_room(room, joined, asked, line)
        self._log_of(room, joined, line)
        self._start(joined, cursor, line)
        quiet = bool(joined.flags & Flag.QUIET)
        count = len(room.members) + 1
        slow = sum(stream.slow for stream in room.members.values())  # members that may have been evicted
        if not count - slow <= joined.members <= count + len(room.ghosts):
            fail("RW-PRESENCE-5", f"{count} members", line)
        if not joined.members - count:
            room.ghosts.clear()
        self._quiet(room, quiet, joined.members, line)
        stream = Stream(room, joined.start, roster)
        stream.roster_due = roster and not quiet
        kind = PresenceKind.QUIET if quiet and not room.quiet else PresenceKind.JOINED
        if not room.quiet:
            for other in room.members.values():
                quiet_entry = (int(PresenceKind.QUIET), 0, "")
                other.due.append(
                    quiet_entry if kind is PresenceKind.QUIET else (int(kind), client.member, client.granted)
                )
        room.quiet = quiet
        room.members[client] = stream
        return stream

    def _same_room(self, room: Room, joined: Joined, asked: str, line: str) -> None:
        if name_key(joined.name) != name_key(asked):
            fail("RW-NAME-4", f"a name of the room {asked!r}", line)
        if self.refs.setdefault(joined.room, room.number) != room.number:
            fail("RW-MODEL-7", f"another ref than that of room {self.refs[joined.room]}", line)
        if room.members:
            if joined.room != room.ref:
                fail("RW-MODEL-7", f"ref {room.ref} as for the other members", line)
            if joined.name != room.name:
                fail("RW-JOIN-4", f"the name {room.name!r} as for the other members", line)
            if joined.epoch != room.epoch:
                fail("RW-MODEL-6", f"epoch {room.epoch} while the room has members", line)
        for other in self.rooms.values():
            if other is not room and joined.epoch in (other.epoch, *other.old_epochs):
                fail("RW-MODEL-3", "an epoch of its own for each room", line)
        room.ref, room.name = joined.room, joined.name

    def _log_of(self, room: Room, joined: Joined, line: str) -> None:
        if room.epoch and joined.epoch != room.epoch:
            if self.durable and room.head:
                fail("RW-MODEL-5", f"epoch {room.epoch} of a durable room", line)
            if joined.epoch in room.old_epochs:
                fail("RW-MODEL-4", "an epoch that was never used before", line)
            room.start_again(joined.epoch)
        elif not room.epoch:
            room.start_again(joined.epoch)
        if joined.head < room.head:
            lost = "RW-PROMISE-1" if not self.restarted else "RW-MODEL-4"
            fail(lost, f"a head of at least {room.head} in epoch {room.epoch}", line)
        if joined.head > room.head + room.unknown:
            fail("RW-MODEL-1", f"a head of at most {room.head + room.unknown}", line)
        if joined.oldest < room.oldest:
            fail("RW-MODEL-9", f"oldest of at least {room.oldest}", line)
        room.head, room.oldest = joined.head, joined.oldest

    def _start(self, joined: Joined, cursor: tuple[int, int], line: str) -> None:
        start, gap = starts(joined, *cursor, self.cap)
        floor = joined.start
        if joined.start > start and "replay_messages" not in self.limits and joined.start > joined.oldest:
            # The replay cap is smaller than was known. It has to explain this start, and all others from now on.
            cap = joined.head + 1 - floor
            if cap < self.cap and starts(joined, *cursor, cap) == (joined.start, bool(joined.flags & Flag.GAP)):
                if self.cap != NO_CAP:
                    fail("RW-CURSOR-1", f"one replay cap, {self.cap}", line)
                if cap > 0:  # with 0 nothing is replayed at all, and messages may have been lost
                    self.cap = cap
                    return
        if joined.start != start:
            fail("RW-CURSOR-1", f"start {start} for the cursor {cursor}", line)
        if bool(joined.flags & Flag.GAP) != gap:
            fail("RW-CURSOR-1", f"GAP {'set' if gap else 'clear'} for the cursor {cursor}", line)

    def _quiet(self, room: Room, quiet: bool, members: int, line: str) -> None:
        limit = self.limits.get("quiet_members")
        if room.quiet and not quiet and room.members:
            fail("RW-QUIET-2", "QUIET until the room has no members", line)
        if quiet and not room.quiet and members <= self.lively:
            fail("RW-QUIET-2", f"no quiet room with {members} members, as before", line)
        if limit is not None and not room.ghosts and quiet != (members > limit or (room.quiet and bool(room.members))):
            fail("RW-QUIET-2", f"QUIET exactly with more than {limit} members", line)
        if not quiet:
            self.lively = max(self.lively, members)

    # --- publishing

    def acknowledged(self, stream: Stream, publish: Publish, ack: Ack) -> None:
        """An ACK has come. Raises Failed."""
        room, line = stream.room, frame_line(ack)
        fate = room.fates[publish.id]
        duplicate = bool(ack.flags & Flag.DUPLICATE)
        if fate.acked and not duplicate:
            fail("RW-DEDUPE-1", f"DUPLICATE for the id of message {fate.seq}", line)
        if duplicate and not fate.acked and not fate.unknown:
            fail("RW-DEDUPE-1", "no DUPLICATE for an id that made no message", line)
        if fate.seq and ack.seq != fate.seq:
            fail("RW-DEDUPE-1", f"seq {fate.seq}, that of its message", line)
        if fate.seq and ack.time_ms != fate.time_ms:
            fail("RW-ACK-2", f"time {fate.time_ms}, that of its message", line)
        if not duplicate:
            if ack.seq <= stream.last_seq:
                fail("RW-PROMISE-8", f"a seq above {stream.last_seq}, that of the publish before", line)
            if not fate.seq and not room.head < ack.seq <= room.head + 1 + room.unknown:
                fail("RW-MODEL-1", f"seq {room.head + 1}", line)
            stream.last_seq = ack.seq
        stream.refused = False
        fate.acked = True
        fate.unknown = 0 if duplicate else fate.unknown
        fate.seq, fate.time_ms = ack.seq, ack.time_ms
        self._place(room, ack.seq, Entry(publish.id, ack.time_ms, fate.content), line)

    def refused(self, stream: Stream, publish: Publish) -> None:
        """An ERROR has come."""
        stream.refused = True
        fate = stream.room.fates.get(publish.id)
        if fate and fate.seq and not (fate.acked or fate.unknown or fate.sent):
            fail("RW-PROMISE-4", "no message of a publish that was refused", f"seq {fate.seq}")

    def message(self, room: Room, message: Message) -> None:
        """A MESSAGE has come, in a stream or from history. Raises Failed."""
        line = frame_line(message)
        fate = room.fates.get(message.id)
        if fate is None or not (fate.seq or fate.unknown or fate.sent):
            fail("RW-PROMISE-4", "only messages that were published and not refused", line)
        content = Content.of(message)
        if content != fate.content:
            rule = "RW-PUBLISH-4"
            if (content.ctype, content.payload) == (fate.content.ctype, fate.content.payload):
                relays = set(fate.content.fields) <= set(content.fields)
                rule = "RW-FIELD-6" if relays else "RW-FIELD-5"
            fail(rule, f"the content that was published: {fate.content}", line)
        if message.flags & Flag.VERIFIED:
            fail("RW-MESSAGE-2", "no VERIFIED, since no client is", line)
        if fate.seq and fate.seq != message.seq:
            fail("RW-DEDUPE-1", f"one message with this id, seq {fate.seq}", line)
        entry = Entry(message.id, message.time_ms, content, message.sender, message.name)
        if fate.seq and fate.time_ms and fate.time_ms != message.time_ms:
            fail("RW-ACK-2", f"the time of its ACK, {fate.time_ms}", line)
        fate.seq, fate.time_ms = message.seq, message.time_ms
        self._place(room, message.seq, entry, line)

    def _place(self, room: Room, seq: int, entry: Entry, line: str) -> None:
        known = room.log.get(seq)
        if known is not None:
            if known.id != entry.id:
                fail("RW-MODEL-2", f"one message at seq {seq}, {known.id.hex()}", line)
            if known.sender and entry.sender and known != entry:
                fail("RW-MODEL-2", f"the same message for every member: {known}", line)
            if known.time_ms != entry.time_ms:
                fail("RW-ACK-2", f"one time of message {seq}, {known.time_ms}", line)
        else:
            before, behind = room.log.get(seq - 1), room.log.get(seq + 1)
            if (before and before.time_ms > entry.time_ms) or (behind and behind.time_ms < entry.time_ms):
                fail("RW-ACK-1", "times that do not decrease", line)
        if known is None or not known.sender:
            room.log[seq] = entry
        room.head = max(room.head, seq)

    # --- the stream

    def streamed(self, stream: Stream, message: Message) -> None:
        """A MESSAGE of a stream has come, whose seq the invariants have checked. Raises Failed."""
        self.message(stream.room, message)
        stream.next = message.seq + 1

    def presence(self, client: Member, stream: Stream, frame: Presence) -> None:
        """A PRESENCE has come. Raises Failed."""
        line = frame_line(frame)
        if frame.flags & Flag.VERIFIED:
            fail("RW-SASL-4", "no VERIFIED, since no client is", line)
        if stream.in_roster:
            fail("RW-ROSTER-4", "no PRESENCE between the frames of a roster", line)
        stream.seen.append((frame.kind, frame.member, frame.name))
        if frame.kind == PresenceKind.JOINED:
            stream.view[frame.member] = frame.name
        elif frame.kind in (PresenceKind.LEFT, PresenceKind.LOST):
            stream.view.pop(frame.member, None)

    def _compare(self, stream: Stream) -> None:
        """Compares the PRESENCE that has come with what was due, once all replies are there. Raises Failed."""
        due, room = stream.due, stream.room
        while stream.seen:
            got = stream.seen.pop(0)
            kind, member, _ = got
            if got in due[:1]:
                due.pop(0)
            elif member in room.ghosts and kind in (PresenceKind.LOST, PresenceKind.LEFT):
                room.ghosts.pop(member)
            elif stream.slow and got in due:
                del due[: due.index(got) + 1]
            elif self._departed(stream, kind, member) or stream.slow:
                continue
            else:
                rule = "RW-PRESENCE-3" if any(member == other[1] for other in due) else "RW-PRESENCE-2"
                rule = "RW-QUIET-1" if room.quiet and not due else rule
                fail(rule, f"PRESENCE (kind, member, name) {due[0] if due else 'none'}", f"{got}")

    def _departed(self, stream: Stream, kind: int, number: int) -> bool:
        """Whether a member that did not read was evicted or cut off, and has not read that yet."""
        if stream.room.quiet or self.draining:
            return False
        for member, other in list(stream.room.members.items()):
            if member.member == number and other.slow and kind in (PresenceKind.LEFT, PresenceKind.LOST):
                other.departed = kind
                self.gone(member, stream.room, PresenceKind(kind), seen=True)
                stream.due.pop()
                return True
        return False

    def rostered(
        self, client: Member, stream: Stream, entries: list[tuple[int, str]], *, reset: bool, more: bool
    ) -> None:
        """A ROSTER has come. Raises Failed."""
        if not stream.asked_roster or stream.room.quiet:
            rule = "RW-QUIET-1" if stream.room.quiet else "RW-ROSTER-1"
            fail(rule, "no ROSTER that the client did not ask for", str(entries))
        if reset:
            stream.view.clear()
        stream.in_roster = more
        stream.view.update(entries)
        if more:
            return
        stream.roster_due = False
        room = stream.room
        here = {member.member: member.granted for member in room.members}
        waiting = {member for _, member, _ in stream.due}
        slow = {member.member for member, other in room.members.items() if other.slow and other is not stream}
        for member, name in here.items():
            if member not in waiting and member not in slow and stream.view.get(member) != name:
                rule = "RW-PRESENCE-5" if member == client.member else "RW-ROSTER-4"
                fail(rule, f"{name!r}, member {member}, in the roster", str(stream.view))
        for member in stream.view:
            if member not in here and member not in waiting and member not in room.ghosts:
                fail("RW-ROSTER-4", f"only members in the roster, not {member}", str(here))
        if stream.slow:
            stream.due.clear()

    def gone(self, client: Member, room: Room, kind: PresenceKind, *, seen: bool) -> None:
        """A client is not in a room any more. `seen`: the server is known to have noticed."""
        if room.members.pop(client, None) is None:
            return  # it was evicted or cut off before, and the others were told
        if self.draining:
            return
        if not room.members:
            room.quiet = room.quiet and not (seen or self.settled)
        if not room.quiet:
            for stream in room.members.values():
                stream.due.append((int(kind), client.member, client.granted))
        told = not room.quiet and any(not stream.slow for stream in room.members.values())
        if not (seen or self.settled or told):
            room.ghosts[client.member] = client.granted

    # --- the end of a step

    def owed(self, client: Member) -> str:
        """What a client that reads and waits for no reply has not been sent yet, behind its requirement, or "".

        Raises Failed.
        """
        for stream in client.streams.values():
            room = stream.room
            if stream.seen:
                self._compare(stream)
            if stream.next <= room.head:
                return f"RW-MESSAGE-1 MESSAGE {stream.next} of room {room.number} ({client.label})"
            if stream.roster_due:
                return f"RW-ROSTER-1 a sequence of ROSTER in room {room.number} ({client.label})"
            if stream.in_roster:
                return f"RW-ROSTER-2 the end of a sequence of ROSTER in room {room.number} ({client.label})"
            if stream.due and not stream.slow:
                kind, member, name = stream.due[0]
                said = PresenceKind(kind).name.lower()
                rule = "RW-QUIET-1" if kind == PresenceKind.QUIET else "RW-PRESENCE-2"
                return f"{rule} PRESENCE({said}) of {member} {name!r} in room {room.number} ({client.label})"
            if stream.slow and stream.asked_roster and not room.quiet:
                here = {member.member for member in room.members}
                slow = {member.member for member, other in room.members.items() if other.slow and other is not stream}
                if set(stream.view) - set(room.ghosts) - slow != here - slow:
                    return f"RW-ROSTER-3 a roster of room {room.number} that is right ({client.label})"
        return ""

    def history(self, room: Room, asked: tuple[int, int, int, bool], end: HistoryEnd, got: list[Message]) -> None:
        """HISTORY_END has come behind these messages. `asked`: start, end, limit, NEWEST. Raises Failed."""
        line = frame_line(end)
        start, stop, limit, newest = asked
        if end.oldest < room.oldest:
            fail("RW-MODEL-9", f"oldest of at least {room.oldest}", line)
        before, room.oldest = room.oldest, end.oldest
        seqs = [message.seq for message in got]
        if seqs != list(range(end.start, end.end)):
            ascending = seqs == sorted(seqs) and len(set(seqs)) == len(seqs)
            fail(
                "RW-HISTORY-6" if ascending else "RW-HISTORY-1", f"the messages of [{end.start}, {end.end})", f"{seqs}"
            )
        for message in got:
            self.message(room, message)
        if room.unknown:
            return  # neither the head nor the whole range is known
        low = min(max(start, room.oldest), room.head + 1)
        first = min(max(start, before), room.head + 1)
        trimmed = bool(got) and first <= end.start < low  # while the server sent them
        low = end.start if trimmed else low
        high = max(low, min(stop or room.head + 1, room.head + 1))
        if not got and high > low:
            fail("RW-HISTORY-2", f"at least one message of [{low}, {high})", line)
        if not got and not first <= end.start <= low:
            fail("RW-HISTORY-6", f"start and end {low} where nothing was sent", line)
        allowed = min(limit or NO_CAP, self.limits.get("history_messages", NO_CAP))
        if len(got) > allowed:
            fail("RW-HISTORY-6", f"at most {allowed} messages", line)
        if got and (end.end != high if newest else end.start != low):
            fail("RW-HISTORY-6", f"the {'newest' if newest else 'oldest'} of [{low}, {high})", line)
        if got and not (low <= end.start and end.end <= high):
            fail("RW-HISTORY-6", f"messages of [{low}, {high})", line)
        whole = (end.start, end.end) == (low, high)
        left_out = trimmed and newest and end.start > first  # lo is from `first` to `start`: MORE may be either
        if bool(end.flags & Flag.MORE) == whole and not left_out:
            fail("RW-HISTORY-5", f"MORE {'clear' if whole else 'set'} for a part of [{low}, {high})", line)

    def restarts(self) -> None:
        """The server was started again. Refs mean nothing any more; durable rooms stay as they are."""
        self.restarted = True
        self.draining = False
        self.refs.clear()
        for room in self.rooms.values():
            room.ref = 0  # another room may have it now (RW-MODEL-7)
            room.members.clear()
            room.ghosts.clear()
            room.quiet = False


def starts(joined: Joined, epoch: int, since: int, cap: int) -> tuple[int, bool]:
    """Returns `start` and GAP of JOINED for a cursor: the formula of SPEC.md, section 9.1."""
    floor = max(joined.oldest, joined.head + 1 - cap)
    if not epoch:
        return max(floor, joined.head + 1 - since), False
    want = since + 1 if epoch == joined.epoch else floor
    start = min(max(want, floor), joined.head + 1)
    return start, epoch != joined.epoch or start != since + 1
