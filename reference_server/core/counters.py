"""What the server counts while it works: plain numbers, which only the loop's thread changes.

What the metrics can read from the server's state (connections, rooms, members) is not counted here, and what happens
for each delivery is counted once a tick.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from protocol.registry import Code, FrameType

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
MESSAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)


class Histogram:
    """How many values were at most each of the `bounds` and above the one before; the last count: above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counters:
    """The counts of one server since it started."""

    __slots__ = (
        "accepted",
        "appended",
        "commit_messages",
        "commit_seconds",
        "deliveries",
        "errors",
        "evictions",
        "goaways",
        "joins",
        "late_seconds",
        "lost",
        "repeats",
        "stable",
        "tick_seconds",
    )

    def __init__(self) -> None:
        self.accepted = 0  # connections
        self.lost = 0  # of these, those that ended without a GOAWAY from either side
        self.joins = 0
        self.evictions = 0
        self.appended = 0  # messages that were given a seq
        self.stable = 0  # of these, those that are committed
        self.repeats = 0  # publishes that were answered with DUPLICATE
        self.deliveries = 0  # messages handed to members, in rooms that were unloaded
        self.errors: Counter[tuple[str, str]] = Counter()  # ERRORs by request and code
        self.goaways: Counter[tuple[str, str]] = Counter()  # GOAWAYs by who sent it and code
        self.commit_seconds = Histogram(SECONDS)
        self.commit_messages = Histogram(MESSAGES)
        self.tick_seconds = Histogram(SECONDS)  # only with a metrics port
        self.late_seconds = Histogram(SECONDS)

    def error(self, request: int, code: int) -> None:
        """An ERROR is sent to a request of the type `request`."""
        self.errors[_name(FrameType, request), _name(Code, code)] += 1

    def goaway(self, sender: str, code: int) -> None:
        """A GOAWAY was sent by the `sender`: "server" or "client"."""
        self.goaways[sender, _name(Code, code)] += 1


_NAMES = {kind: {int(member): member.name for member in kind} for kind in (FrameType, Code)}


def _name(kind: type[FrameType] | type[Code], number: int) -> str:
    """The name of a type or a code. All numbers without a name count as one, so a peer cannot add labels."""
    return _NAMES[kind].get(number, "UNKNOWN")
