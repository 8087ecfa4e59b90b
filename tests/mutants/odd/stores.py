"""Odd servers that retain little, are slow to store, or offer the core alone (SPEC.md, section 17.5)."""

import os
from collections.abc import Callable

import pytest

from reference_server.store.base import Log, Retention
from reference_server.store.memory import MemoryLog, MemoryStore
from tests.mutants.odd.servers import OddServer
from tests.mutants.server.stores import LateStore
from tests.mutants.servers import MakeStore


class SlowDisk(LateStore):
    """Makes commits durable half a second later."""

    seconds = 0.5

    def start_again(self) -> None:
        """Drops the messages that were not durable, and no ids but theirs."""
        durable = {log: {id: log.lookup(id) for id in log._ids._values} for log in self._logs.values()}
        super().start_again()
        for log, ids in durable.items():
            for id, known in ids.items():
                if known and known.seq <= log.head:
                    log._ids.add(id, known)


class Ring(MemoryStore):
    """Retains the newest messages of each room, and trims the others at once."""

    def make_stable(self, heads: list[tuple[MemoryLog, int]]) -> None:
        super().make_stable(heads)
        for log, _ in heads:
            log.trim(log.head + 1 - (self.retention.messages or 0))


class Forgetful(Ring):
    """Forgets each room when it is empty: then the room begins anew, with a new epoch."""

    def open(
        self, key: str, name: str, done: Callable[[Log, bool], None], damaged: Callable[[], None] = lambda: None
    ) -> None:
        if key not in self._logs:
            self._incarnation = os.urandom(32)
        super().open(key, name, done)

    def release(self, log: Log) -> None:
        held = self._logs[log.key]
        held.users -= 1
        if not held.users:
            del self._logs[log.key]


def _slow_disk(old: MemoryStore | None, retention: Retention) -> MemoryStore:
    if old is None:
        return SlowDisk(retention)
    assert isinstance(old, SlowDisk)
    old.start_again()
    return old


def _anew(kind: type[MemoryStore]) -> MakeStore:
    return lambda old, retention: kind(retention)


def _no_extensions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("reference_server.core.handlers.hello.extensions", lambda hello: {})


_NO_RETENTION = frozenset({"no-retention"})
_SMALL = {
    "retention_messages": 0, "dedupe_ms": 0, "publish_rate": 10**9, "publish_burst": 10**9, "join_rate": 10**9,
    "join_burst": 10**9,
}  # fmt: skip

ODD: tuple[OddServer, ...] = (
    OddServer(
        "small",
        "Is the small server of section 17.5, and says so.",
        patch=_no_extensions,
        store=_anew(Forgetful),
        config=_SMALL,
        accounts=False,
        declared=_NO_RETENTION,
    ),
    OddServer(
        "small-undeclared",
        "Is the small server of section 17.5, and declares nothing.",
        patch=_no_extensions,
        store=_anew(Forgetful),
        config=_SMALL,
        accounts=False,
    ),
    OddServer("retains-3", "Retains three messages of each room.", store=_anew(Ring), config={"retention_messages": 3}),
    OddServer(
        "retains-none", "Retains no message, and remembers ids.", store=_anew(Ring), config={"retention_messages": 0}
    ),
    OddServer("slow-disk", "Makes messages durable half a second after they came.", store=_slow_disk),
)
