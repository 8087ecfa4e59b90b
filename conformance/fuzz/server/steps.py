"""What the connections of a script do, one step after the other, as plain values that fit into a line of JSON.

Every step can be taken in every situation: one that makes no sense (a PUBLISH of a client that is not connected) is
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
"""What a step may do; `docs` of `player.Player` say how each is judged."""

ITEMS = (
    # joining, and leaving
    "join", "join-last", "join-own", "join-old", "join-ahead", "join-other-epoch", "leave",
    # publishing
    "text", "empty", "octets", "ctype", "relayed", "field", "large", "ordered",
    "repeat", "repeat-old", "repeat-ordered", "conflict", "conflict-field", "bad-text", "too-large", "expired", "ahead",
    "ordered-bad-text",
    # history
    "history", "history-newest", "history-end", "history-empty", "history-backwards",
    # more than a transport holds for one who does not read
    "flood",
    # what anybody may send at any time
    "ping", "pong", "unknown", "unknown-request", "flags",
)  # fmt: skip
"""Requests and other frames of one "send", which go out in one segment, and are answered in this order."""


@dataclass(frozen=True)
class Step:
    """One step. `client` and `room` are numbers of the script's own.

    `items`: the frames of a "send", those in front of a GOAWAY or of a drop, or those that one says who does not read
    yet, just before a "resume". `what`: which variant of a step: how a connection is dropped (fin, reset, half,
    unanswered), which rule is broken, where one stays idle. `number`: a parameter of the
    items (how far back a cursor or a repeat goes), or milliseconds of "time". `roster`: JOINs ask for the roster.
    `cut`: octets are handed to the transport in so many pieces, 0 and 1 standing for one. `octets`: in hexadecimal, all
    that a new connection says, before it ends its stream.
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
        """The values that are not the usual ones."""
        usual = Step(self.do)
        values = {name: value for name, value in vars(self).items() if name == "do" or value != getattr(usual, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Step":
        """The step of such values. Raises TypeError or ValueError for others."""
        known: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
        step = cls(**known)
        if step.do not in KINDS or not set(step.items) <= set(ITEMS):
            raise ValueError(f"no such step: {value}")
        return step

    def simpler(self) -> Iterable["Step"]:
        """Steps that do less, the simplest first."""
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
    """Octets without one frame, then without a part, the largest parts first."""
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
