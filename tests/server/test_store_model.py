"""Every store against a plain model of one, with calls in any order."""

import random
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reference_server.store.base import Known, Log, Record, Retention
from tests.support.stores import T0, Driver, entry, record


@dataclass
class Room:
    """What a room's log should be."""

    log: Log | None = None
    users: int = 0
    records: list[Record] = field(default_factory=list)  # all messages ever; the seq is the position + 1
    head: int = 0
    oldest: int = 1
    known: dict[bytes, Known] = field(default_factory=dict)
    ever: list[tuple[bytes, Known]] = field(default_factory=list)
    epoch: int = 0

    @property
    def last_time_ms(self) -> int:
        return self.records[-1].time_ms if self.records else 0


class StoreMachine(RuleBasedStateMachine):
    """After any sequence of calls a store agrees with a plain model of one."""

    kind: str
    keys = st.sampled_from(["a", "b", "c"])
    small = st.integers(0, 12)

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="store-"))
        self.rooms = {key: Room() for key in ("a", "b", "c")}
        self.random = random.Random(0)
        self.committed = self.done = 0

    @initialize(
        messages=st.none() | small,
        octets=st.none() | st.integers(0, 300),
        age_ms=st.none() | small,
    )
    def start(self, messages: int | None, octets: int | None, age_ms: int | None) -> None:
        self.retention = Retention(messages, octets, age_ms)
        self.driver = Driver(self.kind, self.path, self.retention)

    def opened(self, key: str) -> tuple[Room, Log]:
        room = self.rooms[key]
        if room.log is None:
            self.open(key)
        assert room.log is not None
        return room, room.log

    @rule(key=keys)
    def open(self, key: str) -> None:
        room = self.rooms[key]
        log, created = self.driver.open_new(key)
        assert created == (not room.records and room.log is None)
        assert room.log is None or room.log is log
        assert not room.epoch or room.epoch == log.epoch
        room.log, room.epoch = log, log.epoch
        room.users += 1

    @rule(key=keys)
    def release(self, key: str) -> None:
        room = self.rooms[key]
        assume(room.log is not None)
        assert room.log is not None
        self.driver.store.release(room.log)
        room.users -= 1
        if not room.users:
            room.log = None

    @rule(key=keys, id_ms=small, number=small, time_ms=small, size=st.integers(0, 120))
    def append(self, key: str, id_ms: int, number: int, time_ms: int, size: int) -> None:
        room, log = self.opened(key)
        each = entry(number, id_ms=T0 + id_ms, time_ms=T0 + time_ms)._replace(
            digest=self.random.randbytes(16),
            payload=self.random.randbytes(size // 2),
            fields=self.random.randbytes(size - size // 2),
        )
        if each.id in room.known:
            with pytest.raises(ValueError, match="already known"):
                log.append(each)
            return
        known = Known(len(room.records) + 1, max(each.time_ms, room.last_time_ms), each.digest)
        assert log.append(each) == known
        room.records.append(record(each, known.seq, known.time_ms))
        room.known[each.id] = known
        room.ever.append((each.id, known))

    @rule()
    def commit(self) -> None:
        self.committed += 1
        number, tails = self.committed, {key: len(room.records) for key, room in self.rooms.items()}

        def done() -> None:
            self.done += 1
            assert self.done == number
            for key, tail in tails.items():
                self.rooms[key].head = max(self.rooms[key].head, tail)

        self.driver.store.commit(done)

    @rule()
    def wait(self) -> None:
        self.driver.run(lambda: self.done == self.committed)

    @rule(key=keys, after=small, limit=st.integers(1, 12), octets=st.integers(0, 400))
    def read(self, key: str, after: int, limit: int, octets: int) -> None:
        room, log = self.opened(key)
        expected: list[Record] = []
        total = 0
        for each in room.records[max(after, room.oldest - 1) : room.head][:limit]:
            total += len(each.payload) + len(each.fields)
            if total > octets and expected:
                break
            expected.append(each)
        assert self.driver.read(log, after, limit, octets) == expected

    @rule(key=keys, below=small)
    def trim(self, key: str, below: int) -> None:
        room, log = self.opened(key)
        log.trim(below)
        room.oldest = max(room.oldest, min(below, room.head + 1))

    @rule(key=keys, now=st.integers(0, 30))
    def retain(self, key: str, now: int) -> None:
        room, log = self.opened(key)
        octets, below, limits = 0, room.head + 1, self.retention
        for each in reversed(room.records[room.oldest - 1 : room.head]):
            octets += len(each.payload) + len(each.fields)
            if (
                (limits.messages is not None and room.head - each.seq >= limits.messages)
                or (limits.octets is not None and octets > limits.octets)
                or (limits.age_ms is not None and each.time_ms < T0 + now - limits.age_ms)
            ):
                break
            below = each.seq
        room.oldest = max(room.oldest, below)
        self.driver.retain(log, T0 + now, room.oldest)

    @rule(key=keys, before=st.integers(0, 14))
    def forget(self, key: str, before: int) -> None:
        room, log = self.opened(key)
        log.forget(T0 + before)
        bound = (T0 + before).to_bytes(6, "big")
        room.known = {id: known for id, known in room.known.items() if id[:6] >= bound}

    @precondition(lambda self: self.kind != "memory")
    @rule(commit=st.booleans())
    def restart(self, commit: bool) -> None:
        if commit:
            self.commit()
        self.driver.store.close()
        self.wait()
        self.driver = Driver(self.kind, self.path, self.retention)
        for key, room in self.rooms.items():
            room.log, room.users = None, 0
            del room.records[room.head :]
            room.known = {id: known for id, known in room.known.items() if known.seq <= room.head}
            self.open(key)
            assert room.log is not None
            if not commit:
                # What was deleted since the last commit may be there again.
                assert room.log.oldest <= room.oldest
                room.oldest = room.log.oldest
                for id, known in room.ever:
                    if id not in room.known and room.log.lookup(id) == known:
                        room.known[id] = known
        assert self.driver.store.rooms() == sum(room.head > 0 for room in self.rooms.values())
        assert self.driver.store.last_time_ms == max(room.last_time_ms for room in self.rooms.values())

    @invariant()
    def agrees(self) -> None:
        for room in self.rooms.values():
            if room.log is not None:
                log = room.log
                assert (log.head, log.tail, log.oldest) == (room.head, len(room.records), room.oldest)
                assert (log.last_time_ms, log.known) == (room.last_time_ms, len(room.known))
                for id, _ in room.ever:
                    assert log.lookup(id) == room.known.get(id)

    def teardown(self) -> None:
        if hasattr(self, "driver"):
            self.wait()
            for key in self.rooms:
                room, log = self.opened(key)
                assert self.driver.read(log) == room.records[room.oldest - 1 : room.head]
            self.driver.store.close()
            assert not self.driver.failures
        shutil.rmtree(self.path)


class MemoryMachine(StoreMachine):
    kind = "memory"


class SqliteMachine(StoreMachine):
    kind = "sqlite"


TestMemoryMachine = MemoryMachine.TestCase
TestSqliteMachine = SqliteMachine.TestCase
TestMemoryMachine.settings = settings(deadline=None, suppress_health_check=list(HealthCheck))
TestSqliteMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
