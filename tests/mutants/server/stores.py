"""Server mutants whose store loses or changes something in a crash or a restart (SPEC.md, 3, 4, 10)."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol.frames import (
    Welcome,
)
from reference_server.core.handlers.publish import Publication
from reference_server.store.base import Repeat, Retention
from reference_server.store.id_index import IdIndex
from reference_server.store.memory import MemoryLog, MemoryStore
from tests.mutants.servers import Durable, MakeStore, MutantConnection, Sent, ServerMutant, durable


class LateStore(Durable):
    """Makes commits durable `seconds` later. A crash loses the messages that are not durable yet."""

    starts = 0
    seconds = 0.2

    def make_stable(self, heads: list[tuple[MemoryLog, int]]) -> None:
        starts, make_stable = self.starts, super().make_stable

        def become_durable() -> None:
            if starts == self.starts:
                make_stable(heads)

        asyncio.get_running_loop().call_later(self.seconds, become_durable)

    def start_again(self) -> None:
        """Drops the messages that were not durable."""
        self.starts += 1
        for log in self._logs.values():
            del log._records[log.head + 1 - log.oldest :]
            log._ids = IdIndex()


def _late_store(old: MemoryStore | None, retention: Retention) -> MemoryStore:
    store = old or LateStore(retention)
    assert isinstance(store, LateStore)
    store.start_again()
    return store


def _duplicate_acked_too_early(patch: pytest.MonkeyPatch) -> None:
    ready: Any = vars(Publication)["ready"]
    patch.setattr(Publication, "ready", property(lambda p: isinstance(p.outcome, Repeat) or ready.fget(p)))


def _after_crash(change: Callable[[MemoryStore], None]) -> MakeStore:
    """The same store after each start, changed."""

    def make(old: MemoryStore | None, retention: Retention) -> MemoryStore:
        if old is None:
            return Durable(retention)
        change(old)
        return old

    return make


def _crash_loses_last_message(store: MemoryStore) -> None:
    for log in store._logs.values():
        del log._records[-1:]
        log.head = log.tail


def _crash_leaves_hole(store: MemoryStore) -> None:
    for log in store._logs.values():
        log._records[2:] = [record._replace(seq=record.seq + 1) for record in log._records[2:]]


def _crash_forgets_ids(store: MemoryStore) -> None:
    for log in store._logs.values():
        log.forget(2**48)


def _crash_changes_epochs(store: MemoryStore) -> None:
    for log in store._logs.values():
        log.epoch ^= 2


def _crash_loses_everything(old: MemoryStore | None, retention: Retention) -> MemoryStore:
    return Durable(retention)


def _restart_reuses_epochs(old: MemoryStore | None, retention: Retention) -> MemoryStore:
    return MemoryStore(retention, lambda size: bytes(size))


def _restart_sets_clock_back(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Welcome):
        back = 100_000 * c.world["starts"] + 1000 * next(c.world.setdefault("welcomes", itertools.count()))
        return [replace(sent, now_ms=sent.now_ms - back)]
    return [sent]


MUTANTS: tuple[ServerMutant, ...] = (
    # 3 Model
    ServerMutant(
        "crash-changes-epochs",
        "Changes the epochs of durable rooms in a crash.",
        ("RW-MODEL-5",),
        store=_after_crash(_crash_changes_epochs),
    ),
    ServerMutant(
        "restart-reuses-epochs",
        "Starts a volatile log again in its old epoch.",
        ("RW-MODEL-4",),
        store=_restart_reuses_epochs,
    ),
    # 4 The promise
    ServerMutant(
        "crash-loses-last-message",
        "Loses the last message of each room in a crash.",
        ("RW-PROMISE-1", "RW-PROMISE-2", "RW-PROMISE-3"),
        store=_after_crash(_crash_loses_last_message),
    ),
    ServerMutant(
        "crash-leaves-hole",
        "Loses a message in the middle of each log in a crash.",
        ("RW-PROMISE-3",),
        store=_after_crash(_crash_leaves_hole),
    ),
    ServerMutant(
        "crash-loses-everything",
        "Sends that it is durable, and loses everything in a crash.",
        ("RW-PROMISE-2", "RW-MODEL-5"),
        store=_crash_loses_everything,
    ),
    # 7.2 WELCOME
    ServerMutant(
        "restart-lowers-max-body",
        "Announces a smaller max_body after a restart.",
        ("RW-WELCOME-5",),
        store=durable,
        sends=lambda c, f: [replace(f, max_body=4096) if isinstance(f, Welcome) and c.world["starts"] > 1 else f],
    ),
    # 10.1 Ids, 10.2 Repeats
    ServerMutant(
        "restart-sets-clock-back",
        "Sets its clock back with each connection and restart.",
        ("RW-ID-4", "RW-ACK-1"),
        store=durable,
        sends=_restart_sets_clock_back,
    ),
    ServerMutant(
        "crash-forgets-ids",
        "Forgets the ids of messages in a crash.",
        ("RW-DEDUPE-3", "RW-DEDUPE-1"),
        store=_after_crash(_crash_forgets_ids),
    ),
    ServerMutant(
        "duplicate-acked-too-early",
        "Acknowledges a repeat before the first copy is durable.",
        ("RW-DEDUPE-5",),
        store=_late_store,
        patch=_duplicate_acked_too_early,
    ),
)
