"""Odd servers whose frames, names and numbers are unusual."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from conformance.wire.octets import read_header
from protocol.codec import encode
from protocol.errors import NameInvalid, RemoteProtocolError, Unexpected, UnknownType
from protocol.events import ConnectionTerminated, ServerEvent
from protocol.frames import RULES, Error, Field, Frame, Goaway, Message, Pong, Roster, RosterEntry, Unknown
from protocol.framing import RawFrame, check_header, frame_name
from protocol.names import normalise
from protocol.registry import GREASE, HEADER_SIZE, Flag, is_ignorable
from protocol.server import ServerConnection
from protocol.state import SERVER_ACCEPTS, SERVER_REFUSES
from reference_server.core.room import Room
from reference_server.core.state import ServerState
from reference_server.store.base import epoch_of
from tests.mutants.odd.servers import OddServer
from tests.mutants.servers import MutantConnection, Sent

_random = random.Random(7)
_FLOOD = 500  # PONGs of a connection, beyond which one in eight has reserved fields: more would only take time


def _only_ascii(patch: pytest.MonkeyPatch) -> None:
    def ascii_name(text: str) -> str:
        if not text.isascii():
            raise NameInvalid("a name of ASCII only")
        return normalise(text)

    for module in ("hello", "join"):
        patch.setattr(f"reference_server.core.handlers.{module}.normalise", ascii_name)


def _reserved_field() -> Field:
    return Field(_random.choice(GREASE), _random.randbytes(_random.randrange(6)))


def _reserved_frame(room: int = 0) -> Unknown:
    return Unknown(_random.choice(GREASE), _random.randbytes(_random.randrange(40)), room=room)


def _greased(c: MutantConnection, sent: Sent) -> list[Sent]:
    """Adds reserved fields to each frame, and a frame of reserved type before it: a MESSAGE has it in its room."""
    assert isinstance(sent, Frame)
    c.notes["pongs"] = c.notes.get("pongs", 0) + isinstance(sent, Pong)
    if isinstance(sent, Pong) and c.notes["pongs"] > _FLOOD and c.notes["pongs"] % 8:
        return [sent]
    fields = [_reserved_field()]
    for field in sent.fields:
        fields += [field, _reserved_field()]
    greased = replace(sent, fields=tuple(fields))
    if len(encode(greased)) > HEADER_SIZE + c.conn._reader.max_body:
        greased = sent
    if isinstance(sent, Goaway) and c.notes.get("refused"):
        return [greased]  # it follows its ERROR directly
    c.notes["refused"] = isinstance(sent, Error) and not c.conn.heartbeat
    return [_reserved_frame(sent.room if isinstance(sent, Message) and not sent.request else 0), greased]


def _fails_early(patch: pytest.MonkeyPatch) -> None:
    """Answers what is wrong with state, type or header before the body is there (section 6.2)."""
    events = ServerConnection.events

    def eager(conn: ServerConnection) -> Iterator[ServerEvent]:
        yield from events(conn)
        reader = conn._reader
        if conn._may_read() and not conn.unread and reader.buffered >= HEADER_SIZE:
            header = read_header(reader._buffer[reader._start :])
            try:
                _check(conn, RawFrame(header.type, header.flags, header.request, header.room, b""))
            except RemoteProtocolError as error:
                conn._fail(error, conn._now)
                yield ConnectionTerminated(error.code, False, str(error))

    patch.setattr(ServerConnection, "events", eager)


def _check(conn: ServerConnection, raw: RawFrame) -> None:
    accepted = SERVER_ACCEPTS.get(conn.state)
    if accepted is not None:
        if raw.type in accepted or raw.request or not is_ignorable(raw.type):
            conn._check_handshake(raw, accepted)
    elif raw.type in SERVER_REFUSES[conn.state]:
        raise Unexpected(frame_name(raw.type), expected="no handshake after WELCOME")
    if raw.type in RULES and raw.type not in conn._foreign:
        check_header(raw)
    elif not raw.request and not is_ignorable(raw.type):
        raise UnknownType(frame_name(raw.type), expected="a type that servers receive")


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
    OddServer("reserved-everywhere", "Sends reserved fields and frames wherever it may.", sends=_greased),
    OddServer("fails-early", "Answers what is wrong with a header before the body.", patch=_fails_early),
    OddServer("high-bits", "Sets the highest bit in refs, members and epochs.", patch=_high_bits),
    OddServer("roster-of-one", "Sends a roster with one entry a frame.", patch=_roster_of_one_entry_a_frame),
)
