"""Both ends of a connection, without I/O: every transition, any slicing, any octets (SPEC.md, section 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.fuzz import strategies
from protocol import connection as module
from protocol import frames as f
from protocol.client import ClientConnection
from protocol.codec import decode, encode
from protocol.connection import error_frame
from protocol.errors import LocalProtocolError
from protocol.events import ClientEvent, ConnectionTerminated, Received, Replied, RequestRefused, ServerEvent
from protocol.fields import extension
from protocol.framing import FrameReader
from protocol.registry import Code, Flag, FrameType
from protocol.server import ServerConnection, ServerTimes
from protocol.state import CLIENT, SERVER, Transition, advance

HELLO = f.Hello("ada", "ANONYMOUS", b"", fields=(extension("history"),), request=1)
WELCOME = f.Welcome(7, "ada", 10**12, 65536, 30_000, 600_000, 4, 8, b"", fields=(extension("history"),), request=1)
PREFACE = bytes.fromhex("F552575001010000")
SERVER_PREFACE = bytes.fromhex("F552575001000000")
JOINED = f.Joined(9, 0, 1, 1, 1, "lobby", request=2, room=5)


def server(*, open: bool = True) -> ServerConnection:
    """A server's end, after WELCOME unless `open` is false."""
    conn = ServerConnection(0.0, ServerTimes())
    if open:
        feed(conn, PREFACE + encode(HELLO))
        conn.welcome(WELCOME)
        conn.data_to_send(0.0)
    return conn


def client(*octets: bytes) -> ClientConnection:
    """A client's end that has received these octets."""
    conn = ClientConnection(HELLO, 0.0)
    conn.transport_up(0.0)
    for part in octets:
        feed(conn, part)
    return conn


def open_client() -> ClientConnection:
    """A client's end in OPEN."""
    conn = client(SERVER_PREFACE, encode(WELCOME))
    conn.data_to_send(0.0)
    return conn


def feed(conn: ServerConnection | ClientConnection, octets: bytes, now: float = 0.0) -> list[Any]:
    """The events of these octets."""
    return list(conn.receive_data(octets, now))


def sent(conn: ServerConnection | ClientConnection, sender: Any) -> list[Any]:
    """Return the frames that the connection wants to send now."""
    reader = FrameReader(2**24)
    reader.feed(conn.data_to_send(0.0).removeprefix(SERVER_PREFACE).removeprefix(PREFACE))
    return [decode(raw, sender) for raw in iter(reader.next_frame, None)]


def goaway(conn: ServerConnection | ClientConnection, sender: str) -> Code:
    """Return the code of the last frame that the connection wants to send, a GOAWAY."""
    last = sent(conn, sender)[-1]
    assert isinstance(last, f.Goaway)
    return Code(last.code)


# --- every transition


PING, BYE = encode(f.Ping(bytes(8))), encode(f.Goaway(Code.NONE))
DRAIN = encode(f.Goaway(Code.DRAINING, 1, 2, flags=Flag.RETRY))
BAD = bytes.fromhex("00000001000600000000000000000000FF")


def waiting_server() -> ServerConnection:
    conn = server(open=False)
    feed(conn, PREFACE)
    return conn


def server_with_hello() -> ServerConnection:
    conn = server(open=False)
    feed(conn, PREFACE + encode(HELLO))
    return conn


def authenticating_server() -> ServerConnection:
    conn = server_with_hello()
    conn.challenge(b"1")
    return conn


def server_with_auth() -> ServerConnection:
    conn = authenticating_server()
    feed(conn, encode(f.Auth(b"2", request=1)))
    return conn


def draining_server() -> ServerConnection:
    conn = server()
    conn.drain(1, 2)
    return conn


def closing_server() -> ServerConnection:
    conn = server()
    conn.goaway(Code.SHUTDOWN, 0.0)
    return conn


def server_rows() -> Iterator[Callable[[], object]]:
    """Calls that together take every transition of the server."""
    yield lambda: feed(server(open=False), b"\xf5\x52\x57\x50\x02\x03\0\0")
    yield lambda: feed(server(open=False), b"GET ")
    yield lambda: server(open=False).handle_timeout(5.0)
    yield lambda: server(open=False).close(0.0)
    yield lambda: server_with_hello().refuse(Code.NAME_INVALID, 0.0)
    yield lambda: server_with_auth().welcome(WELCOME)
    yield lambda: server_with_auth().challenge(b"3")
    yield lambda: server_with_auth().refuse(Code.AUTH_FAILED, 0.0)
    for state in (waiting_server, authenticating_server, server, draining_server):
        yield lambda state=state: feed(state(), BYE)  # type: ignore[misc]
        yield lambda state=state: feed(state(), BAD)  # type: ignore[misc]
        yield lambda state=state: state().handle_timeout(61.0)  # type: ignore[misc]
        yield lambda state=state: state().close(0.0)  # type: ignore[misc]
    for state in (server, draining_server, closing_server):
        yield lambda state=state: feed(state(), PING)  # type: ignore[misc]
    yield lambda: draining_server().finish_drain(0.0)
    yield lambda: feed(closing_server(), BYE)
    yield lambda: closing_server().handle_timeout(2.0)
    yield lambda: server().receive_eof(0.0)


def client_with_hello() -> ClientConnection:
    return client(SERVER_PREFACE)


def draining_client() -> ClientConnection:
    conn = open_client()
    conn.join("lobby")
    feed(conn, DRAIN)
    return conn


def closing_client() -> ClientConnection:
    conn = open_client()
    conn.close(0.0)
    return conn


def client_rows() -> Iterator[Callable[[], object]]:
    """Calls that together take every transition of the client."""
    yield lambda: ClientConnection(HELLO, 0.0).close(0.0)
    yield lambda: ClientConnection(HELLO, 0.0).handle_timeout(10.0)
    yield lambda: feed(client(), b"HTTP")
    yield lambda: client().handle_timeout(10.0)
    yield lambda: client().close(0.0)
    yield lambda: feed(client_with_hello(), encode(f.Auth(b"", request=1)))
    yield lambda: feed(client_with_hello(), encode(error_frame(Code.NAME_INVALID, 1)))
    for state in (client_with_hello, open_client, draining_client):
        yield lambda state=state: feed(state(), BYE)  # type: ignore[misc]
        yield lambda state=state: feed(state(), BAD)  # type: ignore[misc]
        yield lambda state=state: state().handle_timeout(61.0)  # type: ignore[misc]
        yield lambda state=state: state().close(0.0)  # type: ignore[misc]
    for state in (open_client, draining_client, closing_client):
        yield lambda state=state: feed(state(), PING)  # type: ignore[misc]
    yield lambda: feed(draining_client(), encode(error_frame(Code.UNAVAILABLE, 2)))
    yield lambda: feed(closing_client(), BYE)
    yield lambda: closing_client().handle_timeout(2.0)
    yield lambda: open_client().receive_eof(0.0)


@pytest.mark.parametrize(("table", "rows"), [(SERVER, server_rows), (CLIENT, client_rows)], ids=["server", "client"])
def test_every_transition_is_reached(
    table: tuple[Transition, ...], rows: Callable[[], Iterator[Callable[[], object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: set[tuple[str, str]] = set()

    def watched(machine: Any, state: str, event: str) -> str:
        following = advance(machine, state, event)
        taken.add((state, event))
        return following

    monkeypatch.setattr(module, "advance", watched)
    for row in rows():
        row()
    # "frame" rows keep the state, so nothing moves. The tests of requests below cover them.
    ends = {event for _, event in taken}
    missing = {
        row for row in table if row.event != "frame" and (row.state, row.event) not in taken and row.state != "any"
    }
    assert not missing
    assert "end of stream" in ends


# --- slicing


def slices(octets: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({cut % (len(octets) + 1) for cut in cuts} | {0, len(octets)})
    return [octets[a:b] for a, b in pairwise(places)]


def run_server(parts: Iterable[bytes]) -> tuple[list[str], bytes]:
    """Return the events and the octets of a small server that receives these octets."""
    conn = server(open=False)
    seen: list[str] = []
    out = b""
    for part in parts:
        assert conn.wants_data, "the client would hang: the server no longer reads the transport"
        events: list[ServerEvent] = list(conn.receive_data(part, 0.0))
        while events:
            for event in events:
                seen.append(repr(event))
                match event:
                    case f.Hello():
                        conn.welcome(WELCOME)
                    case f.Join():
                        conn.send(f.Joined(9, 0, 1, 1, 1, event.name, request=event.request, room=5))
                    case f.Publish():
                        conn.send(f.Ack(1, 2, request=event.request, room=event.room))
                    case RequestRefused():
                        conn.send(error_frame(event.code, event.request, event.room))
            events = list(conn.events())
        out += conn.data_to_send(0.0)
        if conn.should_close:
            break
    return seen, out


requests = st.one_of(
    st.builds(lambda name, n: f.Join(name, 0, 0, request=n), st.sampled_from(["lobby", "hall"]), st.integers(2, 99)),
    st.builds(lambda id, n: f.Publish(id, 0, b"hi", request=n, room=5), strategies.ids, st.integers(2, 99)),
    st.builds(f.Ping, st.binary(min_size=8, max_size=8)),
    st.builds(lambda body: f.Unknown(0x8021, body), strategies.short_octets),
    st.builds(lambda n: f.Unknown(0x0999, b"", request=n), st.integers(2, 99)),
    st.just(f.Goaway(Code.NONE)),
)


@given(st.lists(requests, max_size=12), st.lists(st.integers(0, 10**6), max_size=40))
def test_slicing_changes_nothing_at_the_server(script: list[Any], cuts: list[int]) -> None:
    octets = PREFACE + encode(HELLO) + b"".join(encode(frame) for frame in script)
    assert run_server(slices(octets, cuts)) == run_server([octets])


@given(st.lists(strategies.frames("S"), max_size=8), st.lists(st.integers(0, 10**6), max_size=40))
def test_slicing_changes_nothing_at_the_client(script: list[Any], cuts: list[int]) -> None:
    octets = SERVER_PREFACE + encode(WELCOME) + b"".join(encode(frame) for frame in script)
    runs = []
    for parts in ([octets], slices(octets, cuts)):
        conn = client()
        events: list[ClientEvent] = []
        out = b""
        for part in parts:
            events += conn.receive_data(part, 0.0)
            out += conn.data_to_send(0.0)
        runs.append((events, out, conn.state))
    assert runs[0] == runs[1]


# --- any octets


@given(st.lists(st.one_of(strategies.short_octets, strategies.frames().map(encode)), max_size=10))
def test_any_octets_are_events_at_the_server(parts: list[bytes]) -> None:
    for prefix in ([], [PREFACE], [PREFACE, encode(HELLO)]):
        run_until_closed(prefix + parts)


def run_until_closed(parts: list[bytes]) -> None:
    conn = server(open=False)
    for part in parts:
        for event in conn.receive_data(part, 0.0):
            if isinstance(event, f.Hello):
                conn.welcome(WELCOME)
            elif isinstance(event, f.Auth):
                conn.refuse(Code.AUTH_FAILED, 0.0)
            elif isinstance(event, RequestRefused) or (not isinstance(event, ConnectionTerminated) and event.request):
                conn.send(error_frame(Code.UNAVAILABLE, event.request))
        conn.data_to_send(0.0)
    conn.handle_timeout(100.0)
    conn.receive_eof(100.0)
    assert conn.should_close


@given(st.lists(st.one_of(strategies.short_octets, strategies.frames("S").map(encode)), max_size=10))
def test_any_octets_are_events_at_the_client(parts: list[bytes]) -> None:
    for prefix in ([], [SERVER_PREFACE], [SERVER_PREFACE, encode(WELCOME)]):
        conn = client()
        for part in prefix + parts:
            feed(conn, part)
        conn.handle_timeout(100.0)
        conn.receive_eof(100.0)
        assert conn.should_close


# --- requests and replies


def test_replies_in_order_and_pongs_behind_them() -> None:
    conn = server()
    octets = encode(f.Join("a", 0, 0, request=2)) + encode(f.Ping(b"12345678")) + encode(f.Join("b", 0, 0, request=3))
    assert [event.request for event in feed(conn, octets)] == [2, 3]
    with pytest.raises(LocalProtocolError):
        conn.send(f.Joined(9, 0, 1, 1, 1, "b", request=3, room=6))
    conn.send(JOINED)
    conn.send(f.Joined(9, 0, 1, 1, 1, "b", request=3, room=6))
    assert [frame.TYPE for frame in sent(conn, "S")] == [FrameType.JOINED, FrameType.PONG, FrameType.JOINED]


def test_requests_beyond_the_window_wait_for_replies() -> None:
    conn = server()
    octets = b"".join(encode(f.Leave(request=n, room=1)) for n in range(2, 12))
    assert [event.request for event in feed(conn, octets)] == [2, 3, 4, 5]
    assert not conn.wants_data
    conn.send(error_frame(Code.NOT_JOINED, 2))
    assert not conn.wants_data  # it first reads the octets that it has
    assert len(list(conn.events())) == 1
    for n in range(3, 12):
        conn.send(error_frame(Code.NOT_JOINED, n))
        assert len(list(conn.events())) == (n < 8)
    assert conn.wants_data


def test_ping_flood_counts_towards_the_window() -> None:
    conn = server()
    feed(conn, encode(f.Leave(request=2, room=1)) + encode(f.Ping(bytes(8))) * 1000)
    assert not conn.wants_data
    assert sent(conn, "S") == []


def test_owed_replies_precede_the_answer_to_goaway() -> None:
    conn = server()
    feed(conn, encode(f.Join("lobby", 0, 0, request=2)) + encode(f.Goaway(Code.NONE)))
    assert sent(conn, "S") == []
    conn.send(JOINED)
    assert [frame.TYPE for frame in sent(conn, "S")] == [FrameType.JOINED, FrameType.GOAWAY]
    assert conn.should_close


def test_owed_replies_are_not_cut_by_the_linger_time() -> None:
    """RW-CLOSE-3: as long as the peer keeps reading them."""
    conn = server()
    linger = ServerTimes().linger
    feed(conn, encode(f.History(1, 0, 0, request=2, room=1)) + encode(f.Goaway(Code.NONE)), 1.0)
    for step in range(1, 10):
        now = 1.0 + step * linger * 0.8
        assert (conn.next_timeout() or 0.0) > now
        conn.handle_timeout(now)
        conn.send_part(2, b"a MESSAGE")
        assert conn.data_to_send(now) == b"a MESSAGE"
        assert not conn.should_close
    conn.handle_timeout(now + linger)
    assert conn.should_close


def test_nothing_is_sent_after_goaway() -> None:
    conn = server()
    feed(conn, encode(f.Join("lobby", 0, 0, request=2)))
    conn.goaway(Code.SHUTDOWN, 0.0)
    conn.send(JOINED)
    conn.send_encoded(encode(f.Ping(bytes(8))))
    assert [frame.TYPE for frame in sent(conn, "S")] == [FrameType.GOAWAY]


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (encode(f.Join("lobby", 0, 0, request=2)), Code.UNEXPECTED),
        (encode(f.Ping(bytes(8))), Code.UNEXPECTED),
        (encode(f.Unknown(0x0999, b"", request=4)), Code.UNEXPECTED),
        (encode(f.Unknown(0x8021, b"", request=4)), Code.UNEXPECTED),
        (bytes.fromhex("00001001 0001 0000 00000001 00000000"), Code.FRAME_TOO_LARGE),
        (bytes.fromhex("00000000 0001 0000 00000000 00000000"), Code.BAD_HEADER),
        (bytes.fromhex("00000000 0001 0000 00000001 00000000"), Code.MALFORMED),
    ],
)
def test_wrong_frame_before_welcome(octets: bytes, code: Code) -> None:
    conn = server(open=False)
    feed(conn, PREFACE)
    events = feed(conn, octets)
    assert isinstance(events[-1], ConnectionTerminated)
    assert goaway(conn, "S") == code


@pytest.mark.parametrize(
    "octets",
    [
        encode(f.Auth(b"2", request=2)),
        bytes.fromhex("00000003 0003 0000 00000002 00000000 0009FF"),
        bytes.fromhex("00000006 0003 0000 00000002 00000000 0000 7000 0000"),
    ],
    ids=["valid", "cut", "critical-field"],
)
def test_auth_with_another_request_is_a_bad_header(octets: bytes) -> None:
    """By RW-CHECK-1 the header comes before the body, which may break a rule too."""
    conn = authenticating_server()
    (event,) = feed(conn, octets)
    assert isinstance(event, ConnectionTerminated)
    assert goaway(conn, "S") == Code.BAD_HEADER


def test_ignorable_frame_before_welcome() -> None:
    conn = server(open=False)
    assert feed(conn, PREFACE + encode(f.Unknown(0x8021, b"xyz"))) == []
    assert [event.name for event in feed(conn, encode(HELLO))] == ["ada"]


# --- the client's cursor


def joined_client(start: int = 1) -> ClientConnection:
    conn = open_client()
    conn.join("lobby")
    feed(conn, encode(f.Joined(9, start - 1, start, 1, 1, "lobby", request=2, room=5)))
    conn.data_to_send(0.0)
    return conn


def message(seq: int, request: int = 0) -> bytes:
    return encode(f.Message(seq, 1, 7, bytes(16), 0, "ada", b"hi", request=request, room=5))


def test_stream_moves_the_cursor_once() -> None:
    conn = joined_client(start=4)
    events = feed(conn, message(3) + message(4) + message(4) + message(5))
    assert [event.frame.seq for event in events] == [4, 5]
    assert conn.memberships[5].cursor == 5


def test_hole_in_the_stream_ends_the_connection() -> None:
    conn = joined_client()
    feed(conn, message(2))
    assert goaway(conn, "C") == Code.SEQUENCE


def test_unknown_sequenced_frame_moves_the_cursor() -> None:
    conn = joined_client()
    unknown = f.Unknown(0x9999, (1).to_bytes(8, "big") + b"?", flags=Flag.SEQ, room=5)
    assert [event.frame.seq for event in feed(conn, encode(unknown) + message(2))] == [2]


def test_history_leaves_the_cursor_alone() -> None:
    conn = joined_client(start=11)
    number = conn.history(5, 1, 3)
    end = f.HistoryEnd(1, 3, 1, request=number, room=5)
    events = feed(conn, message(1, number) + message(2, number) + encode(end))
    assert [type(event) for event in events] == [Received, Received, Replied]
    assert conn.memberships[5].cursor == 10


@pytest.mark.parametrize(
    "octets",
    [
        encode(f.Presence(1, 3, "bob", room=6)),
        encode(f.Ack(1, 1, request=77, room=5)),
        encode(f.Ok(request=2)),
        encode(WELCOME),
        message(1, request=3),
    ],
)
def test_unexpected_frame_ends_the_connection(octets: bytes) -> None:
    conn = joined_client()
    events = feed(conn, octets)
    assert isinstance(events[-1], ConnectionTerminated)
    assert goaway(conn, "C") == Code.UNEXPECTED


def test_reply_after_eviction() -> None:
    conn = joined_client()
    number = conn.publish(5, bytes(16), 0, b"hi")
    octets = encode(f.Evicted(Code.KICKED, room=5)) + encode(f.Ack(1, 1, request=number, room=5))
    assert [type(event) for event in feed(conn, octets)] == [Received, Replied]
    with pytest.raises(LocalProtocolError):
        conn.publish(5, bytes(16), 0, b"hi")


def test_refused_leave_keeps_the_membership() -> None:
    conn = joined_client()
    events = feed(conn, encode(error_frame(Code.INTERNAL, conn.leave(5), 5)) + message(1))
    assert [type(event) for event in events] == [Replied, Received]
    feed(conn, encode(error_frame(Code.NOT_JOINED, conn.leave(5), 5)))
    assert conn.memberships == {}


@pytest.mark.parametrize("joined", [f.Joined(0, 0, 1, 1, 1, "a"), f.Joined(9, 0, 0, 1, 1, "a")])
def test_joined_with_epoch_0_or_start_0(joined: f.Joined) -> None:
    """RW-CURSOR-6."""
    conn = open_client()
    conn.join("a")
    feed(conn, encode(replace(joined, request=2, room=5)))
    assert goaway(conn, "C") == Code.MALFORMED


def test_client_keeps_the_window() -> None:
    conn = joined_client()
    for number in range(4):
        conn.publish(5, bytes([number] * 16), 0, b"hi")
    assert not conn.can_request
    with pytest.raises(LocalProtocolError):
        conn.publish(5, bytes(16), 0, b"hi")
