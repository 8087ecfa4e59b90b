"""A driver that waits for a store's callbacks, and entries to put into a store."""

import queue
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from reference_server.store.base import Entry, Log, Record, Retention, Store
from reference_server.store.memory import MemoryStore
from reference_server.store.sqlite import SqliteStore

DATABASE = "rooms.sqlite3"
EVERYTHING = Retention(messages=None, octets=None, age_ms=None)
T0 = 1_700_000_000_000


class Driver:
    """A store with a queue in place of its event loop. The methods wait for the store's callbacks."""

    def __init__(self, kind: str, path: Path, retention: Retention) -> None:
        self.posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.failures: list[Exception] = []
        self.damage: list[tuple[str, Exception]] = []
        self.store: Store
        if kind == "memory":
            self.store = MemoryStore(retention)
        else:
            self.store = SqliteStore(path, retention, self.posted.put, self.failures.append)
        self.store.on_damage = lambda key, error: self.damage.append((key, error))

    def run(self, until: Callable[[], object]) -> None:
        """Run the callbacks that the store posts until `until()` is true."""
        while not until():
            self.posted.get(timeout=30)()
            assert not self.failures, self.failures

    def open_new(self, key: str, name: str = "") -> tuple[Log, bool]:
        opened: list[tuple[Log, bool]] = []
        self.store.open(key, name or key, lambda log, created: opened.append((log, created)))
        self.run(lambda: opened)
        return opened[0]

    def open(self, key: str) -> Log:
        return self.open_new(key)[0]

    def commit(self) -> None:
        done: list[bool] = []
        self.store.commit(lambda: done.append(True))
        self.run(lambda: done)

    def read(self, log: Log, after: int = 0, limit: int = 1_000, octets: int = 1 << 30) -> list[Record]:
        answers: list[list[Record]] = []
        log.read(after, limit, octets, answers.append)
        self.run(lambda: answers)
        assert len(answers) == 1
        return answers[0]

    def fill(self, log: Log, count: int, payload: bytes = b"payload") -> list[Entry]:
        """Append and commit `count` entries."""
        entries = [entry(log.tail + 1 + index, payload=payload) for index in range(count)]
        for each in entries:
            log.append(each)
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
