"""One frame of each type: as the example in SPEC.md has it, and with extension fields."""

from dataclasses import replace
from typing import Any

from protocol.fields import agent, extension, mechanism, server_identity
from protocol.frames import (
    Ack,
    Auth,
    Error,
    Evicted,
    Field,
    Frame,
    Goaway,
    Hello,
    History,
    HistoryEnd,
    Join,
    Joined,
    Leave,
    Message,
    Ok,
    Ping,
    Pong,
    Presence,
    Publish,
    Roster,
    RosterEntry,
    Stop,
    Welcome,
)
from protocol.registry import Code, ContentType, Flag, FrameType, PresenceKind

EPOCH = 0xA1B2C3D4E5F60718
ADA = 0x1122334455667788
ID = bytes.fromhex("018BCFE568000123456789ABCDEF0123")

EXAMPLES: dict[FrameType, Frame] = {
    type(frame).TYPE: frame
    for frame in (
        Hello("ada", "ANONYMOUS", b"", request=1),
        Welcome(ADA, "ada", 1_700_000_000_000, 65_536, 30_000, 600_000, 32, 256, b"", flags=Flag.DURABLE, request=1),
        Auth(b"n,,", request=1),
        Error(Code.RATE_LIMITED, 50, "slow", flags=Flag.RETRY, request=7, room=5),
        Ok(request=9, room=5),
        Ping(bytes(range(1, 9))),
        Pong(bytes(range(1, 9))),
        Goaway(Code.SHUTDOWN, 1_000, 5_000, "bye", flags=Flag.RETRY),
        Join("lobby", EPOCH, 41, flags=Flag.ROSTER, request=2),
        Joined(EPOCH, 43, 42, 1, 2, "lobby", request=2, room=5),
        Roster((RosterEntry(ADA, 0, "ada"),), flags=Flag.RESET, room=5),
        Presence(PresenceKind.JOINED, ADA, "ada", room=5),
        Leave(request=9, room=5),
        Evicted(Code.LAGGED, 0, "too behind", flags=Flag.RETRY, room=5),
        Publish(ID, ContentType.TEXT, b"hi", request=3, room=5),
        Ack(44, 1_700_000_000_005, request=3, room=5),
        Message(44, 1_700_000_000_005, ADA, ID, ContentType.TEXT, "ada", b"hi", room=5),
        History(1, 0, 100, flags=Flag.NEWEST, request=4, room=5),
        HistoryEnd(1, 45, 1, request=4, room=5),
        Stop(request=10),
    )
}
"""The frames of the examples in section 7 of SPEC.md, by type."""

_RELAYED = (Field(0xC001, b"re"),)
_LONGER: dict[FrameType, dict[str, Any]] = {
    FrameType.HELLO: {"auth": b"\x00x", "fields": (extension("history", b"d"), agent("a/1"))},
    FrameType.WELCOME: {"auth": b"v", "fields": (server_identity(3, "h:1"), agent("b"))},
    FrameType.ERROR: {"fields": (mechanism("A"), mechanism("B"))},
    FrameType.ROSTER: {"entries": (RosterEntry(1, 2, "\u00e9"), RosterEntry(3, 0, "bob")), "fields": _RELAYED},
}

WITH_FIELDS: dict[FrameType, Frame] = {
    type: replace(frame, **_LONGER.get(type, {"fields": _RELAYED})) for type, frame in EXAMPLES.items()
}
"""The same frames with extension fields, and with no part of a body empty that may have octets."""
