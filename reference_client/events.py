"""The events that a session reports to its application, in the order in which things happened.

`room` is always the name that the application joined the room by; the server may spell it differently
(`Joined.name`). `ticket` is the number that `Session.publish` or `Session.history` returned. `retry_in` is in
seconds from now, `time_ms` in milliseconds since 1970. `code` is a number of SPEC.md, section 16, and may be unknown
to this program; it is None where the server sent none.
"""

from dataclasses import dataclass

from protocol.frames import Field


@dataclass(frozen=True, slots=True)
class Connected:
    """The server accepted the session as `name`. With `durable`, acknowledged messages survive a crash."""

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
    """The connection, or an attempt to connect, ended. `retry_in` is None if the session does not try again."""

    code: int | None
    text: str
    retry_in: float | None


@dataclass(frozen=True, slots=True)
class Draining:
    """The server is about to end. It still answers requests under way; Disconnected follows."""

    text: str
    retry_in: float


@dataclass(frozen=True, slots=True)
class Closed:
    """The session is over; this is its last event. `code` is None after `Session.close`."""

    code: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The membership begins, or resumes after an interruption (`again`). Messages up to `head` are old."""

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
    """The server refused a JOIN. With `retry_in` the session tries again by itself, otherwise it drops the room.

    `same_as` is the joined room that this name also means, or None (RW-NAME-7).
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
    """The session left the room, as the application asked."""

    room: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message of a room's stream, reported once and in order, or a message of a HistoryPage."""

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
        """The payload as text, with U+FFFD for ill-formed UTF-8. It is not safe to print: see `chat.render`."""
        return self.payload.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Gap:
    """The stream skips the messages after (`old_epoch`, `after`) and before (`epoch`, `start`).

    If the epochs differ, the log was reset and the number of missing messages is unknown. `old_epoch` is 0 if there
    was no cursor.
    """

    room: str
    old_epoch: int
    after: int
    epoch: int
    start: int


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """Another member joined the room."""

    room: str
    member: int
    name: str
    verified: bool


@dataclass(frozen=True, slots=True)
class MemberLeft:
    """A member left the room, or was `lost`: their connection broke."""

    room: str
    member: int
    name: str
    lost: bool
    verified: bool


@dataclass(frozen=True, slots=True)
class RosterChanged:
    """The server sent a new roster: see `Session.roster`."""

    room: str


@dataclass(frozen=True, slots=True)
class RoomQuiet:
    """The room has become too large for a roster and for presence; the server sends neither any more."""

    room: str


@dataclass(frozen=True, slots=True)
class Published:
    """The server acknowledged the message, which now has its place in the log."""

    ticket: int
    room: str
    id: bytes
    epoch: int
    seq: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class PublishFailed:
    """The message was not published, or with `unknown`, it may have been (RW-PROMISE-6)."""

    ticket: int
    room: str
    code: int | None
    text: str
    unknown: bool


@dataclass(frozen=True, slots=True)
class StopAnswered:
    """The server agreed to stop (`code` None), or refused with `code` and `text`."""

    code: int | None
    text: str


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Exactly the messages of [`start`, `end`), ascending. With `more`, the requested range goes on beyond them."""

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
    """The server refused the request for history, or the session dropped its room."""

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
