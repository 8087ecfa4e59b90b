"""The server's clock: milliseconds that never step back (RW-ID-4)."""


class ServerClock:
    """UTC milliseconds: the wall clock when the server started, and a steady clock since.

    A wall clock that is set while the server runs would make the ids of publishes look expired, or make the server
    forget them too early, so it is read only once. `floor_ms` is the greatest time in the store: if the wall clock was
    set back while the server was down, the times in a room's log still do not decrease (RW-ACK-1).
    """

    __slots__ = ("_base_ms", "_last", "_last_ms", "_start")

    def __init__(self, wall_ms: int, floor_ms: int, now: float) -> None:
        self._base_ms = max(wall_ms, floor_ms)
        self._start = self._last = now
        self._last_ms = self._base_ms  # at _last: many publishes arrive at the same time

    def ms(self, now: float) -> int:
        """The time at `now`, which is in seconds of the steady clock."""
        if now != self._last:
            self._last, self._last_ms = now, self._base_ms + int((now - self._start) * 1000)
        return self._last_ms
