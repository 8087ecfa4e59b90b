"""The server's clock: milliseconds that never step back (RW-ID-4)."""


class ServerClock:
    """UTC milliseconds, from the wall clock at the start and a steady clock since.

    A wall clock that is set while the server runs would make ids of publishes look expired, or forgotten too early; so
    it is looked at once. `floor_ms` is the greatest time in the store: a wall clock that was set back while the server
    was down does not let the times in a room's log decrease (RW-ACK-1).
    """

    __slots__ = ("_base_ms", "_start")

    def __init__(self, wall_ms: int, floor_ms: int, now: float) -> None:
        self._base_ms = max(wall_ms, floor_ms)
        self._start = now

    def ms(self, now: float) -> int:
        """The time at `now`, in seconds of the steady clock."""
        return self._base_ms + int((now - self._start) * 1000)
