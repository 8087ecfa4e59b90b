"""The contract of reference_server/store/base.py, for every store."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol.registry import Code
from reference_server.store.base import (
    Entry,
    Known,
    Log,
    Outcome,
    Placed,
    Record,
    Refused,
    Repeat,
    Retention,
    epoch_of,
)
from reference_server.store.walk import CONFLICT, PRECEDED
from tests.support.stores import EVERYTHING, T0, Driver, Membership, Proposal, entry, propose, record


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


class Told:
    """What a store tells of `logs`, in order."""

    def __init__(self, driver: Driver, *logs: Log) -> None:
        self.records: list[Record] = []
        self.counts: list[int] = []
        self.log_of: dict[bytes, Log] = {}
        self.proposals: dict[bytes, Proposal] = {}
        self.early: list[object] = []  # what was told before what it had to wait for
        self._counted = driver.store.on_stable
        driver.store.on_stable = self._count
        for log in logs:
            driver.watch(log, self._move)

    def propose(self, log: Log, *entries: Entry) -> None:
        for proposal in propose(log, *entries):
            self.proposals[proposal.entry.id] = proposal
            self.log_of[proposal.entry.id] = log

    def _move(self, records: list[Record]) -> None:
        self.early += [each for each in records if each.id in self.proposals and not self.proposals[each.id].outcomes]
        self.records += records

    def _count(self, count: int) -> None:
        self._counted(count)
        if count:
            self.counts.append(count)
        if sum(self.counts) > len(self.records):
            self.early.append(count)


# --- sequence numbers, heads and commits


def test_sequence_numbers_from_one_without_holes(driver: Driver) -> None:
    log = driver.open("room")
    assert (log.head, log.tail, log.oldest, log.last_time_ms, log.known) == (0, 0, 1, 0, 0)
    for first, last in ((1, 5), (6, 8)):
        numbers = range(first, last + 1)
        outcomes = driver.place(log, *map(entry, numbers))
        assert outcomes == [Placed(number, T0 + number) for number in numbers]
        assert log.tail == last
        driver.commit()
        assert (log.head, log.tail) == (last, last)


def test_proposal_changes_nothing_before_a_commit(driver: Driver) -> None:
    log = driver.open("room")
    driver.fill(log, 2)
    [proposal] = propose(log, entry(3))
    assert proposal.outcomes == []
    assert (log.head, log.tail, log.known, log.last_time_ms) == (2, 2, 2, T0 + 2)
    assert log.lookup(entry(3).id) is None
    assert [each.seq for each in driver.read(log)] == [1, 2]
    assert driver.read(log, after=2) == []
    driver.commit()
    assert (log.head, log.tail) == (3, 3)
    assert [each.seq for each in driver.read(log)] == [1, 2, 3]


def test_commit_moves_heads_to_what_it_covers(driver: Driver) -> None:
    log = driver.open("room")
    heads: list[tuple[int, int]] = []
    driver.watch(log, lambda records: heads.append((records[-1].seq, log.head)))
    for batch in range(1, 21):
        driver.place(log, *[entry(batch * 100 + number) for number in range(batch)])
    driver.commit()
    assert heads == [(tail, tail) for tail in (batch * (batch + 1) // 2 for batch in range(1, 21))]


def test_commit_covers_all_rooms(driver: Driver) -> None:
    logs = [driver.open(f"room {number}") for number in range(300)]
    for number in range(900):
        propose(logs[number % 300], entry(number))
    driver.commit()
    assert {log.head for log in logs} == {3}
    assert driver.store.rooms() == 300
    for number, log in enumerate(logs):
        assert [each.id for each in driver.read(log)] == [entry(other).id for other in range(number, 900, 300)]


def test_commit_of_nothing_tells_nothing(driver: Driver) -> None:
    log = driver.open("room")
    told = Told(driver, log)
    for number in range(4):
        driver.begin_commit()
        if number == 1:
            driver.place(log, entry(1))
            driver.place(log, entry(1))
    driver.commit()
    assert told.counts == [1]
    assert [record.seq for record in told.records] == [1]


def test_logs_are_told_what_is_stable_in_order_and_then_the_store(driver: Driver) -> None:
    """RW-PROMISE-1, RW-PROMISE-11: first the outcomes, then the records, then their count."""
    logs = [driver.open(key) for key in ("a", "b", "c")]
    told = Told(driver, *logs)
    numbers = iter(range(1, 1_000))
    for batch in range(1, 9):
        for log in logs[: batch % 3 + 1]:
            told.propose(log, *[entry(next(numbers)) for _ in range(batch)])
        driver.begin_commit()
    driver.commit()
    assert sum(told.counts) == driver.placed == len(told.records)
    assert told.early == []
    for log in logs:
        mine = [record for record in told.records if told.log_of[record.id] is log]
        assert [record.seq for record in mine] == list(range(1, log.head + 1))
        assert mine == driver.read(log)


def test_what_is_not_stable_is_not_told(driver: Driver) -> None:
    log = driver.open("room")
    heads: list[int] = []
    driver.watch(log, lambda records: heads.append(log.head))
    driver.fill(log, 3)
    propose(log, entry(4))
    driver.store.release(driver.open("fence"))
    assert (heads, driver.stable) == ([3], 3)


def test_refused_and_repeated_are_settled_but_not_placed(driver: Driver) -> None:
    log, why = driver.open("room"), Refused(Code.RATE_LIMITED, "too many", 9)
    driver.fill(log, 1)
    chain = Membership()
    proposals = [
        Proposal(entry(2), chain, why=why),
        Proposal(entry(3), chain, ordered=True),
        Proposal(entry(1), chain),
        Proposal(entry(1)._replace(digest=b"another digest.."), chain),
        Proposal(entry(4), chain, invalid=why),
        Proposal(entry(5), chain, expired=why),
        Proposal(entry(6), chain),
        Proposal(entry(7), chain, ordered=True),
    ]
    for proposal in proposals:
        log.propose(proposal)
    driver.commit()
    outcomes = [why, PRECEDED, Repeat(1, T0 + 1), CONFLICT, why, why, Placed(2, T0 + 6), Placed(3, T0 + 7)]
    assert [proposal.outcomes for proposal in proposals] == [[outcome] for outcome in outcomes]
    assert (log.head, log.tail, log.known) == (3, 3, 3)
    assert [record.id for record in driver.read(log)] == [entry(number).id for number in (1, 6, 7)]


def test_what_is_proposed_while_outcomes_are_told_is_for_the_next_commit(driver: Driver) -> None:
    log = driver.open("room")
    next_one = Proposal(entry(2))

    class Again(Proposal):
        def settle(self, outcome: Outcome) -> None:
            super().settle(outcome)
            log.propose(next_one)

    log.propose(Again(entry(1)))
    driver.commit()
    assert (next_one.outcomes, log.head) == ([], 1)
    driver.commit()
    assert (next_one.outcomes, log.head) == ([Placed(2, T0 + 2)], 2)


def test_admit_is_told_how_many_ids_are_known(driver: Driver) -> None:
    """RW-DEDUPE-6: those of earlier proposals of the same commit are known too."""
    log, why = driver.open("room"), Refused(Code.RATE_LIMITED, "too many", 9)
    proposals = propose(log, entry(1), entry(2), entry(1))
    driver.commit()
    proposals.append(Proposal(entry(3), why=why))
    log.propose(proposals[-1])
    proposals += propose(log, entry(4), entry(2), entry(5))
    driver.commit()
    log.forget(T0 + 3)
    proposals += propose(log, entry(6))
    driver.commit()
    assert [proposal.asked for proposal in proposals] == [[0], [1], [], [2], [2], [], [3], [2]]


def test_times_never_decrease(driver: Driver) -> None:
    log = driver.open("room")
    times = [T0, T0 + 9, T0 + 9, T0 + 10]
    expected = [Placed(seq, time_ms) for seq, time_ms in enumerate(times, 1)]
    assert driver.place(log, entry(1, time_ms=T0), entry(2, time_ms=T0 + 9)) == expected[:2]
    assert driver.place(log, entry(3, time_ms=T0 + 3), entry(4, time_ms=T0 + 10)) == expected[2:]
    assert log.last_time_ms == driver.store.last_time_ms == T0 + 10
    other = driver.open("other")
    assert driver.place(other, entry(1, time_ms=T0)) == [Placed(1, T0)]
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
    propose(log, entry(1))
    driver.store.release(log)
    same, created = driver.open_new("room")
    assert same is log
    assert not created
    driver.store.release(log)
    driver.begin_commit()
    assert driver.open("room").tail == 1
    driver.commit()
    assert driver.open("room").head == 1


def test_log_whose_proposals_were_refused_is_not_kept(driver: Driver) -> None:
    log = driver.open("room")
    log.propose(Proposal(entry(1), why=Refused(Code.UNAVAILABLE, "no")))
    driver.store.release(log)
    driver.commit()
    again, created = driver.open_new("room")
    assert (created, again is log) == (True, False)


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
        propose(driver.open(key), entry(number))
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
    propose(log, each)
    looked: list[tuple[Known | None, int]] = []

    class Looks(Proposal):
        def settle(self, outcome: Outcome) -> None:
            looked.append((log.lookup(each.id), log.head))

    log.propose(Looks(each))
    driver.begin_commit()
    known = Known(1, each.time_ms, each.digest)
    assert looked == [(known, 0)]
    assert log.lookup(each.id) == known
    driver.commit()
    assert log.lookup(each.id) == known
    assert log.known == 1


def test_known_id_is_given_no_second_place(driver: Driver) -> None:
    """RW-DEDUPE-1: in the same commit, in the next one, and when it is stable."""
    log = driver.open("room")
    first, again, other = entry(1), entry(1, time_ms=T0 + 99), entry(1)._replace(digest=b"another digest..")
    place, repeat = Placed(1, T0 + 1), Repeat(1, T0 + 1)
    assert driver.place(log, first, again, other) == [place, repeat, CONFLICT]
    assert driver.place(log, other, again) == [CONFLICT, repeat]
    assert (log.tail, log.last_time_ms) == (1, T0 + 1)
    driver.commit()
    assert driver.place(log, again, other) == [repeat, CONFLICT]
    assert (log.tail, log.known, log.last_time_ms) == (1, 1, T0 + 1)
    assert driver.place(driver.open("other"), first) == [place]  # ids are per room
    log.trim(2)
    assert driver.place(log, again, other) == [repeat, CONFLICT]


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
    propose(log, *[entry(number, id_ms=T0 + number) for number in order])
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
    assert driver.place(log, entry(1)) == [Placed(6, T0 + 5)]


def test_id_forgotten_before_it_is_stable(driver: Driver) -> None:
    log = driver.open("room")
    driver.place(log, entry(1))
    log.forget(T0 + 2)
    assert log.lookup(entry(1).id) is None
    assert driver.place(log, entry(1)) == [Placed(2, T0 + 1)]
    driver.commit()
    driver.store.release(log)
    log = driver.open("room")
    assert log.lookup(entry(1).id) == Known(2, T0 + 1, entry(1).digest)
    assert log.known == 1


def test_ids_with_remember_ids_off(make: Make) -> None:
    driver = make(Retention(messages=None, age_ms=None, remember_ids=False))
    log = driver.open("room")
    assert driver.place(log, entry(1), entry(1)) == [Placed(1, T0 + 1), Placed(2, T0 + 1)]
    assert driver.place(log, entry(1)) == [Placed(3, T0 + 1)]
    assert log.lookup(entry(1).id) is None
    driver.commit()
    log.forget(1 << 48)
    assert (log.known, len(driver.read(log))) == (0, 3)


# --- reading


def test_records_are_read_as_proposed(driver: Driver) -> None:
    log = driver.open("room")
    entries = [
        Entry(b"\0" * 16, b"\0" * 16, 0, 0, 0, "", False, 0, b"", b""),
        Entry(
            b"\xff" * 16, b"\xff" * 16, 2**53 - 1, 0xFFFF, 2**64 - 1, "ü\u202e\U0001f600", True, 255, b"\0\xff", b"\0"
        ),
        Entry(b"a" * 16, b"b" * 16, 2**53 - 1, 1, 2**63, 'q"\\\n\0', False, 1, bytes(range(256)) * 260, b"f" * 900),
    ]
    propose(log, *entries)
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
    propose(log, *[entry(number)._replace(fields=b"y" * 93) for number in range(3)])
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
    assert driver.place(log, entry(6)) == [Placed(6, T0 + 6)]
    driver.commit()
    assert [each.seq for each in driver.read(log)] == [6]


def test_unstable_message_is_not_trimmed(make: Make) -> None:
    driver = make(Retention(messages=1, octets=0, age_ms=0))
    log = driver.open("room")
    driver.fill(log, 2)
    propose(log, entry(3))
    log.trim(99)
    log.retain(1 << 50)
    assert (log.oldest, log.head, log.tail) == (3, 2, 2)
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
    propose(log, *[entry(number, time_ms=T0 + 100 * number) for number in range(1, 6)])
    driver.commit()
    driver.retain(log, T0 + 1_100, oldest=1)
    driver.retain(log, T0 + 1_101, oldest=2)
    driver.retain(log, T0 + 1_350, oldest=4)
    driver.retain(log, T0 + 9_999, oldest=6)
    propose(log, entry(6, time_ms=T0 + 9_000))
    driver.commit()
    driver.retain(log, T0 + 10_000, oldest=6)
    assert [each.seq for each in driver.read(log)] == [6]


def test_strictest_retention_applies(make: Make) -> None:
    driver = make(Retention(messages=8, octets=500, age_ms=1_000))
    log = driver.open("room")
    propose(log, *[entry(number, payload=b"x" * 100, time_ms=T0 + number) for number in range(1, 11)])
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
