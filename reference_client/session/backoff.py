"""How long to wait before connecting again (SPEC.md, section 8.7). All times are in seconds."""

import random

from protocol.frames import Error, Goaway
from protocol.registry import Flag

_LONGEST = 300.0
_FIRST_BOUND = 1.0
_LAST_BOUND = 60.0
_LASTING = 60.0  # a connection that was open this long resets the bound


class Backoff:
    """Random waits below a bound, which doubles while connections do not last."""

    __slots__ = ("_bound", "_rng")

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._bound = _FIRST_BOUND

    def failed(self) -> float:
        """Seconds to wait after an attempt to connect that failed."""
        return self.ended(None)

    def ended(self, farewell: Goaway | Error | None, *, open_for: float = 0.0, orderly: bool = False) -> float:
        """Seconds to wait after a connection that was OPEN for `open_for` seconds.

        `farewell` is the last GOAWAY or ERROR of the server, if it sent one: it may name a time. After an `orderly`
        end the bound does not grow.
        """
        if open_for >= _LASTING:
            self._bound = _FIRST_BOUND
        wait = self._rng.uniform(0, self._bound)  # RW-RECONNECT-3
        if not orderly:
            self._bound = min(2 * self._bound, _LAST_BOUND)
        if farewell is None or not farewell.flags & Flag.RETRY:
            return wait
        jitter_ms = farewell.jitter_ms if isinstance(farewell, Goaway) else 0
        return max(wait, min(farewell.retry_ms / 1000 + self._rng.uniform(0, jitter_ms / 1000), _LONGEST))
