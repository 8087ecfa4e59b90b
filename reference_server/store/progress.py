"""What a store keeps of the time, so that a wall clock that is wrong for a while does no harm (SPEC.md, section 10.1).

A server's clock goes on from where the store's ended. Where the wall clock is ahead of that by more than JUMP_MS, the
server was down, or the wall clock is wrong, and nobody can tell which: the time between is a *gap*, in which nothing
grows older.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import NamedTuple

JUMP_MS = 60_000
"""A wall clock that is ahead by less than this is believed."""

GAPS = 64
"""How many gaps are kept; of more, the two with the least time between them become one."""


class Progress(NamedTuple):
    """How far a store's time has come: UTC milliseconds, and the gaps before it, from the oldest to the newest.

    A gap that ends after `time_ms` counts only if a message was given a time after it.
    """

    time_ms: int = 0
    gaps: tuple[tuple[int, int], ...] = ()

    def settled(self, last_ms: int) -> Progress:
        """As a server finds it that starts, if `last_ms` is the greatest time that was given to a message.

        Without messages there is nothing to protect, so the time begins again.
        """
        if not last_ms:
            return Progress()
        time_ms = max(self.time_ms, last_ms)
        return Progress(time_ms, tuple(gap for gap in self.gaps if gap[1] <= time_ms))

    def started(self, wall_ms: int, span_ms: int) -> tuple[int, Progress]:
        """The time at which a server's clock starts, and the progress then: what was not served becomes a gap.

        Gaps that are farther back than `span_ms` are dropped.
        """
        start_ms = max(wall_ms, self.time_ms)
        since_ms = self.before(self.time_ms, span_ms)
        gaps = tuple(gap for gap in self.gaps if gap[1] > since_ms)
        if not self.time_ms or start_ms - self.time_ms <= JUMP_MS:
            return start_ms, Progress(start_ms, gaps)
        return start_ms, Progress(self.time_ms, _joined((*gaps, (self.time_ms, start_ms))))

    def before(self, now_ms: int, span_ms: int) -> int:
        """The time since which `span_ms` have been served, up to `now_ms`."""
        for start, end in reversed(self.gaps):
            if now_ms - span_ms >= end:
                break
            span_ms -= max(0, now_ms - end)
            now_ms = start
        return now_ms - span_ms

    def text(self) -> str:
        """For the store; `parse` is the inverse."""
        return json.dumps({"time_ms": self.time_ms, "gaps": self.gaps}, separators=(",", ":"))


def parse(text: str) -> Progress:
    """What `Progress.text` made; nothing of ""."""
    if not text:
        return Progress()
    values = json.loads(text)
    return Progress(values["time_ms"], tuple((start, end) for start, end in values["gaps"]))


def _joined(gaps: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    while len(gaps) > GAPS:
        served = [later[0] - earlier[1] for earlier, later in pairwise(gaps)]
        at = served.index(min(served))
        gaps = (*gaps[:at], (gaps[at][0], gaps[at + 1][1]), *gaps[at + 2 :])
    return gaps
