"""Every store against a plain model of one, with calls in any order."""

import random
import shutil
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocol.registry import Code
from reference_server.store.base import Chain, Known, Log, Outcome, Placed, Record, Refused, Repeat, Retention
from reference_server.store.walk import CONFLICT, PRECEDED
from tests.support.stores import T0, Driver, Membership, Proposal, entry, record

CHAINS = 3
INVALID = Refused(Code.PAYLOAD_INVALID, "not UTF-8")
EXPIRED = Refused(Code.ID_EXPIRED, "the id is old")
LIMITED = Refused(Code.RATE_LIMITED, "too many", 7)


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
    watched: Log | None = None  # the log that tells what has moved
    proposed: list[Proposal] = field(default_factory=list)  # since the last commit
    commits: set[int] = field(default_factory=set)  # the tail after each

    def __post_init__(self) -> None:
        self.start_chains()

    def start_chains(self) -> None:
        """Have new memberships; which of them the last publish of was refused is kept here too."""
        self.chains = [Membership() for _ in range(CHAINS)]
        self.refused: set[Chain] = set()

    @property
    def last_time_ms(self) -> int:
        return self.records[-1].time_ms if self.records else 0

    def decide(self, proposal: Proposal, retention: Retention) -> tuple[Outcome, list[int]]:
        """What becomes of the proposal, and what `admit` is asked for that."""
        asked: list[int] = []
        outcome = self.outcome(proposal, asked, retention.remember_ids)
        self.refused.discard(proposal.chain)
        if isinstance(outcome, Refused):
            self.refused.add(proposal.chain)
        return outcome, asked

    def outcome(self, proposal: Proposal, asked: list[int], remember_ids: bool) -> Outcome:
        each = proposal.entry
        if proposal.invalid:
            return proposal.invalid
        known = self.known.get(each.id)
        if known:
            return Repeat(known.seq, known.time_ms) if known.digest == each.digest else CONFLICT
        if proposal.expired and remember_ids:
            return proposal.expired
        if proposal.ordered and proposal.chain in self.refused:
            return PRECEDED
        asked.append(len(self.known))
        if proposal.why:
            return proposal.why
        known = Known(len(self.records) + 1, max(each.time_ms, self.last_time_ms), each.digest)
        self.records.append(record(each, known.seq, known.time_ms))
        if remember_ids:
            self.known[each.id] = known
            self.ever.append((each.id, known))
        return Placed(known.seq, known.time_ms)


class Publish(NamedTuple):
    """What a client sends."""

    chain: int
    id_ms: int
    number: int
    content: int
    time_ms: int
    size: int
    ordered: bool
    wrong: str


publishes = st.builds(
    Publish,
    chain=st.integers(0, CHAINS - 1),
    id_ms=st.integers(0, 12),
    number=st.integers(0, 3),
    content=st.sampled_from([0, 0, 0, 1]),
    time_ms=st.integers(0, 12),
    size=st.integers(0, 120),
    ordered=st.booleans(),
    wrong=st.sampled_from(["", "", "", "", "invalid", "expired", "limited"]),
)


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

    @initialize(
        messages=st.none() | small,
        octets=st.none() | st.integers(0, 300),
        age_ms=st.none() | small,
        remember_ids=st.sampled_from([True, True, True, False]),
    )
    def start(self, messages: int | None, octets: int | None, age_ms: int | None, remember_ids: bool) -> None:
        self.retention = Retention(messages, octets, age_ms, remember_ids)
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
        assert created == (not room.records and room.log is None and not room.proposed)
        assert room.log is None or room.log is log
        assert not room.epoch or room.epoch == log.epoch
        if log is not room.watched:
            self.driver.watch(log, partial(self.moved, key))
            room.watched = log
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

    @rule(key=keys, publishes=st.lists(publishes, min_size=1, max_size=5))
    def propose(self, key: str, publishes: list[Publish]) -> None:
        room, log = self.opened(key)
        for each in publishes:
            content = entry(each.number, id_ms=T0 + each.id_ms, time_ms=T0 + each.time_ms)._replace(
                digest=bytes([each.content]) * 16,
                payload=self.random.randbytes(each.size // 2),
                fields=self.random.randbytes(each.size - each.size // 2),
            )
            proposal = Proposal(
                content,
                room.chains[each.chain],
                ordered=each.ordered,
                invalid=INVALID if each.wrong == "invalid" else None,
                expired=EXPIRED if each.wrong == "expired" else None,
                why=LIMITED if each.wrong == "limited" else None,
            )
            room.proposed.append(proposal)
            log.propose(proposal)

    @rule()
    def commit(self) -> None:
        decided: list[tuple[Proposal, Outcome, list[int]]] = []
        for room in self.rooms.values():
            proposals, room.proposed = room.proposed, []
            decided += [(proposal, *room.decide(proposal, self.retention)) for proposal in proposals]
            room.commits.add(len(room.records))
        self.driver.begin_commit()
        for proposal, outcome, asked in decided:
            assert proposal.outcomes == [outcome]
            assert proposal.asked == asked

    def moved(self, key: str, records: list[Record]) -> None:
        """A commit is stable as a whole, and not before it has begun."""
        room = self.rooms[key]
        assert records == room.records[room.head : room.head + len(records)]
        room.head += len(records)
        assert room.head in room.commits
        assert records[-1].seq == room.head

    @rule()
    def wait(self) -> None:
        self.driver.run(lambda: self.driver.stable == self.driver.placed)
        for room in self.rooms.values():
            assert room.head == len(room.records)

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
            room.log, room.users, room.proposed = None, 0, []
            room.start_chains()
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
