"""What a connection reports to whoever drives it: SPEC.md, sections 6 and 8.

Events are past participles. A server's connection reports requests as the frames themselves (`Hello`, `Join`,
`Publish` ...) and the events below; a client's connection reports only the events below.
"""

from dataclasses import dataclass

from protocol.frames import Frame, Goaway, Welcome
from protocol.registry import Code


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """Server: a request that cannot be accepted whatever the application thinks. To be answered, in its turn, with
    ERROR of this code."""

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
    """Client: the server wants one more SASL step; answer with `authenticate`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Replied:
    """Client: the final reply to a request of ours, HELLO included where it was refused."""

    request: Frame
    reply: Frame


@dataclass(frozen=True, slots=True)
class Received:
    """Client: a frame of a room's stream, EVICTED, or a MESSAGE of a HISTORY (its `request` is not 0)."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class DrainStarted:
    """Client: the server is about to end. No new requests; the connection ends by itself."""

    goaway: Goaway


@dataclass(frozen=True, slots=True)
class ConnectionTerminated:
    """The connection is of no further use. `by_peer` says who said so; `goaway` is None where nobody did.

    `code` is NONE for an orderly end, and None where the transport ended, or never spoke the protocol.
    """

    code: int | None
    by_peer: bool
    text: str = ""
    goaway: Goaway | None = None


ClientEvent = Connected | Challenged | Replied | Received | DrainStarted | ConnectionTerminated
ServerEvent = Frame | RequestRefused | ConnectionTerminated
