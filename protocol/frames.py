"""Frames as values: one frozen dataclass each, body fields in the order of the wire.

After its body fields every frame has `fields` (extension fields as octets), `flags`, `request` and `room`
of the header. Names and texts are `str`, octets are `bytes`, times are milliseconds since 1970 in UTC.
Layouts are declared in `wire.py`; meanings are in SPEC.md, one section a frame.
"""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any, ClassVar

from protocol.registry import FieldType, Flag, FrameType
from protocol.wire import decode_field, encode_field


@dataclass(frozen=True, slots=True)
class Field:
    """An extension field. `extension`, `agent`, `server_identity`, `mechanism` make the known ones."""

    type: int
    value: bytes = b""


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """One member in a ROSTER; `mflags` may hold Flag.VERIFIED."""

    member: int
    mflags: int
    name: str


@dataclass(frozen=True, slots=True)
class Hello:
    """The first frame of a client: who it is, and how it proves that."""

    TYPE: ClassVar[FrameType] = FrameType.HELLO
    name: str
    mechanism: str
    auth: bytes
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server's reply to HELLO: the name as granted, the clock, and the limits of this connection."""

    TYPE: ClassVar[FrameType] = FrameType.WELCOME
    member: int
    name: str
    now_ms: int
    max_body: int
    heartbeat_ms: int
    dedupe_ms: int
    window: int
    max_rooms: int
    auth: bytes
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Auth:
    """One SASL step, from either side."""

    TYPE: ClassVar[FrameType] = FrameType.AUTH
    data: bytes
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Error:
    """A request failed; `retry_ms` is how long to wait where RETRY is set."""

    TYPE: ClassVar[FrameType] = FrameType.ERROR
    code: int
    retry_ms: int = 0
    text: str = ""
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Ok:
    """A request succeeded, and there is nothing to say about it."""

    TYPE: ClassVar[FrameType] = FrameType.OK
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a PONG with the same 8 octets."""

    TYPE: ClassVar[FrameType] = FrameType.PING
    opaque: bytes
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a PING, sent after the replies to all requests before it."""

    TYPE: ClassVar[FrameType] = FrameType.PONG
    opaque: bytes
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Goaway:
    """The connection ends; come back after `retry_ms` and up to `jitter_ms` more."""

    TYPE: ClassVar[FrameType] = FrameType.GOAWAY
    code: int
    retry_ms: int = 0
    jitter_ms: int = 0
    text: str = ""
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Join:
    """Asks for membership of the room `name`, from the cursor (`epoch`, `since`)."""

    TYPE: ClassVar[FrameType] = FrameType.JOIN
    name: str
    epoch: int
    since: int
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Joined:
    """Membership begins: the next sequenced frame is `start`."""

    TYPE: ClassVar[FrameType] = FrameType.JOINED
    epoch: int
    head: int
    start: int
    oldest: int
    members: int
    name: str
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Roster:
    """Who is in the room, in one or several frames."""

    TYPE: ClassVar[FrameType] = FrameType.ROSTER
    entries: tuple[RosterEntry, ...]
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Presence:
    """A member came or went; `kind` is a PresenceKind, or a number to ignore."""

    TYPE: ClassVar[FrameType] = FrameType.PRESENCE
    kind: int
    member: int
    name: str
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Leave:
    """Asks to end the membership of `room`."""

    TYPE: ClassVar[FrameType] = FrameType.LEAVE
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Evicted:
    """The server ended the membership of `room`."""

    TYPE: ClassVar[FrameType] = FrameType.EVICTED
    code: int
    retry_ms: int = 0
    text: str = ""
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Publish:
    """A message for `room`; `id` is 16 octets, the layout of a ULID."""

    TYPE: ClassVar[FrameType] = FrameType.PUBLISH
    id: bytes
    ctype: int
    payload: bytes
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Ack:
    """A PUBLISH has its final place in the room's log."""

    TYPE: ClassVar[FrameType] = FrameType.ACK
    seq: int
    time_ms: int
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of a room's log: in its stream if `request` is 0, else a part of HISTORY's reply."""

    TYPE: ClassVar[FrameType] = FrameType.MESSAGE
    seq: int
    time_ms: int
    sender: int
    id: bytes
    ctype: int
    name: str
    payload: bytes
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = Flag.SEQ
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """Asks for the log's entries in [start, end), at most `limit`; end 0 stands for head + 1."""

    TYPE: ClassVar[FrameType] = FrameType.HISTORY
    start: int
    end: int
    limit: int
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class HistoryEnd:
    """Exactly [start, end) was sent, and the log holds nothing below `oldest`."""

    TYPE: ClassVar[FrameType] = FrameType.HISTORY_END
    start: int
    end: int
    oldest: int
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """Asks to drain the server."""

    TYPE: ClassVar[FrameType] = FrameType.STOP
    _: KW_ONLY
    fields: tuple[Field, ...] = ()
    flags: int = 0
    request: int = 0
    room: int = 0


@dataclass(frozen=True, slots=True)
class Unknown:
    """A frame whose type its receiver does not know: not in the registry, or never sent by that end."""

    type: int
    body: bytes = b""
    flags: int = 0
    request: int = 0
    room: int = 0

    @property
    def seq(self) -> int | None:
        """Its place in the room's log, so that a client that skips it still moves its cursor."""
        return int.from_bytes(self.body[:8], "big") if self.flags & Flag.SEQ else None


Frame = (
    Hello
    | Welcome
    | Auth
    | Error
    | Ok
    | Ping
    | Pong
    | Goaway
    | Join
    | Joined
    | Roster
    | Presence
    | Leave
    | Evicted
    | Publish
    | Ack
    | Message
    | History
    | HistoryEnd
    | Stop
)

FRAMES: dict[FrameType, type[Frame]] = {
    cls.TYPE: cls
    for cls in (
        Hello,
        Welcome,
        Auth,
        Error,
        Ok,
        Ping,
        Pong,
        Goaway,
        Join,
        Joined,
        Roster,
        Presence,
        Leave,
        Evicted,
        Publish,
        Ack,
        Message,
        History,
        HistoryEnd,
        Stop,
    )
}


@lru_cache(maxsize=64)
def extension(name: str, data: bytes = b"") -> Field:
    """EXTENSION: an extension that is offered (HELLO) or accepted (WELCOME), with what it wants to say.

    Raises LocalProtocolError if the name is longer than 255 octets, or the whole than 65,535.
    """
    return _field(FieldType.EXTENSION, name=name, data=data)


@lru_cache(maxsize=64)
def agent(text: str) -> Field:
    """AGENT: the program's name and version, for people to read."""
    return _field(FieldType.AGENT, text=text)


@lru_cache(maxsize=64)
def server_identity(id: int, address: str) -> Field:
    """SERVER: the server's id and the address by which it knows itself."""
    return _field(FieldType.SERVER, id=id, address=address)


def mechanism(text: str) -> Field:
    """MECHANISM: a SASL mechanism that would be accepted."""
    return _field(FieldType.MECHANISM, text=text)


def extensions(frame: Hello | Welcome) -> dict[str, bytes]:
    """Extensions by name, with their data; of several fields with one name the first counts (SPEC.md, section 17.3)."""
    by_name: dict[str, bytes] = {}
    for values in _values(frame, FieldType.EXTENSION):
        by_name.setdefault(values["name"], values["data"])
    return by_name


def agent_of(frame: Hello | Welcome) -> str | None:
    """The text of AGENT, or None."""
    return next((values["text"] for values in _values(frame, FieldType.AGENT)), None)


def identity_of(frame: Welcome) -> tuple[int, str] | None:
    """Id and address from SERVER, or None."""
    return next(((values["id"], values["address"]) for values in _values(frame, FieldType.SERVER)), None)


def mechanisms_of(frame: Error) -> list[str]:
    """The mechanisms that would be accepted, in the server's order."""
    return [values["text"] for values in _values(frame, FieldType.MECHANISM)]


def _field(type: FieldType, **values: Any) -> Field:
    return Field(type, encode_field(type, values))


def _values(frame: Frame, type: FieldType) -> Iterator[dict[str, Any]]:
    return (decode_field(frame.TYPE, field.type, field.value) for field in frame.fields if field.type == type)
