"""What a session reports to its application: one frozen dataclass each, in the order in which it happened.

`room` is always the name by which the application joined the room; the server may spell it differently
(`Joined.name`). `ticket` is the number that `Session.publish` or `Session.history` gave back. Times called
`..._in` are seconds from now, times called `time_ms` are milliseconds since 1970. `code` is a number of SPEC.md,
section 16, which may be one that this program does not know, or None where nobody gave one.
"""

from dataclasses import dataclass

from protocol.frames import Field


@dataclass(frozen=True, slots=True)
class Connected:
    """The server accepted us. `name` is what it calls us; `durable`: acknowledged messages survive a crash."""

    member: int
    name: str
    verified: bool
    durable: bool
    server: tuple[int, str] | None
    agent: str | None
    again: bool
    """Whether there was a connection before this one."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection, or an attempt at one, came to an end. `retry_in` is None where no further attempt follows."""

    code: int | None
    text: str
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class Draining:
    """The server is about to end. What is under way is still answered; Disconnected follows."""

    text: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is over, and this is its last event. `code` is None after `Session.close`."""

    code: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The membership begins, or goes on after an interruption (`again`). Messages up to `head` are old ones."""

    room: str
    name: str
    epoch: int
    head: int
    start: int
    oldest: int
    members: int
    quiet: bool
    again: bool


@dataclass(frozen=True, slots=True)
class JoinFailed:
    """The server refused. With `retry_in` the session tries again by itself, else the room is given up.

    `same_as` is the room that this name means too, where the session is in that one already.
    """

    room: str
    code: int | None
    text: str
    retry_in: float | None = None
    same_as: str | None = None


@dataclass(frozen=True, slots=True)
class Evicted:
    """The server ended the membership. With `retry_in` the session joins again by itself."""

    room: str
    code: int
    text: str
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class Left:
    """The room was left, as the application asked."""

    room: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message of a room's log, each once and in order; or one of a HistoryPage."""

    room: str
    epoch: int
    seq: int
    time_ms: int
    sender: int
    name: str
    verified: bool
    ctype: int
    payload: bytes
    own: bool
    """Whether this session published it."""
    id: bytes
    fields: tuple[Field, ...]

    @property
    def text(self) -> str:
        """The payload as text, with U+FFFD where it is none. It may still hold anything: see `render`."""
        return self.payload.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Gap:
    """The messages after (`old_epoch`, `after`) and before (`epoch`, `start`) are not to be had from the stream.

    Where the epochs differ the log began anew, and nobody knows how many they were. `old_epoch` is 0 where there
    was no cursor.
    """

    room: str
    old_epoch: int
    after: int
    epoch: int
    start: int


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """Somebody else came into the room."""

    room: str
    member: int
    name: str
    verified: bool


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """Somebody left the room, or was `lost`: the connection broke."""

    room: str
    member: int
    name: str
    lost: bool


@dataclass(frozen=True, slots=True)
class RosterChanged:
    """The roster was received anew: see `Session.roster`."""

    room: str


@dataclass(frozen=True, slots=True)
class RoomQuiet:
    """The room has too many members for a roster and for presence: both are over."""

    room: str


@dataclass(frozen=True, slots=True)
class Published:
    """The message has its place in the log."""

    ticket: int
    room: str
    id: bytes
    epoch: int
    seq: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class PublishFailed:
    """The message was not published; or with `unknown`, nobody can tell whether it was (RW-PROMISE-6)."""

    ticket: int
    room: str
    code: int | None
    text: str
    unknown: bool


@dataclass(frozen=True, slots=True)
class StopAnswered:
    """The server ends, or will not: then with the `code` and `text` of its refusal."""

    code: int | None
    text: str


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Exactly the messages of [`start`, `end`), ascending. `more`: what was asked for goes beyond them."""

    ticket: int
    room: str
    epoch: int
    messages: tuple[MessageReceived, ...]
    start: int
    end: int
    oldest: int
    more: bool


@dataclass(frozen=True, slots=True)
class HistoryFailed:
    """The request for history was refused, or its room was given up."""

    ticket: int
    room: str
    code: int | None
    text: str


Event = (
    Connected
    | Disconnected
    | Draining
    | Closed
    | Joined
    | JoinFailed
    | Evicted
    | Left
    | MessageReceived
    | Gap
    | MemberJoined
    | MemberLeft
    | RosterChanged
    | RoomQuiet
    | Published
    | PublishFailed
    | StopAnswered
    | HistoryPage
    | HistoryFailed
)
