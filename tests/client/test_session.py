"""reference_client.session.session in normal use. See also test_session_recovery and test_session_refusals."""

import pytest

from protocol import frames
from protocol.errors import LocalProtocolError
from protocol.registry import Code, Flag, PresenceKind
from reference_client import events
from reference_client.errors import TooManyPending
from tests.support.session_bench import EPOCH, NOW_MS, REF, Bench, evicted, in_the_lobby, message


@pytest.fixture
def bench() -> Bench:
    return in_the_lobby()


def test_from_connect_to_close() -> None:
    bench = Bench()
    bench.session.join("lobby", bench.now, history=3)  # before there is a connection
    bench.connect()
    assert bench.saw(events.Connected) == events.Connected(11, "ada", False, False, None, None, False)
    join = bench.admit(head=4, start=2)
    assert (join.epoch, join.since, join.flags) == (0, 3, Flag.ROSTER)
    joined = bench.saw(events.Joined)
    assert (joined.room, joined.name, joined.epoch, joined.head, joined.again) == ("lobby", "Lobby", EPOCH, 4, False)
    bench.send(message(2, "two"))
    assert bench.saw(events.MessageReceived).text == "two"
    bench.session.close(bench.now)
    bench.exchange()
    assert bench.saw(events.Disconnected).retry_in is None
    assert bench.saw(events.Closed).code is None
    assert bench.session.reconnect_at is None
    assert bench.session.closed
    with pytest.raises(LocalProtocolError):
        bench.session.join("other", bench.now)


def test_publish_is_acknowledged_before_it_is_seen(bench: Bench) -> None:
    (ticket,) = bench.publish("hi")
    publish = bench.asked(frames.Publish)
    assert (publish.payload, publish.ctype, publish.room) == (b"hi", 0, REF)
    assert int.from_bytes(publish.id[:6], "big") == NOW_MS
    bench.ack(publish, 1)
    assert bench.saw(events.Published) == events.Published(ticket, "lobby", publish.id, EPOCH, 1, NOW_MS)
    bench.send(message(1, "hi", id=publish.id, sender=11))
    assert bench.saw(events.MessageReceived).own
    assert not bench.seen
    assert bench.session.pending == 0


def test_ids_hold_the_time_of_the_server(bench: Bench) -> None:
    bench.wait(2.5)
    bench.publish("a", "b")
    first, second = bench.asked(frames.Publish), bench.asked(frames.Publish)
    assert int.from_bytes(first.id[:6], "big") == NOW_MS + 2500
    assert first.id != second.id


def test_leave_waits_for_publishes(bench: Bench) -> None:
    bench.publish("a")
    bench.session.leave("lobby", bench.now)
    bench.exchange()
    with pytest.raises(LocalProtocolError, match="being left"):
        bench.publish("b")
    publish = bench.asked(frames.Publish)
    assert not bench.requests
    bench.ack(publish, 1)
    leave = bench.asked(frames.Leave)
    bench.send(message(1, "a"))  # the stream goes on until OK
    bench.send(frames.Ok(request=leave.request, room=REF))
    assert [type(event) for event in bench.seen] == [events.Published, events.MessageReceived, events.Left]
    assert bench.session.rooms() == []


def test_leave_without_connection() -> None:
    bench = Bench()
    bench.session.join("lobby", bench.now)
    bench.session.leave("lobby", bench.now)
    assert bench.session.next_event() == events.Left("lobby")


def test_rejoin_after_leave_starts_afresh(bench: Bench) -> None:
    bench.send(message(1, "one"))
    bench.session.leave("lobby", bench.now)
    bench.exchange()
    bench.send(frames.Ok(request=bench.asked(frames.Leave).request, room=REF))
    join = bench.enter(history=1, head=1, start=1)
    assert (join.epoch, join.since) == (0, 1)
    bench.seen.clear()
    bench.send(message(1, "one"))
    assert bench.saw(events.MessageReceived).seq == 1


def test_roster_and_presence(bench: Bench) -> None:
    entries = (frames.RosterEntry(11, 0, "ada"), frames.RosterEntry(12, Flag.VERIFIED, "bob"))
    bench.send(frames.Roster(entries[:1], flags=Flag.RESET | Flag.MORE, room=REF))
    assert not bench.seen
    bench.send(frames.Roster(entries[1:], room=REF))
    assert bench.saw(events.RosterChanged) == events.RosterChanged("lobby")
    bench.send(frames.Presence(PresenceKind.JOINED, 13, "eve", room=REF))
    bench.send(frames.Presence(PresenceKind.JOINED, 13, "eve", room=REF))  # RW-PRESENCE-6
    bench.send(frames.Presence(9, 13, "eve", room=REF))  # RW-PRESENCE-1
    assert bench.saw(events.MemberJoined) == events.MemberJoined("lobby", 13, "eve", False)
    assert [(who.name, who.verified) for who in bench.session.roster("lobby")] == [
        ("ada", False),
        ("bob", True),
        ("eve", False),
    ]
    bench.send(frames.Presence(PresenceKind.LOST, 12, "bob", room=REF))
    bench.send(frames.Presence(PresenceKind.LEFT, 99, "nobody", room=REF))
    assert bench.saw(events.MemberLeft) == events.MemberLeft("lobby", 12, "bob", True, True)
    assert bench.session.members("lobby") == 2
    bench.send(frames.Presence(PresenceKind.QUIET, 0, "", room=REF))
    assert bench.saw(events.RoomQuiet) == events.RoomQuiet("lobby")
    assert bench.session.roster("lobby") == []
    assert not bench.seen


def test_window_is_respected() -> None:
    bench = Bench()
    bench.connect(limits={"window": 2})
    bench.enter()
    bench.publish(*"abcde")
    assert len(bench.requests) == 2
    bench.ack(bench.asked(frames.Publish), 1)
    assert [request.payload for request in bench.requests] == [b"b", b"c"]  # type: ignore[union-attr]


def test_rooms_take_turns() -> None:
    bench = Bench()
    bench.connect(limits={"window": 2})
    bench.enter("one", ref=1)
    bench.enter("two", ref=2)
    bench.publish(*"abcd", room="one")
    bench.publish("x", room="two")
    order = []
    for seq in range(1, 6):
        publish = bench.asked(frames.Publish)
        order.append(publish.payload)
        bench.ack(publish, seq)
    assert order.index(b"x") < order.index(b"d")


def test_memory_is_bounded() -> None:
    bench = Bench(max_pending=3, max_pending_octets=100)
    bench.session.join("lobby", bench.now)
    bench.publish("a", "b", "c")
    with pytest.raises(TooManyPending):
        bench.publish("d")
    bench = Bench(max_pending=3, max_pending_octets=100)
    bench.session.join("lobby", bench.now)
    bench.publish("x" * 200)  # the first is always taken, or its refusal could never be reported
    with pytest.raises(TooManyPending):
        bench.publish("d")
    assert bench.session.pending == 1


@pytest.mark.parametrize("field", [frames.Field(0x7001), frames.Field(0xC001, bytes(70_000))])
def test_unsendable_requests_are_refused_at_once(bench: Bench, field: frames.Field) -> None:
    with pytest.raises(LocalProtocolError):
        bench.session.publish("lobby", b"", bench.now, fields=(field,))
    with pytest.raises(LocalProtocolError):
        bench.session.publish("nowhere", b"", bench.now)
    with pytest.raises(LocalProtocolError):
        bench.session.join("x" * 256, bench.now)
    with pytest.raises(LocalProtocolError):
        bench.session.join("lobby", bench.now)
    with pytest.raises(LocalProtocolError):
        bench.session.history("lobby", bench.now, limit=1 << 16)
    assert bench.session.pending == 0


def test_publish_larger_than_max_body(bench: Bench) -> None:
    tickets = bench.publish("x" * (65536 - 255), "small")
    assert bench.saw(events.PublishFailed) == events.PublishFailed(
        tickets[0], "lobby", Code.PAYLOAD_TOO_LARGE, "65281 octets", False
    )
    assert bench.asked(frames.Publish).payload == b"small"


# --- history


def test_history(bench: Bench) -> None:
    ticket = bench.session.history("lobby", bench.now, start=1, end=4, limit=2)
    bench.exchange()
    asked = bench.asked(frames.History)
    assert (asked.start, asked.end, asked.limit, asked.room) == (1, 4, 2, REF)
    bench.send(message(1, "x", request=asked.request), message(2, "y", request=asked.request))
    bench.send(frames.HistoryEnd(1, 3, 1, flags=Flag.MORE, request=asked.request, room=REF))
    page = bench.saw(events.HistoryPage)
    assert (page.ticket, page.epoch, page.start, page.end, page.more) == (ticket, EPOCH, 1, 3, True)
    assert [one.text for one in page.messages] == ["x", "y"]
    assert bench.session.cursor("lobby") == (EPOCH, 0)  # RW-HISTORY-3


def test_history_is_repeated(bench: Bench) -> None:
    bench.session.history("lobby", bench.now)
    bench.exchange()
    asked = bench.asked(frames.History)
    bench.send(message(1, "x", request=asked.request))
    bench.cut()
    bench.connect()
    bench.admit()
    asked = bench.asked(frames.History)
    bench.refuse(asked, Code.UNAVAILABLE, 250)
    bench.wait_until_due()
    asked = bench.asked(frames.History)
    bench.send(message(1, "x", request=asked.request))
    bench.seen.clear()
    bench.send(frames.HistoryEnd(1, 2, 1, request=asked.request, room=REF))
    assert len(bench.saw(events.HistoryPage).messages) == 1


def test_history_without_extension() -> None:
    bench = Bench()
    bench.connect(history=False)
    bench.enter()
    bench.seen.clear()
    ticket = bench.session.history("lobby", bench.now)
    bench.exchange()
    assert bench.saw(events.HistoryFailed).ticket == ticket
    assert not bench.requests


def test_history_of_dropped_room(bench: Bench) -> None:
    bench.session.history("lobby", bench.now)
    bench.exchange()
    asked = bench.asked(frames.History)
    bench.send(evicted(Code.KICKED))
    bench.refuse(asked, Code.NOT_JOINED)
    assert isinstance(bench.seen[-1], events.HistoryFailed)


# --- paused reading


def test_paused_reading_is_not_silence(bench: Bench) -> None:
    """RW-HEARTBEAT-3."""
    bench.session.pause_reading()
    for _ in range(10):
        bench.now += 20
        bench.session.handle_timeout(bench.now)
        bench.session.data_to_send(bench.now)
    bench.session.resume_reading(bench.now)
    assert bench.session.next_event() is None
    assert bench.session.next_timeout() is not None
