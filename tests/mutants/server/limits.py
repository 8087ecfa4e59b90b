"""Server mutants about members that lag, limits and timers (SPEC.md, 8.3, 8.4, 9.4, 15)."""

from dataclasses import replace
from typing import Any

import pytest

from protocol.frames import (
    Error,
    Evicted,
)
from protocol.registry import (
    Code,
)
from protocol.server import ServerConnection
from reference_server.core.limits import AddressBook, Spent
from reference_server.core.room import Room
from reference_server.net.transport import PeerProtocol
from reference_server.store.memory import MemoryLog
from tests.mutants.server.changes import changes, recoded
from tests.mutants.servers import ServerMutant


def _slow_reader_blocks_all(patch: pytest.MonkeyPatch) -> None:
    held: set[PeerProtocol] = set()
    pause, resume, write = PeerProtocol.pause_writing, PeerProtocol.resume_writing, PeerProtocol.write

    def pausing(protocol: PeerProtocol) -> None:
        held.add(protocol)
        pause(protocol)

    def resuming(protocol: PeerProtocol) -> None:
        held.discard(protocol)
        resume(protocol)

    def writing(protocol: PeerProtocol, octets: bytes) -> None:
        if all(slow._acceptor is not protocol._acceptor for slow in held):
            write(protocol, octets)

    patch.setattr(PeerProtocol, "pause_writing", pausing)
    patch.setattr(PeerProtocol, "resume_writing", resuming)
    patch.setattr(PeerProtocol, "write", writing)


def _lagged_member_not_evicted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Room, "evict", lambda room, member, *args, **more: setattr(member, "cursor", room.log.oldest - 1))


def _unread_messages_retained(patch: pytest.MonkeyPatch) -> None:
    """Trims a log only when all of its messages were sent to all members."""
    retain, attach = MemoryLog.retain, Room.attach
    rooms: dict[object, Room] = {}

    def attaching(room: Room, *given: Any, **more: Any) -> Any:
        rooms[room.log] = room
        return attach(room, *given, **more)

    def retaining(log: MemoryLog, now_ms: int) -> None:
        cursors = [member.cursor for member in rooms[log].members.values()] if log in rooms else []
        if min(cursors, default=log.head) == log.head:
            retain(log, now_ms)

    patch.setattr(Room, "attach", attaching)
    patch.setattr(MemoryLog, "retain", retaining)


def _heartbeat_counts_unread_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServerConnection, "pause_reading", lambda conn: None)
    patch.setattr(ServerConnection, "resume_reading", lambda conn, now: None)


def _rate_per_connection(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AddressBook, "take_over", lambda book, address: Spent())


MUTANTS: tuple[ServerMutant, ...] = (
    # 8.3 Handshake, 8.4 Heartbeat
    ServerMutant(
        "server-full-other-code",
        "Answers AUTH_FAILED where SERVER_FULL is due.",
        ("RW-CONN-3",),
        sends=recoded({Code.SERVER_FULL: Code.AUTH_FAILED}),
    ),
    ServerMutant(
        "heartbeat-counts-unread-time",
        "Counts time in which it does not read towards the heartbeat.",
        ("RW-HEARTBEAT-3",),
        patch=_heartbeat_counts_unread_time,
    ),
    # 9.4 Members that lag
    ServerMutant(
        "slow-reader-blocks-all",
        "Writes to no connection while one does not read.",
        ("RW-LAG-1",),
        patch=_slow_reader_blocks_all,
    ),
    ServerMutant(
        "stall-timeout-none", "Keeps connections that read nothing.", ("RW-LAG-2",), config={"stall_ms": 10**9}
    ),
    ServerMutant(
        "lagged-member-not-evicted",
        "Skips trimmed messages in place of EVICTED.",
        ("RW-LAG-3",),
        patch=_lagged_member_not_evicted,
    ),
    ServerMutant(
        "lagged-other-code",
        "Sends EVICTED(ROOM_CLOSED) where LAGGED is due.",
        ("RW-LAG-3",),
        sends=changes(Evicted, lambda f: replace(f, code=Code.ROOM_CLOSED)),
    ),
    ServerMutant(
        "unread-messages-retained",
        "Retains messages that a member has not read.",
        ("RW-LAG-7",),
        patch=_unread_messages_retained,
    ),
    # 15 Limits and timers
    ServerMutant(
        "rate-limit-without-retry-ms",
        "Sends ERROR with a retry_ms of 0.",
        ("RW-LIMIT-1",),
        sends=changes(Error, lambda f: replace(f, retry_ms=0)),
    ),
    ServerMutant(
        "limits-other-code",
        "Answers UNAVAILABLE where RATE_LIMITED is due.",
        ("RW-LIMIT-1", "RW-ORDER-1"),
        sends=recoded({Code.RATE_LIMITED: Code.UNAVAILABLE}),
    ),
    ServerMutant(
        "rate-per-connection",
        "Forgets the rates that an address has used when its connection ends.",
        ("RW-LIMIT-3",),
        patch=_rate_per_connection,
    ),
)
