"""Retention, and forgetting of ids: in open rooms and, a few at a time, in stored rooms that are not open."""

from __future__ import annotations

from collections.abc import Iterator

from reference_server.core.state import ServerState
from reference_server.store.base import Log

INTERVAL_SECONDS = 5.0

OPEN_ROOMS_AT_ONCE = 64
"""How many open rooms are swept without a pause."""

VISITS = 16
"""How many stored rooms are visited at once."""

VISIT_SECONDS = 1.0
"""How often. Rooms that are opened and released faster than this would be kept for longer than the settings say."""


class RetentionSweeper:
    """Applies the retention of the settings, also to rooms without members."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._due = self._visit_due = 0.0
        self._after = ""  # the key of the last stored room that was visited
        self._visiting = False

    def sweep(self, now: float) -> Iterator[None]:
        """Do what is due at `now`; it yields now and then between rooms."""
        state = self._state
        if now >= self._due:
            self._due = now + INTERVAL_SECONDS
            state.addresses.sweep(now)
            for number, room in enumerate(tuple(state.rooms.values()), 1):
                if state.rooms.get(room.key) is room:  # else its log was released meanwhile
                    self._apply(room.log)
                if number % OPEN_ROOMS_AT_ONCE == 0:
                    yield
        if now >= self._visit_due and not self._visiting:
            self._visit_due = now + min(VISIT_SECONDS, INTERVAL_SECONDS)
            self._visiting = True
            state.store.keys(self._after, VISITS, self._visit)

    def _apply(self, log: Log) -> None:
        now_ms = self._state.clock.ms(self._state.now)
        log.retain(now_ms)
        log.forget(now_ms - self._state.config.dedupe_ms)

    def _visit(self, keys: list[str]) -> None:
        self._visiting = False
        self._after = keys[-1] if len(keys) == VISITS else ""  # from the beginning, after the last
        for key in keys:
            if key not in self._state.rooms:
                self._state.store.open(key, key, lambda log, _created: self._opened(log))

    def _opened(self, log: Log) -> None:
        self._apply(log)
        self._state.store.release(log)
