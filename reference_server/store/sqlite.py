"""The durable store: SQLite in WAL mode with synchronous=FULL, one thread that writes and one that reads.

The caller's thread uses memory and queues only. `commit` hands all that was placed to the writer; what arrives
while the writer is busy goes into its next transaction, so one sync serves many commits (group commit). The caller's
view of a room (`SqliteLog`) changes only on its thread: results come back through `post`. The writer has its own
state of each room (`sqlite_tables.Room`).

A log stays in memory while it is open, and while anything of it is on its way to or from the database. So opening a
room either shares the log in memory or reads a log that is completely written.
"""

from __future__ import annotations

import logging
import os
import time
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from sqlite3 import Connection, OperationalError
from threading import Thread
from typing import Any, NamedTuple, TypeVar

from reference_server.store.base import (
    Known,
    Log,
    Proposal,
    Record,
    Retention,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    epoch_of,
    ignore,
)
from reference_server.store.id_index import IdIndex
from reference_server.store.progress import Progress, parse
from reference_server.store.sqlite_files import DataDirectory, as_store_error, is_busy
from reference_server.store.sqlite_tables import (
    Meta,
    Room,
    Writer,
    count_messages,
    first_retained,
    read_bounds,
    read_ids,
    read_keys,
    read_messages,
    read_room,
    read_rooms,
)
from reference_server.store.walk import walk

logger = logging.getLogger("roomwire.server")

_STEPS_A_TRANSACTION = 4_096  # limits how long the first commit of a group waits for the last

TRIMMED_AT_ONCE = 500
"""How many messages are deleted in one transaction: others' commits wait for it."""

WATCH_SECONDS = 0.5
"""How often the writer checks that the files are still those that it opened."""

BUSY_SECONDS = 1.0
"""How long another program may keep commits from beginning before publishes are refused."""

_RETRY_SECONDS = 0.05
_CLOSE_SECONDS = 2.0  # how long `close` waits for another program

LARGE_LOG = 64 * 2**20
"""Octets of the write-ahead log from which on the operator is warned: some program reads an old state of the store."""

_T = TypeVar("_T")
_Opened = Callable[[Log, bool], None]
_Append = tuple[Room, Record, Known | None]
"""The arguments of `Writer.append`."""


class _Question(NamedTuple):
    """What the reader is asked, and what is called then; `key` is of the only room that it concerns."""

    question: Callable[[Connection], Any]
    done: Callable[[Any], None]
    key: str | None
    damaged: Callable[[], None]


@dataclass(slots=True)
class _Loaded:
    """What the reader has read of a room."""

    room: Room
    ids: IdIndex
    oldest_time_ms: int
    oldest_offset: int


@dataclass(slots=True)
class _Batch:
    """What the writer has to write as a whole, in order, and what is true once it is stable."""

    steps: list[_Append | Callable[[Writer], None]] = field(default_factory=list)
    logs: dict[SqliteLog, None] = field(default_factory=dict)  # those that the steps change, in order
    records: dict[SqliteLog, list[Record]] = field(default_factory=dict)  # what becomes stable in each
    trims: list[SqliteLog] = field(default_factory=list)  # those that may have more to trim


class SqliteLog:
    """One room's log, as the caller's thread sees it."""

    __slots__ = (
        "_cutting",
        "_head_octets",
        "_ids",
        "_oldest_offset",
        "_oldest_time_ms",
        "_proposals",
        "_retain_again_ms",
        "_store",
        "_trimmed",
        "_trimming",
        "epoch",
        "head",
        "key",
        "last_time_ms",
        "moved",
        "name",
        "octets",
        "oldest",
        "room",
        "tail",
        "unwritten",
        "users",
    )

    def __init__(self, store: SqliteStore, loaded: _Loaded, epoch: int) -> None:
        room = loaded.room
        self._store = store
        self._ids = loaded.ids
        self._proposals: list[Proposal] = []
        self.moved: Callable[[list[Record]], None] = ignore
        self._cutting = False  # whether the reader is looking for the first message to retain
        self._retain_again_ms: int | None = None  # `retain` was called meanwhile
        self.room = room
        self.key = room.key
        self.name = room.name
        self.epoch = epoch
        self.head = self.tail = room.head
        self.oldest = self._trimmed = room.oldest  # up to `_trimmed` the writer is told to delete
        self._trimming = False
        self.last_time_ms = room.last_time_ms
        self.octets = self._head_octets = room.octets  # of all messages ever, up to tail and up to head
        # Of the oldest message: exact when loaded or cut, otherwise at most the true values.
        self._oldest_time_ms, self._oldest_offset = loaded.oldest_time_ms, loaded.oldest_offset
        self.unwritten = 0  # batches that change this log and are not stable yet
        self.users = 0

    @property
    def known(self) -> int:
        return len(self._ids)

    def lookup(self, id: bytes) -> Known | None:
        return self._ids.get(id)

    def propose(self, proposal: Proposal) -> None:
        if not self._proposals:
            self._store.waiting.append(self)
        self._proposals.append(proposal)

    def walk(self) -> list[_Append]:
        """Give places to what was proposed, and settle it; what the writer has to write."""
        proposals, self._proposals = self._proposals, []
        remember = self._store.retention.remember_ids
        lookup = self._ids.get if remember else None
        walked = walk(proposals, lookup, len(self._ids), self.tail, self.last_time_ms)
        room, octets = self.room, 0
        steps: list[_Append] = []
        for record, known in zip(walked.records, walked.known, strict=True):
            if remember:
                self._ids.add(record.id, known)
            steps.append((room, record, known if remember else None))
            octets += len(record.payload) + len(record.fields)
        if steps:
            self.tail, self.last_time_ms = walked.known[-1][:2]
            self.octets += octets
        for proposal, outcome in zip(proposals, walked.outcomes, strict=True):
            proposal.settle(outcome)
        return steps

    def read(self, after: int, limit: int, octets: int, done: Callable[[list[Record]], None]) -> None:
        start = max(after + 1, self.oldest)
        if start > self.head or limit < 1:
            self._store.deliver(done, [])
            return
        path, room, end = self._store.path, self.room, self.head
        self._store.ask(
            lambda reader: read_messages(reader, path, room, start, end, limit, octets),
            done,
            self.key,
            lambda: done([]),
        )

    def trim(self, below: int) -> None:
        below = min(below, self.head + 1)  # a message that is not stable has no place in the log yet
        if below > self.oldest:
            self.oldest = below
            if not self._trimming:
                self.trim_on(TRIMMED_AT_ONCE)

    def trim_on(self, most: int | None) -> None:
        """Have some of what is before `oldest` deleted, or all. The store calls this again when that is done."""
        self._trimming = self._trimmed < self.oldest
        if self._trimming:
            room, below = self.room, self.oldest if most is None else min(self.oldest, self._trimmed + most)
            if most is None:
                self._delete(below)
            else:
                self._store.ask(
                    lambda reader: count_messages(reader, room, below),
                    lambda _: self._delete(below),
                    self.key,
                    self._not_trimmed,
                )

    def _delete(self, below: int) -> None:
        if below > self._trimmed:  # else the store is being closed, and has done so
            room, self._trimmed = self.room, below
            self._store.changed(self, lambda writer: writer.trim(room, below), trims=True)

    def _not_trimmed(self) -> None:
        self._trimming, self._trimmed = False, self.oldest  # what is damaged stays
        self._store.drop_unused(self)

    def retain(self, now_ms: int) -> None:
        limits, head = self._store.retention, self.head
        if limits.messages is not None:
            self.trim(head + 1 - limits.messages)
        since_ms = 0 if limits.age_ms is None else now_ms - limits.age_ms
        offset = 0 if limits.octets is None else self._head_octets - limits.octets
        due = self._oldest_time_ms < since_ms or self._oldest_offset < offset
        if self._cutting:
            self._retain_again_ms = now_ms
        elif due and self.oldest <= head:
            self._cutting = True
            room, oldest = self.room, self.oldest
            self._store.ask(
                lambda reader: first_retained(reader, room, oldest, head, since_ms, offset),
                partial(self._cut, head),
                self.key,
                self._not_cut,
            )

    def _cut(self, head: int, first: tuple[int, int, int] | None) -> None:
        self._cutting = False
        if first is None:
            self.trim(head + 1)
        else:
            seq, self._oldest_time_ms, self._oldest_offset = first
            self.trim(seq)
        if self._retain_again_ms is not None:
            now_ms, self._retain_again_ms = self._retain_again_ms, None
            self.retain(now_ms)
        self._store.drop_unused(self)

    def _not_cut(self) -> None:
        self._cutting = False
        self._store.drop_unused(self)

    def forget(self, before_ms: int) -> None:
        count, room = self._ids.forget(before_ms), self.room
        if count:
            self._store.changed(self, lambda writer: writer.forget(room, before_ms, count))

    def advance(self, records: list[Record]) -> None:
        """The store calls this when these are stable."""
        self.head = records[-1].seq
        self._head_octets += sum([len(record.payload) + len(record.fields) for record in records])
        self.moved(records)

    @property
    def in_use(self) -> bool:
        return bool(self.users or self.unwritten or self._proposals or self._cutting or self._trimming)


class SqliteStore:
    """A `base.Store` in the directory `path`, which it makes if it is missing, and locks.

    `post` runs a callback on the caller's thread; the store may call it from any thread until `close` returns.
    `failed` is called once, by `post`, if something could not be written or the files are no longer there. From then
    on the store does nothing and calls nothing, and the process should end: only a restart shows how much of the last
    batches is stored (RW-PROMISE-7). Damage in one room is told to `on_damage`.

    Raises a StoreError if it cannot be opened: StoreLocked, StoreTooNew, StoreCorrupt or StoreUnavailable.
    """

    durable = True

    def __init__(
        self,
        path: str | os.PathLike[str],
        retention: Retention,
        post: Callable[[Callable[[], None]], None],
        failed: Callable[[Exception], None],
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.retention = retention
        self.last_time_ms = 0
        self._post = post
        self._failed = failed
        self._files = DataDirectory(Path(path), random_bytes)
        self.path, self._rooms = self._files.path, 0
        self._logs: dict[str, SqliteLog] = {}
        self._loading: dict[str, list[tuple[_Opened, Callable[[], None]]]] = {}
        self.on_damage: Callable[[str, StoreError], None] = lambda key, error: None
        self.on_stable: Callable[[int], None] = ignore
        self.waiting: list[SqliteLog] = []  # those to which something was proposed
        self.busy = False  # the writer's thread changes it
        self._watched = 0.0  # when it last checked the files
        self._large_log = LARGE_LOG  # the size of the write-ahead log at which it warns next
        self._batch = _Batch()
        self._dead = False  # for the caller's thread
        self._broken = False  # for the writer's thread
        self._closed = False
        self._to_write: SimpleQueue[_Batch | None] = SimpleQueue()
        self._to_read: SimpleQueue[_Question | None] = SimpleQueue()
        try:
            self._reader = self._read_all()
        except Exception as error:
            self._files.close()
            raise as_store_error(error, self.path) from error
        # Daemons: a process that ends without close() must not hang. It may be killed at any time anyway.
        self._threads = [
            Thread(target=self._write, name="store-writer", daemon=True),
            Thread(target=self._read, name="store-reader", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read_all(self) -> Connection:
        """Read what is known of all rooms, and return the reader's connection."""
        for room in read_rooms(self._files.writer, self.path):
            self._rooms += 1
            self.last_time_ms = max(self.last_time_ms, room.last_time_ms)
        self.progress = parse(self._files.server.clock)
        reader = self._files.connect("ro")
        for connection in (self._files.writer, reader):
            connection.execute(f"PRAGMA busy_timeout = {int(_RETRY_SECONDS * 1000)}")
        return reader

    # --- on the caller's thread

    def raise_max_body(self, max_body: int) -> int:
        # Before anything is committed, so the writer's connection is free.
        if max_body > self._files.max_body:
            self._files.write_meta(Meta(self._files.incarnation, max_body))
        return self._files.max_body

    def rooms(self) -> int:
        return self._rooms

    def files(self) -> tuple[Path, ...]:
        return self.path, self.path.with_name(f"{self.path.name}-wal")

    def keys(self, after: str, limit: int, done: Callable[[list[str]], None]) -> None:
        self.ask(lambda reader: read_keys(reader, after, limit), done)

    def note_clock(self, progress: Progress) -> None:
        text = progress.text()
        self._batch.steps.append(lambda writer: writer.note_clock(text))
        if not self.waiting:
            self._hand_over()

    def open(
        self, key: str, name: str, done: Callable[[Log, bool], None], damaged: Callable[[], None] = lambda: None
    ) -> None:
        log = self._logs.get(key)
        if log is not None:
            log.users += 1
            self.deliver(partial(done, log), False)
        elif key in self._loading:
            self._loading[key].append((done, damaged))
        else:
            self._loading[key] = [(done, damaged)]
            self.ask(partial(self._load, key, name), self._loaded, key, partial(self._not_loaded, key))

    def _loaded(self, loaded: _Loaded) -> None:
        key, created = loaded.room.key, not loaded.room.id
        log = self._logs[key] = SqliteLog(self, loaded, epoch_of(self._files.incarnation, key, loaded.room.salt))
        waiting = self._loading.pop(key)
        log.users = len(waiting)
        for index, (done, _) in enumerate(waiting):
            done(log, created and not index)

    def _not_loaded(self, key: str) -> None:
        for _, damaged in self._loading.pop(key):
            damaged()

    def release(self, log: Log) -> None:
        held = self._logs[log.key]
        held.users -= 1
        self.drop_unused(held)

    def drop_unused(self, log: SqliteLog) -> None:
        """Drop the log from memory unless something still needs it."""
        if not log.in_use:
            self._logs.pop(log.key, None)

    def changed(self, log: SqliteLog, step: Callable[[Writer], None], *, trims: bool = False) -> None:
        """A log calls this to have `step` written: with the next commit, or at once if nothing is proposed."""
        self._batch.steps.append(step)
        self._concerns(log)
        if trims:
            self._batch.trims.append(log)
        if not self.waiting:
            self._hand_over()

    def _concerns(self, log: SqliteLog) -> None:
        logs = self._batch.logs
        if log not in logs:
            logs[log] = None
            log.unwritten += 1

    def commit(self) -> None:
        logs, self.waiting = self.waiting, []
        for log in logs:
            steps = log.walk()
            batch = self._batch  # a `settle` may have had the one before handed over
            if steps:
                self.last_time_ms = max(self.last_time_ms, log.last_time_ms)
                batch.steps += steps
                batch.records[log] = [record for _, record, _ in steps]
                self._concerns(log)
            else:
                self.drop_unused(log)
        if self._batch.steps:
            self._hand_over()

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, _Batch()
        self._to_write.put(batch)

    def _stable(self, batch: _Batch) -> None:
        if self._dead:
            return
        count = 0
        for log, records in batch.records.items():  # RW-PROMISE-1: not before now
            self._rooms += not log.head
            count += len(records)
            log.advance(records)
        for log in batch.logs:
            log.unwritten -= 1
        for log in batch.trims:
            log.trim_on(TRIMMED_AT_ONCE)
        for log in batch.logs:
            self.drop_unused(log)
        if count:
            self.on_stable(count)

    def ask(
        self,
        question: Callable[[Connection], _T],
        done: Callable[[_T], None],
        key: str | None = None,
        damaged: Callable[[], None] = lambda: None,
    ) -> None:
        """Have the reader answer `question`, and call `done` with the answer.

        With a `key` the question concerns that room only: if it finds damage, `damaged` is called after `on_damage`.
        """
        self._to_read.put(_Question(question, done, key, damaged))

    def deliver(self, done: Callable[[_T], None], answer: _T) -> None:
        """Call `done` with `answer` on the caller's thread; may be called on any thread."""
        self._post(partial(self._delivered, done, answer))

    def _delivered(self, done: Callable[[_T], None], answer: _T) -> None:
        if not self._dead:
            done(answer)

    def _found_damage(self, key: str, error: StoreCorrupt, otherwise: Callable[[], None]) -> None:
        if not self._dead:
            self.on_damage(key, error)
            otherwise()

    def _fail(self, error: Exception) -> None:
        if not self._dead:
            self._dead = True
            self._failed(error)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if not self._dead:
            for log in tuple(self._logs.values()):
                log.trim_on(None)
        self._to_write.put(None)
        self._to_read.put(None)
        for thread in self._threads:
            thread.join()
        if self._broken:
            # The last connection to close would retry the failed sync, unless it is read-only.
            self._files.close()
            self._reader.close()
        else:
            self._reader.close()
            self._files.close()

    # --- on the writer's thread

    def _write(self) -> None:
        writer = Writer(self._files.writer, self.path, self._rooms, self._files.server.owner)
        while (group := self._next_group()) is not None:
            if self._broken:
                continue  # until close
            try:
                self._write_group(writer, group)
                self._watch(writer)
            except Exception as error:
                # A failed sync is not retried: the kernel may have dropped the pages and report success.
                self._broken = True
                self._report(error)
                continue
            for batch in group:
                self._post(partial(self._stable, batch))
            while writer.damaged:
                self._post(partial(self._found_damage, *writer.damaged.pop(), lambda: None))

    def _watch(self, writer: Writer) -> None:
        """Raise StoreError if what was written is lost: the files were replaced, or another process writes to them."""
        now = time.monotonic()
        if now - self._watched < WATCH_SECONDS:
            return
        self._watched = now
        self._files.check_files()
        try:
            writer.check_owner()
        except OperationalError as error:
            if not is_busy(error):
                raise
        size = self._files.log_octets()
        if size >= self._large_log:
            text = "the write-ahead log grows: some program reads an old state of the store, and does not end"
            logger.warning(text, extra={"path": str(self.path), "octets": size})
        self._large_log = LARGE_LOG
        while self._large_log <= size:
            self._large_log *= 2

    def _next_group(self) -> list[_Batch] | None:
        """Wait for a batch, a moment at most; return it with those that wait already, or None to end."""
        try:
            batch = self._to_write.get(timeout=WATCH_SECONDS)
        except Empty:
            return []
        group, steps = [], 0
        while batch is not None:
            group.append(batch)
            steps += len(batch.steps)
            if steps >= _STEPS_A_TRANSACTION:
                break
            try:
                batch = self._to_write.get_nowait()
            except Empty:
                break
        else:
            self._to_write.put(None)  # for the next call, after this group
            return group or None
        return group

    def _write_group(self, writer: Writer, group: list[_Batch]) -> None:
        steps = [step for batch in group for step in batch.steps]  # in order: RW-PROMISE-3
        if steps:
            self._patiently(writer.begin)
            for step in steps:
                if isinstance(step, tuple):
                    writer.append(*step)
                else:
                    step(writer)
            writer.commit()

    def _patiently(self, call: Callable[[], _T]) -> _T:
        """Call, again and again while another program has locked the database: then nothing was read or written.

        Raises StoreLocked if that lasts beyond the end of this store.
        """
        since = warn_at = time.monotonic()
        told = False
        while True:
            try:
                answer = call()
            except OperationalError as error:
                now = time.monotonic()
                if not is_busy(error):
                    raise
                if self._closed and now - since >= _CLOSE_SECONDS:
                    raise StoreLocked(self.path, "to be the only user", "that another program has locked it") from error
            else:
                if told:
                    self.busy = False
                    text = "the store can be written again"
                    logger.warning(text, extra={"path": str(self.path), "seconds": round(time.monotonic() - since, 1)})
                return answer
            if now - since >= BUSY_SECONDS:
                self.busy = told = True
                if now >= warn_at:
                    warn_at = now + 60
                    text = "another program has locked the store: nothing is acknowledged until it has ended"
                    logger.warning(text, extra={"path": str(self.path)})
            time.sleep(_RETRY_SECONDS)

    # --- on the reader's thread

    def _read(self) -> None:
        while (asked := self._to_read.get()) is not None:
            try:
                answer = self._patiently(partial(asked.question, self._reader))
            except Exception as error:
                known = as_store_error(error, self.path)
                if asked.key is not None and isinstance(known, StoreCorrupt):
                    self._post(partial(self._found_damage, asked.key, known, asked.damaged))
                else:
                    self._report(error)
            else:
                self.deliver(asked.done, answer)

    def _load(self, key: str, name: str, reader: Connection) -> _Loaded:
        room = read_room(reader, self.path, key)
        if room is None:
            return _Loaded(Room(key, name, unicodedata.unidata_version), IdIndex(), 0, 0)
        ids = IdIndex(read_ids(reader, self.path, room) if self.retention.remember_ids else ())
        return _Loaded(room, ids, *read_bounds(reader, self.path, room))

    def _report(self, error: Exception) -> None:
        known = as_store_error(error, self.path)
        self._post(partial(self._fail, known))
