"""The durable store: SQLite in WAL mode with synchronous=FULL, one thread that writes and one that reads.

The caller's thread uses memory and queues only. `commit` hands all that was appended to the writer; what arrives
while the writer is busy goes into its next transaction, so one sync serves many commits (group commit). The caller's
view of a room (`SqliteLog`) changes only on its thread: results come back through `post`. The writer has its own
state of each room (`sqlite_tables.Room`).

A log stays in memory while it is open, and while anything of it is on its way to or from the database. So opening a
room either shares the log in memory or reads a log that is completely written.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from sqlite3 import Connection
from threading import Thread
from typing import Any, TypeVar

from reference_server.store.base import Entry, Known, Log, Record, Retention, epoch_of
from reference_server.store.id_index import IdIndex
from reference_server.store.sqlite_files import DataDirectory, as_store_error
from reference_server.store.sqlite_tables import (
    Meta,
    Room,
    Writer,
    first_retained,
    read_bounds,
    read_ids,
    read_keys,
    read_messages,
    read_room,
    read_rooms,
)

_STEPS_A_TRANSACTION = 4_096  # limits how long the first commit of a group waits for the last

_new = tuple.__new__  # half the time of a NamedTuple's own

_T = TypeVar("_T")
_Opened = Callable[[Log, bool], None]
_Append = tuple[Room, Entry, Known, bool]
"""The arguments of `Writer.append`."""


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
    appends: bool = False
    heads: list[tuple[SqliteLog, int, int]] = field(default_factory=list)  # log, its new head, octets up to it
    done: Callable[[], None] | None = None


class SqliteLog:
    """One room's log, as the caller's thread sees it."""

    __slots__ = (
        "_cutting",
        "_head_octets",
        "_ids",
        "_oldest_offset",
        "_oldest_time_ms",
        "_retain_again_ms",
        "_store",
        "epoch",
        "head",
        "key",
        "last_time_ms",
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
        self._cutting = False  # whether the reader is looking for the first message to retain
        self._retain_again_ms: int | None = None  # `retain` was called meanwhile
        self.room = room
        self.key = room.key
        self.name = room.name
        self.epoch = epoch
        self.head = self.tail = room.head
        self.oldest = room.oldest
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

    def append(self, entry: Entry) -> Known:
        id, digest, time_ms, _, _, _, _, payload, fields = entry
        remember_id = self._store.retention.remember_ids
        if time_ms < self.last_time_ms:
            time_ms = self.last_time_ms
        known = _new(Known, (self.tail + 1, time_ms, digest))
        if remember_id:
            self._ids.add(id, known)
        self.tail += 1
        self.last_time_ms = time_ms
        self.octets += len(payload) + len(fields)
        self._store.appended(self, (self.room, entry, known, remember_id))
        return known

    def read(self, after: int, limit: int, octets: int, done: Callable[[list[Record]], None]) -> None:
        start = max(after + 1, self.oldest)
        if start > self.head or limit < 1:
            self._store.deliver(done, [])
            return
        path, room, end = self._store.path, self.room, self.head
        self._store.ask(lambda reader: read_messages(reader, path, room, start, end, limit, octets), done)

    def trim(self, below: int) -> None:
        below = min(below, self.head + 1)  # a message that is not stable has no place in the log yet
        if below > self.oldest:
            room, self.oldest = self.room, below
            self._store.changed(self, lambda writer: writer.trim(room, below))

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

    def forget(self, before_ms: int) -> None:
        count, room = self._ids.forget(before_ms), self.room
        if count:
            self._store.changed(self, lambda writer: writer.forget(room, before_ms, count))

    def advance(self, head: int, octets: int) -> None:
        """The store calls this when the messages up to `head` are stable."""
        self.head, self._head_octets = head, octets

    @property
    def in_use(self) -> bool:
        return bool(self.users or self.unwritten or self._cutting)


class SqliteStore:
    """A `base.Store` in the directory `path`, which it makes if it is missing, and locks.

    `post` runs a callback on the caller's thread; the store may call it from any thread until `close` returns.
    `failed` is called once, by `post`, if something could not be written or was not read as it was written.
    From then on the store does nothing and calls nothing, and the process should end: only a restart shows how much
    of the last batches is stored (RW-PROMISE-7).

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
        self.path = self._files.path
        self._rooms = 0
        self._logs: dict[str, SqliteLog] = {}
        self._loading: dict[str, list[_Opened]] = {}
        self._batch = _Batch()
        self._dead = False  # for the caller's thread
        self._broken = False  # for the writer's thread
        self._closed = False
        self._to_write: SimpleQueue[_Batch | None] = SimpleQueue()
        self._to_read: SimpleQueue[tuple[Callable[[Connection], Any], Callable[[Any], None]] | None]
        self._to_read = SimpleQueue()
        try:
            for room in read_rooms(self._files.writer, self.path):
                self._rooms += 1
                self.last_time_ms = max(self.last_time_ms, room.last_time_ms)
            self._reader = self._files.connect("ro")
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

    def open(self, key: str, name: str, done: Callable[[Log, bool], None]) -> None:
        log = self._logs.get(key)
        if log is not None:
            log.users += 1
            self.deliver(partial(done, log), False)
        elif key in self._loading:
            self._loading[key].append(done)
        else:
            self._loading[key] = [done]
            self.ask(partial(self._load, key, name), self._loaded)

    def _loaded(self, loaded: _Loaded) -> None:
        key, created = loaded.room.key, not loaded.room.id
        log = self._logs[key] = SqliteLog(self, loaded, epoch_of(self._files.incarnation, key))
        waiting = self._loading.pop(key)
        log.users = len(waiting)
        for index, done in enumerate(waiting):
            done(log, created and not index)

    def release(self, log: Log) -> None:
        held = self._logs[log.key]
        held.users -= 1
        self.drop_unused(held)

    def drop_unused(self, log: SqliteLog) -> None:
        """Drop the log from memory unless something still needs it."""
        if not log.in_use:
            self._logs.pop(log.key, None)

    def appended(self, log: SqliteLog, step: _Append) -> None:
        """A log calls this to have a message written with the next commit."""
        self._batch.appends = True
        if log.last_time_ms > self.last_time_ms:
            self.last_time_ms = log.last_time_ms
        self._add(log, step)

    def changed(self, log: SqliteLog, step: Callable[[Writer], None]) -> None:
        """A log calls this to have `step` written: with what was appended before it, or at once if there is nothing."""
        self._add(log, step)
        if not self._batch.appends:
            self._hand_over(None)

    def _add(self, log: SqliteLog, step: _Append | Callable[[Writer], None]) -> None:
        batch = self._batch
        batch.steps.append(step)
        if log not in batch.logs:
            batch.logs[log] = None
            log.unwritten += 1

    def commit(self, done: Callable[[], None]) -> None:
        self._hand_over(done)

    def _hand_over(self, done: Callable[[], None] | None) -> None:
        batch, self._batch = self._batch, _Batch()
        batch.heads = [(log, log.tail, log.octets) for log in batch.logs]
        batch.done = done
        self._to_write.put(batch)

    def _stable(self, batch: _Batch) -> None:
        if self._dead:
            return
        for log, head, octets in batch.heads:  # RW-PROMISE-1: not before now
            self._rooms += not log.head and head > 0
            log.advance(head, octets)
            log.unwritten -= 1
            self.drop_unused(log)
        if batch.done is not None:
            batch.done()

    def ask(self, question: Callable[[Connection], _T], done: Callable[[_T], None]) -> None:
        """Have the reader answer `question`, and call `done` with the answer."""
        self._to_read.put((question, done))

    def deliver(self, done: Callable[[_T], None], answer: _T) -> None:
        """Call `done` with `answer` on the caller's thread; may be called on any thread."""
        self._post(partial(self._delivered, done, answer))

    def _delivered(self, done: Callable[[_T], None], answer: _T) -> None:
        if not self._dead:
            done(answer)

    def _fail(self, error: Exception) -> None:
        if not self._dead:
            self._dead = True
            self._failed(error)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
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
        writer = Writer(self._files.writer, self.path, self._rooms)
        while (group := self._next_group()) is not None:
            if self._broken:
                continue  # until close
            try:
                self._write_group(writer, group)
            except Exception as error:
                # A failed sync is not retried: the kernel may have dropped the pages and report success.
                self._broken = True
                self._report(error)
                continue
            for batch in group:
                self._post(partial(self._stable, batch))

    def _next_group(self) -> list[_Batch] | None:
        """Wait for a batch; return it with those that wait already, or None to end."""
        batch = self._to_write.get()
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
            writer.begin()
            for step in steps:
                if isinstance(step, tuple):
                    writer.append(*step)
                else:
                    step(writer)
            writer.commit()

    # --- on the reader's thread

    def _read(self) -> None:
        while (item := self._to_read.get()) is not None:
            question, done = item
            try:
                answer = question(self._reader)
            except Exception as error:
                self._report(error)
            else:
                self.deliver(done, answer)

    def _load(self, key: str, name: str, reader: Connection) -> _Loaded:
        room = read_room(reader, self.path, key)
        if room is None:
            return _Loaded(Room(key, name, unicodedata.unidata_version), IdIndex(), 0, 0)
        ids = IdIndex(read_ids(reader, self.path, room) if self.retention.remember_ids else ())
        return _Loaded(room, ids, *read_bounds(reader, self.path, room))

    def _report(self, error: Exception) -> None:
        known = as_store_error(error, self.path)
        self._post(partial(self._fail, known))
