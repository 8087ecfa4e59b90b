"""A driver that waits for a store's callbacks, and entries to put into a store."""

import queue
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from reference_server.store.base import Entry, Log, Outcome, Record, Refused, Retention, Store
from reference_server.store.memory import MemoryStore
from reference_server.store.sqlite import SqliteStore

DATABASE = "rooms.sqlite3"
EVERYTHING = Retention(messages=None, octets=None, age_ms=None)
T0 = 1_700_000_000_000


class Outcomes(list[Outcome]):
    """Equals a list of the same outcomes. A plain list does too if a Repeat is where a Placed should be: both are
    tuples."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and super().__eq__(other) and [*map(type, self)] == [*map(type, other)]


class Membership:
    """A chain of proposals."""

    def __init__(self) -> None:
        self.refused = False


class Proposal:
    """What a publish is to a store. `why` is what `admit` answers."""

    def __init__(
        self,
        entry: Entry,
        chain: Membership | None = None,
        *,
        ordered: bool = False,
        invalid: Refused | None = None,
        expired: Refused | None = None,
        why: Refused | None = None,
    ) -> None:
        self.entry, self.chain, self.ordered, self.invalid = entry, chain or Membership(), ordered, invalid
        self.expired, self.why = expired, why
        self.outcomes = Outcomes()
        self.asked: list[int] = []  # how many ids were known whenever `admit` was called

    def admit(self, known: int) -> Refused | None:
        self.asked.append(known)
        return self.why

    def settle(self, outcome: Outcome) -> None:
        assert not self.outcomes, "an outcome is told once"
        self.outcomes.append(outcome)
        self.chain.refused = isinstance(outcome, Refused)


def propose(log: Log, *entries: Entry) -> list[Proposal]:
    """Propose entries, each by another membership."""
    proposals = [Proposal(entry) for entry in entries]
    for proposal in proposals:
        log.propose(proposal)
    return proposals


class Driver:
    """A store with a queue in place of its event loop. The methods wait for the store's callbacks.

    It checks that what `moved` and `on_stable` are told of the logs opened by `open_new` is as promised.
    """

    def __init__(self, kind: str, path: Path, retention: Retention) -> None:
        self.posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.failures: list[Exception] = []
        self.damage: list[tuple[str, Exception]] = []
        self.logs: dict[Log, int] = {}  # all that were opened, and the last record that `moved` told of each
        self.store: Store
        if kind == "memory":
            self.store = MemoryStore(retention)
        else:
            self.store = SqliteStore(path, retention, self.posted.put, self.failures.append)
        self.store.on_damage = lambda key, error: self.damage.append((key, error))
        self.store.on_stable = self._count
        self.stable = 0  # how many entries have become stable
        self.moved = 0  # of how many `moved` told
        self.placed = 0  # how many were given a place

    def _count(self, count: int) -> None:
        self.stable += count
        assert self.stable == self.moved

    def _move(self, log: Log, records: list[Record]) -> None:
        seqs = [record.seq for record in records]
        assert records
        assert seqs == list(range(self.logs[log] + 1, log.head + 1)), "without holes, and the head has moved"
        self.logs[log] = log.head
        self.moved += len(records)

    def run(self, until: Callable[[], object]) -> None:
        """Run the callbacks that the store posts until `until()` is true."""
        while not until():
            self.posted.get(timeout=30)()
            assert not self.failures, self.failures

    def open_new(self, key: str, name: str = "") -> tuple[Log, bool]:
        opened: list[tuple[Log, bool]] = []
        self.store.open(key, name or key, lambda log, created: opened.append((log, created)))
        self.run(lambda: opened)
        log = opened[0][0]
        if log not in self.logs:
            self.logs[log] = log.head
            log.moved = partial(self._move, log)
        return opened[0]

    def watch(self, log: Log, moved: Callable[[list[Record]], None]) -> None:
        """Have `moved` called too with what becomes stable in the log."""
        before = log.moved

        def both(records: list[Record]) -> None:
            before(records)
            moved(records)

        log.moved = both

    def open(self, key: str) -> Log:
        return self.open_new(key)[0]

    def place(self, log: Log, *entries: Entry) -> Outcomes:
        """Propose and commit. Their outcomes; what has a place need not be stable yet."""
        proposals = propose(log, *entries)
        self.begin_commit()
        return Outcomes(outcome for proposal in proposals for outcome in proposal.outcomes)

    def begin_commit(self) -> None:
        """Commit, and do not wait until that is stable."""
        tails = {log: log.tail for log in self.logs}
        self.store.commit()
        self.placed += sum(log.tail - tail for log, tail in tails.items())

    def commit(self) -> None:
        """Commit, and wait."""
        self.begin_commit()
        self.run(lambda: self.stable == self.placed)

    def read(self, log: Log, after: int = 0, limit: int = 1_000, octets: int = 1 << 30) -> list[Record]:
        answers: list[list[Record]] = []
        log.read(after, limit, octets, answers.append)
        self.run(lambda: answers)
        assert len(answers) == 1
        return answers[0]

    def fill(self, log: Log, count: int, payload: bytes = b"payload") -> list[Entry]:
        """Propose and commit `count` entries."""
        entries = [entry(log.tail + 1 + index, payload=payload) for index in range(count)]
        propose(log, *entries)
        self.commit()
        return entries

    def retain(self, log: Log, now_ms: int, oldest: int) -> None:
        """Apply retention, and expect `oldest`."""
        log.retain(now_ms)
        # The store answers in order, so that this waits for the answers that `retain` needs.
        self.store.release(self.open("fence"))
        assert log.oldest == oldest


def entry(number: int, *, payload: bytes = b"payload", time_ms: int = 0, id_ms: int = 0) -> Entry:
    """The entry of this number, with an id of its own and a time of T0 + number ms."""
    return Entry(
        id=(id_ms or T0 + number).to_bytes(6, "big") + number.to_bytes(10, "big"),
        digest=number.to_bytes(16, "big"),
        time_ms=time_ms or T0 + number,
        kind=number % 5,
        sender=number << 32,
        name=f"name {number % 7}",
        verified=number % 3 == 0,
        ctype=number % 2,
        payload=payload,
        fields=b"",
    )


def record(entry: Entry, seq: int, time_ms: int) -> Record:
    return Record(
        seq,
        time_ms,
        entry.kind,
        entry.sender,
        entry.id,
        entry.ctype,
        entry.name,
        entry.verified,
        entry.payload,
        entry.fields,
    )


@contextmanager
def opened(path: Path, retention: Retention = EVERYTHING) -> Iterator[Driver]:
    """The SQLite store in `path`, closed with the block."""
    driver = Driver("sqlite", path, retention)
    try:
        yield driver
    finally:
        driver.store.close()


def frames(path: Path) -> Iterator[tuple[int, bool]]:
    """The offset of each frame in the write-ahead log, and whether a transaction ends with it."""
    data = (path / f"{DATABASE}-wal").read_bytes()
    size = frame_size(data)
    for offset in range(32, len(data) - size + 1, size):
        yield offset, struct.unpack_from(">I", data, offset + 4)[0] != 0


def frame_size(log: bytes) -> int:
    return 24 + int(struct.unpack_from(">I", log, 8)[0])
