"""The contract of reference_server/store/base.py, for every store."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reference_server.store.base import Entry, Known, Log, Retention, epoch_of
from tests.support.stores import EVERYTHING, T0, Driver, entry, record


@pytest.fixture(params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Make = Callable[[Retention], Driver]


@pytest.fixture
def make(kind: str, tmp_path: Path) -> Iterator[Make]:
    drivers: list[Driver] = []

    def make_driver(retention: Retention) -> Driver:
        drivers.append(Driver(kind, tmp_path / str(len(drivers)), retention))
        return drivers[-1]

    yield make_driver
    for driver in drivers:
        driver.store.close()
        assert not driver.failures


@pytest.fixture
def driver(make: Make) -> Driver:
    return make(EVERYTHING)


# --- sequence numbers, heads and commits


def test_sequence_numbers_from_one_without_holes(driver: Driver) -> None:
    log = driver.open("room")
    assert (log.head, log.tail, log.oldest, log.last_time_ms, log.known) == (0, 0, 1, 0, 0)
    assert [log.append(entry(number)).seq for number in range(1, 6)] == [1, 2, 3, 4, 5]
    driver.commit()
    assert [log.append(entry(number)).seq for number in range(6, 9)] == [6, 7, 8]


def test_uncommitted_message_is_not_read(driver: Driver) -> None:
    log = driver.open("room")
    driver.fill(log, 2)
    log.append(entry(3))
    assert (log.head, log.tail) == (2, 3)
    assert [each.seq for each in driver.read(log)] == [1, 2]
    assert driver.read(log, after=2) == []
    driver.commit()
    assert (log.head, log.tail) == (3, 3)
    assert [each.seq for each in driver.read(log)] == [1, 2, 3]


def test_commit_moves_heads_to_what_it_covers(driver: Driver) -> None:
    log = driver.open("room")
    heads: list[tuple[int, int]] = []
    for batch in range(1, 21):
        for number in range(batch):
            log.append(entry(batch * 100 + number))
        driver.store.commit(lambda tail=log.tail: heads.append((tail, log.head)))  # type: ignore[misc]
    driver.run(lambda: len(heads) == 20)
    assert heads == [(tail, tail) for tail in (batch * (batch + 1) // 2 for batch in range(1, 21))]


def test_commit_covers_all_rooms(driver: Driver) -> None:
    logs = [driver.open(f"room {number}") for number in range(300)]
    for number in range(900):
        logs[number % 300].append(entry(number))
    driver.commit()
    assert {log.head for log in logs} == {3}
    assert driver.store.rooms() == 300
    for number, log in enumerate(logs):
        assert [each.id for each in driver.read(log)] == [entry(other).id for other in range(number, 900, 300)]


def test_empty_commit_is_done_in_order(driver: Driver) -> None:
    log = driver.open("room")
    done: list[int] = []
    log.append(entry(1))
    for number in range(4):
        driver.store.commit(lambda number=number: done.append(number))  # type: ignore[misc]
    driver.run(lambda: len(done) == 4)
    assert done == [0, 1, 2, 3]


def test_times_never_decrease(driver: Driver) -> None:
    log = driver.open("room")
    times = [log.append(entry(n, time_ms=t)).time_ms for n, t in enumerate([T0, T0 + 9, T0 + 3, T0 + 10], 1)]
    assert times == [T0, T0 + 9, T0 + 9, T0 + 10]
    assert log.last_time_ms == driver.store.last_time_ms == T0 + 10
    other = driver.open("other")
    assert other.append(entry(1, time_ms=T0)).time_ms == T0
    assert driver.store.last_time_ms == T0 + 10
    driver.commit()
    assert [each.time_ms for each in driver.read(log)] == times


# --- opening and releasing


def test_open_log_is_shared(driver: Driver) -> None:
    log, created = driver.open_new("room", "Room")
    again, created_again = driver.open_new("room", "ROOM")
    assert (created, created_again, again is log) == (True, False, True)
    assert (log.key, log.name) == ("room", "Room")
    driver.store.release(log)
    assert driver.open("room") is log


def test_concurrent_opens_share_one_log(driver: Driver) -> None:
    opened: list[tuple[Log, bool]] = []
    for _ in range(3):
        driver.store.open("room", "Room", lambda log, created: opened.append((log, created)))
    driver.run(lambda: len(opened) == 3)
    assert len({id(log) for log, _ in opened}) == 1
    assert [created for _, created in opened] == [True, False, False]


def test_released_log_can_be_opened_again(driver: Driver) -> None:
    log = driver.open_new("room", "Room")[0]
    entries = driver.fill(log, 3)
    epoch = log.epoch
    driver.store.release(log)
    log, created = driver.open_new("room", "ROOM")
    assert not created
    assert (log.name, log.epoch, log.head, log.tail, log.oldest, log.known) == ("Room", epoch, 3, 3, 1, 3)
    assert log.last_time_ms == entries[-1].time_ms
    assert log.lookup(entries[1].id) == Known(2, entries[1].time_ms, entries[1].digest)
    assert len(driver.read(log)) == 3


def test_room_without_messages_is_not_stored(driver: Driver) -> None:
    log, created = driver.open_new("room")
    epoch = log.epoch
    driver.store.release(log)
    driver.commit()
    assert created
    assert driver.store.rooms() == 0
    log, created = driver.open_new("room", "Other name")
    assert (created, log.name, log.epoch) == (True, "Other name", epoch)


def test_log_released_before_it_is_stable_is_opened_again(driver: Driver) -> None:
    log = driver.open("room")
    log.append(entry(1))
    driver.store.release(log)
    same, created = driver.open_new("room")
    assert same is log
    assert not created
    driver.store.release(log)
    done: list[bool] = []
    driver.store.commit(lambda: done.append(True))
    assert driver.open("room").tail == 1
    driver.run(lambda: done)
    assert driver.open("room").head == 1


def test_epochs_of_empty_rooms_differ(make: Make) -> None:
    one, two = make(EVERYTHING), make(EVERYTHING)
    epochs = [driver.open(key).epoch for driver in (one, two) for key in ("a", "b", "ä")]
    assert len(set(epochs)) == 6
    assert all(0 < epoch < 1 << 64 for epoch in epochs)


def test_epoch_depends_on_incarnation_and_key_only() -> None:
    assert epoch_of(bytes(32), "room") == epoch_of(bytes(32), "room")
    assert epoch_of(bytes(32), "room") != epoch_of(bytes(31) + b"\1", "room")


def test_keys_of_stored_rooms_are_in_order(driver: Driver) -> None:
    keys = ["b", "ä", "a", "\U0001f600", "\uffee", "z"]
    for number, key in enumerate(keys):
        driver.open(key).append(entry(number))
    driver.open("empty")
    driver.commit()

    def visit(after: str, limit: int) -> list[str]:
        answers: list[list[str]] = []
        driver.store.keys(after, limit, answers.append)
        driver.run(lambda: answers)
        return answers[0]

    assert visit("", 9) == ["a", "b", "z", "ä", "\uffee", "\U0001f600"]
    assert visit("b", 2) == ["z", "ä"]
    assert visit("\U0001f600", 2) == []


# --- ids


def test_id_is_known_before_it_is_stable(driver: Driver) -> None:
    log = driver.open("room")
    each = entry(1)
    assert log.lookup(each.id) is None
    known = log.append(each)
    assert known == Known(1, each.time_ms, each.digest)
    assert log.lookup(each.id) == known
    assert known.seq > log.head
    driver.commit()
    assert log.lookup(each.id) == known
    assert log.known == 1


def test_known_id_is_not_appended(driver: Driver) -> None:
    log = driver.open("room")
    log.append(entry(1))
    with pytest.raises(ValueError, match="already known"):
        log.append(entry(1, time_ms=T0 + 99))
    assert (log.tail, log.last_time_ms) == (1, T0 + 1)
    driver.commit()
    with pytest.raises(ValueError, match="already known"):
        log.append(entry(1))
    assert driver.open("other").append(entry(1)).seq == 1  # ids are per room


def test_ids_outlive_their_messages(driver: Driver) -> None:
    log = driver.open("room")
    entries = driver.fill(log, 5)
    log.trim(6)
    driver.commit()
    assert driver.read(log) == []
    assert [log.lookup(each.id) for each in entries] == [
        Known(seq, each.time_ms, each.digest) for seq, each in enumerate(entries, 1)
    ]


def test_forgetting_by_the_time_in_the_id(driver: Driver) -> None:
    log = driver.open("room")
    order = [5, 1, 4, 2, 3]
    for number in order:
        log.append(entry(number, id_ms=T0 + number))
    driver.commit()
    log.forget(T0 + 3)
    assert log.known == 3
    found = [log.lookup(entry(number, id_ms=T0 + number).id) for number in range(1, 6)]
    assert [known and known.seq for known in found] == [None, None, 5, 3, 1]
    log.forget(T0 + 3)
    log.forget(0)
    assert log.known == 3
    log.forget(1 << 60)
    assert log.known == 0
    assert len(driver.read(log)) == 5
    assert log.append(entry(1)).seq == 6


def test_id_forgotten_before_it_is_stable(driver: Driver) -> None:
    log = driver.open("room")
    log.append(entry(1))
    log.forget(T0 + 2)
    assert log.lookup(entry(1).id) is None
    assert log.append(entry(1)).seq == 2
    driver.commit()
    driver.store.release(log)
    log = driver.open("room")
    assert log.lookup(entry(1).id) == Known(2, T0 + 1, entry(1).digest)
    assert log.known == 1


def test_ids_with_remember_ids_off(make: Make) -> None:
    driver = make(Retention(messages=None, age_ms=None, remember_ids=False))
    log = driver.open("room")
    assert [log.append(entry(1)).seq for _ in range(3)] == [1, 2, 3]
    assert log.lookup(entry(1).id) is None
    driver.commit()
    log.forget(1 << 48)
    assert (log.known, len(driver.read(log))) == (0, 3)


# --- reading


def test_records_are_read_as_appended(driver: Driver) -> None:
    log = driver.open("room")
    entries = [
        Entry(b"\0" * 16, b"\0" * 16, 0, 0, "", False, 0, b"", b""),
        Entry(b"\xff" * 16, b"\xff" * 16, 2**53 - 1, 2**64 - 1, "ü\u202e\U0001f600", True, 255, b"\0\xff", b"\0"),
        Entry(b"a" * 16, b"b" * 16, 2**53 - 1, 2**63, 'q"\\\n\0', False, 1, bytes(range(256)) * 260, b"f" * 900),
    ]
    for each in entries:
        log.append(each)
    driver.commit()
    driver.store.release(log)
    log = driver.open("room")
    assert driver.read(log) == [record(each, seq, each.time_ms) for seq, each in enumerate(entries, 1)]
    assert log.lookup(b"\xff" * 16) == Known(2, 2**53 - 1, b"\xff" * 16)


def test_read_within_its_limits(driver: Driver) -> None:
    log = driver.open("room")
    driver.fill(log, 10, b"x" * 100)

    def read(after: int, limit: int, octets: int) -> list[int]:
        return [each.seq for each in driver.read(log, after, limit, octets)]

    assert read(0, 4, 1 << 30) == [1, 2, 3, 4]
    assert read(8, 4, 1 << 30) == [9, 10]
    assert read(4, 9, 300) == [5, 6, 7]
    assert read(4, 9, 299) == [5, 6]
    assert read(4, 2, 300) == [5, 6]
    assert read(4, 9, 0) == [5]  # always at least one
    assert read(10, 9, 1 << 30) == []
    assert read(2**53, 9, 1 << 30) == []
    assert read(0, 2**16, 2**63 - 1) == list(range(1, 11))


def test_fields_count_as_octets(driver: Driver) -> None:
    log = driver.open("room")
    for number in range(3):
        log.append(entry(number)._replace(fields=b"y" * 93))
    driver.commit()
    assert len(driver.read(log, octets=200)) == 2


def test_read_from_before_the_oldest(driver: Driver) -> None:
    log = driver.open("room")
    driver.fill(log, 10)
    log.trim(7)
    assert [each.seq for each in driver.read(log)] == [7, 8, 9, 10]
    assert [each.seq for each in driver.read(log, after=7, limit=1)] == [8]


def test_read_begun_before_a_trim(driver: Driver) -> None:
    log = driver.open("room")
    driver.fill(log, 500)
    answers: list[tuple[list[int], int]] = []
    for below in range(10, 400, 10):
        log.read(0, 1_000, 1 << 30, lambda got: answers.append(([each.seq for each in got], log.oldest)))
        log.trim(below)
    driver.run(lambda: len(answers) == 39)
    for seqs, oldest in answers:
        assert seqs == list(range(seqs[0], 501))
        assert seqs[0] <= oldest


# --- trimming and retention


def test_trim_moves_oldest_but_not_head(driver: Driver) -> None:
    log = driver.open("room")
    driver.fill(log, 5)
    log.trim(3)
    log.trim(1)
    assert (log.oldest, log.head) == (3, 5)
    log.trim(99)
    assert (log.oldest, log.head, log.tail) == (6, 5, 5)
    assert driver.read(log) == []
    assert log.append(entry(6)).seq == 6
    driver.commit()
    assert [each.seq for each in driver.read(log)] == [6]


def test_unstable_message_is_not_trimmed(make: Make) -> None:
    driver = make(Retention(messages=1, octets=0, age_ms=0))
    log = driver.open("room")
    driver.fill(log, 2)
    log.append(entry(3))
    log.trim(99)
    log.retain(1 << 50)
    assert (log.oldest, log.head, log.tail) == (3, 2, 3)
    driver.commit()
    assert [each.seq for each in driver.read(log)] == [3]


def test_retention_by_messages(make: Make) -> None:
    driver = make(Retention(messages=4, age_ms=None))
    log = driver.open("room")
    driver.fill(log, 3)
    driver.retain(log, T0, oldest=1)
    driver.fill(log, 7)
    driver.retain(log, T0, oldest=7)
    assert [each.seq for each in driver.read(log)] == [7, 8, 9, 10]


def test_retention_by_octets(make: Make) -> None:
    driver = make(Retention(messages=None, octets=250, age_ms=None))
    log = driver.open("room")
    driver.fill(log, 2, b"x" * 100)
    driver.retain(log, T0, oldest=1)
    driver.fill(log, 3, b"x" * 100)
    driver.retain(log, T0, oldest=4)
    driver.fill(log, 1, b"x" * 50)
    driver.retain(log, T0, oldest=4)
    driver.fill(log, 1, b"x")
    driver.retain(log, T0, oldest=5)
    driver.fill(log, 1, b"x" * 251)
    driver.retain(log, T0, oldest=9)
    assert driver.read(log) == []
    driver.fill(log, 3, b"x" * 100)
    driver.retain(log, T0, oldest=10)


def test_retention_by_age(make: Make) -> None:
    driver = make(Retention(messages=None, age_ms=1_000))
    log = driver.open("room")
    for number in range(1, 6):
        log.append(entry(number, time_ms=T0 + 100 * number))
    driver.commit()
    driver.retain(log, T0 + 1_100, oldest=1)
    driver.retain(log, T0 + 1_101, oldest=2)
    driver.retain(log, T0 + 1_350, oldest=4)
    driver.retain(log, T0 + 9_999, oldest=6)
    log.append(entry(6, time_ms=T0 + 9_000))
    driver.commit()
    driver.retain(log, T0 + 10_000, oldest=6)
    assert [each.seq for each in driver.read(log)] == [6]


def test_strictest_retention_applies(make: Make) -> None:
    driver = make(Retention(messages=8, octets=500, age_ms=1_000))
    log = driver.open("room")
    for number in range(1, 11):
        log.append(entry(number, payload=b"x" * 100, time_ms=T0 + number))
    driver.commit()
    driver.retain(log, T0, oldest=6)
    driver.retain(log, T0 + 1_009, oldest=9)
    driver.store.release(log)
    log = driver.open("room")
    assert (log.oldest, log.head, log.known) == (9, 10, 10)


def test_retention_of_nothing(make: Make) -> None:
    driver = make(Retention(messages=0))
    log = driver.open("room")
    driver.fill(log, 3)
    driver.retain(log, T0, oldest=4)
    assert (log.head, log.known, driver.store.rooms()) == (3, 3, 1)


def test_trimmed_room_keeps_its_head(driver: Driver) -> None:
    log = driver.open("room")
    driver.fill(log, 3)
    log.trim(4)
    driver.store.release(log)
    driver.commit()
    log, created = driver.open_new("room")
    assert (log.head, log.oldest, created, driver.store.rooms()) == (3, 4, False, 1)


# --- the end


def test_store_closed_twice(driver: Driver) -> None:
    driver.fill(driver.open("room"), 1)
    driver.store.close()
    driver.store.close()
