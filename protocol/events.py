"""What a connection reports to its driver (SPEC.md, sections 6 and 8).

Events are past participles. A server's connection reports requests as the frames themselves (`Hello`, `Join`,
`Publish` ...), and the events below. A client's connection reports only the events below.
"""

from dataclasses import dataclass

from protocol.frames import Frame, Goaway, Welcome
from protocol.registry import Code


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """Server: a request that the protocol itself refuses. The application answers it in turn, with ERROR of `code`."""

    type: int
    request: int
    room: int
    code: Code
    text: str


@dataclass(frozen=True, slots=True)
class Connected:
    """Client: the handshake is complete."""

    welcome: Welcome


@dataclass(frozen=True, slots=True)
class Challenged:
    """Client: the server asks for one more SASL step. Answer with `authenticate`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Replied:
    """Client: the final reply to a request arrived; to HELLO only if that is ERROR."""

    request: Frame
    reply: Frame


@dataclass(frozen=True, slots=True)
class Received:
    """Client: a frame of a room's stream, EVICTED, or a part of a reply: a MESSAGE that answers HISTORY."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class DrainStarted:
    """Client: the server is about to stop. It takes no new requests, and the connection ends by itself."""

    goaway: Goaway


@dataclass(frozen=True, slots=True)
class ConnectionTerminated:
    """The connection has ended. `by_peer` is whether the peer ended it, `goaway` is the peer's GOAWAY, if it sent one.

    `code` is NONE for an orderly end, and None if the transport ended, or the peer does not speak the protocol.
    """

    code: int | None
    by_peer: bool
    text: str = ""
    goaway: Goaway | None = None


ClientEvent = Connected | Challenged | Replied | Received | DrainStarted | ConnectionTerminated
ServerEvent = Frame | RequestRefused | ConnectionTerminated
