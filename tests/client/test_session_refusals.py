"""reference_client.session.session after refusals and evictions (SPEC.md, sections 9.4 and 10.3)."""

import pytest

from protocol import frames
from protocol.connection import error_frame
from protocol.registry import Code, Flag
from reference_client import events
from tests.support.session_bench import EPOCH, REF, Bench, evicted, in_the_lobby, message


@pytest.fixture
def bench() -> Bench:
    return in_the_lobby()


def test_refused_publishes_are_repeated_in_order(bench: Bench) -> None:
    tickets = bench.publish(*"abcd")
    sent = [bench.asked(frames.Publish) for _ in range(4)]
    assert all(publish.flags & Flag.ORDERED for publish in sent)
    bench.ack(sent[0], 1)
    bench.refuse(sent[1], Code.RATE_LIMITED, 500)
    bench.refuse(sent[2], Code.PRECEDED)
    assert bench.session.next_timeout() != bench.now + 0.5
    bench.wait(0.1)
    bench.refuse(sent[3], Code.PRECEDED)
    assert not bench.requests
    bench.wait_until_due()  # RW-ERROR-2
    assert bench.now == pytest.approx(1000.5)
    again = bench.asked(frames.Publish)
    assert not bench.requests  # one at a time until the server accepts one
    assert (again.id, again.flags & Flag.ORDERED) == (sent[1].id, 0)  # RW-ORDER-2
    bench.ack(again, 2)
    third, fourth = bench.asked(frames.Publish), bench.asked(frames.Publish)
    assert [third.id, fourth.id] == [sent[2].id, sent[3].id]
    assert third.flags & fourth.flags & Flag.ORDERED
    bench.ack(third, 3)
    bench.ack(fourth, 4)
    assert [event.ticket for event in bench.seen if isinstance(event, events.Published)] == tickets


def test_publish_after_failure_is_not_ordered(bench: Bench) -> None:
    bench.publish("a", "b")
    first, second = bench.asked(frames.Publish), bench.asked(frames.Publish)
    bench.refuse(first, Code.FORBIDDEN)
    assert bench.saw(events.PublishFailed).code == Code.FORBIDDEN
    bench.refuse(second, Code.PRECEDED)
    again = bench.asked(frames.Publish)
    assert (again.id, again.flags) == (second.id, 0)
    bench.refuse(again, Code.FORBIDDEN)
    bench.publish("c")
    assert bench.asked(frames.Publish).flags == 0


def test_refusal_without_time_backs_off(bench: Bench) -> None:
    bench.publish("a")
    waits = []
    for _ in range(4):
        bench.refuse(bench.asked(frames.Publish), Code.UNAVAILABLE)
        assert not bench.requests
        before = bench.now
        bench.wait_until_due()
        waits.append(round(bench.now - before, 3))
    assert waits == [0.1, 0.2, 0.4, 0.8]


def test_joins_wait_after_refusal() -> None:
    bench = Bench()
    bench.connect()
    for room in "abc":
        bench.session.join(room, bench.now)
    bench.exchange()
    for _ in range(3):
        bench.refuse(bench.asked(frames.Join), Code.RATE_LIMITED, 700)
    assert not bench.requests
    bench.wait_until_due()
    assert bench.now == pytest.approx(1000.7)
    assert bench.admit(ref=1).name == "a"
    assert [bench.admit(ref=ref).name for ref in (2, 3)] == ["b", "c"]
    assert sorted(bench.session.rooms()) == ["a", "b", "c"]


@pytest.mark.parametrize("code", [Code.NAME_INVALID, Code.BANNED, Code.TOO_MANY_ROOMS, Code.ROOM_FULL])
def test_join_refused(code: Code) -> None:
    bench = Bench()
    bench.connect()
    bench.session.join("lobby", bench.now)
    bench.publish("a")
    bench.seen.clear()
    bench.refuse(bench.asked(frames.Join), code)
    assert bench.saw(events.JoinFailed) == events.JoinFailed("lobby", code, "no")
    assert bench.saw(events.PublishFailed).unknown is False
    assert bench.session.rooms() == []


def test_member_waits_for_full_room(bench: Bench) -> None:
    bench.cut()
    bench.connect()
    bench.seen.clear()
    bench.refuse(bench.asked(frames.Join), Code.ROOM_FULL, 5000)
    assert bench.saw(events.JoinFailed).retry_in == 5.0
    bench.wait_until_due()
    assert bench.asked(frames.Join).epoch == EPOCH


def test_two_names_for_one_room(bench: Bench) -> None:
    """RW-NAME-7."""
    bench.session.join("LOBBY", bench.now)
    bench.exchange()
    join = bench.asked(frames.Join)
    bench.send(error_frame(Code.ALREADY_JOINED, join.request, REF))
    assert bench.saw(events.JoinFailed).same_as == "lobby"
    assert bench.session.rooms() == ["lobby"]


# --- eviction


def test_lagged(bench: Bench) -> None:
    """RW-LAG-4."""
    bench.send(message(1))
    bench.send(evicted(Code.LAGGED))
    join = bench.admit(head=9, start=5, flags=Flag.GAP)
    assert (join.epoch, join.since) == (EPOCH, 1)
    bench.send(message(5))  # an old message: the session has not caught up
    bench.send(evicted(Code.LAGGED))
    bench.wait_until_due()
    join = bench.admit(head=20)
    assert (join.epoch, join.since) == (0, 0)
    gaps = [event for event in bench.seen if isinstance(event, events.Gap)]
    assert gaps == [events.Gap("lobby", EPOCH, 1, EPOCH, 5), events.Gap("lobby", EPOCH, 5, EPOCH, 21)]
    bench.send(message(21))
    bench.send(evicted(Code.LAGGED))
    assert bench.asked(frames.Join).epoch == EPOCH


def test_evicted_while_publishing(bench: Bench) -> None:
    tickets = bench.publish("a", "b")
    first, second = bench.asked(frames.Publish), bench.asked(frames.Publish)
    bench.send(evicted(Code.LOG_RESET, 3000))
    assert bench.saw(events.Evicted).retry_in == 3.0
    bench.ack(first, 1)  # RW-REQUEST-7
    assert bench.saw(events.Published).ticket == tickets[0]
    bench.refuse(second, Code.NOT_JOINED)
    assert not bench.requests
    bench.wait_until_due()
    bench.admit(epoch=8)
    again = bench.asked(frames.Publish)
    assert again.id == second.id
    bench.ack(again, 1)
    assert [event.epoch for event in bench.seen if isinstance(event, events.Published)] == [8]


def test_kicked(bench: Bench) -> None:
    tickets = bench.publish("a", "b")
    first, second = bench.asked(frames.Publish), bench.asked(frames.Publish)
    bench.send(evicted(Code.KICKED))
    assert bench.saw(events.Evicted) == events.Evicted("lobby", Code.KICKED, "out", None)
    bench.ack(first, 1)
    bench.refuse(second, Code.NOT_JOINED)
    assert bench.saw(events.Published).ticket == tickets[0]
    assert bench.saw(events.PublishFailed).unknown is False
    assert bench.session.rooms() == []
    assert not bench.requests


def test_kicked_and_then_disconnected(bench: Bench) -> None:
    bench.publish("a")
    bench.send(evicted(Code.KICKED))
    bench.cut()
    assert [event.unknown for event in bench.seen if isinstance(event, events.PublishFailed)] == [True]
    assert bench.session.pending == 0
