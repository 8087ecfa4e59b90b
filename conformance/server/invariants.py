"""What every server must keep on every connection, in every case.

`Invariants` see all frames that a raw client sends and receives. They know just enough of the connection to say when a
received frame breaks a requirement, so each case tests all of these as well.
"""

from dataclasses import dataclass, field

from conformance.harness.flags import Breach, judge_code, judge_flags
from conformance.wire.text import code_name, frame_line, type_name
from protocol.errors import NameInvalid
from protocol.fields import extensions
from protocol.frames import (
    REPLIES,
    RULES,
    Ack,
    Auth,
    Error,
    Evicted,
    Frame,
    Goaway,
    Hello,
    Joined,
    Message,
    Ok,
    Pong,
    Presence,
    Publish,
    Roster,
    Unknown,
    Welcome,
)
from protocol.names import key
from protocol.registry import LIMITS, Code, Flag, FrameType, PresenceKind, is_ignorable


@dataclass
class Membership:
    """A room that the connection is in, and where its stream stands. `roster` is None outside of a sequence."""

    name: str
    epoch: int
    next: int
    time_ms: int = 0
    roster: set[int] | None = None


@dataclass
class Invariants:
    """Judges what a server sends on one connection, and calls `breach(requirement, expected, got)` for each breach."""

    breach: Breach
    welcome: Welcome | None = None
    outstanding: dict[int, int] = field(default_factory=dict)  # types of unanswered requests, in their order
    rooms: dict[int, Membership] = field(default_factory=dict)
    refs: dict[int, str] = field(default_factory=dict)
    offered: set[str] = field(default_factory=set)
    own_ids: set[bytes] = field(default_factory=set)
    asked_ids: dict[int, bytes] = field(default_factory=dict)  # of unanswered PUBLISHes, by request
    acked: set[bytes] = field(default_factory=set)  # by id: the room may have another ref when the message comes back
    goaway: Goaway | None = None

    def sent(self, frame: Frame | Unknown) -> None:
        """Remembers a frame that the suite sends."""
        if isinstance(frame, Publish):
            self.own_ids.add(frame.id)
            self.asked_ids[frame.request] = frame.id
        if isinstance(frame, Hello):
            self.offered |= extensions(frame).keys()
        kind = frame.type if isinstance(frame, Unknown) else frame.TYPE
        if frame.request and kind != FrameType.AUTH:
            self.outstanding[frame.request] = kind

    def received(self, frame: Frame | Unknown) -> None:
        """Judges a frame of the server."""
        if self.goaway and self.goaway.code != Code.DRAINING:
            self.breach("RW-CLOSE-1", "nothing after GOAWAY", frame_line(frame))
        judge_flags(frame, self.breach)
        if isinstance(frame, Unknown):
            self._unknown(frame)
            return
        if self.welcome is None and not isinstance(frame, (Auth, Error, Goaway, Welcome)):
            self.breach("RW-HELLO-2", "WELCOME, AUTH or ERROR first", frame_line(frame))
        if frame.request:
            self._reply(frame)
        match frame:
            case Error() | Goaway() | Evicted():
                self._code(frame)
            case Welcome():
                self._welcome(frame)
            case Joined():
                self._joined(frame)
            case Message() if not frame.request:
                self._message(frame)
            case Presence():
                self._presence(frame)
            case Roster():
                self._roster(frame)
            case Pong() | _:
                pass

    def _unknown(self, frame: Unknown) -> None:
        if not is_ignorable(frame.type) and frame.room in self.rooms and not frame.request:
            self.breach("RW-EXT-2", "only ignorable frames of extensions in a room's stream", frame_line(frame))
        elif not is_ignorable(frame.type):
            self.breach("RW-EXT-1", "no critical frame of an extension not negotiated", frame_line(frame))
        elif frame.seq is not None and not frame.request and frame.room in self.rooms:
            self._move(self.rooms[frame.room], frame.seq, frame)

    def _reply(self, frame: Frame) -> None:
        kind = self.outstanding.get(frame.request)
        if kind is None:
            self.breach("RW-REQUEST-2", "one final reply to each request", frame_line(frame))
            return
        first = next(iter(self.outstanding))
        if frame.request != first:
            wanted = f"the reply to request {first} ({type_name(self.outstanding[first])}) first"
            self.breach("RW-REQUEST-3", wanted, frame_line(frame))
        rule = RULES.get(kind)
        if rule is not None and frame.TYPE is rule.part:
            return
        if frame.TYPE not in REPLIES.get(kind, {FrameType.ERROR}):
            self.breach("RW-REQUEST-2", f"a reply that answers {type_name(kind)}", frame_line(frame))
        del self.outstanding[frame.request]
        id = self.asked_ids.pop(frame.request, b"")
        if isinstance(frame, Ack):
            self.acked.add(id)
        if kind == FrameType.LEAVE and isinstance(frame, Ok):
            self.rooms.pop(frame.room, None)

    def _code(self, frame: Error | Goaway | Evicted) -> None:
        judge_code(frame, self.breach)
        if isinstance(frame, Goaway):
            self.goaway = frame
        if isinstance(frame, Evicted):
            self.rooms.pop(frame.room, None)
        if isinstance(frame, Error) and frame.flags & Flag.RETRY and not frame.retry_ms:
            self.breach("RW-LIMIT-1", f"retry_ms above 0 with {code_name(frame.code)}", "0")

    def _welcome(self, frame: Welcome) -> None:
        self.welcome = frame
        extra = extensions(frame).keys() - self.offered
        if extra:
            self.breach("RW-WELCOME-2", "only extensions that HELLO offered", ", ".join(sorted(extra)))
        for name in ("max_body", "heartbeat_ms", "dedupe_ms", "window", "max_rooms"):
            limit, found = LIMITS[name], getattr(frame, name)
            if not limit.low <= found <= limit.high:
                self.breach("RW-WELCOME-4", f"{name} from {limit.low} to {limit.high}", str(found))
        if not frame.member:
            self.breach("RW-WELCOME-1", "a member other than 0", "0")

    def _joined(self, frame: Joined) -> None:
        line = frame_line(frame)
        if not frame.epoch:
            self.breach("RW-MODEL-3", "an epoch other than 0", line)
        # [RW-JOIN-4] A room that was empty may have another spelling, so its key tells which room it is.
        if name_key(self.refs.setdefault(frame.room, frame.name)) != name_key(frame.name):
            self.breach("RW-MODEL-7", f"ref {frame.room} for {self.refs[frame.room]!r} alone", line)
        if frame.room in self.rooms:
            self.breach("RW-JOIN-1", "ALREADY_JOINED for a room that the connection is in", line)
        if not 1 <= frame.start <= frame.head + 1 or frame.start < min(frame.oldest, frame.head + 1):
            self.breach("RW-CURSOR-1", "start from max(1, oldest) to head + 1", line)
        if not 1 <= frame.oldest <= frame.head + 1:
            self.breach("RW-MODEL-9", "oldest from 1 to head + 1", line)
        if not frame.members:
            self.breach("RW-PRESENCE-5", "members of at least 1, which counts the joining member", line)
        self.rooms[frame.room] = Membership(frame.name, frame.epoch, frame.start)

    def _room(self, frame: Message | Presence | Roster) -> Membership | None:
        room = self.rooms.get(frame.room)
        if room is None:
            left = frame.room in self.refs
            self.breach(
                "RW-LEAVE-2" if left else "RW-CURSOR-5",
                "no frame of a room's stream " + ("after the membership ended" if left else "before JOINED"),
                frame_line(frame),
            )
        return room

    def _message(self, frame: Message) -> None:
        room = self._room(frame)
        if room is None:
            return
        self._move(room, frame.seq, frame)
        if frame.time_ms < room.time_ms:
            self.breach("RW-ACK-1", f"time_ms of at least {room.time_ms}", frame_line(frame))
        room.time_ms = frame.time_ms
        own = self.welcome is not None and frame.sender == self.welcome.member and frame.id in self.own_ids
        if own and frame.id not in self.acked:
            self.breach("RW-PROMISE-11", f"ACK of seq {frame.seq} before its MESSAGE", frame_line(frame))

    def _move(self, room: Membership, seq: int, frame: Frame | Unknown) -> None:
        if seq != room.next:
            self.breach("RW-CURSOR-2", f"seq {room.next} next in the stream", frame_line(frame))
        room.next = seq + 1

    def _presence(self, frame: Presence) -> None:
        if self._room(frame) is None or self.welcome is None:
            return
        if frame.kind == PresenceKind.JOINED and frame.member == self.welcome.member:
            self.breach("RW-PRESENCE-4", "no PRESENCE(joined) of the connection's own member", frame_line(frame))

    def _roster(self, frame: Roster) -> None:
        room = self._room(frame)
        if room is None:
            return
        if frame.flags & Flag.RESET:
            room.roster = set()
        if room.roster is None:
            self.breach("RW-ROSTER-2", "RESET in the first ROSTER of a sequence", frame_line(frame))
            return
        members = [entry.member for entry in frame.entries]
        if len(set(members)) < len(members) or room.roster & set(members):
            self.breach("RW-ROSTER-2", "each member once in a sequence of ROSTER", frame_line(frame))
        room.roster = room.roster | set(members) if frame.flags & Flag.MORE else None


def name_key(name: str) -> str:
    """Returns the key of a name that a server sent (SPEC.md, section 12): the name itself if it has none."""
    try:
        return key(name)
    except NameInvalid:
        return name
