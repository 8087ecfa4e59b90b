"""What only the SQLite store does: restarts, group commit, crashes, locks.

Run as a program, this file is the child process that some of the tests kill: see `children`.
"""

import os
import queue
import random
import resource
import signal
import sqlite3
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from reference_server.store import sqlite_tables
from reference_server.store.base import (
    Entry,
    Known,
    Log,
    Placed,
    Repeat,
    Retention,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreUnavailable,
)
from reference_server.store.sqlite import SqliteStore
from reference_server.store.sqlite_files import renew_incarnation
from tests.support.places import ROOT
from tests.support.stores import DATABASE, EVERYTHING, T0, Driver, entry, frames, opened, propose, record

# --- restart


def test_restart_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        log = driver.open_new("room", "Room")[0]
        entries = driver.fill(log, 5)
        driver.fill(driver.open("other"), 2)
        epoch, empty = log.epoch, driver.open("empty").epoch
        log.trim(3)
    with opened(tmp_path) as driver:
        assert driver.store.rooms() == 2
        assert driver.store.last_time_ms == T0 + 5
        log, created = driver.open_new("room", "ROOM")
        assert not created
        assert (log.name, log.epoch, log.head, log.tail, log.oldest) == ("Room", epoch, 5, 5, 3)
        assert (log.last_time_ms, log.known) == (T0 + 5, 5)
        assert driver.read(log) == [record(entries[seq - 1], seq, T0 + seq) for seq in (3, 4, 5)]
        assert driver.open("empty").epoch == empty
        assert driver.place(log, entry(6)) == [Placed(6, T0 + 6)]


def test_max_body_never_falls_below_what_is_stored(tmp_path: Path) -> None:
    """RW-WELCOME-5."""
    with opened(tmp_path) as driver:
        assert driver.store.raise_max_body(8_192) == 8_192
    with opened(tmp_path) as driver:
        assert driver.store.raise_max_body(4_096) == 8_192
    renew_incarnation(tmp_path)
    with opened(tmp_path) as driver:
        assert driver.store.raise_max_body(4_096) == 8_192


def test_head_and_ids_survive_a_full_trim_and_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_tables, "_IDS_A_READ", 100)  # so that there are 24 reads
    with opened(tmp_path) as driver:
        log = driver.open("room")
        entries = driver.fill(log, 2_500)
        log.trim(2_501)
        log.forget(T0 + 101)
    with opened(tmp_path) as driver:
        log = driver.open("room")
        assert (log.head, log.oldest, log.known, log.last_time_ms) == (2_500, 2_501, 2_400, T0 + 2_500)
        assert driver.read(log) == []
        assert log.lookup(entries[99].id) is None
        for seq in range(101, 2_501):
            assert log.lookup(entries[seq - 1].id) == Known(seq, T0 + seq, entries[seq - 1].digest)
        log.forget(T0 + 200)
        assert log.known == 2_301
        assert driver.place(log, entry(9_999)) == [Placed(2_501, T0 + 9_999)]


def test_close_finishes_commits_and_drops_the_rest(tmp_path: Path) -> None:
    done: list[int] = []
    with opened(tmp_path) as driver:
        log = driver.open("room")
        driver.watch(log, lambda records: done.extend(record.seq for record in records))
        for number in range(1, 51):
            driver.place(log, entry(number))
        [dropped] = propose(log, entry(51))
    driver.run(lambda: driver.stable == 50)
    assert done == list(range(1, 51))
    assert dropped.outcomes == []
    with opened(tmp_path) as driver:
        log = driver.open("room")
        assert (log.head, log.known) == (50, 50)
        assert log.lookup(entry(51).id) is None


def test_ids_are_known_again_after_remember_ids_was_off(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.fill(driver.open("room"), 3)
    with opened(tmp_path, Retention(remember_ids=False)) as driver:
        log = driver.open("room")
        driver.fill(log, 1)
        assert log.known == 0
    with opened(tmp_path) as driver:
        assert driver.open("room").known == 3


def test_new_incarnation_changes_every_epoch(tmp_path: Path) -> None:
    epochs: list[set[int]] = []
    for _ in range(2):
        with opened(tmp_path) as driver:
            if not epochs:
                driver.fill(driver.open("room"), 3)
            epochs.append({driver.open(key).epoch for key in ("room", "empty")})
            assert driver.open("room").head == 3
        renew_incarnation(tmp_path)
    assert len(epochs[0] | epochs[1]) == 4


def test_renew_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable):
        renew_incarnation(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with opened(tmp_path), pytest.raises(StoreLocked):
        renew_incarnation(tmp_path)


# --- the writer's thread


@contextmanager
def stopped_writer(path: Path) -> Iterator[None]:
    """Keep transactions from beginning meanwhile."""
    with closing(sqlite3.connect(path / DATABASE, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_calls_do_not_wait_for_the_writer(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        log, other = driver.open("room"), driver.open("other")
        driver.fill(log, 3)
        driver.fill(other, 1)
        driver.store.release(other)
        with stopped_writer(tmp_path):
            assert driver.place(log, entry(4)) == [Placed(4, T0 + 4)]
            assert driver.place(log, entry(4)) == [Repeat(4, T0 + 4)]
            log.trim(2)
            log.forget(T0 + 2)
            assert [each.seq for each in driver.read(log)] == [2, 3]
            assert driver.open("other").head == 1
            assert (log.head, log.tail, log.oldest, log.known) == (3, 4, 2, 3)
            assert driver.stable == driver.moved == 4
        driver.commit()
        assert log.head == 4
        assert [each.seq for each in driver.read(log)] == [2, 3, 4]


def test_room_with_waiting_deletions_is_not_loaded_again(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        log = driver.open("room")
        driver.fill(log, 3)
        with stopped_writer(tmp_path):
            log.trim(3)
            driver.store.release(log)
            assert driver.open("room").oldest == 3


def test_waiting_commits_share_a_transaction(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        log = driver.open("room")
        driver.fill(log, 1)
        before = transactions(tmp_path)
        done: list[list[int]] = []
        driver.watch(log, lambda records: done.append([record.seq for record in records]))
        with stopped_writer(tmp_path):
            for number in range(2, 102):
                driver.place(log, entry(number))
            assert done == []
        driver.commit()
        assert done == [[number] for number in range(2, 102)]
        # The writer may have taken one before the others came.
        assert 1 <= transactions(tmp_path) - before <= 2


def transactions(path: Path) -> int:
    """How many transactions the write-ahead log holds."""
    return sum(end for _, end in frames(path))


# --- crashes and failures of a real process


def run_child(*arguments: object) -> str:
    with start_child(*arguments) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output


def start_child(*arguments: object) -> subprocess.Popen[str]:
    """Run `children` in a process."""
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def stored_entry(key: str, seq: int) -> Entry:
    """The entry that a child proposes to room `key` at `seq`."""
    chance = random.Random(f"{key} {seq}")
    return Entry(
        (T0 + seq).to_bytes(6, "big") + chance.randbytes(10),
        chance.randbytes(16),
        T0 + seq,
        seq % 2**16,
        chance.getrandbits(64),
        f"name {seq % 9}",
        seq % 2 == 0,
        seq % 3,
        chance.randbytes(chance.choice([0, 20, 64, 200, 3_000])),
        chance.randbytes(seq % 4),
    )


KEYS = ("a", "b", "c")
RETAINED, REMEMBERED_MS = 2_000, 5_000


def test_stable_messages_survive_kill_9(tmp_path: Path) -> None:
    stable = dict.fromkeys(KEYS, 0)
    epochs: dict[str, int] = {}
    chance = random.Random(4)
    for _ in range(6):
        lines = chance.randrange(20, 400)
        with start_child("publish", tmp_path) as process:
            assert process.stdout is not None
            for number, line in enumerate(process.stdout):
                # The kill may truncate the last line.
                if line.endswith("\n"):
                    key, head = line.split()
                    stable[key] = int(head)
                if number == lines:
                    process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        with opened(tmp_path, Retention(messages=RETAINED)) as driver:
            for key in KEYS:
                log = driver.open(key)
                assert log.head >= stable[key]
                assert log.epoch == epochs.setdefault(key, log.epoch)
                assert log.oldest <= max(log.head - RETAINED + 1, 1)
                records = driver.read(log, limit=1 << 30)
                assert [each.seq for each in records] == list(range(log.oldest, log.head + 1))
                for each in records:
                    assert each == record(stored_entry(key, each.seq), each.seq, T0 + each.seq)
                for seq in range(max(log.head - REMEMBERED_MS, 0) + 1, log.head + 1):
                    known = log.lookup(stored_entry(key, seq).id)
                    assert known is not None
                    assert known.seq == seq
    assert min(stable.values()) > 0


def test_lock_does_not_outlive_its_process(tmp_path: Path) -> None:
    with start_child("publish", tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(StoreLocked, match=f"process {process.pid} "):
            Driver("sqlite", tmp_path, EVERYTHING)
        process.kill()
        process.stdout.read()
    with opened(tmp_path) as driver:
        assert driver.store.rooms() > 0


def test_failed_commit_is_reported_once_and_ends_the_store(tmp_path: Path) -> None:
    output = run_child("fill", tmp_path).splitlines()
    stable = [int(line.split()[1]) for line in output if line.startswith("stable ")]
    assert stable == list(range(1, len(stable) + 1))
    assert len(stable) > 2
    assert output[len(stable)].startswith("failed StoreUnavailable ")
    assert output[len(stable) + 1 :] == ["end"]
    with opened(tmp_path) as driver:
        log = driver.open("room")
        assert len(stable) <= log.head <= len(stable) + 1
        assert len(driver.read(log)) == log.head


def test_damage_is_confined_to_its_room(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        for key in ("hall", "unread", "other"):
            driver.fill(driver.open(key), 3, b"the payload" if key == "hall" else b"payload")
    data = (tmp_path / DATABASE).read_bytes()
    (tmp_path / DATABASE).write_bytes(data.replace(b"the payload", b"another one"))
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.executescript("DELETE FROM ids WHERE room = 2 AND id > (SELECT min(id) FROM ids WHERE room = 2)")
    with opened(tmp_path, Retention(messages=2)) as driver:
        log, other = driver.open("hall"), driver.open("other")
        assert driver.read(log) == []
        unread: list[str] = []
        driver.store.open("unread", "unread", lambda log, _: unread.append("log"), lambda: unread.append("damaged"))
        driver.run(lambda: unread)
        assert unread == ["damaged"]
        driver.fill(other, 1)
        assert [each.seq for each in driver.read(other)] == [1, 2, 3, 4]
        driver.retain(log, T0, oldest=2)
        driver.store.release(log)
        driver.commit()
        said = [(key, type(error), error.found) for key, error in driver.damage]  # type: ignore[attr-defined]
        assert said == [("hall", StoreCorrupt, "another checksum"), ("unread", StoreCorrupt, "1")]


def test_missing_rows_do_not_keep_others_from_being_trimmed(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        for key in ("hall", "other"):
            driver.fill(driver.open(key), 9)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.executescript("DELETE FROM messages WHERE room = 1 AND seq IN (2, 3)")
    with opened(tmp_path) as driver:
        for key in ("hall", "other"):
            driver.open(key).trim(6)
        driver.commit()
        driver.run(lambda: driver.damage)
        assert [(key, str(error)) for key, error in driver.damage] == [
            ("hall", f"{tmp_path / DATABASE}: expected 5 old messages of room 'hall', found 3")
        ]
    with opened(tmp_path) as driver:
        assert [driver.open(key).oldest for key in ("hall", "other")] == [6, 6]


def test_damaged_page_does_not_keep_others_from_being_written(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        for key in ("hall", "other"):
            driver.fill(driver.open(key), 60, f"payload of {key}".encode() * 20)
    data = bytearray((tmp_path / DATABASE).read_bytes())
    at = [offset // 4096 for offset in range(len(data)) if data.startswith(b"payload of hall", offset)]
    page = at[len(at) // 2] * 4096
    data[page : page + 4096] = bytes(4096)
    (tmp_path / DATABASE).write_bytes(data)
    with opened(tmp_path) as driver:
        hall, other = driver.open("hall"), driver.open("other")
        driver.fill(other, 1)
        hall.trim(60)
        driver.fill(other, 1)
        driver.run(lambda: driver.damage)
        assert {(key, type(error)) for key, error in driver.damage} == {("hall", StoreCorrupt)}
    with opened(tmp_path) as driver:
        assert [each.seq for each in driver.read(driver.open("other"))] == list(range(1, 63))


def test_directory_without_permission_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o000)
    output = run_child("open-unprivileged", tmp_path / "data")
    assert output.startswith("StoreUnavailable ")
    assert "permission denied" in output


def test_second_process_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        expected = f"StoreLocked {tmp_path}: expected to be the only user, found that process {os.getpid()} uses it"
        assert run_child("open", tmp_path).strip() == expected
        with pytest.raises(StoreLocked):
            Driver("sqlite", tmp_path, EVERYTHING)
    assert run_child("open", tmp_path) == "open\n"


def test_earlier_owner_writes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where file locks do not work: a second process opened the store, and the first one still runs."""
    with opened(tmp_path) as first:
        log = first.open("hall")
        first.fill(log, 3)
        monkeypatch.setattr("fcntl.flock", lambda descriptor, operation: None)
        with opened(tmp_path) as second:
            first.place(log, entry(4))
            with pytest.raises(AssertionError):
                first.run(lambda: False)
            second.fill(second.open("hall"), 2)
            assert [each.seq for each in second.read(second.open("hall"))] == [1, 2, 3, 4, 5]
        assert (first.stable, first.moved, log.head) == (3, 3, 3)
        assert [str(error).partition(": ")[2] for error in first.failures] == [
            "expected to be the only user, found that another process has opened the store since"
        ]


def test_idle_owner_notices_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fcntl.flock", lambda descriptor, operation: None)
    with opened(tmp_path) as first, opened(tmp_path), pytest.raises(AssertionError):
        first.run(lambda: False)
    assert [type(error) for error in first.failures] == [StoreLocked]


def test_log_that_a_reader_keeps_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("reference_server.store.sqlite.LARGE_LOG", 1 << 18)
    monkeypatch.setattr("reference_server.store.sqlite.WATCH_SECONDS", 0.0)
    with opened(tmp_path) as driver, closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as reader:
        log = driver.open("hall")
        driver.fill(log, 1)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        while not any("some program reads" in record.getMessage() for record in caplog.records):
            driver.fill(log, 50, bytes(1_000))
        seqs = [each.seq for each in driver.read(log, limit=10_000)]
        assert seqs == list(range(1, log.head + 1))


def children(command: str, path: Path) -> None:
    """What the tests' processes do: `open`, `publish` until killed, or `fill` a file that must not grow."""
    if command == "open-unprivileged" and os.geteuid() == 0:
        os.setuid(65534)  # root ignores permissions
    if command.startswith("open"):
        try:
            with opened(path):
                print("open")
        except StoreError as error:
            print(type(error).__name__, error)
    elif command == "publish":
        publish(path)
    else:
        fill(path)


def publish(path: Path) -> None:
    """Commit endlessly, up to 8 batches at once, and print what is stable: `key head`."""
    driver = Driver("sqlite", path, Retention(messages=RETAINED))
    logs = [driver.open(key) for key in KEYS]
    chance = random.Random()
    begun: deque[int] = deque()  # how many entries had a place after each commit that is not stable
    for log in logs:
        driver.watch(log, lambda records, key=log.key: print(key, records[-1].seq, flush=True))  # type: ignore[misc]

    def few_wait() -> bool:
        while begun and begun[0] <= driver.stable:
            begun.popleft()
        return len(begun) < 8

    for number in range(1 << 62):
        for log in chance.sample(logs, k=chance.randrange(1, 4)):
            propose(log, *[stored_entry(log.key, log.tail + 1 + more) for more in range(chance.randrange(1, 60))])
        driver.begin_commit()
        begun.append(driver.placed)
        driver.run(few_wait)
        if number % 5 == 0:
            for log in logs:
                log.retain(T0 + log.tail)
                log.forget(T0 + log.tail - REMEMBERED_MS)


def fill(path: Path) -> None:
    """Commit until the file may not grow, go on for a while, and print what the store calls."""
    posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    failures, logs = list[Exception](), list[Log]()

    def failed(error: Exception) -> None:
        failures.append(error)
        print("failed", type(error).__name__, error)

    store = SqliteStore(path, EVERYTHING, posted.put, failed)
    store.open("room", "room", lambda log, _: logs.append(log))
    while not logs:
        posted.get(timeout=30)()
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
    stable, moved = list[int](), list[int]()
    store.on_stable = stable.append
    logs[0].moved = lambda records: moved.extend(record.seq for record in records)
    number = 0
    while not failures:
        number += 1
        propose(logs[0], entry(number, payload=bytes(9_000)))
        store.commit()
        while len(stable) < number and not failures:
            posted.get(timeout=30)()
        if not failures:
            assert (stable, moved) == ([1] * number, list(range(1, number + 1)))
            print("stable", number)
    store.on_stable = lambda _: print("stable after failure")
    logs[0].moved = lambda _: print("moved after failure")
    for more in range(1, 11):
        propose(logs[0], entry(number + more))
        store.commit()
        logs[0].read(0, 100, 1 << 20, lambda _: print("read after failure"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.close()
    with suppress(queue.Empty):
        while True:
            posted.get_nowait()()
    print("end")


if __name__ == "__main__":
    children(sys.argv[1], Path(sys.argv[2]))
