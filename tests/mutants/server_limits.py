"""Servers that break one rule about members that lag, quiet rooms, and limits (SPEC.md, 8.3, 8.4, 9.3, 9.4, 15)."""

from dataclasses import replace
from typing import Any

import pytest

from protocol.frames import (
    Ack,
    Error,
    Evicted,
    Joined,
    Pong,
    Presence,
    Unknown,
)
from protocol.registry import (
    Code,
    Flag,
    PresenceKind,
)
from protocol.server import ServerConnection
from reference_server.core.handlers import cursor
from reference_server.core.handlers import join as joiner
from reference_server.core.limits import AddressBook, Spent
from reference_server.core.room import Room
from reference_server.net.transport import PeerProtocol
from reference_server.store.memory import MemoryLog
from tests.mutants.server_changes import broken, fatal_if, of, recoded, without
from tests.mutants.servers import Alteration, Piece


def _slowest(patch: pytest.MonkeyPatch) -> None:
    """Nobody is written to while somebody does not read."""
    held: set[PeerProtocol] = set()
    pause, resume, write = PeerProtocol.pause_writing, PeerProtocol.resume_writing, PeerProtocol.write

    def pausing(protocol: PeerProtocol) -> None:
        held.add(protocol)
        pause(protocol)

    def resuming(protocol: PeerProtocol) -> None:
        held.discard(protocol)
        resume(protocol)

    def writing(protocol: PeerProtocol, octets: bytes) -> None:
        if not held:
            write(protocol, octets)

    patch.setattr(PeerProtocol, "pause_writing", pausing)
    patch.setattr(PeerProtocol, "resume_writing", resuming)
    patch.setattr(PeerProtocol, "write", writing)


def _no_eviction(patch: pytest.MonkeyPatch) -> None:
    """A member that has lagged goes on with what is there."""
    patch.setattr(Room, "evict", lambda room, member, *args, **more: setattr(member, "cursor", room.log.oldest - 1))


def _no_roster_repair(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Room, "_repair_roster", lambda room, member: setattr(member, "roster_stale", False))


def _retains_for_members(patch: pytest.MonkeyPatch) -> None:
    """Nothing is trimmed while somebody has not been sent it."""
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


def _counts_unread_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ServerConnection, "pause_reading", lambda conn: None)
    patch.setattr(ServerConnection, "resume_reading", lambda conn, now: None)


def _once_quiet(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, Joined) and said.flags & Flag.QUIET:
        if a.world.get("said quiet"):
            return [replace(said, flags=said.flags & ~Flag.QUIET)]
        a.world["said quiet"] = True
    return [said]


def _quiet_for_ever(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, Joined):
        if said.flags & Flag.QUIET:
            a.world["quiet"] = True
        if a.world.get("quiet"):
            return [replace(said, flags=said.flags | Flag.QUIET)]
    return [said]


def _loud(a: Alteration, said: Piece) -> list[Piece]:
    """Tells of somebody in a quiet room."""
    if isinstance(said, Pong) and a.notes.get("quiet"):
        return [Presence(PresenceKind.LEFT, 99, "somebody", room=a.notes["quiet"]), said]
    if isinstance(said, Presence) and said.kind == PresenceKind.QUIET:
        a.notes["quiet"] = said.room
    return [said]


def _forgets(a: Alteration, said: Piece) -> list[Piece]:
    """An id is known for as long as there are not five others."""
    if isinstance(said, Ack) and said.flags:
        a.notes["first"] = True
        return [replace(said, flags=0, seq=said.seq + 100)]
    return [said]


def _unforgiving(a: Alteration, said: Piece) -> list[Piece]:
    """Who once asked for too much is let into no room any more."""
    if isinstance(said, Error) and said.code == Code.RANGE_INVALID:
        a.notes["offended"] = True
    if isinstance(said, Joined) and a.notes.get("offended"):
        return [Error(Code.FORBIDDEN, 0, "", fields=(), flags=0, request=said.request, room=0)]
    return [said]


def _forgets_ended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AddressBook, "take_over", lambda book, address: Spent())


def _one_cap(patch: pytest.MonkeyPatch) -> None:
    formula = cursor.join_point
    patch.setattr(
        joiner,
        "join_point",
        lambda head, oldest, epoch, mine, since, cap: formula(head, oldest, epoch, mine, since, cap + 1),
    )


broken("is as slow as its slowest member", "RW-LAG-1", patch=_slowest)
broken("bears with those who do not read", "RW-LAG-2", config={"stall_ms": 10**9})
broken("skips what a member has missed", "RW-LAG-3", patch=_no_eviction)
broken("calls LAGGED something else", "RW-LAG-3", says=of(Evicted, lambda f: replace(f, code=Code.ROOM_CLOSED)))
broken("does not repair rosters", "RW-ROSTER-3", patch=_no_roster_repair)
broken(
    "does not say that a room is quiet", "RW-QUIET-1", says=without(Presence, lambda f: f.kind == PresenceKind.QUIET)
)
broken("tells of somebody in a quiet room", "RW-QUIET-1", says=_loud)
broken("says QUIET once", "RW-QUIET-2", says=_once_quiet)
broken("leaves rooms quiet for ever", "RW-QUIET-2", says=_quiet_for_ever)
broken("closes when it is full", "RW-CONN-3", says=recoded({Code.SERVER_FULL: Code.AUTH_FAILED}))
broken("forgets ids early", "RW-DEDUPE-6", "RW-DEDUPE-3", says=_forgets)
broken("calls limits something else", "RW-LIMIT-1", "RW-ORDER-1", says=recoded({Code.RATE_LIMITED: Code.UNAVAILABLE}))
broken("renews rates with each connection", "RW-LIMIT-3", patch=_forgets_ended)
broken(
    "minds unknown types while it drains",
    "RW-TYPE-1",
    "RW-TYPE-2",
    hears=fatal_if(lambda a, f: isinstance(f, Unknown) and a.conn.state == "DRAINING"),
    only=("server/8.6/unknown-types",),
)
broken(
    "never forgives a cursor out of range",
    "RW-CHECK-2",
    says=_unforgiving,
    only=("server/6.2/range-since-then-joined",),
)
broken("replays one message more", "RW-CURSOR-1", patch=_one_cap)
broken("retains what somebody has not read", "RW-LAG-7", patch=_retains_for_members)
broken("counts time in which it does not read", "RW-HEARTBEAT-3", patch=_counts_unread_time)
