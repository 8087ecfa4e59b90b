"""The steps of a script as plain values that fit into a line of JSON: what clients and the server do, one by one.

Every step can be taken in every situation. One that makes no sense (a PUBLISH of a client that is not connected) is
passed over. So any part of a script is a script, and shrinking only has to leave steps out.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from conformance.wire.octets import split_frames
from protocol.registry import PREFACE_SIZE

KINDS = (
    "connect", "send", "drop", "goaway", "pause", "resume", "break", "handshake", "octets", "idle",
    "login", "restart", "drain", "operator", "time",
)  # fmt: skip
"""What a step may do. Each has a function that takes it: `player.STEPS`."""

ITEMS = (
    # joining, and leaving
    "join", "join-last", "join-own", "join-old", "join-ahead", "join-other-epoch", "leave",
    # publishing
    "text", "empty", "octets", "ctype", "relayed", "field", "large", "ordered",
    "repeat", "repeat-old", "repeat-ordered", "conflict", "conflict-field", "bad-text", "too-large", "expired", "ahead",
    "ordered-bad-text",
    # history
    "history", "history-newest", "history-end", "history-empty", "history-backwards",
    # more than a transport holds for a client that does not read
    "flood",
    # what may be sent at any time
    "ping", "pong", "unknown", "unknown-request", "flags",
)  # fmt: skip
"""Requests and other frames of a "send", which go out in one segment and are answered in the order of the step."""


@dataclass(frozen=True)
class Step:
    """One step. `client` and `room` are numbers of the script's own.

    `items` are the frames of a "send", those before a "goaway" or "drop", or those that a client sends before it reads
    again ("resume"). `what` is the variant of a step: how a connection is dropped (fin, reset, half, unanswered), which
    rule is broken, where a connection stays idle. `number` is a parameter of the items (how far back a cursor or a
    repeat goes), or the milliseconds of "time". With `roster` JOINs ask for the roster. `cut` is the number of pieces
    in which octets are handed to the transport; 0 and 1 stand for one. `octets`, in hexadecimal, are all that a new
    connection says before it ends its stream.
    """

    do: str
    client: int = 0
    room: int = 0
    what: str = ""
    items: tuple[str, ...] = ()
    number: int = 0
    roster: bool = False
    cut: int = 0
    octets: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the members that do not have their default values."""
        default = Step(self.do)
        values = {name: value for name, value in vars(self).items() if name == "do" or value != getattr(default, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Step":
        """Returns the step that `to_json` made this of. Raises TypeError or ValueError for other values."""
        known: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
        step = cls(**known)
        if step.do not in KINDS or not set(step.items) <= set(ITEMS):
            raise ValueError(f"no such step: {value}")
        return step

    def simpler(self) -> Iterable["Step"]:
        """Yields steps that do less, the simplest first."""
        for octets in _shorter(bytes.fromhex(self.octets)):
            yield replace(self, octets=octets.hex())
        for at in range(len(self.items)):
            if len(self.items) > 1 or self.do != "send":
                yield replace(self, items=self.items[:at] + self.items[at + 1 :])
        for at, item in enumerate(self.items):
            for plain in _PLAINER.get(item, ()):
                yield replace(self, items=(*self.items[:at], plain, *self.items[at + 1 :]))
        for name, value in (("cut", 0), ("roster", False), ("number", 0), ("number", 1)):
            if getattr(self, name) != value and not (name == "number" and self.number == 0):
                other: dict[str, Any] = {name: value}
                yield replace(self, **other)


def _shorter(octets: bytes) -> Iterable[bytes]:
    """Yields the octets without one frame, then without a part of any size, the largest first."""
    frames, rest = split_frames(octets[PREFACE_SIZE:])
    for at in range(len(frames) if len(frames) > 1 else 0):
        yield octets[:PREFACE_SIZE] + b"".join(frames[:at] + frames[at + 1 :]) + rest
    size = len(octets) // 2
    while size:
        for at in range(0, len(octets), size):
            yield octets[:at] + octets[at + size :]
        size //= 2


_PLAINER = {
    "join-last": ("join",),
    "join-own": ("join",),
    "join-old": ("join", "join-own"),
    "join-ahead": ("join", "join-own"),
    "join-other-epoch": ("join", "join-own"),
    **dict.fromkeys(("empty", "octets", "ctype", "relayed", "field", "large", "ordered"), ("text",)),
    "repeat-old": ("repeat",),
    "repeat-ordered": ("repeat", "ordered"),
    "conflict-field": ("conflict",),
    "ordered-bad-text": ("bad-text",),
    "history-newest": ("history",),
    "history-end": ("history",),
}
