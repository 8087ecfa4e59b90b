"""An operator's work on a store that no server uses: delete what is old, give space back, correct times."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from reference_server.store.base import ID_SIZE, INCARNATION_SIZE, StoreUnavailable
from reference_server.store.id_index import time_prefix
from reference_server.store.progress import Progress, parse
from reference_server.store.sqlite_files import DATABASE, DataDirectory, as_store_error
from reference_server.store.sqlite_tables import (
    Meta,
    Room,
    Server,
    Writer,
    first_retained,
    insert_ids,
    insert_messages,
    insert_rooms,
    known_of,
    make_server,
    read_rooms,
    write_meta,
)

TRIMMED_AT_ONCE = 10_000
ROWS_AT_ONCE = 256


class Trimmed(NamedTuple):
    """How many messages were deleted, and the size of the database in octets."""

    messages: int
    before: int
    after: int


def trim(directory: Path, before_ms: int, progress: Callable[[str], None] = lambda doing: None) -> Trimmed:
    """Delete the messages of times before `before_ms`, and give the space of all deleted ones back to the file system.

    Raises StoreError.
    """
    with _opened(directory) as files:
        size, messages = files.path.stat().st_size, 0
        rooms = list(read_rooms(files.writer, files.path))
        writer = Writer(files.writer, files.path, len(rooms), files.server.owner)
        for room in rooms:
            progress(f"reading room {room.key!r}")
            first = first_retained(files.writer, room, room.oldest, room.head, before_ms, 0)
            below = room.head + 1 if first is None else first[0]
            messages += below - room.oldest
            while room.oldest < below:
                writer.begin()
                writer.trim(room, min(below, room.oldest + TRIMMED_AT_ONCE))
                writer.commit()
        if writer.damaged:
            raise writer.damaged[0][1]
        progress("giving space back")
        files.writer.execute("VACUUM")
        files.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return Trimmed(messages, size, files.path.stat().st_size)


def restamp(directory: Path, now_ms: int, random_bytes: Callable[[int], bytes] = os.urandom) -> int:
    """Give messages of a time after `now_ms` that time; their number. All rooms get new epochs, since the server's
    clock steps back (RW-ID-4). All of it is done, or nothing. Raises StoreError."""
    with _opened(directory) as files:
        connection = files.writer
        connection.execute("BEGIN IMMEDIATE")
        changed = 0
        for room in list(read_rooms(connection, files.path)):
            if room.last_time_ms > now_ms:
                changed += _restamp_room(connection, room, now_ms)
        clock = parse(files.server.clock)
        gaps = tuple((start, min(end, now_ms)) for start, end in clock.gaps if start < now_ms)
        make_server(connection, Server(files.server.owner, Progress(now_ms, gaps).text()))
        write_meta(connection, Meta(random_bytes(INCARNATION_SIZE), files.max_body))
        connection.execute("COMMIT")
        return changed


def _restamp_room(connection: sqlite3.Connection, room: Room, now_ms: int) -> int:
    condition = "WHERE room = ? AND time_ms > ?"
    first, last, count = connection.execute(
        f"SELECT min(seq), max(seq), count(*) FROM messages {condition}", (room.id, now_ms)
    ).fetchone()
    for start in range(first, last + 1, ROWS_AT_ONCE) if count else ():
        where = (room.id, now_ms, start, start + ROWS_AT_ONCE - 1)
        sql = f"{condition} AND seq BETWEEN ? AND ?"
        rows = connection.execute(f"SELECT * FROM messages {sql}", where).fetchall()
        connection.execute(f"DELETE FROM messages {sql}", where)
        insert_messages(connection, [(*row[:2], now_ms, *row[3:-1]) for row in rows])
    # Ids that are ahead of the clock would be remembered until it reaches them; in a new epoch they need not be.
    ids = [(row[1], known) for row in connection.execute("SELECT * FROM ids WHERE room = ?", (room.id,)).fetchall()
           if (known := known_of(row)) is not None and row[1] < time_prefix(now_ms) + b"\xff" * ID_SIZE]  # fmt: skip
    connection.execute("DELETE FROM ids WHERE room = ?", (room.id,))
    insert_ids(connection, room.id, [(id, known._replace(time_ms=min(known.time_ms, now_ms))) for id, known in ids])
    room.ids, room.last_time_ms = len(ids), now_ms
    connection.execute("DELETE FROM rooms WHERE key = ?", (room.key,))
    insert_rooms(connection, [room])
    return int(count)


@contextmanager
def _opened(directory: Path) -> Iterator[DataDirectory]:
    if not (directory / DATABASE).is_file():
        raise StoreUnavailable(directory, f"a store, with a file {DATABASE}", "none")
    files = DataDirectory(directory, os.urandom)
    try:
        yield files
    except Exception as error:
        raise as_store_error(error, files.path) from error
    finally:
        files.close()
