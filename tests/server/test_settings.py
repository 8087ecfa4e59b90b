"""Requirements of SPEC.md that show only with an operator's settings or a failing store, over real sockets."""

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from protocol.frames import Ack, Error, Evicted, Goaway, Hello, Leave, Ok, Presence, Roster
from protocol.registry import PREFACE_SIZE, Code, Flag, PresenceKind
from reference_server.core.peer import Peer
from tests.support.raw_client import PREFACE, RawClient
from tests.support.server_in_process import HeldStore, serving

UNLIMITED: dict[str, Any] = {"publish_rate": 10**6, "publish_burst": 10**6, "join_rate": 10**6, "join_burst": 10**6}
UNLIMITED["room_rate"] = 10**6


def test_failed_store_is_answered_with_goaway_only() -> None:
    """RW-PROMISE-7: the outcome of the publish is unknown."""
    with serving(HeldStore, linger_ms=1) as server, RawClient(server.port) as ada:
        ada.send(ada.publish(ada.join("hall").room))
        server.until(lambda: bool(server.state.unsettled))
        server.run(lambda: server.hub.fail(OSError("the disk is gone")))
        (goaway,) = [frame for frame in ada.rest() if not isinstance(frame, Presence)]
        assert isinstance(goaway, Goaway)
        assert (goaway.code, goaway.flags) == (Code.INTERNAL, Flag.RETRY)


def test_connection_beyond_max_connections_gets_a_retry_time() -> None:
    """RW-CONN-3"""
    with (
        serving(max_connections=1, linger_ms=1) as server,
        RawClient(server.port),
        RawClient(server.port, hello=False) as late,
    ):
        late.send(PREFACE, Hello("bob", "ANONYMOUS", b"", request=1))
        assert late.octets(PREFACE_SIZE)
        error, goaway = late.expect(Error), late.expect(Goaway)
        assert (error.code, error.flags, goaway.code) == (Code.SERVER_FULL, Flag.RETRY, Code.SERVER_FULL)
        assert error.retry_ms > 0
        assert late.frame() is None


@pytest.mark.parametrize("durable", [False, True])
def test_rooms_without_messages_leave_nothing(durable: bool, tmp_path: Path) -> None:
    """RW-JOIN-3"""
    settings = {**UNLIMITED, "data": str(tmp_path)} if durable else UNLIMITED
    with serving(**settings) as server, RawClient(server.port) as ada:
        before = server.run(server.store.rooms)
        for number in range(100):
            ada.send(Leave(request=ada.request(), room=ada.join(f"room {number}").room))
            ada.expect(Ok)
        server.until(lambda: not server.state.rooms)
        assert server.run(server.store.rooms) == before == 0


def test_ids_per_room_limits_publishes_and_forgets_none() -> None:
    """RW-DEDUPE-6"""
    with serving(ids_per_room=2) as server, RawClient(server.port) as ada:
        ref = ada.join("hall").room
        first, second, third = (ada.publish(ref, b"%d" % number) for number in range(3))
        ada.send(first, second, third)
        assert [ada.expect(Ack).seq, ada.expect(Ack).seq] == [1, 2]
        error = ada.expect(Error)
        assert (error.code, error.request) == (Code.RATE_LIMITED, third.request)
        assert error.retry_ms > 0
        ada.send(ada.publish(ref, b"0", id=first.id))
        ack = ada.expect(Ack)
        assert (ack.seq, ack.flags) == (1, Flag.DUPLICATE)


def test_room_stays_quiet_until_it_is_empty() -> None:
    """RW-QUIET-1, RW-QUIET-2"""
    with serving(quiet_members=2) as server, RawClient(server.port) as ada:
        with RawClient(server.port, name="bob") as bob:
            assert not (ada.join("hall").flags | bob.join("hall").flags) & Flag.QUIET
            assert ada.expect(Presence).kind == PresenceKind.JOINED
            with RawClient(server.port, name="eve") as eve:
                assert eve.join("hall").flags & Flag.QUIET
            assert ada.expect(Presence).kind == PresenceKind.QUIET
        server.until(lambda: len(server.state.rooms["hall"].members) == 1)
        with RawClient(server.port, name="bob") as bob:
            quiet = bob.join("hall", flags=Flag.ROSTER)
            assert quiet.flags & Flag.QUIET
            for member in (bob, ada):
                member.send(Leave(request=member.request(), room=quiet.room))
                member.expect(Ok)
            assert not [frame for frame in (*bob.unread, *ada.unread) if isinstance(frame, (Presence, Roster))]
            assert not bob.join("hall").flags & Flag.QUIET


def test_member_that_reads_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """RW-LAG-2: with SLOW, which this member does not read."""
    said: list[tuple[str, int]] = []
    say = Peer.goaway

    def goaway(peer: Peer, code: Code, *arguments: Any, **options: Any) -> None:
        said.append((peer.name, code))
        say(peer, code, *arguments, **options)

    monkeypatch.setattr(Peer, "goaway", goaway)
    with serving(**UNLIMITED, stall_ms=1, linger_ms=1) as server, RawClient(server.port, name="bob") as bob:
        with RawClient(server.port, name="lazy", buffer=4096) as lazy:
            ref = lazy.join("hall").room
            bob.join("hall")
            for _ in range(20_000):
                if server.run(lambda: len(server.hub.peers)) == 1:
                    break
                bob.send(bob.publish(ref, bytes(32 * 1024)))
                bob.expect(Ack)
                bob.messages(1)
        assert said == [("lazy", Code.SLOW)]
        assert not [frame for frame in bob.unread if isinstance(frame, (Goaway, Evicted))]


def test_server_listens_on_loopback_by_default() -> None:
    """RW-TLS-2: other hosts cannot reach it."""
    with serving() as server:
        assert server.listener._server is not None
        addresses = [listening.getsockname()[0] for listening in server.listener._server.sockets]
    assert addresses
    assert all(ip_address(address).is_loopback for address in addresses)
