"""Odd servers whose frames, names and numbers are unusual."""

from typing import Any

import pytest

from protocol.codec import encode
from protocol.errors import NameInvalid
from protocol.frames import Roster, RosterEntry
from protocol.names import normalise
from protocol.registry import Flag
from reference_server.core.room import Room
from reference_server.core.state import ServerState
from reference_server.store.base import epoch_of
from tests.mutants.odd.servers import OddServer


def _only_ascii(patch: pytest.MonkeyPatch) -> None:
    def ascii_name(text: str) -> str:
        if not text.isascii():
            raise NameInvalid("a name of ASCII only")
        return normalise(text)

    for module in ("hello", "join"):
        patch.setattr(f"reference_server.core.handlers.{module}.normalise", ascii_name)


def _high_bits(patch: pytest.MonkeyPatch) -> None:
    init, member = ServerState.__init__, ServerState.new_member

    def starting(state: ServerState, *given: Any) -> None:
        init(state, *given)
        state._next_ref = 2**32 - 10_000

    patch.setattr(ServerState, "__init__", starting)
    patch.setattr(ServerState, "new_member", lambda state: member(state) | 1 << 63)
    for store in ("memory", "sqlite"):
        patch.setattr(f"reference_server.store.{store}.epoch_of", lambda *given: epoch_of(*given) | 1 << 63)


def _roster_of_one_entry_a_frame(patch: pytest.MonkeyPatch) -> None:
    def roster(room: Room) -> bytes:
        octets = b""
        for at, peer in enumerate(room.members):
            entry = RosterEntry(peer.member, Flag.VERIFIED if peer.account else 0, peer.name)
            flags = (0 if at else Flag.RESET) | (Flag.MORE if at + 1 < len(room.members) else 0)
            octets += encode(Roster((entry,), flags=flags, room=room.ref))
        return octets

    patch.setattr(Room, "roster", roster)


ODD: tuple[OddServer, ...] = (
    OddServer("names-of-ascii", "Accepts names of ASCII only.", patch=_only_ascii, declared=frozenset({"ascii-names"})),
    OddServer("high-bits", "Sets the highest bit in refs, members and epochs.", patch=_high_bits),
    OddServer("roster-of-one", "Sends a roster with one entry a frame.", patch=_roster_of_one_entry_a_frame),
)
