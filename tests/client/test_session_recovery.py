"""reference_client.session.session after lost connections (SPEC.md, sections 8.7 and 11)."""

from collections.abc import Callable

import pytest

from protocol import frames
from protocol.registry import Code, Flag
from reference_client import events
from tests.support.session_bench import EPOCH, NOW_MS, REF, Bench, in_the_lobby, message


@pytest.fixture
def bench() -> Bench:
    return in_the_lobby()


def test_rejoin_and_repeat_in_order(bench: Bench) -> None:
    bench.send(message(1), message(2))
    tickets = bench.publish("a", "b", "c")
    sent = [bench.asked(frames.Publish) for _ in range(3)]
    bench.ack(sent[0], 3)
    bench.seen.clear()
    bench.cut()
    disconnected = bench.saw(events.Disconnected)
    assert disconnected.retry_in is not None
    assert 0 <= disconnected.retry_in <= 1
    tickets += bench.publish("d")
    bench.connect(member=12)
    assert bench.saw(events.Connected).again
    join = bench.admit(head=4, start=3)
    assert (join.epoch, join.since) == (EPOCH, 2)  # RW-RECOVER-1
    repeated = [bench.asked(frames.Publish) for _ in range(3)]
    assert [publish.id for publish in repeated[:2]] == [publish.id for publish in sent[1:]]  # RW-PROMISE-5
    assert [publish.payload for publish in repeated] == [b"b", b"c", b"d"]  # RW-ORDER-3
    assert bench.saw(events.Joined).again
    # RW-RECOVER-2: "b" arrived, but its reply was lost.
    bench.send(message(3, "a", id=sent[0].id, sender=11), message(4, "b", id=sent[1].id, sender=11))
    assert [type(event) for event in bench.seen] == [
        events.MessageReceived,
        events.Published,
        events.MessageReceived,
    ]
    assert all(event.own for event in bench.seen if isinstance(event, events.MessageReceived))
    bench.seen.clear()
    bench.send(frames.Ack(4, NOW_MS, flags=Flag.DUPLICATE, request=repeated[0].request, room=REF))
    bench.ack(repeated[1], 5)
    bench.ack(repeated[2], 6)
    assert [event.ticket for event in bench.seen if isinstance(event, events.Published)] == tickets[2:]
    assert bench.session.pending == 0


@pytest.mark.parametrize(("flags", "shown"), [(Flag.GAP, [2, 3, 4]), (0, [4])])
def test_cursor_set_back_in_the_same_epoch(bench: Bench, flags: int, shown: list[int]) -> None:
    """A server that lost messages and says so sends new ones; without GAP, they are those that were shown before."""
    bench.send(message(1), message(2), message(3))
    bench.cut()
    bench.connect()
    bench.admit(head=1, start=2, flags=flags)
    bench.seen.clear()
    bench.send(message(2), message(3), message(4))
    assert [event.seq for event in bench.seen if isinstance(event, events.MessageReceived)] == shown


def test_old_epoch_is_not_shown_twice(bench: Bench) -> None:
    bench.send(message(1), message(2))
    for epoch in (8, EPOCH):
        bench.cut()
        bench.connect()
        bench.seen.clear()
        bench.admit(epoch=epoch, head=2, start=1, flags=Flag.GAP)
        bench.send(message(1), message(2))
        assert [type(event) for event in bench.seen][1] is events.Gap
        shown = [event.seq for event in bench.seen if isinstance(event, events.MessageReceived)]
        assert shown == ([1, 2] if epoch == 8 else [])


@pytest.mark.parametrize(
    ("epoch", "start", "flags", "gap"),
    [
        (EPOCH, 3, 0, None),
        (EPOCH, 6, Flag.GAP, events.Gap("lobby", EPOCH, 2, EPOCH, 6)),
        (8, 1, Flag.GAP, events.Gap("lobby", EPOCH, 2, 8, 1)),
        (8, 3, 0, events.Gap("lobby", EPOCH, 2, 8, 3)),  # RW-PROMISE-10, also without the flag
        (EPOCH, 5, 0, events.Gap("lobby", EPOCH, 2, EPOCH, 5)),
    ],
)
def test_gaps_are_reported(bench: Bench, epoch: int, start: int, flags: int, gap: events.Gap | None) -> None:
    bench.send(message(1), message(2))
    bench.cut()
    bench.connect()
    bench.seen.clear()
    bench.admit(epoch=epoch, head=start, start=start, flags=flags)
    bench.saw(events.Joined)
    assert (bench.seen.popleft() if bench.seen else None) == gap


def test_skipped_frames_move_the_cursor(bench: Bench) -> None:
    bench.wire.send_encoded(bytes.fromhex("00000008 9000 8000 00000000 00000005 0000000000000001"))
    bench.send(message(2))
    assert bench.session.cursor("lobby") == (EPOCH, 2)


def test_no_blind_repeat() -> None:
    """RW-DEDUPE-7; a missed message may still show that it was published."""
    bench = Bench()
    bench.connect(limits={"dedupe_ms": 0})
    bench.enter()
    lucky, unlucky = bench.publish("a", "b")
    first = bench.asked(frames.Publish)
    bench.cut()
    (third,) = bench.publish("c")
    bench.connect()  # this server remembers ids, but the previous one may not have
    bench.admit(head=1, start=1)
    bench.seen.clear()
    assert not bench.requests
    bench.send(message(1, "a", id=first.id))
    assert bench.saw(events.Published).ticket == lucky
    bench.saw(events.MessageReceived)
    failed = bench.saw(events.PublishFailed)
    assert (failed.ticket, failed.unknown) == (unlucky, True)
    assert bench.asked(frames.Publish).payload == b"c"
    assert third


def test_close_reports_unknown_outcomes(bench: Bench) -> None:
    (sent,) = bench.publish("a")
    bench.cut()
    (unsent,) = bench.publish("b")
    bench.session.close(bench.now)
    bench.exchange()
    outcomes = {event.ticket: event.unknown for event in bench.seen if isinstance(event, events.PublishFailed)}
    assert outcomes == {sent: True, unsent: False}
    assert isinstance(bench.seen[-1], events.Closed)


def test_close_with_unanswered_publish(bench: Bench) -> None:
    bench.publish("a")
    bench.session.close(bench.now)
    bench.exchange()
    assert [event.unknown for event in bench.seen if isinstance(event, events.PublishFailed)] == [True]


@pytest.mark.parametrize("code", [Code.PAYLOAD_INVALID, Code.ID_EXPIRED, Code.ID_CONFLICT, Code.FORBIDDEN])
def test_refused_after_an_unanswered_copy_is_unknown(bench: Bench, code: Code) -> None:
    """RW-PROMISE-6."""
    bench.publish("a")
    bench.cut()
    bench.connect()
    bench.admit()
    bench.publish("b")
    bench.seen.clear()
    bench.refuse(bench.asked(frames.Publish), code)
    bench.refuse(bench.asked(frames.Publish), code)
    assert [(event.code, event.unknown) for event in bench.seen if isinstance(event, events.PublishFailed)] == [
        (code, True),
        (code, False),
    ]


def test_goaway_sets_the_wait(bench: Bench) -> None:
    bench.wire.goaway(Code.SHUTDOWN, bench.now, retry_ms=20_000, jitter_ms=10_000)
    bench.exchange()
    disconnected = bench.saw(events.Disconnected)
    assert disconnected.code == Code.SHUTDOWN
    assert disconnected.retry_in is not None
    assert 20 <= disconnected.retry_in <= 30
    assert bench.session.reconnect_at == bench.now + disconnected.retry_in


def test_wait_is_at_most_five_minutes(bench: Bench) -> None:
    bench.wire.goaway(Code.SHUTDOWN, bench.now, retry_ms=2**32 - 1, jitter_ms=2**32 - 1)
    bench.exchange()
    assert bench.saw(events.Disconnected).retry_in == 300


def test_draining(bench: Bench) -> None:
    (ticket,) = bench.publish("a")
    publish = bench.asked(frames.Publish)
    bench.wire.drain(5000, 0, "bye")
    bench.exchange()
    assert bench.saw(events.Draining) == events.Draining("bye", 5.0)
    bench.publish("b")
    assert not bench.requests  # RW-DRAIN-1
    bench.ack(publish, 1)
    assert bench.saw(events.Published).ticket == ticket
    disconnected = bench.saw(events.Disconnected)
    assert (disconnected.code, disconnected.retry_in) == (Code.DRAINING, 5.0)
    assert bench.session.reconnect_at == bench.now + 5.0


def test_backoff_doubles() -> None:
    bounds = [0.0] * 9
    for seed in range(200):
        bench = Bench(seed=seed)
        for attempt in range(9):
            bench.session.connect_failed(bench.now, "refused")
            event = bench.session.next_event()
            assert isinstance(event, events.Disconnected)
            assert event.retry_in is not None
            bounds[attempt] = max(bounds[attempt], event.retry_in)
    for bound, limit in zip(bounds, (1, 2, 4, 8, 16, 32, 60, 60, 60), strict=True):
        assert 0.8 * limit < bound <= limit


def longest_waits_after(end: Callable[[Bench], None]) -> tuple[float, float]:
    """The longest of many waits after five failed attempts and a connection that `end` ends, and after one more
    failed attempt."""
    first = second = 0.0
    for seed in range(100):
        bench = Bench(seed=seed)
        for _ in range(5):
            bench.session.connect_failed(bench.now, "refused")
        bench.connect()
        bench.seen.clear()
        end(bench)
        first = max(first, bench.saw(events.Disconnected).retry_in or 0.0)
        bench.session.connect_failed(bench.now, "refused")
        bench.exchange()
        second = max(second, bench.saw(events.Disconnected).retry_in or 0.0)
    return first, second


def test_backoff_after_a_connection() -> None:
    """RW-RECONNECT-3."""

    def soon(bench: Bench) -> None:
        bench.cut()

    def late(bench: Bench) -> None:
        for _ in range(3):
            bench.wait(21)
        bench.cut()

    def orderly(bench: Bench) -> None:
        bench.wire.goaway(Code.SHUTDOWN, bench.now)
        bench.exchange()

    for end, bounds in ((soon, (32, 60)), (late, (1, 2)), (orderly, (32, 32))):
        for wait, bound in zip(longest_waits_after(end), bounds, strict=True):
            assert 0.8 * bound < wait <= bound


def test_goaway_without_wait_still_backs_off(bench: Bench) -> None:
    bench.wire.goaway(Code.INTERNAL, bench.now)  # RETRY without a time
    bench.exchange()
    assert bench.saw(events.Disconnected).retry_in != 0


@pytest.mark.parametrize("code", [Code.AUTH_FAILED, Code.NAME_INVALID, Code.TLS_REQUIRED])
def test_refused_for_good(code: Code) -> None:
    """RW-RECONNECT-4."""
    bench = Bench()
    bench.session.join("lobby", bench.now)
    bench.publish("a")
    bench.dial()
    bench.wire.refuse(code, bench.now, text="no")
    bench.exchange()
    assert bench.saw(events.Disconnected) == events.Disconnected(code, "no", None)
    failed = bench.saw(events.PublishFailed)
    assert (failed.code, failed.unknown) == (code, False)
    assert bench.saw(events.Closed) == events.Closed(code, "no")
    assert bench.session.reconnect_at is None


def test_refused_for_a_while() -> None:
    bench = Bench()
    bench.dial()
    bench.wire.refuse(Code.SERVER_FULL, bench.now, retry_ms=30_000)
    bench.exchange()
    assert bench.saw(events.Disconnected).retry_in == 30.0
    assert bench.session.reconnect_at is not None


def test_account_revoked(bench: Bench) -> None:
    bench.wire.goaway(Code.ACCOUNT_REVOKED, bench.now)
    bench.exchange()
    assert bench.saw(events.Disconnected).retry_in is None
    assert bench.saw(events.Closed).code == Code.ACCOUNT_REVOKED


@pytest.mark.parametrize(
    ("preface", "final"), [("F5525750 00 000000", True), ("F5525750 02 000000", False), ("48", False)]
)
def test_foreign_preface(preface: str, final: bool) -> None:
    bench = Bench()
    bench.session.connect(bench.now)
    bench.session.receive_data(bytes.fromhex(preface), bench.now)
    bench.exchange()
    assert (bench.saw(events.Disconnected).retry_in is None) == final
    assert bench.session.closed == final


def test_challenge_is_declined() -> None:
    bench = Bench()
    bench.dial()
    bench.wire.challenge(b"x")
    bench.exchange()
    assert bench.saw(events.Disconnected).code == Code.AUTH_FAILED
    assert bench.saw(events.Closed).code == Code.AUTH_FAILED


def test_silent_server(bench: Bench) -> None:
    silent, bench.server = bench.wire, None
    bench.wait_until_due()  # PING
    bench.wait_until_due()
    while not bench.seen:
        bench.wait_until_due()
    assert bench.saw(events.Disconnected).code == Code.TIMEOUT
    bench.wait_until_due()  # the linger time
    assert bench.session.reconnect_at is not None
    assert silent.state == "OPEN"


def test_broken_stream_is_resumed(bench: Bench) -> None:
    bench.send(message(1), message(3))
    bench.saw(events.MessageReceived)
    assert bench.saw(events.Disconnected).code == Code.SEQUENCE
    bench.cut()
    bench.connect()
    assert bench.asked(frames.Join).since == 1


def test_limits_out_of_range() -> None:
    """RW-WELCOME-7: otherwise a server could make the client use unlimited memory, or wait for ever."""
    for limit in ({"max_body": 2**24 + 1}, {"max_body": 100}, {"window": 0}, {"heartbeat_ms": 1}, {"max_rooms": 0}):
        bench = Bench()
        bench.connect(limits=limit)
        assert bench.saw(events.Disconnected).code == Code.MALFORMED
