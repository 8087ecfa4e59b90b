"""Repairs a damaged store: what is sound goes into a new database, and the damaged files stay beside it.

Of each room the longest run of sound messages is kept. A room that loses anything gets a new epoch (RW-MODEL-4).
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reference_server.files import give_away, sync_directory
from reference_server.store.base import INCARNATION_SIZE, StoreError, StoreLocked, StoreUnavailable
from reference_server.store.sqlite_files import (
    DATABASE,
    DataDirectory,
    as_store_error,
    check_format,
    connect,
    is_interrupted,
    lock_if_free,
    mark_interrupted,
    repair_was_killed,
)
from reference_server.store.sqlite_tables import (
    Meta,
    Room,
    Server,
    insert_ids,
    insert_messages,
    insert_rooms,
    known_of,
    make_server,
    message_is_sound,
    read_meta,
    read_server,
    room_of,
    write_meta,
)
from reference_server.store.sqlite_wal import check_wal

ROWS_AT_ONCE = 256
SALT_SIZE = 8
CONTENT_RESERVE = 256  # octets of a body beside payload and fields (RW-PUBLISH-1)


@dataclass(slots=True)
class Repair:
    """What was done: a line for each room that lost something, and where the damaged files are."""

    lines: list[str] = field(default_factory=list)
    kept: Path = Path()
    all_new: bool = False
    """Whether every room gets a new epoch, since nobody can tell which of them have lost something."""


def repair(
    directory: Path,
    stamp: str,
    progress: Callable[[str], None] = lambda doing: None,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> Repair:
    """Put what is sound of the store in `directory` into a new database, and its files into `damaged-` and `stamp`.

    Raises StoreLocked if a server uses it, StoreUnavailable if it cannot be read or written, and StoreTooNew. Until
    the new database is complete, the old one is as it was.
    """
    path = directory / DATABASE
    if not path.is_file():
        raise StoreUnavailable(directory, f"a store, with a file {DATABASE}", "none")
    done = Repair(kept=directory / f"damaged-{stamp}")
    try:
        with lock_if_free(directory) as holder:
            if holder:
                raise StoreLocked(directory, "to be the only user", f"that process {holder} uses it")
            if is_interrupted(path):
                raise repair_was_killed(path)
            _copy_files(path, done.kept)
            done.all_new = _log_is_damaged(path)
            begun = Path(tempfile.mkdtemp(prefix=".repair-", dir=directory))
            give_away(begun)
            try:
                _salvage(path, begun, done, progress, random_bytes)
                _replace(begun / DATABASE, path)
            finally:
                shutil.rmtree(begun, ignore_errors=True)
    except Exception as error:
        raise as_store_error(error, path) from error
    return done


def _copy_files(path: Path, target: Path) -> None:
    target.mkdir(mode=0o700)
    give_away(target)
    for source in (path, _log(path)):
        if source.exists():
            copy = target / source.name
            shutil.copyfile(source, copy)
            copy.chmod(0o600)
            give_away(copy)
            with copy.open("rb") as file:
                os.fsync(file.fileno())
    sync_directory(target)


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _log_is_damaged(path: Path) -> bool:
    try:
        check_wal(_log(path))
    except StoreError:
        return True
    return False


def _replace(new: Path, path: Path) -> None:
    give_away(new)
    mark_interrupted(path)  # one that is killed here must not leave a database that looks whole without its log
    for end in ("wal", "shm"):  # they belong to the old database
        path.with_name(f"{path.name}-{end}").unlink(missing_ok=True)
    new.replace(path)
    sync_directory(path.parent)


def _salvage(
    path: Path,
    begun: Path,
    done: Repair,
    progress: Callable[[str], None],
    random_bytes: Callable[[int], bytes],
) -> None:
    target = DataDirectory(begun, random_bytes)
    try:
        with closing(connect(path, "rw")) as old:
            check_format(old, path)
            new = target.writer
            new.execute("BEGIN IMMEDIATE")
            meta = _read_or(lambda: read_meta(old, path), Meta(random_bytes(INCARNATION_SIZE), 0))
            largest = 0
            for room in _rooms(old, path, done):
                progress(f"reading room {room.key!r}")
                largest = max(largest, _Salvage(old, new, room, done).run(random_bytes))
            incarnation = random_bytes(INCARNATION_SIZE) if done.all_new else meta.incarnation
            write_meta(new, Meta(incarnation, max(meta.max_body, largest + CONTENT_RESERVE if largest else 0)))
            make_server(new, Server(b"", _read_or(lambda: read_server(old, path), Server(b"", "")).clock))
            new.execute("COMMIT")
            new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        target.close()
    with (begun / DATABASE).open("rb") as file:
        os.fsync(file.fileno())


def _read_or(read: Callable[[], Any], otherwise: Any) -> Any:
    try:
        return read()
    except (StoreError, sqlite3.DatabaseError):
        return otherwise


def _rows(connection: sqlite3.Connection, sql: str, *values: object) -> Iterator[tuple[Any, ...]]:
    """The rows of a query up to a damaged page."""
    try:
        yield from connection.execute(sql, values)
    except sqlite3.DatabaseError:
        return


def _both_ways(connection: sqlite3.Connection, sql: str, key: int, *values: object) -> list[tuple[Any, ...]]:
    """The rows of a query with ORDER BY at its end, also those behind a damaged page; `key` is the place of the key."""
    found = {row[key]: row for row in _rows(connection, f"{sql} DESC", *values)}
    found.update({row[key]: row for row in _rows(connection, sql, *values)})
    return list(found.values())


def _rooms(old: sqlite3.Connection, path: Path, done: Repair) -> list[Room]:
    """The rooms whose entries are sound, numbered as they were."""
    rooms: dict[int, Room] = {}
    for row in _both_ways(old, "SELECT * FROM rooms ORDER BY key", 0):
        try:
            room = room_of(row, path)
        except StoreError as error:
            done.lines.append(f"{error}: the room is taken out")
            done.all_new = True
        else:
            rooms[room.id] = room
    numbers = {number for (number,) in _rows(old, "SELECT DISTINCT room FROM messages")} | {*range(1, len(rooms) + 1)}
    lost = numbers - rooms.keys()
    if lost:
        done.all_new = True
        done.lines.append(f"{len(lost)} rooms have no entry any more, and are taken out")
    return [rooms[number] for number in sorted(rooms)]


class _Salvage:
    """Copies what is sound of one room, under the next free number."""

    def __init__(self, old: sqlite3.Connection, new: sqlite3.Connection, room: Room, done: Repair) -> None:
        self._old, self._new, self._room, self._done = old, new, room, done
        self._number = new.execute("SELECT count(*) FROM rooms").fetchone()[0] + 1

    def run(self, random_bytes: Callable[[int], bytes]) -> int:
        """Copy; the octets of the greatest message."""
        room, before = self._room, (self._room.oldest, self._room.head, self._room.ids)
        first, last = self._longest_run()
        messages, largest = self._copy_messages(first, last)
        room.ids = self._copy_ids(messages)
        if (room.oldest, room.head, room.ids) != before:
            room.salt = random_bytes(SALT_SIZE)
            kept = f"messages {first} to {last}" if messages else "no message"
            self._done.lines.append(
                f"room {room.key!r}: kept {kept} of {before[0]} to {before[1]}, and {room.ids} of {before[2]} ids"
            )
        room.id = self._number
        insert_rooms(self._new, [room])
        return largest

    def _longest_run(self) -> tuple[int, int]:
        """The first and the last seq of the longest run of sound messages; of the newest, if there are several."""
        best, start, end, size_end, time_ms = (1, 0), 0, 0, 0, 0
        for row in self._messages(self._room.oldest, self._room.head):
            seq, offset = row[1], row[10]
            if not start or seq != end + 1 or offset != size_end or row[2] < time_ms:
                start = seq
            end, size_end, time_ms = seq, offset + len(row[8]) + len(row[9]), row[2]
            if end - start >= best[1] - best[0]:
                best = start, end
        return best

    def _messages(self, first: int, last: int) -> Iterator[tuple[Any, ...]]:
        """The sound rows of these messages."""
        sql = "SELECT * FROM messages WHERE room = ? AND seq BETWEEN ? AND ? ORDER BY seq"
        for start in range(first, last + 1, ROWS_AT_ONCE):
            end = min(last, start + ROWS_AT_ONCE - 1)
            rows = [*_rows(self._old, sql, self._room.id, start, end)]
            if len(rows) <= end - start:  # a hole, or a damaged page
                rows = [row for seq in range(start, end + 1) for row in _rows(self._old, sql, self._room.id, seq, seq)]
            yield from filter(message_is_sound, rows)

    def _copy_messages(self, first: int, last: int) -> tuple[dict[int, tuple[bytes, int]], int]:
        """Copy; id and time of each message, and the octets of the greatest."""
        room = self._room
        copied: dict[int, tuple[bytes, int]] = {}
        largest = 0
        rows: list[tuple[Any, ...]] = []
        for row in self._messages(first, last):
            rows.append((self._number, *row[1:-1]))
            copied[row[1]] = (row[4], row[2])
            largest = max(largest, len(row[8]) + len(row[9]))
            if len(rows) == ROWS_AT_ONCE:
                insert_messages(self._new, rows)
                rows.clear()
            if row[1] == last < room.head:
                room.head, room.last_time_ms = last, row[2]
                room.octets = row[10] + len(row[8]) + len(row[9])
        insert_messages(self._new, rows)
        room.oldest = first if copied else room.head + 1
        return copied, largest

    def _copy_ids(self, messages: dict[int, tuple[bytes, int]]) -> int:
        """Copy the ids of messages that were trimmed, or are kept; their number."""
        room = self._room
        sound = []
        for row in _both_ways(self._old, "SELECT * FROM ids WHERE room = ? ORDER BY id", 1, room.id):
            known = known_of(row)
            if known is None or not 0 < known.seq <= room.head:
                continue
            if known.seq < room.oldest or messages.get(known.seq) == (row[1], known.time_ms):
                sound.append((row[1], known))
        insert_ids(self._new, self._number, sound)
        return len(sound)
