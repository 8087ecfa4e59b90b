"""Whether the store answers: how long its oldest commit, and its oldest question, have been under way."""

from __future__ import annotations

import logging
from collections import deque

from reference_server.store.base import Store

log = logging.getLogger("roomwire.server")

STUCK_SECONDS = 5.0
"""A store that has not answered for so long is stuck: nobody's publishes are acknowledged, or no room is opened."""


class DiskWatch:
    """Watches a store. `now` is in seconds of a steady clock."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._commits: deque[tuple[float, int]] = (
            deque()
        )  # of each that is not finished: when it began, its last message
        self._asked: float | None = None  # when the question was asked that is not answered
        self._told = False  # that the store is stuck

    def commit_begun(self, now: float, last: int) -> None:
        """The store was asked to commit; it has given places to `last` messages in all."""
        self._commits.append((now, last))

    def commits_ended(self, stable: int) -> list[float]:
        """So many messages are stable in all. When the commits began that have ended by that."""
        ended = []
        while self._commits and self._commits[0][1] <= stable:
            ended.append(self._commits.popleft()[0])
        return ended

    def oldest_commit_seconds(self, now: float) -> float:
        """How long the oldest commit that is not finished has taken; 0 if there is none."""
        return now - self._commits[0][0] if self._commits else 0.0

    def stuck(self, now: float) -> bool:
        """Whether the store does not answer."""
        asked = 0.0 if self._asked is None else now - self._asked
        return max(asked, self.oldest_commit_seconds(now)) >= STUCK_SECONDS

    def watch(self, now: float) -> None:
        """To be called about once a second: ask the store a small question, and log that it is stuck, or no longer."""
        if self._asked is None:
            self._asked = now
            self._store.keys("", 1, self._answered)
        stuck = self.stuck(now)
        if stuck and not self._told:
            seconds = round(self.oldest_commit_seconds(now), 1)
            log.error("the disk does not answer; nothing is acknowledged", extra={"oldest_commit_seconds": seconds})
        elif self._told and not stuck:
            log.warning("the disk answers again")
        self._told = stuck

    def _answered(self, _keys: list[str]) -> None:
        self._asked = None
