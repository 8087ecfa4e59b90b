"""Checks of SECURITY.md that no frame shows: what an attack costs the server, and what the server keeps of it."""

import gc
import io
import logging
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.codec import decode, encode
from protocol.errors import RemoteProtocolError
from protocol.events import ConnectionTerminated
from protocol.frames import Ack, Error, Goaway, Hello, HistoryEnd, Join, Joined, Leave, Ping, Pong, Presence, Welcome
from protocol.framing import FrameReader
from protocol.registry import LIMITS, Code, PresenceKind
from protocol.server import ServerConnection, ServerTimes
from reference_server import logs
from reference_server.accounts import AccountsFile
from reference_server.core.hub import Hub
from tests.support.accounts import Login
from tests.support.garbage import garbage
from tests.support.raw_client import PREFACE, RawClient
from tests.support.server_in_process import KIB, UNLIMITED, HeldStore, serving

HELLO = encode(Hello("ada", "ANONYMOUS", b"", request=1))


def peak(action: Callable[[], object]) -> int:
    """The most octets that the action has allocated at one time."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def calls(action: Callable[[], object]) -> int:
    """How many functions the action calls. Unlike time, this does not depend on how busy the machine is."""
    count = 0

    def called(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


# --- framing


@pytest.mark.parametrize("welcomed", [False, True])
def test_greatest_length_takes_no_memory(welcomed: bool) -> None:
    """Check 1, RW-FRAME-1: the 1 MiB that follows is not kept, neither before WELCOME nor after."""
    conn = ServerConnection(0.0, ServerTimes(5, 10, 30, 2))
    list(conn.receive_data(PREFACE + (HELLO if welcomed else b""), 0.0))
    if welcomed:
        conn.welcome(Welcome(1, "ada", 0, 2**24, 30_000, 0, 32, 8, b"", fields=(), flags=0, request=1))
    portion = bytes(KIB)
    ended: list[object] = []

    def attack() -> None:
        for octets in (b"\xff" * 4 + bytes.fromhex("0020 0000 00000001 00000001"), *[portion] * KIB):
            ended.extend(conn.receive_data(octets, 0.0))

    assert peak(attack) < 64 * KIB
    assert [event.code for event in ended if isinstance(event, ConnectionTerminated)] == [Code.FRAME_TOO_LARGE]


def test_count_takes_no_memory_for_missing_items() -> None:
    """Check 12, RW-FRAME-7: the protocol's only count is in ROSTER."""
    header = bytes.fromhex("0012 0010 00000000 00000005")
    body = b"\xff\xff" + (bytes(8) + b"\x00\x03ada") * 3
    reader = FrameReader(LIMITS["max_body"].high)
    reader.feed(len(body).to_bytes(4, "big") + header + body)
    raw = reader.next_frame()
    assert raw is not None

    def read() -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            decode(raw, "S")
        assert caught.value.code == Code.MALFORMED

    read()  # fills caches
    assert peak(read) < 64 * KIB
    assert calls(read) < 200


def test_nothing_is_compressed() -> None:
    """Check 23, RW-TLS-3: 10,000 equal octets arrive as 10,000 octets."""
    with serving(**UNLIMITED) as server, RawClient(server.port) as ada:
        ada.send(ada.publish(ada.join("hall").room, bytes(10_000)))
        came = b""
        while bytes(10_000) not in came:
            came += ada.socket.recv(1 << 16)


# --- time


def test_silent_member_is_lost_once() -> None:
    """Check 16, RW-HEARTBEAT-2, RW-PRESENCE-3: the server notices a peer that is gone, and tells the others once."""
    with (
        serving(heartbeat_ms=1000, linger_ms=50) as server,
        RawClient(server.port) as silent,
        RawClient(server.port, name="bob") as bob,
    ):
        bob.join("hall")
        silent.join("hall")
        heard: list[Presence] = []
        while not any(presence.kind == PresenceKind.LOST for presence in heard):
            bob.send(Ping(b"I live.."))
            bob.expect(Pong)
            heard += [frame for frame in bob.unread if isinstance(frame, Presence)]
            bob.unread.clear()
        server.until(lambda: len(server.hub.peers) == 1)
        bob.send(Ping(b"the last"))
        bob.expect(Pong, lambda pong: pong.opaque == b"the last")
        heard += [frame for frame in bob.unread if isinstance(frame, Presence)]
    member = silent.welcome.member
    assert [presence.kind for presence in heard if presence.member == member] == [
        PresenceKind.JOINED,
        PresenceKind.LOST,
    ]


# --- floods


def test_closed_connections_leave_nothing() -> None:
    """Check 19: no object, also none for the garbage collector. The same goes for connections that broke a rule."""

    def visit(port: int) -> None:
        with RawClient(port) as ada:
            room = ada.join("hall").room
            for _ in range(3):
                ada.send(ada.history(room))
                ada.expect(HistoryEnd)
            ada.send(b"\xff" * 16)
            ada.expect(Goaway)

    with serving(**UNLIMITED) as server:
        for _ in range(5):
            visit(server.port)
        server.until(lambda: not server.listener.open)
        with garbage() as found:
            before = _counted()
            for _ in range(30):
                visit(server.port)
            server.until(lambda: not server.listener.open)
            left = found()
            more = _counted() - before
        assert server.run(lambda: (server.state.rooms, server.hub.peers, server.state.unsettled)) == ({}, set(), set())
    assert not {name for name in left if "ransport" in name or name in ("Peer", "ServerConnection")}, left
    assert not {name: count for name, count in more.items() if count >= 30}, more


def _counted() -> Counter[str]:
    return Counter(type(each).__module__ + "." + type(each).__name__ for each in gc.get_objects())


def test_names_of_empty_rooms_are_forgotten() -> None:
    """Check 24, RW-JOIN-3: any number of names, a few at a time."""
    with serving(max_rooms=8, **UNLIMITED, room_rate=10**6) as server, RawClient(server.port) as ada:

        def kept() -> tuple[int, int, int]:
            store: Any = server.state.store
            return len(server.state.rooms), len(store._logs), server.state.store.rooms()

        for number in range(300):
            room = ada.join(f"room {number}").room
            ada.send(Leave(request=ada.request(), room=room))
        ada.send(Ping(bytes(8)))
        ada.expect(Pong)
        assert server.run(kept) == (0, 0, 0)
        for number in range(8):
            ada.join(f"room {number}")
        ada.send(Join("one more", 0, 0, request=99))
        assert ada.expect(Error).code == Code.TOO_MANY_ROOMS


# --- data


def test_numbers_of_a_peer_are_no_keys() -> None:
    """Check 26: a peer that chooses keys can choose collisions. Looks at all objects while publishes are pending."""
    numbers = {0xBEEF0001 + at * 0x1000 for at in range(20)}
    far = {(2**61 - 1) * at for at in range(1, 8)}  # all have the hash 0
    with serving(HeldStore, **UNLIMITED, room_rate=10**6) as server, RawClient(server.port) as ada:
        room = ada.join("hall").room
        for number, epoch in zip(sorted(numbers), [*far] * 3, strict=False):
            ada.send(Join(f"room {number}", epoch, 2**52 + number, request=number))
            ada.expect(Joined, lambda joined, number=number: joined.request == number)  # type: ignore[misc]
        for number in sorted(numbers):
            publish = ada.publish(room)
            ada.send(encode(publish)[:8] + number.to_bytes(4, "big") + encode(publish)[12:])
        ada.send(ada.publish(min(numbers)))
        server.until(lambda: bool(server.state.unsettled))

        def keys() -> set[int]:
            return {key for key in _keys(server.hub) if isinstance(key, int)}

        found = server.run(keys)
        assert not found & (numbers | far), found
        assert room in found  # the key of a membership: the walk reaches such keys
        store: Any = server.state.store
        server.run(lambda: setattr(store, "hold_commits", False))
        server.run(lambda: [store.held.pop(0)() for _ in range(len(store.held))])
        ada.expect(Ack)


def _keys(start: Hub) -> list[object]:
    """The keys of all dicts and the members of all sets that can be reached."""
    seen: set[int] = set()
    waiting: list[object] = [start]
    keys: list[object] = []
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, type | type(gc) | type(_keys)):
            continue
        seen.add(id(each))
        if isinstance(each, dict | set | frozenset):
            keys += list(each)
        waiting += gc.get_referents(each)
    return keys


def test_secrets_are_not_logged(tmp_path: Path) -> None:
    """Check 28: neither a password, nor anything of the SCRAM exchange."""
    file = AccountsFile(tmp_path / "accounts.sqlite3")
    file.add("ada", "correct horse battery", created_ms=0, iterations=4096)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonFormatter())
    logger = logging.getLogger("roomwire")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with serving(accounts=str(file.path)) as server:
            for password in ("correct horse battery", "wrong horse battery"):
                with Login(server.port, "ada", password):
                    pass
            server.until(lambda: not server.hub.peers)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    text = stream.getvalue()
    assert "client connected" in text
    assert "AUTH_FAILED" in text
    for secret in ("horse", "r=", "p=", "v=", "s="):
        assert secret not in text
