"""A volatile store: everything is in memory, stable as soon as it is committed, and gone with the process.

For tests and for rooms whose history may be lost. Each store has new epochs, since its logs start empty.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections.abc import Callable
from pathlib import Path

from reference_server.store.base import (
    INCARNATION_SIZE,
    Known,
    Log,
    Proposal,
    Record,
    Retention,
    StoreError,
    epoch_of,
    ignore,
)
from reference_server.store.id_index import IdIndex
from reference_server.store.progress import Progress
from reference_server.store.walk import walk


class MemoryLog:
    """One room's log: a list of records, the first of which is `oldest`."""

    __slots__ = (
        "_ids",
        "_proposals",
        "_records",
        "_store",
        "epoch",
        "head",
        "key",
        "last_time_ms",
        "moved",
        "name",
        "octets",
        "oldest",
        "users",
    )

    def __init__(self, store: MemoryStore, key: str, name: str, epoch: int) -> None:
        self._store = store
        self._records: list[Record] = []
        self._ids = IdIndex()
        self._proposals: list[Proposal] = []
        self.moved: Callable[[list[Record]], None] = ignore
        self.key = key
        self.name = name
        self.epoch = epoch
        self.head = 0
        self.oldest = 1
        self.last_time_ms = 0
        self.octets = 0  # of the records that are held, stable or not
        self.users = 0

    @property
    def tail(self) -> int:
        return self.oldest + len(self._records) - 1

    @property
    def known(self) -> int:
        return len(self._ids)

    def lookup(self, id: bytes) -> Known | None:
        return self._ids.get(id)

    def propose(self, proposal: Proposal) -> None:
        if not self._proposals:
            self._store.waiting.append(self)
        self._proposals.append(proposal)

    def walk(self) -> None:
        """Give places to what was proposed, and settle it."""
        proposals, self._proposals = self._proposals, []
        remember = self._store.retention.remember_ids
        lookup = self._ids.get if remember else None
        walked = walk(proposals, lookup, len(self._ids), self.tail, self.last_time_ms)
        if remember:
            for record, known in zip(walked.records, walked.known, strict=True):
                self._ids.add(record.id, known)
        if walked.records:
            self._records += walked.records
            self.octets += sum(map(_octets, walked.records))
            self.last_time_ms = walked.records[-1].time_ms
        for proposal, outcome in zip(proposals, walked.outcomes, strict=True):
            proposal.settle(outcome)

    def advance(self, head: int) -> int:
        """What has a place up to `head` is stable now; how many entries that are."""
        before, self.head = self.head, head
        if before < head:
            self.moved(self._records[before + 1 - self.oldest : head + 1 - self.oldest])
        return head - before

    def read(self, after: int, limit: int, octets: int, done: Callable[[list[Record]], None]) -> None:
        start = max(after + 1, self.oldest) - self.oldest
        end = min(start + limit, self.head + 1 - self.oldest)
        records = self._records[start:end] if start < end else []
        total = 0
        for index, record in enumerate(records):
            total += _octets(record)
            if total > octets and index:
                del records[index:]
                break
        done(records)

    def trim(self, below: int) -> None:
        # Only stable messages can be trimmed: others have no place in the log yet.
        count = min(below, self.head + 1) - self.oldest
        if count > 0:
            self.octets -= sum(map(_octets, self._records[:count]))
            del self._records[:count]
            self.oldest += count

    def retain(self, now_ms: int) -> None:
        limits = self._store.retention
        if limits.messages is not None:
            self.trim(self.head + 1 - limits.messages)
        cutoff = 0 if limits.age_ms is None else now_ms - limits.age_ms
        stable = self.head + 1 - self.oldest
        octets = self.octets - sum(map(_octets, self._records[stable:]))
        below = self.oldest
        for record in itertools.islice(self._records, stable):
            if record.time_ms >= cutoff and (limits.octets is None or octets <= limits.octets):
                break
            octets -= _octets(record)
            below = record.seq + 1
        self.trim(below)

    def forget(self, before_ms: int) -> None:
        self._ids.forget(before_ms)


def _octets(item: Record) -> int:
    return len(item.payload) + len(item.fields)


class MemoryStore:
    """A `base.Store` that is not durable. It calls every callback before the method returns."""

    durable = False
    busy = False

    def __init__(self, retention: Retention | None = None, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        self.retention = retention or Retention()
        self.last_time_ms = 0
        self.progress = Progress()
        self.on_damage: Callable[[str, StoreError], None] = lambda key, error: None
        self._incarnation = random_bytes(INCARNATION_SIZE)
        self._logs: dict[str, MemoryLog] = {}
        self.on_stable: Callable[[int], None] = ignore
        self.waiting: list[MemoryLog] = []  # those to which something was proposed

    def raise_max_body(self, max_body: int) -> int:
        return max_body

    def rooms(self) -> int:
        return sum(log.head > 0 for log in self._logs.values())

    def files(self) -> tuple[Path, ...]:
        return ()

    def keys(self, after: str, limit: int, done: Callable[[list[str]], None]) -> None:
        done(heapq.nsmallest(limit, (key for key, log in self._logs.items() if log.head and key > after)))

    def note_clock(self, progress: Progress) -> None:
        self.progress = progress

    def open(
        self, key: str, name: str, done: Callable[[Log, bool], None], damaged: Callable[[], None] = lambda: None
    ) -> None:
        log = self._logs.get(key)
        created = log is None
        if log is None:
            log = self._logs[key] = MemoryLog(self, key, name, epoch_of(self._incarnation, key))
        log.users += 1
        done(log, created)

    def release(self, log: Log) -> None:
        held = self._logs[log.key]
        held.users -= 1
        self._drop_unused(held)

    def _drop_unused(self, log: MemoryLog) -> None:
        """Keep nothing for rooms without messages."""
        if not log.users and not log.tail and log not in self.waiting:
            self._logs.pop(log.key, None)

    def commit(self) -> None:
        logs, self.waiting = self.waiting, []
        for log in logs:
            log.walk()
            if log.last_time_ms > self.last_time_ms:
                self.last_time_ms = log.last_time_ms
            self._drop_unused(log)
        self.make_stable([(log, log.tail) for log in logs])

    def make_stable(self, heads: list[tuple[MemoryLog, int]]) -> None:
        """Move the logs' heads. A store that takes time for it calls this later."""
        self.on_stable(sum([log.advance(head) for log, head in heads]))

    def close(self) -> None:
        self._logs.clear()
        self.waiting.clear()
