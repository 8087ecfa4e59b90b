"""The audit: compares the store with the members' records. It reads the store by SQL, without the server's code."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.faults.stage.member import PAYLOAD, Member, check
from benchmarks.faults.stage.results import Outcome

_PAYLOAD = Struct(">QQ").unpack
DATABASE = "rooms.sqlite3"


class Stored(NamedTuple):
    """A room's stored log: seqs, numbers, ids and times of the messages from seq `oldest` on."""

    head: int
    oldest: int
    seqs: list[int]
    numbers: list[int]
    ids: list[bytes]
    times: list[int]


_NOTHING = Stored(0, 1, [], [], [], [])


def read(data: Path, rooms: Iterable[str]) -> dict[str, Stored]:
    """Read the logs of the rooms from a copy of the store, so the server may still run, and the store stays unchanged.

    A store without tables holds nothing. Raises sqlite3.DatabaseError if the store cannot be read.
    """
    with TemporaryDirectory(prefix="roomwire-faults-") as directory:
        copy = Path(directory)
        for file in data.glob(f"{DATABASE}*"):
            if not file.name.endswith("-shm"):
                shutil.copy(file, copy / file.name)
        with closing(sqlite3.connect(copy / DATABASE)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'messages'").fetchone():
                return dict.fromkeys(rooms, _NOTHING)
            return {room: _read_room(connection, room) for room in rooms}


def _read_room(connection: sqlite3.Connection, room: str) -> Stored:
    found = connection.execute("SELECT id, head, oldest FROM rooms WHERE key = ?", (room,)).fetchone()
    if found is None:
        return _NOTHING
    id, head, oldest = found
    sql = "SELECT seq, payload, id, time_ms FROM messages WHERE room = ? ORDER BY seq"
    rows = connection.execute(sql, (id,)).fetchall()
    seqs, payloads, ids, times = map(list, zip(*rows, strict=True)) if rows else ([], [], [], [])
    return Stored(head, oldest, seqs, [_number(payload) for payload in payloads], ids, times)


def _number(payload: bytes) -> int:
    number, proof = _PAYLOAD(payload) if len(payload) == PAYLOAD else (0, 0)
    return number if proof == check(number) else -1


def audit(outcome: Outcome, stored: Stored, members: Sequence[Member], *, ended: bool) -> None:
    """Compare a room's log with the records of its members. With `ended`, everything is answered and delivered."""
    where = dict(zip(stored.seqs, stored.numbers, strict=True))
    if stored.seqs != list(range(stored.oldest, stored.head + 1)):
        outcome.breach("seq", f"the log has {len(stored.seqs)} messages of {stored.oldest} to {stored.head}")
    outcome.breach("order", "times decrease with seq", sum(a > b for a, b in pairwise(stored.times)))
    outcome.breach("order", "stored payloads that no member published", stored.numbers.count(-1))
    doubled = len(stored.numbers) - len(set(stored.numbers)) + len(stored.ids) - len(set(stored.ids))
    outcome.breach("doubled", "messages or ids that stand twice", doubled)
    places = {number: seq for seq, number in where.items()}
    for member in members:
        member.report(outcome)
        lost = [n for n, ack in member.acked.items() if where.get(ack.seq) != n]
        outcome.breach("lost", f"{member.name}: {len(lost)} acknowledged messages, the first {lost[:1]}", len(lost))
        own = [seq for number in sorted(member.acked) if (seq := places.get(number))]
        outcome.breach("order", f"{member.name} published in another order", sum(a > b for a, b in pairwise(own)))
        _audit_views(outcome, stored, member, where, ended=ended)


def _audit_views(outcome: Outcome, stored: Stored, member: Member, where: dict[int, int], *, ended: bool) -> None:
    for segment in member.segments:
        start = segment.start - stored.oldest
        log = stored.numbers[start : start + len(segment.numbers)]
        if list(segment.numbers) != log:
            differ = sum(a != b for a, b in zip(segment.numbers, log, strict=False)) + abs(
                len(segment.numbers) - len(log)
            )
            outcome.breach("order", f"{member.name} and the store differ from {segment.start} on", differ)
    if ended:
        missing = stored.head - member.cursor[1]
        outcome.breach("gap", f"{member.name} did not get {missing} messages at the end", missing)


def count(outcome: Outcome, members: Sequence[Member]) -> None:
    """Add the members' counts to the outcome."""
    for member in members:
        outcome.acknowledged += len(member.acked)
        outcome.delivered += sum(len(segment.numbers) for segment in member.segments)
        outcome.repeated += member.repeated
