"""The oracle behind the generated interleavings: possible plans pass, and each broken promise is noticed."""

from collections.abc import Callable
from random import Random

import pytest

from conformance.harness.verdicts import Failed
from conformance.server.oracle import ROOMS, Ledger, plan

A, B = b"a" * 16, b"b" * 16


def test_plan_of_a_seed() -> None:
    assert plan(Random("1"), 4, 50) == plan(Random("1"), 4, 50)
    assert plan(Random("1"), 4, 50) != plan(Random("2"), 4, 50)


@pytest.mark.parametrize("seed", range(20))
def test_plan_of_any_seed(seed: int) -> None:
    up: set[int] = set()
    inside: set[tuple[int, int]] = set()
    for step in plan(Random(seed), 3, 200):
        place = (step.client, step.room)
        assert (step.client in up) == (step.kind != "connect")
        if step.kind == "connect":
            up.add(step.client)
        elif step.kind in ("drop", "goaway"):
            up.discard(step.client)
            inside -= {(step.client, room) for room in range(ROOMS)}
        elif step.kind == "join":
            assert place not in inside
            inside.add(place)
        elif step.kind in ("publish", "repeat", "leave"):
            assert place in inside
            inside -= {place} if step.kind == "leave" else set()
        assert step.kind != "publish" or step.bad < step.count


def test_plan_without_some_steps() -> None:
    kinds = {step.kind for step in plan(Random(1), 3, 200, without=["drop", "goaway", "repeat"])}
    assert kinds == {"connect", "join", "publish", "leave", "pause", "resume", "settle"}


def _published(*ids: bytes) -> Ledger:
    """A ledger with these messages acknowledged in room 0, from seq 1 on."""
    ledger = Ledger()
    for seq, id in enumerate(ids, 1):
        ledger.sent(0, id, id[:1])
        ledger.acknowledged(0, id, seq, seq, duplicate=False)
    return ledger


def _read(ledger: Ledger, seq: int, id: bytes, **other: bytes) -> None:
    ledger.message(0, seq, seq, 7, id, other.get("payload", id[:1]))


def test_consistent_story() -> None:
    ledger = _published(A, B)
    ledger.sent(0, A, b"a")
    ledger.acknowledged(0, A, 1, 1, duplicate=True)
    for _ in range(2):
        _read(ledger, 1, A)
        _read(ledger, 2, B)
    ledger.whole(0, 1, 2)
    assert ledger.top(0) == 2


def test_repeat_of_an_unanswered_publish() -> None:
    for duplicate in (False, True):
        ledger = Ledger()
        ledger.sent(0, A, b"a")
        ledger.sent(0, A, b"a")
        assert not ledger.certain(0, A)
        ledger.acknowledged(0, A, 1, 1, duplicate=duplicate)
        assert ledger.known(0, A)


def _second_place(ledger: Ledger) -> None:
    ledger.sent(0, A, b"a")
    ledger.acknowledged(0, A, 3, 1, duplicate=True)


def _second_message(ledger: Ledger) -> None:
    ledger.sent(0, A, b"a")
    ledger.acknowledged(0, A, 3, 3, duplicate=False)


def _duplicate_of_nothing(ledger: Ledger) -> None:
    ledger.sent(0, b"c" * 16, b"c")
    ledger.acknowledged(0, b"c" * 16, 3, 3, duplicate=True)


def _refused_and_there(ledger: Ledger) -> None:
    ledger.sent(0, b"c" * 16, b"c")
    ledger.refused(0, b"c" * 16)
    _read(ledger, 3, b"c" * 16)


def _there_and_refused(ledger: Ledger) -> None:
    ledger.sent(0, b"c" * 16, b"c")
    _read(ledger, 3, b"c" * 16)
    ledger.refused(0, b"c" * 16)


def _one_seq_twice(ledger: Ledger) -> None:
    ledger.sent(0, b"c" * 16, b"c")
    ledger.acknowledged(0, b"c" * 16, 2, 2, duplicate=False)


def _other_sender(ledger: Ledger) -> None:
    _read(ledger, 1, A)
    ledger.message(0, 1, 1, 8, A, b"a")


def _hole(ledger: Ledger) -> None:
    _read(ledger, 2, B)
    ledger.whole(0, 1, 2)


def _beyond_the_head(ledger: Ledger) -> None:
    _read(ledger, 1, A)
    ledger.whole(0, 1, 1)


@pytest.mark.parametrize(
    ("requirement", "story"),
    [
        ("RW-DEDUPE-1", _second_place),
        ("RW-DEDUPE-1", _second_message),
        ("RW-DEDUPE-1", _duplicate_of_nothing),
        ("RW-PROMISE-4", _refused_and_there),
        ("RW-PROMISE-4", _there_and_refused),
        ("RW-MODEL-2", _one_seq_twice),
        ("RW-MODEL-2", _other_sender),
        ("RW-MODEL-1", lambda ledger: _read(ledger, 3, b"x" * 16)),
        ("RW-PUBLISH-4", lambda ledger: _read(ledger, 1, A, payload=b"other")),
        ("RW-ACK-2", lambda ledger: _read(ledger, 2, A)),
        ("RW-PROMISE-9", _hole),
        ("RW-PROMISE-1", _beyond_the_head),
    ],
)
def test_inconsistent_story(requirement: str, story: Callable[[Ledger], object]) -> None:
    with pytest.raises(Failed) as caught:
        story(_published(A, B))
    assert caught.value.requirement == requirement
