"""Frames as values: one class for each frame, which declares all that is particular to it.

`TYPE` is its number and name, `RULE` says who sends it, where, and what its header and extension fields may be. Its
members are the fields of its body in the order of the wire, each annotated with its type of SPEC.md, section 5. The
encoder, the decoder, the state machines' checks, the fuzzer's values and the suite's expectations are derived.

Names and texts are `str`, octets are `bytes`, times are milliseconds since 1970 in UTC. Meanings are in SPEC.md, one
section a frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal, NamedTuple, TypeVar, dataclass_transform

from protocol.layout import B16, B32, N64, O8, O16, U8, U16, U32, U64, Items16, Name8, Text8, Text16
from protocol.registry import Code, ContentType, FieldType, Flag, FrameType, PresenceKind

_Number = Literal["nonzero", "zero", "any"]

HANDSHAKE = ("WAIT_HELLO", "AUTHENTICATING", "HELLO_SENT")
"""The states before WELCOME in which a server, or a client, receives frames."""

ESTABLISHED = ("OPEN", "DRAINING")
"""The states after WELCOME, of both ends."""


class Rule(NamedTuple):
    """Who sends a frame and when, what its header and extension fields may be, and what answers it."""

    sender: str
    """"C", "S" or "CS": the client, the server, or both."""

    request: _Number
    room: _Number
    """Whether `request` and `room` of its header are 0."""

    flags: int = 0
    """All flags that mean something in it. If SEQ is among them, it must be set, else it must be clear."""

    fields: Mapping[FieldType, bool] = MappingProxyType({})
    """The extension fields known for it, each with whether it may be repeated."""

    states: tuple[str, ...] = ESTABLISHED
    """The states in which its receiver accepts it. In CLOSING, what arrives is dropped."""

    reply: FrameType | None = None
    """Of a request: its final reply, which is this or ERROR."""

    part: FrameType | None = None
    """Of a request: what may be sent in reply before the final one."""

    extension: str = ""
    """The extension that must have been negotiated."""

    @property
    def seq(self) -> bool:
        """Whether it bears the flag SEQ."""
        return bool(self.flags & Flag.SEQ)


@dataclass(frozen=True, slots=True)
class Field:
    """An extension field. `protocol.fields` makes and reads the known ones."""

    type: U16
    value: B16 = b""


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """One member in a ROSTER; `mflags` may hold Flag.VERIFIED."""

    member: U64
    mflags: U8
    name: Name8


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Frame:
    """Base of all frames: its extension fields, and `flags`, `request` and `room` of its header."""

    TYPE: ClassVar[FrameType]
    RULE: ClassVar[Rule]
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0

    def __repr__(self) -> str:
        members = sorted(fields(self), key=lambda member: bool(member.kw_only))  # the body first, as in a call
        values = (f"{member.name}={getattr(self, member.name)!r}" for member in members)
        return f"{type(self).__name__}({', '.join(values)})"


HEADER_MEMBERS = tuple(member.name for member in fields(Frame))
"""What every frame has besides the members of its body."""

FRAMES: dict[FrameType, type[Frame]] = {}
"""The class of each frame, by its type."""

_Declared = TypeVar("_Declared", bound=Frame)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def declared(cls: type[_Declared]) -> type[_Declared]:
    """Make a class a frame: a frozen, slotted dataclass that is in FRAMES."""
    frame = dataclass(frozen=True, slots=True, repr=False)(cls)
    FRAMES[frame.TYPE] = frame
    return frame


@declared
class Hello(Frame):
    """The first frame of a client: who it is, and how it proves it."""

    TYPE = FrameType.HELLO
    RULE = Rule(
        "C",
        request="nonzero",
        room="zero",
        fields={FieldType.EXTENSION: True, FieldType.AGENT: False},
        states=("WAIT_HELLO",),
        reply=FrameType.WELCOME,
        part=FrameType.AUTH,
    )
    name: Name8
    mechanism: Text8
    auth: B16


@declared
class Welcome(Frame):
    """The server's reply to HELLO: the name as granted, the clock, and the limits of this connection."""

    TYPE = FrameType.WELCOME
    RULE = Rule(
        "S",
        request="nonzero",
        room="zero",
        flags=Flag.DURABLE | Flag.VERIFIED,
        fields={FieldType.EXTENSION: True, FieldType.AGENT: False, FieldType.SERVER: False},
        states=("HELLO_SENT",),
    )
    member: U64
    name: Name8
    now_ms: N64
    max_body: U32
    heartbeat_ms: U32
    dedupe_ms: U32
    window: U16
    max_rooms: U16
    auth: B16


@declared
class Auth(Frame):
    """One SASL step, from either side."""

    TYPE = FrameType.AUTH
    RULE = Rule("CS", request="nonzero", room="zero", states=("AUTHENTICATING", "HELLO_SENT"))
    data: B16


@declared
class Error(Frame):
    """A request failed. With the flag RETRY, `retry_ms` is how long to wait before it is worth trying again."""

    TYPE = FrameType.ERROR
    RULE = Rule(
        "S",
        request="nonzero",
        room="any",
        flags=Flag.RETRY,
        fields={FieldType.MECHANISM: True},
        states=("HELLO_SENT", *ESTABLISHED),
    )
    code: Annotated[U16, Code]
    retry_ms: U32 = 0
    text: Text16 = ""


@declared
class Ok(Frame):
    """A request succeeded, and the reply has nothing else to say."""

    TYPE = FrameType.OK
    RULE = Rule("S", request="nonzero", room="any")


@declared
class Ping(Frame):
    """Asks for a PONG with the same 8 octets."""

    TYPE = FrameType.PING
    RULE = Rule("CS", request="zero", room="zero")
    opaque: O8


@declared
class Pong(Frame):
    """The answer to a PING, sent after the replies to all requests before it."""

    TYPE = FrameType.PONG
    RULE = Rule("CS", request="zero", room="zero")
    opaque: O8


@declared
class Goaway(Frame):
    """The connection ends. The client may come back after `retry_ms`, and a random time up to `jitter_ms`."""

    TYPE = FrameType.GOAWAY
    RULE = Rule("CS", request="zero", room="zero", flags=Flag.RETRY, states=(*HANDSHAKE, *ESTABLISHED))
    code: Annotated[U16, Code]
    retry_ms: U32 = 0
    jitter_ms: U32 = 0
    text: Text16 = ""


@declared
class Join(Frame):
    """Asks to join the room `name`, from the cursor (`epoch`, `since`) on."""

    TYPE = FrameType.JOIN
    RULE = Rule("C", request="nonzero", room="zero", flags=Flag.ROSTER, reply=FrameType.JOINED)
    name: Name8
    epoch: U64
    since: N64


@declared
class Joined(Frame):
    """The membership begins. `start` is the seq of the first message that the stream will bring."""

    TYPE = FrameType.JOINED
    RULE = Rule("S", request="nonzero", room="nonzero", flags=Flag.GAP | Flag.QUIET)
    epoch: U64
    head: N64
    start: N64
    oldest: N64
    members: U32
    name: Name8


@declared
class Roster(Frame):
    """Who is in the room, in one or several frames."""

    TYPE = FrameType.ROSTER
    RULE = Rule("S", request="zero", room="nonzero", flags=Flag.MORE | Flag.RESET)
    entries: Items16[RosterEntry]


@declared
class Presence(Frame):
    """A member came or went. `kind` is a PresenceKind, or a number to ignore."""

    TYPE = FrameType.PRESENCE
    RULE = Rule("S", request="zero", room="nonzero", flags=Flag.VERIFIED)
    kind: Annotated[U8, PresenceKind]
    member: U64
    name: Name8


@declared
class Leave(Frame):
    """Asks to end the membership of `room`."""

    TYPE = FrameType.LEAVE
    RULE = Rule("C", request="nonzero", room="nonzero", reply=FrameType.OK)


@declared
class Evicted(Frame):
    """The server ended the membership of `room`."""

    TYPE = FrameType.EVICTED
    RULE = Rule("S", request="zero", room="nonzero", flags=Flag.RETRY)
    code: Annotated[U16, Code]
    retry_ms: U32 = 0
    text: Text16 = ""


@declared
class Publish(Frame):
    """Asks to append a message to the log of `room`. `id` has 16 octets, in the layout of a ULID."""

    TYPE = FrameType.PUBLISH
    RULE = Rule("C", request="nonzero", room="nonzero", flags=Flag.ORDERED, reply=FrameType.ACK)
    id: O16
    ctype: Annotated[U8, ContentType]
    payload: B32


@declared
class Ack(Frame):
    """The message of a PUBLISH has its final place in the room's log."""

    TYPE = FrameType.ACK
    RULE = Rule("S", request="nonzero", room="nonzero", flags=Flag.DUPLICATE)
    seq: N64
    time_ms: N64


@declared
class Message(Frame):
    """A message of a room's log: in the room's stream if `request` is 0, else a part of the reply to HISTORY."""

    TYPE = FrameType.MESSAGE
    RULE = Rule("S", request="any", room="nonzero", flags=Flag.SEQ | Flag.VERIFIED)
    seq: N64
    time_ms: N64
    sender: U64
    id: O16
    ctype: Annotated[U8, ContentType]
    name: Name8
    payload: B32
    flags: int = field(default=Flag.SEQ, kw_only=True)


@declared
class History(Frame):
    """Asks for the messages in [start, end), at most `limit`. An `end` of 0 stands for head + 1."""

    TYPE = FrameType.HISTORY
    RULE = Rule(
        "C",
        request="nonzero",
        room="nonzero",
        flags=Flag.NEWEST,
        reply=FrameType.HISTORY_END,
        part=FrameType.MESSAGE,
        extension="history",
    )
    start: N64
    end: N64
    limit: U16


@declared
class HistoryEnd(Frame):
    """Exactly the messages in [start, end) were sent. The log has none below `oldest`."""

    TYPE = FrameType.HISTORY_END
    RULE = Rule("S", request="nonzero", room="nonzero", flags=Flag.MORE, extension="history")
    start: N64
    end: N64
    oldest: N64


@declared
class Stop(Frame):
    """Asks to drain the server."""

    TYPE = FrameType.STOP
    RULE = Rule("C", request="nonzero", room="zero", reply=FrameType.OK, extension="admin")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A frame whose type its receiver does not know: it is not in the registry, or that end never sends it."""

    type: int
    body: bytes = b""
    flags: int = 0
    request: int = 0
    room: int = 0

    @property
    def seq(self) -> int | None:
        """Its place in the room's log, by which a client that ignores the frame moves its cursor."""
        return int.from_bytes(self.body[:8], "big") if self.flags & Flag.SEQ else None


RULES: Mapping[int, Rule] = {type: cls.RULE for type, cls in FRAMES.items()}
"""The rule of each frame, by its type; a header's plain number finds it too."""

REPLIES: Mapping[int, frozenset[int]] = {
    type: frozenset({rule.reply, FrameType.ERROR}) for type, rule in RULES.items() if rule.reply is not None
}
"""The final replies of SPEC.md, section 6, by request."""

FINAL_REPLIES = frozenset[int]().union(*REPLIES.values())
"""All types of final replies."""
