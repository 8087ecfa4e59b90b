"""Checks whether a data directory holds what a server stored there: each check reads, and yields what is wrong.

A server checks only what it reads (`sqlite_files`, `sqlite_tables`); here everything is read, and nothing is changed.
Each line names the room, the place, what was expected, and what was found.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from reference_server.accounts import ACCOUNTS, AccountsError, AccountsFile
from reference_server.store.base import StoreCorrupt, StoreError, StoreLocked, StoreTooNew, StoreUnavailable
from reference_server.store.snapshot import never, snapshot
from reference_server.store.sqlite_files import DATABASE, as_store_error, check_format
from reference_server.store.sqlite_tables import (
    SCHEMA,
    Room,
    known_of,
    message_is_sound,
    read_meta,
    read_server,
    room_of,
)

LINES = 50
"""How many faults of one kind are reported; of the others only their number."""

Problems = Iterator[str]


@dataclass(slots=True)
class Report:
    """What is in a store, and what is wrong with it."""

    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    rooms: int = 0
    messages: int = 0
    ids: int = 0
    accounts: int = 0


def verify(
    directory: Path, progress: Callable[[str], None] = lambda doing: None, stopped: Callable[[], bool] = never
) -> Report:
    """Check the store in `directory`; while a server uses it, what was stable when the check began.

    Raises StoreUnavailable if it is missing or cannot be read, or once `stopped` is true, and StoreTooNew.
    """
    path = directory / DATABASE
    report = Report()
    try:
        with snapshot(directory, stopped) as reading:
            if reading.holder:
                report.notes.append(f"process {reading.holder} uses the store: its write-ahead log was not checked")
            if reading.log is not None:
                report.wrong.append(str(reading.log))
            _examine(reading.connection, path, report, progress)
    except (sqlite3.Error, OSError) as error:
        known = as_store_error(error, path)
        if isinstance(known, StoreUnavailable | StoreLocked):
            raise known from error
        report.wrong.append(str(known))
    try:
        report.accounts, wrong = AccountsFile(directory / ACCOUNTS).check()
        report.wrong += wrong
    except AccountsError as error:
        report.wrong.append(str(error))
    return report


def _examine(connection: sqlite3.Connection, path: Path, report: Report, progress: Callable[[str], None]) -> None:
    try:
        check_format(connection, path)
        meta = read_meta(connection, path)
    except StoreTooNew:
        raise
    except StoreCorrupt as error:
        report.wrong.append(str(error))
        return
    if not meta.incarnation:
        report.notes.append("a copy: its rooms get new epochs when a server is started with it")
    progress("reading the file")
    report.wrong += bounded(integrity(connection), "more of the file")
    report.wrong += schema(connection)
    if report.wrong:
        return  # the tables cannot be trusted
    try:
        read_server(connection, path)
    except StoreCorrupt as error:
        report.wrong.append(str(error))
    rooms = {}
    for room, problem in read_all_rooms(connection, path):
        if room is not None:
            rooms[room.id] = room
        if problem:
            report.wrong.append(problem)
    report.rooms = len(rooms)
    report.wrong += bounded(numbering(rooms), "more of the rooms")
    progress(f"reading the messages of {len(rooms)} rooms")
    report.messages = count = _count(connection, "messages")
    report.wrong += bounded(messages(connection, rooms, meta.max_body), f"more of {count} messages")
    progress(f"reading the ids of {count} messages")
    report.ids = count = _count(connection, "ids")
    report.wrong += bounded(ids(connection, rooms), f"more of {count} ids")


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def bounded(problems: Iterable[str], rest: str) -> Problems:
    """The first `LINES` of the problems, and the number of the others."""
    lines = iter(problems)
    yield from islice(lines, LINES)
    more = sum(1 for _ in lines)
    if more:
        yield f"{more} {rest}"


# --- the checks


def integrity(connection: sqlite3.Connection) -> Problems:
    """SQLite's own check of its pages, its index and the order of rows."""
    for (line,) in connection.execute("PRAGMA integrity_check(10000)"):
        if line != "ok":
            yield f"the file: {' '.join(str(line).split())}"


def schema(connection: sqlite3.Connection) -> Problems:
    """The tables are those of this version, and there are no others."""
    found = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql NOT NULL")}
    yield from (f"the tables: expected {_first_line(sql)}, found none like it" for sql in SCHEMA if sql not in found)
    yield from (f"the tables: expected those of this format only, found {_first_line(s)}" for s in found - {*SCHEMA})


def _first_line(sql: str) -> str:
    return repr(sql.partition("\n")[0].partition("(")[0].strip())


def read_all_rooms(connection: sqlite3.Connection, path: Path) -> Iterator[tuple[Room | None, str]]:
    """Every room, or what is wrong with it."""
    for row in connection.execute("SELECT * FROM rooms ORDER BY key"):
        try:
            yield room_of(row, path), ""
        except StoreError as error:
            yield None, str(error)


def numbering(rooms: dict[int, Room]) -> Problems:
    """Rooms are numbered from 1 without holes, and their oldest messages are possible."""
    missing = sorted({*range(1, max(rooms, default=0) + 1)} - {*rooms})
    if missing:
        yield f"rooms: expected numbers 1 to {max(rooms)}, found none with {', '.join(map(str, missing))}"
    for room in rooms.values():
        if not 0 < room.oldest <= room.head + 1:
            yield f"room {room.key!r}: expected an oldest message of 1 to {room.head + 1}, found {room.oldest}"


def messages(connection: sqlite3.Connection, rooms: dict[int, Room], max_body: int) -> Problems:
    """Each room's messages from oldest to head are there without holes, each as it was written."""
    seen: dict[int, int] = {}
    wanted = {room.id: room.oldest for room in rooms.values()}
    where = {room.id: (0, -1) for room in rooms.values()}  # last time, and the next offset if that is known
    for row in connection.execute("SELECT * FROM messages ORDER BY room, seq"):
        number, seq, time_ms, payload, fields, offset = row[0], row[1], row[2], row[8], row[9], row[10]
        room = rooms.get(number)
        if room is None:
            yield f"message {seq} of a room numbered {number}: expected a room, found none"
            continue
        name = f"room {room.key!r}"
        if not message_is_sound(row):
            yield f"{name}, message {seq}: expected it as it was written, found another checksum"
            wanted[number], where[number] = seq + 1, (where[number][0], -1)
            continue
        if seq > room.head:
            yield f"{name}: expected {room.head} as the last message, which is its head, found {seq}"
        elif seq != wanted[number]:
            yield f"{name}: expected message {wanted[number]}, found {seq}"
        last_ms, expected = where[number]
        if time_ms < last_ms:
            yield f"{name}, message {seq}: expected a time of at least {last_ms}, found {time_ms}"
        if expected not in (-1, offset):
            yield f"{name}, message {seq}: expected {expected} octets before it, found {offset}"
        size = len(payload) + len(fields)
        if size > max_body:
            yield f"{name}, message {seq}: expected at most {max_body} octets, found {size}"
        seen[number] = seq
        wanted[number], where[number] = seq + 1, (time_ms, offset + size)
    for room in rooms.values():
        last_ms, octets = where[room.id]
        if wanted[room.id] <= room.head:
            yield f"room {room.key!r}: expected messages up to {room.head}, found none from {wanted[room.id]} on"
        elif room.id in seen and (octets, last_ms) != (room.octets, room.last_time_ms) and octets != -1:
            found = f"{octets} octets until {last_ms}"
            yield f"room {room.key!r}: expected {room.octets} octets until {room.last_time_ms}, found {found}"


def ids(connection: sqlite3.Connection, rooms: dict[int, Room]) -> Problems:
    """Each remembered id is as it was written, and is that of its message if that is retained."""
    counts = dict.fromkeys(rooms, 0)
    sql = "SELECT id, time_ms FROM messages WHERE room = ? AND seq = ?"
    for row in connection.execute("SELECT * FROM ids ORDER BY room, id"):
        number, id = row[:2]
        room = rooms.get(number)
        if room is None:
            yield f"id {_hex(id)} of a room numbered {number}: expected a room, found none"
            continue
        counts[number] += 1
        name = f"room {room.key!r}, id {_hex(id)}"
        known = known_of(row)
        if known is None:
            yield f"{name}: expected it as it was written, found another checksum"
        elif not 0 < known.seq <= room.head:
            yield f"{name}: expected a message of 1 to {room.head}, found {known.seq}"
        elif known.seq >= room.oldest:
            message = connection.execute(sql, (number, known.seq)).fetchone()
            if message is None:
                yield f"{name}: expected its message {known.seq}, found none"
            elif message != (id, known.time_ms):
                yield f"{name}: expected it at message {known.seq}, found {_hex(message[0])}"
    for number, count in counts.items():
        if count != rooms[number].ids:
            yield f"room {rooms[number].key!r}: expected {rooms[number].ids} ids, found {count}"


def _hex(id: object) -> str:
    return id.hex() if isinstance(id, bytes) else repr(id)
