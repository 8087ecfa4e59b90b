"""The tables of the SQLite store: their layout, writing to them, and reading from them with checks.

These are plain functions of a connection, called on the thread that owns it. Two things shape the statements:

- *Every row carries a CRC-32 over its columns*, which is made when the row is written and compared when it is read,
  and every read checks that no row is missing. Rows that differ raise StoreCorrupt; they are never served.
- *As few steps as possible.* sqlite3 releases the interpreter's lock around each step of a statement, and may have
  to wait to get it back while the event loop is busy. With a step for each row, a busy loop can make appends and
  reads 20 times slower. So one statement writes many rows, and one value is read for many rows: JSON, or octets in
  hex if there are very many. A room may have a million ids when it is opened.

Integers above 2^63 (`sender`) are stored as the negative number with the same 64 bits.
"""

from __future__ import annotations

import functools
import json
import sqlite3
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from reference_server.store.base import ID_SIZE, Known, Record, StoreCorrupt, StoreLocked
from reference_server.store.id_index import KNOWN, ROW_SIZE, time_prefix

SCHEMA = (
    """CREATE TABLE meta (
        incarnation BLOB NOT NULL,      -- 32 random octets; the epochs of all rooms are derived from it
        max_body INTEGER NOT NULL,      -- the greatest limit for bodies under which messages were stored
        crc INTEGER NOT NULL)""",
    # The key is the primary key, without an index beside the table, so that its checksum shows a damaged key.
    """CREATE TABLE rooms (
        key TEXT PRIMARY KEY,           -- the folded name
        id INTEGER NOT NULL,            -- from 1 without holes; rooms are never deleted
        name TEXT NOT NULL,
        head INTEGER NOT NULL,          -- stored by itself, so that trimming never moves it
        oldest INTEGER NOT NULL,        -- first seq retained, head + 1 if none
        octets INTEGER NOT NULL,        -- of payloads and fields of all messages there ever were
        ids INTEGER NOT NULL,           -- rows in the table ids
        last_time_ms INTEGER NOT NULL,
        unicode_version TEXT NOT NULL,  -- by which the key was folded
        salt BLOB NOT NULL,             -- 8 random octets that change the epoch, after a repair; otherwise empty
        crc INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE messages (
        room INTEGER, seq INTEGER, time_ms INTEGER NOT NULL, sender INTEGER NOT NULL, id BLOB NOT NULL,
        ctype INTEGER NOT NULL, name TEXT NOT NULL, verified INTEGER NOT NULL,
        payload BLOB NOT NULL, fields BLOB NOT NULL,
        offset INTEGER NOT NULL,        -- octets of all earlier messages of the room
        kind INTEGER NOT NULL,          -- 0: a message
        crc INTEGER NOT NULL, PRIMARY KEY (room, seq)) WITHOUT ROWID""",
    """CREATE TABLE ids (               -- outlive their messages
        room INTEGER, id BLOB,
        known BLOB NOT NULL,            -- seq, time_ms, digest, crc: packed as the index in memory has them
        PRIMARY KEY (room, id)) WITHOUT ROWID""",
    """CREATE TABLE server (            -- one row
        owner BLOB NOT NULL,            -- random octets of the process that opened the store last; no other may write
        clock TEXT NOT NULL,            -- what the server has to know of the time, in JSON; "" at first
        crc INTEGER NOT NULL)""",
)

_MESSAGE_COLUMNS, _ID_COLUMNS, _ROOM_COLUMNS = 13, 3, 11
_ROWS_A_STEP = 256
_IDS_A_READ = 8_192  # limits how long decoding them holds the interpreter's lock: 1 ms

_MESSAGE_CRC = struct.Struct(">qqqqqHHHHI")  # room, seq, time_ms, sender, offset, kind, ctype, verified, two lengths
_ID_ROW = struct.Struct(f">{ID_SIZE}s{KNOWN.size}sI")  # id, a Known, crc
_ROOM_CRC = struct.Struct(">qqqqqqHHHH")  # the integers, four lengths

_READ_ROOMS = """
    SELECT key, id, name, head, oldest, octets, ids, last_time_ms, unicode_version, salt, crc FROM rooms"""

# Ends with the first message that does not fit, so that a missing message is not taken for one that does not fit.
_READ_MESSAGES = """
    WITH first AS (
        SELECT seq, offset, length(payload) + length(fields) AS size FROM messages
        WHERE room = :room AND seq BETWEEN :start AND :end ORDER BY seq LIMIT 1)
    SELECT (SELECT oldest FROM rooms WHERE key = :key), json_group_array(json_array(
        seq, time_ms, sender, hex(id), ctype, name, verified, hex(payload), hex(fields), offset, kind, crc))
    FROM (SELECT m.* FROM first CROSS JOIN messages AS m
          WHERE m.room = :room AND m.seq BETWEEN first.seq AND min(first.seq + :limit - 1, :end)
          AND m.offset <= first.offset + max(first.size, :octets)
          ORDER BY m.seq)"""

_READ_IDS = """
    SELECT group_concat(hex(id) || hex(known), '')
    FROM (SELECT id, known FROM ids WHERE room = ? AND id > ? ORDER BY id LIMIT ?)"""

# Times and offsets never decrease with seq, so this scans only what is about to be deleted.
_FIRST_RETAINED = """
    SELECT seq, time_ms, offset FROM messages
    WHERE room = ? AND seq BETWEEN ? AND ? AND time_ms >= ? AND offset >= ? ORDER BY seq LIMIT 1"""


_OWNER = "(SELECT owner FROM server)"
_COUNT_OWNER = "SELECT count(*) FROM server WHERE owner = ?"


@dataclass(slots=True, eq=False)
class Room:
    """A row of the table rooms. Only the writer changes it; the other threads use only `id`, `key` and `name`."""

    key: str
    name: str
    unicode_version: str
    id: int = 0  # 0: nothing is stored yet
    head: int = 0
    oldest: int = 1
    octets: int = 0
    ids: int = 0
    last_time_ms: int = 0
    salt: bytes = b""

    def row(self) -> tuple[Any, ...]:
        return (
            self.key,
            self.id,
            self.name,
            self.head,
            self.oldest,
            self.octets,
            self.ids,
            self.last_time_ms,
            self.unicode_version,
            self.salt,
            self.crc(),
        )

    def crc(self) -> int:
        numbers = (self.id, self.head, self.oldest, self.octets, self.ids, self.last_time_ms)
        texts = (self.key.encode(), self.name.encode(), self.unicode_version.encode(), self.salt)
        return crc32(_ROOM_CRC.pack(*numbers, *map(len, texts)) + b"".join(texts))


class Writer:
    """Collects the rows of a transaction, and writes them in few steps.

    Nothing is written unless `owner` is the store's: another process that opened it since has another one.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, last_room: int, owner: bytes) -> None:
        self._connection = connection
        self._path = path
        self._last_room = last_room
        self._owner = owner
        self._clock: str | None = None
        self.damaged: list[tuple[str, StoreCorrupt]] = []
        """Rooms in which rows were missing, until the caller takes them out."""
        self._messages: list[Any] = []  # the columns of all rows, in one list
        self._ids: list[Any] = []
        self._rooms: dict[Room, None] = {}

    def append(self, room: Room, record: Record, known: Known | None) -> None:
        """Write an entry, and its id if it is to be `known`."""
        seq, time_ms, kind, sender, id, ctype, name, verified, payload, fields = record
        if not room.id:
            self._last_room += 1
            room.id = self._last_room
        number, offset = room.id, room.octets
        sender -= sender >> 63 << 64
        crc = _message_crc((number, seq, time_ms, sender, id, ctype, name, verified, payload, fields, offset, kind))
        # sqlite3 looks up an adapter for each parameter that is bytes or bool, but not for bytearray or int.
        id_column = bytearray(id)
        self._messages += (
            number, seq, time_ms, sender, id_column, ctype, name, int(verified), bytearray(payload), bytearray(fields),
            offset, kind, crc,
        )  # fmt: skip
        if known is not None:
            self._ids += (number, id_column, bytearray(_stored(number, id, KNOWN.pack(*known))))
            room.ids += 1
        room.head = seq
        room.octets = offset + len(payload) + len(fields)
        room.last_time_ms = time_ms
        self._rooms[room] = None

    def trim(self, room: Room, below: int) -> None:
        """Delete the messages before `below`, at most head + 1."""
        self._flush()
        sql = "DELETE FROM messages WHERE room = ? AND seq < ?"
        deleted = self._connection.execute(sql, (room.id, below)).rowcount
        self._expect(room, "messages", below - room.oldest, deleted)
        room.oldest = below
        self._rooms[room] = None

    def forget(self, room: Room, before_ms: int, count: int) -> None:
        """Delete the ids older than `before_ms`, of which there are `count`."""
        self._flush()
        sql = "DELETE FROM ids WHERE room = ? AND id < ?"
        deleted = self._connection.execute(sql, (room.id, time_prefix(before_ms))).rowcount
        self._expect(room, "ids", count, deleted)
        room.ids -= deleted
        self._rooms[room] = None

    def begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Write the remaining rows and sync. If this raises, the state of the transaction is unknown."""
        self._flush()
        try:
            self._write_rooms()
            if self._clock is not None:
                self._expect_owner(1, write_server(self._connection, self._owner, self._clock))
                self._clock = None
        except StoreLocked:
            self._connection.execute("ROLLBACK")  # or the other process would wait for the end of this one
            raise
        self._connection.execute("COMMIT")

    def note_clock(self, text: str) -> None:
        """Store what the server has to know of the time."""
        self._clock = text

    def check_owner(self) -> None:
        """Raise StoreLocked if another process has opened the store since. No transaction may be open."""
        self._expect_owner(1, self._connection.execute(_COUNT_OWNER, (self._owner,)).fetchone()[0])

    def _write_rooms(self) -> None:
        rows = [room.row() for room in self._rooms]
        self._rooms.clear()
        written, size = 0, _ROWS_A_STEP
        while written < len(rows):
            while size > len(rows) - written:
                size >>= 1
            columns = [column for row in rows[written : written + size] for column in row]
            # The owner is checked by the statement that is needed anyway: see above about steps.
            self._expect_owner(size, self._connection.execute(_rooms_statement(size), (*columns, self._owner)).rowcount)
            written += size

    def _expect_owner(self, expected: int, found: int) -> None:
        if found != expected:
            raise StoreLocked(self._path, "to be the only user", "that another process has opened the store since")

    def _flush(self) -> None:
        _write(self._connection, "INSERT INTO messages", _MESSAGE_COLUMNS, self._messages)
        _write(self._connection, "INSERT INTO ids", _ID_COLUMNS, self._ids)
        self._messages, self._ids = [], []

    def _expect(self, room: Room, table: str, expected: int, found: int) -> None:
        if found != expected:
            error = StoreCorrupt(self._path, f"{expected} old {table} of room {room.key!r}", str(found))
            self.damaged.append((room.key, error))


def insert_messages(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write messages, of which only the checksum is missing."""
    columns = [column for row in rows for column in (*row, _message_crc(row))]
    _write(connection, "INSERT INTO messages", _MESSAGE_COLUMNS, columns)


def insert_ids(connection: sqlite3.Connection, room: int, ids: Sequence[tuple[bytes, Known]]) -> None:
    """Write the ids of a room."""
    columns = [column for id, known in ids for column in (room, id, _stored(room, id, KNOWN.pack(*known)))]
    _write(connection, "INSERT INTO ids", _ID_COLUMNS, columns)


def insert_rooms(connection: sqlite3.Connection, rooms: Sequence[Room]) -> None:
    """Write rooms."""
    _write(connection, "INSERT INTO rooms", _ROOM_COLUMNS, [column for room in rooms for column in room.row()])


def _write(connection: sqlite3.Connection, verb: str, width: int, columns: list[Any]) -> None:
    """Write rows of `width` columns, a power of two of them at a time, so that few statements suffice."""
    start, rows, size = 0, len(columns) // width, _ROWS_A_STEP
    while rows:
        while size > rows:
            size >>= 1
        end = start + size * width
        connection.execute(_statement(verb, width, size), columns[start:end])
        start, rows = end, rows - size


@functools.cache
def _statement(verb: str, width: int, rows: int) -> str:
    row = "(" + ",".join("?" * width) + ")"
    return f"{verb} VALUES {','.join([row] * rows)}"


@functools.cache
def _rooms_statement(rows: int) -> str:
    row = "(" + ",".join("?" * _ROOM_COLUMNS) + ")"
    return f"INSERT OR REPLACE INTO rooms SELECT * FROM (VALUES {','.join([row] * rows)}) WHERE ? = {_OWNER}"


def read_rooms(connection: sqlite3.Connection, path: Path) -> Iterator[Room]:
    """All rooms, each checked."""
    count = last = 0
    for row in connection.execute(_READ_ROOMS):
        room = room_of(row, path)
        count, last = count + 1, max(last, room.id)
        yield room
    if count != last:
        raise StoreCorrupt(path, f"{last} rooms", str(count))


def read_room(connection: sqlite3.Connection, path: Path, key: str) -> Room | None:
    row = connection.execute(f"{_READ_ROOMS} WHERE key = ?", (key,)).fetchone()
    return None if row is None else room_of(row, path)


def read_keys(connection: sqlite3.Connection, after: str, limit: int) -> list[str]:
    """Keys of rooms after `after`, ascending. SQLite compares text by its UTF-8, which is the order of code points."""
    sql = "SELECT json_group_array(key) FROM (SELECT key FROM rooms WHERE key > ? ORDER BY key LIMIT ?)"
    keys: list[str] = json.loads(connection.execute(sql, (after, limit)).fetchone()[0])
    return keys


def read_messages(
    connection: sqlite3.Connection, path: Path, room: Room, start: int, end: int, limit: int, octets: int
) -> list[Record]:
    """Messages from `start`, or from the oldest, to `end`: as many as both limits allow, at least one."""
    names = {"key": room.key, "room": room.id, "start": start, "end": end, "limit": limit, "octets": octets}
    oldest, text = connection.execute(_READ_MESSAGES, names).fetchone()
    rows = _decoded(text, path, room)
    if not isinstance(oldest, int):
        raise _changed(path, "the entry", room.key)
    seq = max(start, oldest)
    last = min(seq + limit - 1, end)
    records: list[Record] = []
    for row in rows:
        if row[0] != seq:
            break
        record = _record(row, room, path)
        octets -= len(record.payload) + len(record.fields)
        if octets < 0 and records:
            return records
        records.append(record)
        seq += 1
    if seq <= last:
        raise StoreCorrupt(path, f"message {seq} of room {room.key!r}", "another or none")
    return records


def read_bounds(connection: sqlite3.Connection, path: Path, room: Room) -> tuple[int, int]:
    """The time and the offset of the oldest message; of the head if none is retained."""
    if room.oldest > room.head:
        return room.last_time_ms, room.octets
    sql = "SELECT time_ms, offset FROM messages WHERE room = ? AND seq = ?"
    row = connection.execute(sql, (room.id, room.oldest)).fetchone()
    if row is None:
        raise StoreCorrupt(path, f"message {room.oldest} of room {room.key!r}", "nothing")
    return row[0], row[1]


def count_messages(connection: sqlite3.Connection, room: Room, below: int) -> int:
    """How many messages there are before `below`. A damaged page among them is found here, and not by the writer, whose
    transaction could not be completed any more."""
    sql = "SELECT count(*) FROM messages WHERE room = ? AND seq < ? AND length(payload) >= 0"
    return int(connection.execute(sql, (room.id, below)).fetchone()[0])


def first_retained(
    connection: sqlite3.Connection, room: Room, oldest: int, head: int, since_ms: int, offset: int
) -> tuple[int, int, int] | None:
    """Seq, time and offset of the first message that is recent enough and near enough to the head."""
    row = connection.execute(_FIRST_RETAINED, (room.id, oldest, head, since_ms, offset)).fetchone()
    return None if row is None else (row[0], row[1], row[2])


def read_ids(connection: sqlite3.Connection, path: Path, room: Room) -> Iterator[bytes]:
    """The ids of the room as rows for an `IdIndex`, checked. Nothing may write to the room meanwhile."""
    last, count, start = b"", 0, _id_crc(room.id)
    while True:
        (text,) = connection.execute(_READ_IDS, (room.id, last, _IDS_A_READ)).fetchone()
        octets = bytes.fromhex(text or "")
        rows, rest = divmod(len(octets), ROW_SIZE)
        if rest:  # damage may change the length of a column, or its type
            raise _changed(path, "an id", room.key)
        for id, known, crc in _ID_ROW.iter_unpack(octets):
            if id <= last or crc32(known, crc32(id, start)) != crc:
                raise _changed(path, f"id {id.hex()}", room.key)
            last = id
        if rows:
            yield octets
        count += rows
        if rows < _IDS_A_READ:
            break
    if count != room.ids:
        raise StoreCorrupt(path, f"{room.ids} ids of room {room.key!r}", str(count))


class Meta(NamedTuple):
    """What is stored once for the whole store."""

    incarnation: bytes
    """Empty in a copy that no server has opened yet."""
    max_body: int
    """The greatest limit for bodies under which messages were stored."""


def write_meta(connection: sqlite3.Connection, meta: Meta) -> None:
    connection.execute("DELETE FROM meta")
    connection.execute("INSERT INTO meta VALUES (?, ?, ?)", (*meta, _meta_crc(*meta)))


def read_meta(connection: sqlite3.Connection, path: Path) -> Meta:
    rows = connection.execute("SELECT incarnation, max_body, crc FROM meta").fetchall()
    if len(rows) != 1 or not _sound(rows[0][2], _meta_crc, *rows[0][:2]):
        raise StoreCorrupt(path, "the incarnation as it was written", "another checksum or none")
    return Meta(*rows[0][:2])


class Server(NamedTuple):
    """What is stored of the server that uses the store."""

    owner: bytes
    clock: str


def make_server(connection: sqlite3.Connection, server: Server) -> None:
    connection.execute("DELETE FROM server")
    connection.execute("INSERT INTO server VALUES (?, ?, ?)", (*server, _server_crc(*server)))


def write_server(connection: sqlite3.Connection, owner: bytes, clock: str) -> int:
    """Change the clock if the store is that of `owner`; how many rows were changed."""
    sql = "UPDATE server SET clock = ?, crc = ? WHERE owner = ?"
    return connection.execute(sql, (clock, _server_crc(owner, clock), owner)).rowcount


def read_server(connection: sqlite3.Connection, path: Path) -> Server:
    rows = connection.execute("SELECT owner, clock, crc FROM server").fetchall()
    if len(rows) != 1 or not _sound(rows[0][2], _server_crc, *rows[0][:2]):
        raise StoreCorrupt(path, "the server's entry as it was written", "another checksum or none")
    return Server(*rows[0][:2])


def _server_crc(owner: bytes, clock: str) -> int:
    return crc32(clock.encode(), crc32(owner))


def _meta_crc(incarnation: bytes, max_body: int) -> int:
    return crc32(incarnation + max_body.to_bytes(8, "big"))


def room_of(row: tuple[Any, ...], path: Path) -> Room:
    """A row of the table rooms, checked. Raises StoreCorrupt."""
    key, id, name, head, oldest, octets, ids, last_time_ms, unicode_version, salt, crc = row
    room = Room(key, name, unicode_version, id, head, oldest, octets, ids, last_time_ms, salt)
    if not _sound(crc, room.crc):
        raise _changed(path, "the entry", str(key))
    return room


def _record(row: list[Any], room: Room, path: Path) -> Record:
    seq, time_ms, sender, hex_id, ctype, name, verified, hex_payload, hex_fields, offset, kind, crc = row
    id, payload, fields = bytes.fromhex(hex_id), bytes.fromhex(hex_payload), bytes.fromhex(hex_fields)
    columns = (room.id, seq, time_ms, sender, id, ctype, name, verified, payload, fields, offset, kind)
    if not _sound(crc, _message_crc, columns):
        raise _changed(path, f"message {seq}", room.key)
    sender &= 0xFFFF_FFFF_FFFF_FFFF
    return Record(seq, time_ms, kind, sender, id, ctype, name, bool(verified), payload, fields)


def message_is_sound(row: Sequence[Any]) -> bool:
    """Whether a row of the table messages is as it was written."""
    return _sound(row[-1], _message_crc, tuple(row[:-1]))


def known_of(row: Sequence[Any]) -> Known | None:
    """The content of a row of the table ids; None if it is not as it was written."""
    room, id, stored = row
    try:
        known = stored[: KNOWN.size]
        return Known(*KNOWN.unpack(known)) if _stored(room, id, known) == stored else None
    except (TypeError, struct.error):
        return None  # damage may change the types of columns


def _changed(path: Path, what: str, key: str) -> StoreCorrupt:
    return StoreCorrupt(path, f"{what} of room {key!r} as it was written", "another checksum")


def _message_crc(row: tuple[Any, ...]) -> int:
    room, seq, time_ms, sender, id, ctype, name, verified, payload, fields, offset, kind = row
    text = name.encode()
    numbers = _MESSAGE_CRC.pack(room, seq, time_ms, sender, offset, kind, ctype, verified, len(text), len(fields))
    return crc32(payload, crc32(b"".join((numbers, id, text, fields))))


def _stored(room: int, id: bytes, known: bytes) -> bytes:
    """The column `known`."""
    return known + crc32(known, crc32(id, _id_crc(room))).to_bytes(4, "big")


def _id_crc(room: int) -> int:
    """The start value of the CRC of an id of the room."""
    return crc32(room.to_bytes(8, "big"))


def _sound(crc: object, compute: Callable[..., int], *columns: Any) -> bool:
    try:
        return compute(*columns) == crc
    except (TypeError, AttributeError, struct.error):
        return False  # damage may change the types of columns


def _decoded(text: str, path: Path, room: Room) -> list[Any]:
    try:
        rows: list[Any] = json.loads(text)
    except ValueError as error:
        raise _changed(path, "a row", room.key) from error
    return rows
