"""Clients that do not read, and slow stores: what waits, how much of it, and in which order it arrives."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from protocol.frames import (
    Ack,
    Error,
    Evicted,
    Goaway,
    History,
    HistoryEnd,
    Join,
    Joined,
    Leave,
    Message,
    Ok,
    Ping,
    Pong,
    Presence,
    Publish,
    Roster,
    Unknown,
)
from protocol.registry import Code, Flag, PresenceKind
from reference_server.config import Config
from reference_server.net.listener import Listener
from reference_server.net.transport import HIGH_WATER
from reference_server.store.base import Retention
from reference_server.store.memory import MemoryStore
from tests.support import virtual_time
from tests.support.raw_client import RawClient
from tests.support.server_in_process import KIB, UNLIMITED, HeldStore, block, fill, held_for, peer_of, serving


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings for a server with each store."""
    return {} if request.param == "memory" else {"data": str(tmp_path)}


@pytest.mark.parametrize("newest", [0, Flag.NEWEST])
def test_history_is_made_at_the_pace_of_its_reader(store: dict[str, Any], newest: int) -> None:
    """RW-LAG-1, RW-REQUEST-6: many HISTORY at once from a client that does not read take the memory of one reply."""
    with serving(**store, **UNLIMITED) as server:
        fill(server, "hall", 80, 16 * KIB)
        with RawClient(server.port, buffer=4 * KIB) as greedy, RawClient(server.port) as other:
            ref = greedy.join("hall").room
            asked = [greedy.history(ref, flags=newest) for _ in range(100)]
            greedy.send(*asked)
            peer = peer_of(server, greedy)
            server.until(lambda: not peer.writable)
            for _ in range(100):  # while others are served nothing is added
                other.send(Ping(bytes(8)))
                other.expect(Pong)
            assert server.run(lambda: held_for(peer)) < HIGH_WATER + 2 * 2**20
            for history in asked:
                assert greedy.expect(HistoryEnd).request == history.request
                greedy.unread.clear()


def test_request_after_history_is_answered_after_it(store: dict[str, Any]) -> None:
    """RW-REQUEST-3"""
    with serving(**store, **UNLIMITED) as server:
        fill(server, "hall", 40, 32 * KIB)
        with RawClient(server.port, buffer=4 * KIB) as raw:
            ref = raw.join("hall").room
            publish = raw.publish(ref)
            first, second = raw.history(ref), raw.history(ref, flags=Flag.NEWEST, limit=1)
            raw.send(first, publish, second, Leave(request=99, room=ref))
            assert raw.expect(HistoryEnd).request == first.request
            assert raw.expect(Ack).request == publish.request
            assert raw.expect(HistoryEnd).request == second.request
            assert raw.expect(Ok).request == 99


def test_catching_up_in_many_rooms_takes_bounded_memory(store: dict[str, Any]) -> None:
    """RW-LAG-1: a client that does not read is not handed a portion of each of its rooms at once."""
    rooms = 60
    with serving(**store, **UNLIMITED) as server:
        for number in range(rooms):
            fill(server, f"room {number}", 10, 16 * KIB)
        with RawClient(server.port, buffer=4 * KIB) as lazy, RawClient(server.port) as other:
            for number in range(rooms):
                lazy.join(f"room {number}")
            peer = peer_of(server, lazy)

            def begin_again() -> None:
                for member in peer.memberships.values():
                    member.cursor = 0
                    server.state.room_changed(member.room)

            server.run(begin_again)
            server.until(lambda: not peer.writable)
            for _ in range(200):
                other.send(Ping(bytes(8)))
                other.expect(Pong)
            assert server.run(lambda: held_for(peer)) < HIGH_WATER + 2**20
            lazy.messages(10 * rooms)


def test_evicted_member_receives_no_more_of_the_room() -> None:
    """RW-LEAVE-2: after EVICTED neither PRESENCE nor the owed roster is sent."""
    with (
        serving(**UNLIMITED, retention_messages=1, retention_octets=1) as server,
        RawClient(server.port, buffer=4 * KIB) as lazy,
        RawClient(server.port, name="bob") as bob,
    ):
        ref = lazy.join("hall", flags=Flag.ROSTER).room
        bob.join("hall")
        block(server, lazy, bob, ref)
        peer = peer_of(server, lazy)
        for _ in range(64):  # more than the room keeps encoded
            bob.send(bob.publish(ref, bytes(32 * KIB)))
            bob.expect(Ack)
            bob.messages(1)
        room = server.state.rooms["hall"]
        server.run(lambda: room.log.trim(room.log.head))
        with RawClient(server.port, name="eve") as eve:
            eve.join("hall")
            server.until(lambda: peer.memberships[ref].roster_stale)
            assert lazy.expect(Evicted).code == Code.LAGGED
            lazy.unread.clear()
            lazy.send(Ping(b"01234567"))
            lazy.expect(Pong)
            assert [frame for frame in lazy.unread if frame.room == ref] == []


def test_quiet_reaches_a_member_that_did_not_read() -> None:
    """RW-QUIET-1: a member that was blocked while the room became quiet is told later."""
    with (
        serving(**UNLIMITED, quiet_members=2) as server,
        RawClient(server.port, buffer=4 * KIB) as lazy,
        RawClient(server.port, name="bob") as bob,
    ):
        ref = lazy.join("hall", flags=Flag.ROSTER).room
        bob.join("hall")
        block(server, lazy, bob, ref)
        with RawClient(server.port, name="eve") as eve:
            assert eve.join("hall").flags & Flag.QUIET
            bob.expect(Presence, lambda presence: presence.kind == PresenceKind.QUIET)
            lazy.expect(Presence, lambda presence: presence.kind == PresenceKind.QUIET)
            lazy.unread.clear()
            lazy.send(Ping(b"01234567"))
            lazy.expect(Pong)
            assert not [frame for frame in lazy.unread if isinstance(frame, Presence | Roster)]


def test_member_that_did_not_read_gets_a_new_roster() -> None:
    """RW-ROSTER-3"""
    with (
        serving(**UNLIMITED) as server,
        RawClient(server.port, buffer=4 * KIB) as lazy,
        RawClient(server.port, name="bob") as bob,
    ):
        ref = lazy.join("hall", flags=Flag.ROSTER).room
        assert [entry.name for entry in lazy.expect(Roster).entries] == ["ada"]
        bob.join("hall")
        block(server, lazy, bob, ref)
        with RawClient(server.port, name="eve") as eve:
            eve.join("hall")
            bob.expect(Presence, lambda presence: presence.name == "eve")
            assert [entry.name for entry in lazy.expect(Roster).entries] == ["ada", "bob", "eve"]


def test_slow_reader_is_closed_and_delays_no_other_client() -> None:
    """RW-LAG-1, RW-LAG-2"""
    with serving(**UNLIMITED, stall_ms=100, linger_ms=100) as server, RawClient(server.port, name="bob") as bob:
        ref = bob.join("hall").room
        with RawClient(server.port, buffer=4 * KIB) as lazy:
            lazy.join("hall")
            block(server, lazy, bob, ref)
            lost = bob.expect(Presence, lambda presence: presence.kind == PresenceKind.LOST)
            assert lost.member == lazy.welcome.member
            server.until(lambda: server.listener.open == 1)


def test_linger_time_of_a_connection_that_was_read_to_its_end() -> None:
    """It passes without effect: asyncio cannot abort a transport that is lost."""

    async def main() -> list[dict[str, Any]]:
        faults: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        listener = Listener(Config(port=0, memory=True, linger_ms=1000), lambda *_: MemoryStore(Retention()))
        reader, writer = await asyncio.open_connection(*await listener.start())
        while not listener.hub.peers:
            await asyncio.sleep(0)
        [peer] = listener.hub.peers
        peer.write_stream(bytes(2**20))
        peer.write_out(listener.hub.state.now)
        peer.lost(listener.hub.state.now)
        assert listener.closing
        assert len(await reader.read()) >= 2**20
        await asyncio.sleep(2)
        writer.close()
        listener.cut()
        return faults

    assert virtual_time.run(main()) == []


def test_reader_that_takes_a_little_is_not_slow() -> None:
    """RW-LAG-2: also if more is added for it meanwhile than it takes."""
    with serving(**UNLIMITED, stall_ms=1000) as server, RawClient(server.port, name="bob") as bob:
        ref = bob.join("hall").room
        with RawClient(server.port, buffer=4 * KIB) as lazy:
            lazy.join("hall")
            block(server, lazy, bob, ref)
            peer = peer_of(server, lazy)

            class Taking:
                """The link of a peer that has taken 1,000 octets."""

                def __init__(self) -> None:
                    self.inner = peer.link
                    self.taken = 0

                def __getattr__(self, name: str) -> Any:
                    return getattr(self.inner, name)

                def waiting(self) -> int:
                    return self.inner.waiting() - self.taken

            link = Taking()

            def progress() -> bool:
                before = peer._blocked_since
                peer.write_stream(bytes.fromhex("00000000 8021 0000 00000000 00000000") * 4096)
                peer.write_out(server.state.now)
                link.taken = 1000
                peer.sweep(server.state.now)
                return peer._blocked_since != before

            peer.link = link
            assert server.run(progress)
            peer.link = link.inner


def test_publish_that_outlives_its_room_reaches_a_later_member() -> None:
    """RW-CURSOR-2: the room is unloaded and loaded again between a publish and its commit."""
    with serving(HeldStore) as server, RawClient(server.port) as ada, RawClient(server.port, name="bob") as bob:
        store = server.store
        assert isinstance(store, HeldStore)
        ref = ada.join("hall").room
        ada.send(ada.publish(ref, b"famous last words"))
        ada.socket.close()
        server.until(lambda: bool(store.held) and not server.state.rooms)
        joined = bob.join("hall")
        assert (joined.head, joined.start) == (0, 1)
        server.run(lambda: store.held.pop()())
        (message,) = bob.messages(1)
        assert (message.seq, message.payload) == (1, b"famous last words")


def test_acks_are_written_as_soon_as_they_are_due() -> None:
    """RW-PROMISE-12: also while a later publish is pending."""
    with serving(HeldStore, **UNLIMITED) as server, RawClient(server.port) as ada:
        store = server.store
        assert isinstance(store, HeldStore)
        ref = ada.join("hall").room
        for count in (1, 2):
            ada.send(ada.publish(ref))
            server.until(lambda count=count: len(store.held) == count)  # type: ignore[misc]
        peer = peer_of(server, ada)
        member = server.run(lambda: peer.memberships[ref])
        member.reading = True  # as if it were catching up, so that no stream is written

        def commit() -> bool:
            store.held.pop(0)()
            server.hub.flush()
            return peer.conn.has_data_to_send

        assert not server.run(commit)
        assert ada.expect(Ack).seq == 1
        member.reading = False
        server.run(lambda: store.held.pop(0)())
        assert ada.expect(Ack).seq == 2


@pytest.mark.parametrize("limit", ["create_rooms", "nothing"])
def test_racing_joins_make_a_room_only_if_allowed(limit: str) -> None:
    """RW-CHECK-1: NO_SUCH_ROOM applies to both."""
    allowed = limit == "nothing"
    with serving(HeldStore, create_rooms=allowed) as server:
        store = server.store
        assert isinstance(store, HeldStore)
        store.hold_opens = True
        with RawClient(server.port) as ada, RawClient(server.port, name="bob") as bob:
            ada.send(Join("hall", 0, 0, request=2))
            server.until(lambda: len(store.opening) == 1)
            bob.send(Join("HALL", 0, 0, request=2))
            server.until(lambda: len(store.opening) == 2)
            server.run(store.end_opens)
            if allowed:
                assert {ada.expect(Joined).members, bob.expect(Joined).members} == {1, 2}
            else:
                assert (ada.expect(Error).code, bob.expect(Error).code) == (Code.NO_SUCH_ROOM, Code.NO_SUCH_ROOM)
                assert server.run(lambda: not server.state.rooms)


def test_owed_replies_come_before_the_answer_to_goaway(store: dict[str, Any]) -> None:
    """RW-CLOSE-3: all requests before GOAWAY are answered as if it had not come."""
    with serving(**store, **UNLIMITED) as server, RawClient(server.port) as ada:
        ref = ada.join("hall").room
        ada.send(
            ada.publish(ref),
            ada.history(ref),
            ada.publish(ref),
            Join("other", 0, 0, request=90),
            ada.history(ref),
            ada.publish(ref),
            Goaway(Code.NONE),
        )
        replies = [frame for frame in ada.rest() if not isinstance(frame, Message)]
        kinds = [type(frame) for frame in replies if frame.request or isinstance(frame, Goaway)]
        assert kinds == [Ack, HistoryEnd, Ack, Joined, HistoryEnd, Ack, Goaway]
        assert replies[-1].code == Code.NONE  # type: ignore[union-attr]
        server.until(lambda: not server.state.rooms and not server.hub.peers)


def test_client_after_goaway_leaves_its_rooms_once(store: dict[str, Any]) -> None:
    """RW-PRESENCE-3"""
    with serving(**store, **UNLIMITED) as server, RawClient(server.port, name="bob") as bob:
        bob.join("hall")
        with RawClient(server.port) as ada:
            ref = ada.join("hall").room
            ada.send(ada.history(ref), ada.publish(ref), Goaway(Code.NONE))
            assert ada.goaway().code == Code.NONE
        kinds = [bob.expect(Presence).kind for _ in range(2)]
        assert kinds == [PresenceKind.JOINED, PresenceKind.LEFT]
        server.until(lambda: len(server.hub.peers) == 1)
        bob.send(Ping(bytes(8)))
        bob.expect(Pong)
        assert not [frame for frame in bob.unread if isinstance(frame, Presence)]


def test_client_after_a_protocol_error_joins_no_room() -> None:
    """Requests that waited behind a JOIN when the connection failed are dropped: no member appears that is gone."""
    with serving(HeldStore, **UNLIMITED) as server, RawClient(server.port, name="bob") as bob:
        store = server.store
        assert isinstance(store, HeldStore)
        bob.join("hall")
        store.hold_opens = True
        with RawClient(server.port) as ada:
            ada.send(
                Join("slow", 0, 0, request=2), Join("hall", 0, 0, request=3), Unknown(0x7FFF), b"anything that follows"
            )
            assert ada.goaway_code() == Code.UNKNOWN_TYPE
            server.run(store.end_opens)
            store.hold_opens = False
            with RawClient(server.port, name="eve") as eve:
                eve.join("hall")
                assert bob.expect(Presence).name == "eve"


def test_requests_beyond_the_window_are_answered_in_order(store: dict[str, Any]) -> None:
    """RW-REQUEST-2, RW-REQUEST-3, RW-REQUEST-6"""
    with serving(**store, **UNLIMITED, window=3) as server, RawClient(server.port) as raw:
        ref = raw.join("hall").room
        asked: list[Publish | History] = []
        for _ in range(50):
            asked += [raw.publish(ref), raw.history(ref, limit=2), raw.publish(ref + 7), raw.publish(ref)]
        raw.send(*asked, Ping(b"the last"))
        raw.expect(Pong)
        final = [frame.request for frame in raw.unread if isinstance(frame, Ack | Error | HistoryEnd)]
        assert final == [frame.request for frame in asked]
        opened = 0  # RW-REQUEST-4
        for frame in raw.unread:
            if frame.request:
                assert opened in (0, frame.request)
                opened = frame.request if isinstance(frame, Message) else 0


def test_reused_request_numbers_are_answered_each_time(store: dict[str, Any]) -> None:
    with serving(**store, **UNLIMITED) as server, RawClient(server.port) as raw:
        raw.send(*(Join(f"room {number}", 0, 0, request=5) for number in range(10)))
        assert len({raw.expect(Joined).room for _ in range(10)}) == 10
        assert not [frame for frame in raw.unread if frame.request]


def test_refs_of_left_rooms_are_stale(store: dict[str, Any]) -> None:
    """RW-LEAVE-1, RW-MODEL-7"""
    with serving(**store, **UNLIMITED) as server, RawClient(server.port) as raw:
        old = raw.join("hall").room
        raw.send(
            Leave(request=50, room=old), Join("hall", 0, 0, request=51), raw.publish(old), Leave(request=52, room=old)
        )
        assert raw.expect(Ok).request == 50
        assert raw.expect(Joined).room != old
        assert [raw.expect(Error).code for _ in range(2)] == [Code.NOT_JOINED] * 2


def test_newest_history_of_many_small_portions() -> None:
    """A page may take many portions, and reading them is not recursive."""
    with serving(**UNLIMITED, history_octets=1, history_messages=1000) as server, RawClient(server.port) as raw:
        ref = raw.join("hall").room
        for _ in range(40):
            raw.send(*(raw.publish(ref) for _ in range(25)))
            for _ in range(25):
                raw.expect(Ack)
        raw.send(raw.history(ref, flags=Flag.NEWEST))
        assert raw.expect(HistoryEnd).start == 1000
