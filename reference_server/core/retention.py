"""Retention, and forgetting of ids: in open rooms and, a few at a time, in stored rooms that are not open."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from reference_server.core.state import ServerState
from reference_server.store.base import Log

log = logging.getLogger("roomwire.server")

INTERVAL_SECONDS = 5.0

NOTE_SECONDS = 300.0
"""How often the store is told the time while nobody publishes."""

STEP_MS = 60_000
"""By how much a wall clock must be set for the operator to be told, and the server to read it again when it can."""

FAR_MS = 3_600_000
"""How far the wall clock and the store's time may be apart at the start before the operator is told."""

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
        self._noted = 0  # how many messages there were when the time was noted last
        self._ahead_ms = self._compare_at_start()  # the wall clock, of the server's

    def check_clock(self, now: float, *, alone: bool) -> None:
        """Warn of a wall clock that was set. Without clients, which make ids by it, the server goes by the new time."""
        state = self._state
        now_ms, wall_ms = state.clock.ms(now), state.host.wall_ms()
        if abs(wall_ms - now_ms - self._ahead_ms) < STEP_MS:
            return
        extra = {"clock": _for_people(wall_ms), "server": _for_people(now_ms)}
        if alone:
            state.start_clock(state.clock.progress(now, state.store.last_time_ms))
            log.warning("the clock was set, and read again", extra=extra)
        else:
            log.warning("the clock was set; the server keeps its own time while clients are connected", extra=extra)
        self._ahead_ms = wall_ms - state.clock.ms(now)

    def _compare_at_start(self) -> int:
        state = self._state
        stored_ms, wall_ms = state.store.progress.settled(state.store.last_time_ms).time_ms, state.host.wall_ms()
        extra = {"clock": _for_people(wall_ms), "store": _for_people(stored_ms)}
        if stored_ms - wall_ms > FAR_MS:
            text = "the clock is behind the store, whose time goes on; if the clock is right, see renew --restamp"
            log.warning(text, extra=extra)
        elif stored_ms and wall_ms - stored_ms > FAR_MS:
            log.warning("the clock is ahead of the store; no message grows older by the time between", extra=extra)
        return wall_ms - state.clock.ms(state.now)

    def sweep(self, now: float) -> Iterator[None]:
        """Do what is due at `now`; it yields now and then between rooms."""
        state = self._state
        if now >= self._due:
            self._due = now + INTERVAL_SECONDS
            state.addresses.sweep(now)
            if state.counters.appended != self._noted or now - state.clock_noted >= NOTE_SECONDS:
                self._noted = state.counters.appended
                state.note_clock()
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
        state, config = self._state, self._state.config
        log.retain(state.clock.before(state.now, config.retention_ms) + config.retention_ms)  # RW-LIMIT-4
        log.forget(state.clock.forgettable(state.clock_noted, config.dedupe_ms))  # RW-ID-4

    def _visit(self, keys: list[str]) -> None:
        self._visiting = False
        self._after = keys[-1] if len(keys) == VISITS else ""  # from the beginning, after the last
        for key in keys:
            if key not in self._state.rooms and key not in self._state.damaged_rooms:
                self._state.store.open(key, key, lambda log, _created: self._opened(log))

    def _opened(self, log: Log) -> None:
        self._apply(log)
        self._state.store.release(log)


def _for_people(time_ms: int) -> str:
    """The time in UTC, to the second."""
    try:
        return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError):  # after the year 9999
        return f"{time_ms} ms"
