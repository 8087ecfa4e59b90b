"""The server's clock: milliseconds that do not step back while a client is connected (RW-ID-4)."""

from __future__ import annotations

from reference_server.store.progress import Progress

AHEAD_MS = 60_000
"""How far ahead of the server's clock an id may be (RW-ID-2)."""


class ServerClock:
    """UTC milliseconds: the wall clock when the server started, and a steady clock since.

    A wall clock that is set while the server runs would make the ids of publishes look expired, or make the server
    forget them too early, so it is read only once. `progress` is that of the store: if the wall clock was set back
    while the server was down, the times in a room's log still do not decrease (RW-ACK-1), and if it is ahead, nothing
    has grown older because of that (RW-LIMIT-4). No span that is asked for is longer than `span_ms`.
    """

    __slots__ = ("_base_ms", "_last", "_last_ms", "_progress", "_start")

    def __init__(self, wall_ms: int, progress: Progress, span_ms: int, now: float) -> None:
        self._base_ms, self._progress = progress.started(wall_ms, span_ms)
        self._start = self._last = now
        self._last_ms = self._base_ms  # at _last: many publishes arrive at the same time

    def ms(self, now: float) -> int:
        """The time at `now`, which is in seconds of the steady clock."""
        if now != self._last:
            self._last, self._last_ms = now, self._base_ms + int((now - self._start) * 1000)
        return self._last_ms

    def progress(self, now: float, last_ms: int) -> Progress:
        """For the store. `last_ms` is the greatest time given to a message: until there is one of this server's own,
        the store's time goes on as if the wall clock had not been ahead, and the next server may step back."""
        time_ms, gaps = self._progress
        served_ms = self.ms(now) - self._base_ms
        return Progress((self._base_ms if last_ms >= self._base_ms else time_ms) + served_ms, gaps)

    def before(self, now: float, span_ms: int) -> int:
        """The time since which servers have run on the store for `span_ms`: what is earlier is older than that."""
        return self._progress.before(self.ms(now), span_ms)

    def forgettable(self, now: float, dedupe_ms: int) -> int:
        """The time such that ids before it need not be known any more: no later server, with any wall clock, takes
        them for new. `now` is the time of the last `progress` that the store has noted."""
        now_ms, gaps = self.ms(now), self._progress.gaps
        if gaps and gaps[-1][1] > now_ms - dedupe_ms - AHEAD_MS:
            dedupe_ms += AHEAD_MS  # ids before the gap may have been ahead of the clock by as much
        return self._progress.before(now_ms, dedupe_ms)
