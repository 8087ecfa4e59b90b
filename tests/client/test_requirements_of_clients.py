"""Requirements of SPEC.md for clients that no other test covers."""

import pytest

from protocol.client import ClientConnection
from protocol.codec import decode, encode
from protocol.errors import LocalProtocolError
from protocol.frames import (
    Error,
    Evicted,
    Frame,
    Goaway,
    Hello,
    Join,
    Joined,
    Publish,
    Roster,
    RosterEntry,
    Unknown,
    Welcome,
)
from protocol.framing import FrameReader
from protocol.registry import PREFACE_SIZE, Code, Flag
from reference_client import events
from tests.support.session_bench import NOW_MS, REF, Bench, in_the_lobby

SERVER_PREFACE = bytes.fromhex("F5525750 01 00 0000")
WELCOME = Welcome(7, "ada", 10**12, 65536, 30_000, 600_000, 4, 8, b"", request=2**32 - 2)


def waiting_client() -> ClientConnection:
    """A client that has sent HELLO, with almost the highest request number."""
    client = ClientConnection(Hello("ada", "ANONYMOUS", b"", request=2**32 - 2), 0.0)
    client.transport_up(0.0)
    assert list(client.receive_data(SERVER_PREFACE, 0.0)) == []
    assert isinstance(sent(client, skip=PREFACE_SIZE)[-1], Hello)
    return client


def sent(client: ClientConnection, skip: int = 0) -> list[Frame | Unknown]:
    reader = FrameReader()
    reader.feed(client.data_to_send(0.0)[skip:])
    return [decode(raw, "C") for raw in iter(reader.next_frame, None)]


def test_request_numbers_wrap_and_skip_zero() -> None:
    """RW-REQUEST-1"""
    client = waiting_client()
    list(client.receive_data(encode(WELCOME), 0.0))
    assert [client.join(room) for room in "abc"] == [2**32 - 1, 1, 2]


def test_no_request_before_welcome() -> None:
    """RW-CONN-1"""
    client = waiting_client()
    with pytest.raises(LocalProtocolError):
        client.join("lobby")
    assert sent(client) == []
    list(client.receive_data(encode(WELCOME), 0.0))
    client.join("lobby")
    assert [type(frame) for frame in sent(client)] == [Join]


def test_requests_with_unknown_ref() -> None:
    """RW-MODEL-8"""
    client = waiting_client()
    list(client.receive_data(encode(WELCOME), 0.0))
    number = client.join("lobby")
    list(client.receive_data(encode(Joined(9, 0, 1, 1, 1, "lobby", request=number, room=5)), 0.0))
    client.publish(5, bytes(16), 0, b"")
    for call in (lambda ref: client.publish(ref, bytes(16), 0, b""), client.leave, lambda ref: client.history(ref, 1)):
        with pytest.raises(LocalProtocolError):
            call(6)
    list(client.receive_data(encode(Evicted(Code.KICKED, room=5)), 0.0))
    with pytest.raises(LocalProtocolError):
        client.publish(5, bytes(16), 0, b"")


def test_two_rooms_with_one_ref_end_the_connection() -> None:
    """RW-REQUEST-9"""
    client = waiting_client()
    list(client.receive_data(encode(WELCOME), 0.0))
    for room in ("lobby", "hall"):
        number = client.join(room)
        list(client.receive_data(encode(Joined(9, 0, 1, 1, 1, room, request=number, room=5)), 0.0))
    last = sent(client)[-1]
    assert isinstance(last, Goaway)
    assert last.code == Code.UNEXPECTED


@pytest.mark.parametrize("code", [Code.NONE, Code.SHUTDOWN, Code.MALFORMED, 999])
@pytest.mark.parametrize("state", ["HELLO_SENT", "OPEN", "DRAINING"])
def test_goaway_is_answered_with_goaway(state: str, code: int) -> None:
    """RW-CLOSE-4, RW-CODE-2"""
    client = waiting_client()
    if state != "HELLO_SENT":
        list(client.receive_data(encode(WELCOME), 0.0))
    if state == "DRAINING":
        client.join("lobby")  # unanswered, or the client would close at once
        list(client.receive_data(encode(Goaway(Code.DRAINING, flags=Flag.RETRY)), 0.0))
        sent(client)
    assert client.state == state
    list(client.receive_data(encode(Goaway(code)), 0.0))
    assert sent(client) == [Goaway(Code.NONE)]
    assert client.should_close


@pytest.mark.parametrize(("code", "retry"), [(199, False), (399, False), (399, True), (599, True), (999, False)])
def test_refusal_with_unknown_code_follows_retry(code: int, retry: bool) -> None:
    """RW-ERROR-3, RW-CODE-2: the number and the text do not matter, and the connection stays open."""
    bench = in_the_lobby()
    bench.publish("a")
    publish = bench.asked(Publish)
    flags, wait, text = (Flag.RETRY, 500, "FORBIDDEN") if retry else (0, 0, "RATE_LIMITED")
    bench.send(Error(code, wait, text, flags=flags, request=publish.request, room=REF))
    if retry:
        bench.wait_until_due()
        assert bench.asked(Publish).id == publish.id
    else:
        assert bench.saw(events.PublishFailed).code == code
    assert not bench.seen
    bench.publish("b")
    bench.exchange()
    assert bench.wire.state == "OPEN"


def test_granted_name() -> None:
    """RW-WELCOME-6"""
    bench = Bench()
    bench.dial()
    bench.wire.welcome(Welcome(11, "~ada", NOW_MS, 65536, 30_000, 600_000, 4, 8, b"", request=1))
    bench.exchange()
    assert bench.saw(events.Connected).name == "~ada"


def test_roster_reset() -> None:
    """RW-ROSTER-5"""
    bench = in_the_lobby()
    for member in (11, 12):
        bench.send(Roster((RosterEntry(member, 0, f"member {member}"),), flags=Flag.RESET, room=REF))
        assert [who.name for who in bench.session.roster("lobby")] == [f"member {member}"]
