"""Clients that misbehave, over real sockets: the server goes on, and sends what it must."""

import contextlib
import select
import socket
import threading
import time
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.codec import encode
from protocol.frames import (
    Ack,
    Error,
    Goaway,
    Hello,
    HistoryEnd,
    Join,
    Joined,
    Leave,
    Ok,
    Ping,
    Pong,
    Presence,
    Stop,
    Unknown,
)
from protocol.framing import FrameReader
from protocol.registry import Code, Flag, PresenceKind
from reference_server.core.hub import REFUSED_AT_ONCE
from reference_server.core.peer import Peer
from reference_server.net.transport import HIGH_WATER
from tests.support.raw_client import PATIENCE, PREFACE, RawClient
from tests.support.server_in_process import KIB, UNLIMITED, held_for, peer_of, serving

READ_AT_ONCE = 256 * KIB
"""How many octets asyncio reads of a socket at once."""


def test_goaway_arrives_although_the_client_still_sends() -> None:
    """RW-CLOSE-5: the server reads on, so that no reset destroys the GOAWAY."""
    with serving(linger_ms=10_000) as server, RawClient(server.port) as ada:
        ada.send(b"\xff\xff\xff\xff" + bytes(12))
        ada.send(bytes(8 * 2**20))
        ada.socket.shutdown(socket.SHUT_WR)
        assert ada.goaway().code == Code.FRAME_TOO_LARGE


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (Stop(request=7, room=5), Code.UNKNOWN_REQUEST),
        (Unknown(0x0040, b"cut", request=7, room=0), Code.UNKNOWN_REQUEST),
        (Stop(), Code.UNKNOWN_TYPE),
        (Unknown(0x0040, b"cut"), Code.UNKNOWN_TYPE),
    ],
)
def test_frames_of_unused_extensions_are_unknown(frame: Unknown, code: Code) -> None:
    """RW-CHECK-1, RW-TYPE-1, RW-TYPE-3: the type is checked before header and structure."""
    with serving() as server, RawClient(server.port, history=False) as ada:
        ada.send(frame)
        if code == Code.UNKNOWN_REQUEST:
            assert ada.expect(Error).code == code
        else:
            assert ada.goaway().code == code


@pytest.mark.parametrize("whole", [PREFACE + encode(Hello("ada", "ANONYMOUS", b"", request=1))])
def test_frame_time_out_before_welcome(whole: bytes) -> None:
    """RW-FRAME-5"""
    with serving(frame_ms=50, handshake_ms=60_000) as server, RawClient(server.port, hello=False) as ada:
        ada.send(whole[:-1])
        assert len(ada.octets(8)) == 8
        assert ada.goaway().code == Code.TIMEOUT


@pytest.mark.parametrize(
    "greeting",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        bytes.fromhex("1603010200010001fc0303") + bytes(500),  # a ClientHello
        b"\xf5RWQ" + bytes(4),
        b"HELO\n",
        b"\x00" * 100_000,
    ],
)
def test_other_protocols_get_no_answer(greeting: bytes) -> None:
    """RW-PREFACE-5"""
    with serving() as server, RawClient(server.port, hello=False) as raw:
        raw.send(greeting)
        with contextlib.suppress(ConnectionResetError):  # if more was sent than was read
            assert raw.octets(1) == b""


@pytest.mark.parametrize("said", [b"", PREFACE[:1], PREFACE[:-1]])
def test_silence_before_the_preface_is_closed_without_goaway(said: bytes) -> None:
    """RW-PREFACE-6"""
    with serving(preface_ms=50) as server, RawClient(server.port, hello=False) as raw:
        raw.send(said)
        assert raw.octets(1) == b""


def test_silence_after_the_preface_is_a_time_out() -> None:
    """RW-HELLO-4"""
    with serving(handshake_ms=50) as server, RawClient(server.port, hello=False) as raw:
        raw.send(PREFACE)
        assert len(raw.octets(8)) == 8
        assert raw.goaway().code == Code.TIMEOUT


def test_session_in_single_octets() -> None:
    """RW-CONN-2, RW-FRAME-4"""
    with serving() as server, RawClient(server.port, hello=False) as raw:
        hello = encode(Hello("ada", "ANONYMOUS", b"", request=1))
        for octet in PREFACE + hello + encode(Join("hall", 0, 0, request=2)) + encode(Ping(b"01234567")):
            raw.send(bytes([octet]))
        assert len(raw.octets(8)) == 8
        raw.expect(Joined)
        raw.expect(Pong)


def test_slow_single_octets_are_a_frame_time_out() -> None:
    """RW-FRAME-5: octets that arrive meanwhile do not extend the time."""
    with serving(frame_ms=200) as server, RawClient(server.port) as raw:
        frame = iter(encode(Unknown(0x8021, bytes(60_000))))
        raw.socket.settimeout(0.01)
        while True:
            with contextlib.suppress(TimeoutError):
                ended = raw.frame()
                assert isinstance(ended, Goaway)
                assert ended.code == Code.TIMEOUT
                break
            raw.send(bytes([next(frame)]))


@pytest.mark.parametrize("cut", [1, 15, 16, 20])
def test_disconnect_within_a_frame(cut: int) -> None:
    """RW-CLOSE-6, RW-CLOSE-7"""
    with serving() as server, RawClient(server.port, name="bob") as bob:
        bob.join("hall")
        with RawClient(server.port) as ada:
            ref = ada.join("hall").room
            ada.send(encode(ada.publish(ref))[:cut])
        kinds = [bob.expect(Presence).kind for _ in range(2)]
        assert kinds == [PresenceKind.JOINED, PresenceKind.LOST]
        assert bob.join("other").members == 1


def test_length_over_the_limit_is_refused_at_once() -> None:
    """RW-FRAME-1, RW-FRAME-2"""
    with serving() as server:
        with RawClient(server.port, hello=False) as raw:
            raw.send(PREFACE, (4097).to_bytes(4, "big") + bytes.fromhex("0001 0000 00000001 00000000"))
            assert len(raw.octets(8)) == 8
            assert raw.goaway().code == Code.FRAME_TOO_LARGE
        with RawClient(server.port) as raw:
            raw.send(b"\xff\xff\xff\xff" + bytes.fromhex("0020 0000 00000001 00000001"))
            assert raw.goaway().code == Code.FRAME_TOO_LARGE


def test_endless_join_and_leave_is_limited() -> None:
    """RW-LIMIT-1"""
    with serving(join_burst=5, join_rate=1) as server, RawClient(server.port) as raw:
        for _ in range(5):
            raw.send(Leave(request=raw.request(), room=raw.join("hall").room))
            raw.expect(Ok)
        raw.send(Join("hall", 0, 0, request=99))
        error = raw.expect(Error)
        assert error.code == Code.RATE_LIMITED
        assert error.flags & Flag.RETRY
        assert error.retry_ms > 0
        assert server.run(lambda: not server.state.rooms)


@pytest.mark.parametrize("what", ["publish", "join", "history"])
def test_reconnecting_renews_no_rate(what: str) -> None:
    """RW-LIMIT-3"""
    limits: dict[str, Any] = UNLIMITED | {f"{what}_burst": 3, f"{what}_rate": 1, "room_rate": 10**6}
    with serving(local_limits=True, **limits) as server:
        accepted, begun = 0, time.monotonic()
        for number in range(10):
            with RawClient(server.port) as ada:
                room = ada.join("hall").room if what != "join" else 0
                if what == "publish":
                    ada.send(ada.publish(room))
                elif what == "history":
                    ada.send(ada.history(room))
                else:
                    ada.send(Join(f"room {number}", 0, 0, request=ada.request()))
                answer = ada.expect(Ack | HistoryEnd | Joined | Error)  # type: ignore[arg-type]
                if isinstance(answer, Error):
                    assert answer.code == Code.RATE_LIMITED
                else:
                    accepted += 1
            server.until(lambda: not server.hub.peers)
        assert accepted <= 3 + time.monotonic() - begun


def test_connection_beyond_the_cap_is_refused_with_a_reason() -> None:
    """RW-CONN-3"""
    with serving(max_connections=1) as server:
        with RawClient(server.port), RawClient(server.port, hello=False) as second:
            second.send(PREFACE, Hello("bob", "ANONYMOUS", b"", request=1))
            assert len(second.octets(8)) == 8
            error = second.expect(Error)
            assert (error.code, error.retry_ms > 0) == (Code.SERVER_FULL, True)
            assert second.goaway().code == Code.SERVER_FULL
        server.until(lambda: not server.hub.peers)
        RawClient(server.port).socket.close()


def test_refused_connections_take_no_place() -> None:
    """RW-CLOSE-7: they take neither the place of a client that leaves, nor more than a few descriptors."""
    with serving(max_connections=1) as server:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(RawClient(server.port))
            silent = [stack.enter_context(RawClient(server.port, hello=False)) for _ in range(100)]
            waiting = [raw.socket for raw in silent]
            while len(waiting) > REFUSED_AT_ONCE:
                ended, _, _ = select.select(waiting, [], [], PATIENCE)
                assert ended
                waiting = [raw for raw in waiting if raw not in ended]
            assert server.run(lambda: server.listener.open) == 1 + REFUSED_AT_ONCE
            first.socket.close()
            server.until(lambda: server.listener.open == REFUSED_AT_ONCE)
            stack.enter_context(RawClient(server.port, name="bob")).join("hall")
        server.until(lambda: server.listener.open == 0)


class Nowhere:
    """The link of a peer whose network takes nothing."""

    closed = False

    def write(self, octets: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def waiting(self) -> int:
        return 0

    def close(self) -> None:
        self.closed = True


def test_one_address_takes_no_place_from_others() -> None:
    """RW-CONN-3: its connections beyond its cap do not count for the cap of all, and are closed."""
    with serving(max_connections=10, address_connections=2) as server:

        def accept(address: str, count: int) -> list[Peer]:
            return [server.hub.accept(Nowhere(), address) for _ in range(count)]

        many = server.run(lambda: accept("192.0.2.1", 100))
        assert [peer.full for peer in many] == [False] * 2 + [True] * 98
        assert [peer.gone for peer in many] == [False] * (2 + REFUSED_AT_ONCE) + [True] * (98 - REFUSED_AT_ONCE)
        others = server.run(lambda: [accept(f"192.0.2.{number}", 1)[0] for number in range(2, 11)])
        assert [peer.full for peer in others] == [False] * 8 + [True]

        def leave() -> None:
            for peer in (*many, *others):
                peer.lost(server.state.now)

        server.run(leave)
        assert server.run(lambda: server.hub.accept(Nowhere(), "192.0.2.1").full) is False


def test_sockets_that_are_still_closing_count() -> None:
    """A client that takes nothing keeps its descriptor for the linger time, and counts until then."""
    with serving(max_connections=1, linger_ms=60_000, preface_ms=60_000) as server, contextlib.ExitStack() as stack:
        for _ in range(server.listener.most):
            lazy = stack.enter_context(RawClient(server.port, buffer=4 * KIB))
            peer = peer_of(server, lazy)

            def end(peer: Peer = peer) -> None:
                peer.write_stream(bytes(8 * 2**20))
                peer.write_out(server.state.now)
                peer.lost(server.state.now)

            server.run(end)
        assert server.run(lambda: (len(server.hub.peers), server.listener.open)) == (0, server.listener.most)
        late = stack.enter_context(RawClient(server.port, hello=False))
        with contextlib.suppress(ConnectionResetError):
            assert late.octets(1) == b""
        stack.close()
        server.until(lambda: server.listener.open == 0)
        RawClient(server.port).socket.close()


def test_connection_accepted_just_before_the_drain_is_refused() -> None:
    """RW-DRAIN-6"""
    with serving() as server:
        server.run(lambda: setattr(server.state, "draining", True))
        with RawClient(server.port, hello=False) as late:
            late.send(PREFACE, Hello("ada", "ANONYMOUS", b"", request=1))
            assert len(late.octets(8)) == 8
            assert late.expect(Error).code == Code.SERVER_FULL
            assert late.goaway().code == Code.SERVER_FULL


@pytest.mark.parametrize("iterations", range(4))
def test_drain_loses_no_connection_that_was_accepted(iterations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio gives a connection to the server one iteration after it accepted it, and forgets it if that is closed."""
    open_when_given: list[bool] = []
    give = BaseSelectorEventLoop._accept_connection2  # type: ignore[attr-defined]

    async def spy(loop: Any, factory: Any, sock: Any, extra: Any, tls: Any, listening: Any, *rest: Any) -> None:
        open_when_given.append(bool(listening.sockets))
        await give(loop, factory, sock, extra, tls, listening, *rest)

    monkeypatch.setattr(BaseSelectorEventLoop, "_accept_connection2", spy)
    with serving() as server, RawClient(server.port), socket.socket() as client:

        def drain_after(left: int) -> None:
            if left:
                server.loop.call_soon(drain_after, left - 1)
            else:
                server.listener.drain()

        def connect() -> None:
            client.connect(("127.0.0.1", server.port))
            drain_after(iterations)

        open_when_given.clear()
        server.run(connect)
        with contextlib.suppress(ConnectionResetError):  # not accepted
            client.sendall(PREFACE + encode(Hello("ada", "ANONYMOUS", b"", request=1)))
            assert client.recv(1)
        assert all(open_when_given)


def test_sweeps_go_on_after_a_fault() -> None:
    """After an exception in a sweep time-outs still work."""
    with serving(preface_ms=300) as server, RawClient(server.port, hello=False) as silent:

        def fault(now: float) -> None:
            server.hub.retention.sweep = sweep  # type: ignore[method-assign]
            raise ZeroDivisionError

        sweep = server.hub.retention.sweep
        server.run(lambda: setattr(server.hub.retention, "sweep", fault))
        assert silent.octets(1) == b""
        assert server.faults
        assert "ZeroDivisionError" in server.faults.pop()


def test_sweeps_do_not_overlap() -> None:
    """Otherwise a slow server would run more and more sweeps at once."""
    with serving(linger_ms=80) as server:  # a sweep every 20 ms
        hub, loop = server.hub, server.loop
        begun, through = [0], [False]

        def sweep() -> Iterator[None]:
            begun[0] += 1
            while not through[0]:
                yield

        server.run(lambda: setattr(hub, "sweep", sweep))
        server.until(lambda: begun[0] == 1)
        later = loop.time() + 0.2
        server.until(lambda: loop.time() > later)
        assert begun == [1]
        through[0] = True
        server.until(lambda: begun[0] > 1)


def test_ping_flood_of_a_client_that_does_not_read() -> None:
    """RW-PING-4"""
    with serving() as server, RawClient(server.port, buffer=4 * KIB) as flooder, RawClient(server.port) as other:
        flooder.socket.setblocking(False)
        pings = encode(Ping(bytes(8))) * 1000
        peer = peer_of(server, flooder)
        sent = 0
        while server.run(lambda: peer.writable):
            with contextlib.suppress(BlockingIOError):
                sent += flooder.socket.send(pings[sent % 24 :])
        other.send(Ping(bytes(8)))
        other.expect(Pong)
        assert server.run(lambda: held_for(peer)) < 2 * HIGH_WATER
        flooder.socket.settimeout(20)
        # A writer has to read meanwhile (RW-HEARTBEAT-4): the server reads no more until its answers are taken.
        rest = (pings[sent % 24 : 24] if sent % 24 else b"", Ping(b"the last"))
        writer = threading.Thread(target=flooder.send, args=rest)
        writer.start()
        flooder.expect(Pong, lambda pong: pong.opaque == b"the last")
        writer.join()


def test_ended_server_leaves_no_socket_with_unread_octets() -> None:
    with contextlib.ExitStack() as stack:
        with serving() as server:
            flooder = stack.enter_context(RawClient(server.port, buffer=4 * KIB))
            flooder.socket.setblocking(False)
            peer = peer_of(server, flooder)
            while server.run(lambda: peer.writable):
                with contextlib.suppress(BlockingIOError):
                    flooder.socket.send(encode(Ping(bytes(8))) * 1000)
        assert server.listener.open == 0


@pytest.mark.parametrize("what", ["publish", "history", "ping"])
def test_flood_fills_the_network_and_not_our_memory(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RW-REQUEST-6, RW-CLOSE-7: a client that ignores the window fills its own side of the network."""
    most = 0
    feed = FrameReader.feed

    def measured(reader: FrameReader, data: bytes) -> None:
        nonlocal most
        feed(reader, data)
        most = max(most, reader.buffered)

    limits: dict[str, Any] = UNLIMITED | {"history_rate": 50}
    with serving(data=str(tmp_path), window=8, **limits) as server, RawClient(server.port) as flooder:
        ref = flooder.join("hall").room
        if what == "publish":
            frames = [encode(flooder.publish(ref, bytes(100))) for _ in range(10_000)]
        elif what == "history":
            frames = [encode(flooder.history(ref)) for _ in range(30_000)]
        else:
            frames = [encode(Ping(bytes(8)))] * 60_000
        monkeypatch.setattr(FrameReader, "feed", measured)
        writer = threading.Thread(target=flooder.send, args=(b"".join(frames), Ping(b"the last")))
        writer.start()
        while not isinstance(found := flooder._next(), Pong) or found.opaque != b"the last":
            pass
        writer.join()
    assert 0 < most < 2 * READ_AT_ONCE
