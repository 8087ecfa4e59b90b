"""Retention, and forgetting of ids: for rooms that are open and, a few at a time, for those that lie in the store."""

from __future__ import annotations

from collections.abc import Iterator

from reference_server.core.state import Context
from reference_server.store.base import Log

INTERVAL_SECONDS = 5.0

TENDED_AT_ONCE = 64
"""How many open rooms are tended without a pause."""

VISITS = 16
"""How many stored rooms are visited at once."""

VISIT_SECONDS = 1.0
"""How often. Rooms that come and go faster than this would be kept for longer than they are to be."""


class RetentionSweeper:
    """Applies the retention that is set, also to rooms that nobody visits."""

    def __init__(self, hub: Context) -> None:
        self._hub = hub
        self._due = self._visit_due = 0.0
        self._after = ""  # the last stored room that was visited
        self._visiting = False

    def sweep(self, now: float) -> Iterator[None]:
        """Do what is due at `now`; it yields between rooms, now and then."""
        if now >= self._due:
            self._due = now + INTERVAL_SECONDS
            self._hub.addresses.sweep(now)
            for number, room in enumerate(tuple(self._hub.rooms.values()), 1):
                if self._hub.rooms.get(room.key) is room:  # else its log was given back meanwhile
                    self._tend(room.log)
                if number % TENDED_AT_ONCE == 0:
                    yield
        if now >= self._visit_due and not self._visiting:
            self._visit_due = now + min(VISIT_SECONDS, INTERVAL_SECONDS)
            self._visiting = True
            self._hub.store.keys(self._after, VISITS, self._visit)

    def _tend(self, log: Log) -> None:
        now_ms = self._hub.clock_ms(self._hub.now)
        log.retain(now_ms)
        log.forget(now_ms - self._hub.config.dedupe_ms)

    def _visit(self, keys: list[str]) -> None:
        self._visiting = False
        self._after = keys[-1] if len(keys) == VISITS else ""  # from the beginning, after the last
        for key in keys:
            if key not in self._hub.rooms:
                self._hub.store.open(key, key, lambda log, _created: self._visited(log))

    def _visited(self, log: Log) -> None:
        self._tend(log)
        self._hub.store.release(log)
