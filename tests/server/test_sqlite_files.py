"""What the SQLite store refuses: files of others, and damage."""

import queue
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from reference_server.store.base import Known, Log, Record, StoreCorrupt, StoreError, StoreTooNew, StoreUnavailable
from reference_server.store.sqlite import SqliteStore
from reference_server.store.sqlite_files import FORMAT, frames_used
from reference_server.store.sqlite_wal import check_wal
from tests.support.stores import DATABASE, EVERYTHING, Driver, entry, frame_size, frames, opened


def test_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreTooNew) as caught:
        Driver("sqlite", tmp_path, EVERYTHING)
    expected = f"expected format {FORMAT} or older, found format 99 of a newer version"
    assert str(caught.value) == f"{tmp_path / DATABASE}: {expected}"


def test_store_of_an_older_version_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute("PRAGMA user_version = 1")
    with pytest.raises(StoreCorrupt) as caught:
        Driver("sqlite", tmp_path, EVERYTHING)
    found = "format 1, from before any release; move it away, and a new store is made"
    assert str(caught.value) == f"{tmp_path / DATABASE}: expected format {FORMAT}, found {found}"


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"not a database at all" * 500)
    with pytest.raises(StoreCorrupt, match="file is not a database"):
        Driver("sqlite", tmp_path, EVERYTHING)
    assert (tmp_path / DATABASE).read_bytes() == b"not a database at all" * 500


def test_database_of_another_application_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StoreCorrupt, match="the database of another application"):
        Driver("sqlite", tmp_path, EVERYTHING)


@pytest.mark.parametrize("keep", [0, 100, 4096, -4096, -1])
def test_truncated_database_is_refused(tmp_path: Path, keep: int) -> None:
    copy = copy_of_a_store(tmp_path)
    with opened(copy):
        pass  # empties the log
    data = (copy / DATABASE).read_bytes()
    (copy / DATABASE).write_bytes(data[:keep])
    if keep == 0:
        (copy / f"{DATABASE}-wal").write_bytes(b"a log without its database")
    with pytest.raises(StoreCorrupt):
        contents(copy)


def test_path_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable) as caught:
        Driver("sqlite", tmp_path / "file", EVERYTHING)
    assert str(caught.value).startswith(f"{tmp_path / 'file'}: expected a directory that can be read")


# --- damage


def copy_of_a_store(path: Path) -> Path:
    """A copy, taken while it was open, of a store with one transaction in the database and three in its log."""
    with opened(path / "original") as driver:
        driver.fill(driver.open_new("first room", "First room")[0], 60, b"first payload")
    with opened(path / "original") as driver:
        log = driver.open("first room")
        driver.fill(log, 20, b"second payload")
        driver.fill(driver.open("second room"), 20, b"third payload")
        driver.fill(log, 20, b"fourth payload")
        shutil.copytree(path / "original", path / "copy")
    return path / "copy"


Contents = dict[str, tuple[int, int, list[Record], list[Known | None]]]


def contents(path: Path) -> Contents:
    """All that the store says of its two rooms. Raises the error if the store fails."""
    failures: list[Exception] = []
    posted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    store = SqliteStore(path, EVERYTHING, posted.put, failures.append)
    store.on_damage = lambda key, error: failures.append(error)
    found: Contents = {}

    def run(until: Callable[[], object]) -> None:
        while not until():
            posted.get(timeout=30)()
            if failures:
                raise failures[0]

    try:
        for key in ("first room", "second room"):
            logs: list[Log] = []
            answers: list[list[Record]] = []
            store.open(key, key, lambda log, _: logs.append(log))  # noqa: B023
            run(lambda: logs)  # noqa: B023
            logs[0].read(0, 1_000, 1 << 30, answers.append)
            run(lambda: answers)  # noqa: B023
            known = [logs[0].lookup(entry(number).id) for number in range(1, 101)]
            found[key] = (logs[0].epoch, logs[0].head, answers[0], known)
    finally:
        store.close()
    return found


def damaged_contents(copy: Path, target: Path, file: str, offset: int, bit: int) -> Contents | None:
    """The contents of a store in which one bit was flipped; None if the store refuses."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(copy, target)
    with (target / file).open("r+b") as damaged:
        damaged.seek(offset)
        (octet,) = damaged.read(1)
        damaged.seek(offset)
        damaged.write(bytes([octet ^ 1 << bit]))
    try:
        return contents(target)
    except StoreError:
        return None


@pytest.mark.parametrize("what", [b"first payload", b"First room", entry(7).digest, entry(7).id, b"name 3"], ids=repr)
def test_flipped_bit_in_a_row_is_refused(tmp_path: Path, what: bytes) -> None:
    copy = copy_of_a_store(tmp_path)
    with opened(copy):
        pass
    expected = contents(copy)
    data, refused, offset = (copy / DATABASE).read_bytes(), 0, -1
    while (offset := data.find(what, offset + 1)) >= 0:
        found = damaged_contents(copy, tmp_path / "damaged", DATABASE, offset + len(what) - 1, 2)
        assert found in (None, expected)  # it may be in an unused part of a page
        refused += found is None
    assert refused


IDS = "UPDATE ids SET known = "
FIRST, SECOND = (f" WHERE room = 1 AND id = x'{entry(number).id.hex()}'" for number in (1, 2))


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (f"{IDS} substr(known, 1, 35) {FIRST}", "an id"),
        (f"{IDS} known || x'00' {SECOND}; {IDS} substr(known, 1, 35) {FIRST}", f"id {entry(1).id.hex()}"),
        (f"{IDS} (SELECT known FROM ids {SECOND}) {FIRST}", f"id {entry(1).id.hex()}"),
        (f"{IDS} 5 {FIRST}", "an id"),
        (f"{IDS} '' {FIRST}", "an id"),
        (f"UPDATE ids SET id = CAST(x'02' || substr(id, 2) AS BLOB) {SECOND}", f"id 02{entry(2).id.hex()[2:]}"),
        ("DELETE FROM ids WHERE room = 1; UPDATE ids SET room = 1", f"id {entry(1).id.hex()}"),
    ],
    ids=["shorter", "shorter and longer", "another's", "a number", "empty", "another id", "another room"],
)
def test_changed_id_is_refused(tmp_path: Path, sql: str, said: str) -> None:
    with opened(tmp_path) as driver:
        for key in ("first room", "second room"):
            driver.fill(driver.open(key), 5)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.executescript(sql)
    with pytest.raises(StoreCorrupt, match=f"expected {said} of room 'first room' as it was written"):
        contents(tmp_path)


@pytest.mark.parametrize("count", [0, 4])
def test_missing_ids_are_refused(tmp_path: Path, count: int) -> None:
    with opened(tmp_path) as driver:
        driver.fill(driver.open("first room"), 6)
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as connection:
        connection.execute("DELETE FROM ids WHERE id > ?", (entry(count).id,))
    with pytest.raises(StoreCorrupt, match=f"expected 6 ids of room 'first room', found {count}"):
        contents(tmp_path)


def test_flipped_bit_in_the_database_is_refused_or_harmless(tmp_path: Path) -> None:
    copy = copy_of_a_store(tmp_path)
    with opened(copy):
        pass
    expected = contents(copy)
    assert expected["first room"][1] == 100
    chance, size, refused = random.Random(1), (copy / DATABASE).stat().st_size, 0
    for _ in range(300):
        offset, bit = chance.randrange(size), chance.randrange(8)
        found = damaged_contents(copy, tmp_path / "damaged", DATABASE, offset, bit)
        assert found in (None, expected), (offset, bit)
        refused += found is None
    assert refused > 100


def test_flipped_bit_in_the_log_is_refused_or_a_torn_tail(tmp_path: Path) -> None:
    copy = copy_of_a_store(tmp_path)
    expected = contents(shutil.copytree(copy, tmp_path / "sound"))
    log = f"{DATABASE}-wal"
    sound = (copy / log).read_bytes()
    ends = [offset for offset, end in frames(copy) if end]
    assert len(ends) == 3
    chance = random.Random(2)
    for offset in [0, *(chance.randrange(ends[-2]) for _ in range(120))]:
        assert damaged_contents(copy, tmp_path / "damaged", log, offset, chance.randrange(8)) is None
    for _ in range(30):
        offset = chance.randrange(ends[-2] + frame_size(sound), len(sound))
        found = damaged_contents(copy, tmp_path / "damaged", log, offset, chance.randrange(8))
        assert found is not None
        assert (found["first room"][1], found["second room"][1]) == (80, 20)
        for key, (epoch, head, records, known) in found.items():
            assert epoch == expected[key][0]
            assert records == expected[key][2][:head]
            assert known[:head] == expected[key][3][:head]


def test_torn_tail_leaves_a_prefix(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    copy = copy_of_a_store(tmp_path)
    log = f"{DATABASE}-wal"
    whole = (copy / log).read_bytes()
    size = frame_size(whole)
    ends = [offset + size for offset, end in frames(copy) if end]
    chance = random.Random(3)
    heads = []
    for keep in sorted([0, 31, 32, *ends, *(chance.randrange(len(whole)) for _ in range(30))]):
        (copy / log).write_bytes(whole[:keep])
        caplog.clear()
        found = contents(shutil.copytree(copy, tmp_path / "torn"))
        # What is cut off is logged. Nothing is torn where the log ends with a transaction.
        torn = keep - max([0 if keep < 32 else 32, *(end for end in ends if end <= keep)])
        assert [vars(record)["octets"] for record in caplog.records] == ([torn] if torn else [])
        shutil.rmtree(tmp_path / "torn")
        first, second = found["first room"], found["second room"]
        assert len(first[2]) == first[1]
        assert len(second[2]) == second[1]
        complete = sum(keep >= end for end in ends)
        assert (first[1], second[1]) == [(60, 0), (80, 0), (80, 20), (100, 20)][complete]
        heads.append(first[1])
    assert heads == sorted(heads)


def verdict(log: Path, frames_used: int | None) -> int | str:
    try:
        return check_wal(log, lambda: frames_used)
    except StoreCorrupt as error:
        return error.expected


def test_log_is_judged_the_same_by_the_frames_that_sqlite_uses(tmp_path: Path) -> None:
    copy = copy_of_a_store(tmp_path)
    log = copy / f"{DATABASE}-wal"
    sound = log.read_bytes()
    chance, told, verdicts = random.Random(4), 0, set()
    for number in range(80):
        data = bytearray(sound[: chance.choice((len(sound), chance.randrange(len(sound))))])
        for _ in range(chance.randrange(3)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        log.write_bytes(data)
        used = frames_used(copy / DATABASE)
        assert log.read_bytes() == data
        told += used is not None
        assert verdict(log, used) == verdict(log, None), number
        verdicts.add(verdict(log, None))
    assert told > 60
    assert len(verdicts) > 5
