"""The step "send": the frames that its items stand for, and what may be answered to each."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, cast

from conformance.fuzz.failure import Content, fail
from conformance.fuzz.server.model import CAPACITY, Fate, Room, Stream
from conformance.fuzz.server.player import Player, step
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.steps import Step
from conformance.wire.text import frame_line
from protocol.frames import (
    RULES,
    Ack,
    Error,
    Field,
    Frame,
    History,
    HistoryEnd,
    Join,
    Joined,
    Leave,
    Ok,
    Pong,
    Publish,
    Unknown,
)
from protocol.registry import CONTENT_RESERVE, GREASE, Code, Flag, FrameType, PresenceKind

SPELLINGS: Sequence[tuple[str, ...]] = (
    ("lobby", "LOBBY", "Lobby"),
    ("stra\u00dfe", "STRASSE", "Strasse"),
    ("caf\u00e9", "cafe\u0301", "CAF\u00c9"),
    ("\ufb01sh 1", "FISH \u2460", "fish 1"),
)
"""Names of rooms, each with others that mean the same (SPEC.md, section 12)."""

_PUBLISHES = (
    "text", "empty", "octets", "ctype", "relayed", "field", "large", "ordered", "repeat", "repeat-old",
    "repeat-ordered", "conflict", "conflict-field", "bad-text", "too-large", "expired", "ahead", "ordered-bad-text",
    "flags",
)  # fmt: skip
DROPPABLE = frozenset({*_PUBLISHES, "ping", "pong", "unknown"})
"""Items that may be on their way when a connection is dropped: whether they arrived shows later, or not at all."""

_FOREIGN_FLAGS = 0x0FCE
_FLOOD_MESSAGE = 48 * 1024  # octets
_FLOOD_AT_ONCE = 4  # messages, so few that members that read are not left behind

Make: TypeAlias = Callable[[Player, RawClient, Room, Step, str], bytes]
_MAKERS: dict[str, Make] = {}


def _item(*names: str) -> Callable[[Make], Make]:
    """Registers a function that makes the octets of items, and has their replies expected."""

    def register(make: Make) -> Make:
        _MAKERS.update(dict.fromkeys(names, make))
        return make

    return register


# --- the step


@step("send")
def send(player: Player, step: Step) -> None:
    """The client sends `items`, in `cut` pieces, and a PING behind them."""
    client = player.reader(step)
    if client is not None:
        send_items(player, client, step, step.items)
        if client.open:
            player.fence(client)


def send_items(player: Player, client: RawClient, step: Step, items: Sequence[str]) -> None:
    """Sends items in one segment, and all of a flood, of which each part is read before the next one. Raises Failed."""
    if not client.open:
        return
    octets = frames(player, client, step, items)
    if octets:
        client.write(octets, step.cut)
    for _ in range(_floods(player, client) if octets and "flood" in items else 0):
        player.fence(client)
        player.settle()  # RW-LAG-1: members that read get everything meanwhile
        if client.open:
            client.write(frames(player, client, step, ["flood"]))


def frames(player: Player, client: RawClient, step: Step, items: Iterable[str]) -> bytes:
    """Returns the octets of items, without those that make no sense now, and has their replies expected."""
    room = player.model.room(step.room)
    return b"".join(_MAKERS[item](player, client, room, step, item) for item in items)


# --- what may be sent at any time


@_item("ping")
def _ping(player: Player, client: RawClient, room: Room, step: Step, item: str) -> bytes:
    return client.ping(player.random.randbytes(8))


@_item("pong")
def _pong(player: Player, client: RawClient, room: Room, step: Step, item: str) -> bytes:
    return client.note(Pong(player.random.randbytes(8)))


@_item("unknown")
def _unknown(player: Player, client: RawClient, room: Room, step: Step, item: str) -> bytes:
    random = player.random
    type = random.choice([*GREASE[:40], 0xF000, 0xFFFF, 0x8100])
    flags = random.getrandbits(15) if type not in GREASE else 0
    return client.note(Unknown(type, random.randbytes(random.randrange(20)), flags=flags, room=step.number))


@_item("unknown-request")
def _unknown_request(player: Player, client: RawClient, room: Room, step: Step, item: str) -> bytes:
    request = client.next_request()
    asked = Unknown(player.random.choice([0x0109, 0x7ABC, *GREASE[:9]]), b"", request=request, room=room.ref)
    client.ask(request, lambda reply: expect_error(reply, asked.room, Code.UNKNOWN_REQUEST, "RW-TYPE-1"))
    return client.note(asked)


# --- joining, leaving


@_item("join", "join-last", "join-own", "join-old", "join-ahead", "join-other-epoch")
def _join(player: Player, client: RawClient, room: Room, step: Step, item: str) -> bytes:
    epoch, seq = client.cursors.get(room.number, (0, 0))
    back = step.number
    cursor = {
        "join": (0, 0),
        "join-last": (0, back),
        "join-own": (epoch, seq if epoch else back),
        "join-old": (room.epoch, max(0, min(seq, room.head) - back)),
        "join-ahead": (room.epoch, room.head + 1 + back),
        "join-other-epoch": ((room.epoch ^ (1 << back % 60)) or 7, seq),
    }[item]
    if not cursor[0] and item not in ("join", "join-last"):
        cursor = (0, back)
    request = client.next_request()
    name = _name(player, room.number, step.number)
    player.stats.visit("membership", "OUT", "send JOIN")
    client.ask(request, partial(_joined, player, client, room, name, cursor, step.roster))
    flags = Flag.ROSTER if step.roster else 0
    return client.note(Join(name, *cursor, flags=flags, request=request))


def _name(player: Player, room: int, spelling: int) -> str:
    spellings = SPELLINGS[room % len(SPELLINGS)]
    if player.model.ascii_only:
        spellings = tuple(name for name in spellings if name.isascii()) or ("cafe",)
    return f"{player.fresh} {spellings[spelling % len(spellings)]} {room // len(SPELLINGS)}"


def _joined(
    player: Player, client: RawClient, room: Room, name: str, cursor: tuple[int, int], roster: bool, reply: Frame
) -> None:
    assert client.welcome
    model = player.model
    refused = isinstance(reply, Error) and reply.code == Code.NAME_INVALID
    if refused and not name.isascii() and model.ascii_only is not False:
        model.ascii_only = True  # RW-NAME-6
    elif client in room.members:
        expect_error(reply, room.ref, Code.ALREADY_JOINED, "RW-JOIN-1")
    elif len(client.streams) >= client.welcome.max_rooms:
        expect_error(reply, 0, Code.TOO_MANY_ROOMS, "RW-JOIN-2")
        player.stats.visit("membership", "JOINING", "ERROR")
    elif isinstance(reply, Joined):
        if not name.isascii():
            model.ascii_only = False
        stream = model.joined(client, room, reply, name, cursor, roster=roster)
        client.streams[reply.room] = stream
        client.cursors[room.number] = (reply.epoch, reply.start - 1)
        player.stats.visit("membership", "JOINING", "JOINED")
    elif isinstance(reply, Error) and reply.code in CAPACITY:
        expect_room(reply, 0)
        model.tolerate(reply.code)
        player.stats.visit("membership", "JOINING", "ERROR")
    elif isinstance(reply, Error) and reply.code == Code.NO_SUCH_ROOM and not room.epoch:
        expect_room(reply, 0)
        model.tolerate(reply.code)
    else:
        fail("RW-CURSOR-1", f"JOINED for {name!r}", frame_line(reply))


@_item("leave")
def _leave(player: Player, client: RawClient, room: Room, step: Step, item: str) -> bytes:
    ref = room.ref or 0x6000_0000
    request = client.next_request()
    if client in room.members:
        player.stats.visit("membership", "IN", "send LEAVE")
    if ref in client.streams:
        client.leaving.add(ref)
    client.ask(request, partial(_left, player, client, ref))
    return client.note(Leave(request=request, room=ref))


def _left(player: Player, client: RawClient, ref: int, reply: Frame) -> None:
    stream = client.streams.get(ref)
    if stream is None:
        expect_error(reply, ref, Code.NOT_JOINED, "RW-LEAVE-1")
        if ref in client.leaving:  # an EVICTED was under way
            client.leaving.discard(ref)
            player.stats.visit("membership", "LEAVING", "ERROR(NOT_JOINED)")
        return
    if not isinstance(reply, Ok):
        fail("RW-REQUEST-2", "OK", frame_line(reply))
    expect_room(reply, ref)
    del client.streams[ref]
    client.leaving.discard(ref)
    player.stats.visit("membership", "LEAVING", "OK")
    player.model.gone(client, stream.room, PresenceKind.LEFT, seen=True)


# --- publishing


@dataclass(frozen=True)
class _Sent:
    """A PUBLISH under way. `fate` is that of its id in the room, where this copy counts for it."""

    publish: Publish
    room: Room
    item: str
    fate: Fate | None

    def lost(self) -> None:
        """No reply will come."""
        if self.fate:
            self.fate.sent -= 1
            self.fate.unknown += 1


@_item(*_PUBLISHES, "flood-one")
def _publish(player: Player, client: RawClient, room: Room, step: Step, item: str) -> bytes:
    assert client.welcome
    if not room.ref:
        return b""
    made = _content(player, client, room, step, item)
    if made is None:
        return b""
    id, content, extra = made
    flags = Flag.ORDERED if "ordered" in item else 0
    if item == "flags":
        flags |= _FOREIGN_FLAGS & ~RULES[FrameType.PUBLISH].flags
    request = client.next_request()
    fields = tuple(Field(*pair) for pair in content.fields)
    if extra:
        at = player.random.randrange(len(fields) + 1)
        fields = (*fields[:at], extra, *fields[at:])
    publish = Publish(id, content.ctype, content.payload, fields=fields, flags=flags, request=request, room=room.ref)
    fate = room.fates.get(id)
    counted = content.size <= _most(client) and (content.ctype != 0 or content.is_text)
    if counted and fate is None and item not in ("expired", "ahead"):
        fate = room.fates[id] = Fate(content)
    mine = fate if fate and fate.content == content and counted else None
    if mine:
        mine.sent += 1
    sent = _Sent(publish, room, item, mine)
    client.ask(request, partial(_published, player, client, sent), sent.lost)
    return client.note(publish)


def _most(client: RawClient) -> int:
    """The most octets that a PUBLISH's content may have (RW-PUBLISH-1)."""
    assert client.welcome
    return client.welcome.max_body - CONTENT_RESERVE


@_item("flood")
def _flood(player: Player, client: RawClient, room: Room, step: Step, item: str) -> bytes:
    """A few large messages of the many that no transport holds."""
    size = min(_most(client), _FLOOD_MESSAGE)
    if not room.ref or room.ref not in client.streams:
        return b""
    count = min(_FLOOD_AT_ONCE, player.network.buffers // size)
    return b"".join(_publish(player, client, room, step, "flood-one") for _ in range(count))


def _floods(player: Player, client: RawClient) -> int:
    """How many times "flood" makes more than all transports hold together."""
    size = min(_most(client), _FLOOD_MESSAGE)
    return -(-player.network.buffers // (size * _FLOOD_AT_ONCE))


Made: TypeAlias = tuple[bytes, Content, Field | None]
"""Id and content of a PUBLISH, and a field that is not relayed."""


def _content(player: Player, client: RawClient, room: Room, step: Step, item: str) -> Made | None:
    player.publishes += 1
    text = f"{player.publishes} {client.label}".encode()
    random = player.random
    if item.startswith(("repeat", "conflict")):
        return _again(player, room, step, item)
    off = {"expired": -(player.model.dedupe_ms + 120_000), "ahead": 180_000}.get(item, 0)
    id = player.new_id(client, off)
    if off and int.from_bytes(id[:6], "big") == 0:
        return None  # the clock does not reach back so far
    most = _most(client)
    content = {
        "empty": Content(0, b""),
        "octets": Content(1, b"\xff\x00" + text),
        "ctype": Content(random.randint(2, 255), b"\xfe" + text),
        "relayed": Content(
            0, text, tuple((random.randrange(0xC000, 0x10000), random.randbytes(step.number % 9)) for _ in "abc")
        ),
        "large": Content(1, text + bytes(max(0, most - len(text)))),
        "flood-one": Content(1, text + bytes(max(0, min(most, _FLOOD_MESSAGE) - len(text)))),
        "bad-text": Content(0, b"\xc3\x28" + text),
        "too-large": Content(1, text + bytes(most + 1 - len(text))),
    }.get(item.removeprefix("ordered-"), Content(0, text))
    return id, content, Field(random.choice(GREASE), text) if item == "field" else None


def _again(player: Player, room: Room, step: Step, item: str) -> Made | None:
    """Something that was published before, with the same id."""
    uncertain = [id for id, fate in room.fates.items() if fate.unknown and not fate.sent]
    known = [id for id, fate in room.fates.items() if fate.acked]
    if uncertain and item.startswith("repeat"):
        return uncertain[0], room.fates[uncertain[0]].content, None
    if not known:
        return None
    id = known[0] if item == "repeat-old" else known[-1 - step.number % len(known)]
    content = room.fates[id].content
    if item == "conflict":
        content = replace(content, payload=content.payload[:-1] + b"?!"[: 1 + (content.payload[-1:] == b"?")])
    elif item == "conflict-field":
        content = replace(content, fields=(*content.fields, (0xC123, b"other")))
    extra = Field(player.random.choice(GREASE), b"again") if player.random.random() < 0.3 else None
    return id, content, extra


def _published(player: Player, client: RawClient, sent: _Sent, reply: Frame) -> None:
    publish, room = sent.publish, sent.room
    if sent.fate:
        sent.fate.sent -= 1
    stream = client.streams.get(publish.room)
    if stream is None:
        expect_error(reply, publish.room, Code.NOT_JOINED, "RW-LEAVE-1")
        return
    if not isinstance(reply, (Ack, Error)):
        fail("RW-REQUEST-2", "ACK or ERROR", frame_line(reply))
    expect_room(reply, publish.room)
    refusal = _refusal(client, sent, stream)
    tolerable = _tolerable(player, client, sent, stream) if refusal is None else set()
    if refusal is not None:
        expect_error(reply, publish.room, *refusal)
        if sent.item in ("expired", "ahead"):
            room.fates.pop(publish.id, None)
    elif isinstance(reply, Error) and reply.code not in tolerable:
        known = _is_known(client, room.fates.get(publish.id))
        expected = "ACK with DUPLICATE" if known else "ACK"
        fail("RW-DEDUPE-1" if known else _rule_of(reply, publish), expected, frame_line(reply))
    if isinstance(reply, Error):
        if reply.code in CAPACITY:
            player.model.tolerate(reply.code)
        player.model.refused(stream, publish)
    else:
        room.fates.setdefault(publish.id, Fate(Content.of(publish)))
        player.model.acknowledged(stream, publish, reply)


def _refusal(client: RawClient, sent: _Sent, stream: Stream) -> tuple[Code, str] | None:
    """The code that a PUBLISH must be refused with, and the rule that says so; None if it may succeed."""
    assert client.welcome
    publish, content = sent.publish, Content.of(sent.publish)
    fate = sent.room.fates.get(publish.id)
    if content.size > _most(client):
        return Code.PAYLOAD_TOO_LARGE, "RW-PUBLISH-1"
    if content.ctype == 0 and not content.is_text:
        return Code.PAYLOAD_INVALID, "RW-PUBLISH-2"
    if _is_known(client, fate):
        return (Code.ID_CONFLICT, "RW-DEDUPE-2") if fate and fate.content != content else None
    unknown = fate is not None and bool(fate.unknown)
    if sent.item in ("expired", "ahead") and client.welcome.dedupe_ms > 0 and not unknown:
        return Code.ID_EXPIRED, "RW-ID-2"
    if publish.flags & Flag.ORDERED and stream.refused and not unknown:
        return Code.PRECEDED, "RW-ORDER-1"
    return None


def _is_known(client: RawClient, fate: Fate | None) -> bool:
    """Whether the server has acknowledged this id, and remembers ids."""
    return fate is not None and fate.acked and client.welcome is not None and client.welcome.dedupe_ms > 0


def _tolerable(player: Player, client: RawClient, sent: _Sent, stream: Stream) -> set[Code]:
    """The codes that may refuse a PUBLISH that may succeed."""
    assert client.welcome
    if _is_known(client, sent.room.fates.get(sent.publish.id)):
        now = int.from_bytes(player.new_id(client)[:6], "big")
        age_ms = now - int.from_bytes(sent.publish.id[:6], "big")
        return {Code.ID_EXPIRED} if age_ms > client.welcome.dedupe_ms - 2_000 else set()
    if sent.publish.flags & Flag.ORDERED and stream.refused:
        return {Code.PRECEDED, *CAPACITY}
    return {Code.RATE_LIMITED, Code.UNAVAILABLE}


def _rule_of(reply: Error, publish: Publish) -> str:
    """The requirement that the refusal of a good PUBLISH breaks."""
    rules = {
        Code.PRECEDED: "RW-ORDER-1",
        Code.ID_EXPIRED: "RW-ID-2",
        Code.ID_CONFLICT: "RW-DEDUPE-1",
        Code.PAYLOAD_TOO_LARGE: "RW-PUBLISH-1",
        Code.PAYLOAD_INVALID: "RW-PUBLISH-3" if publish.ctype or not publish.payload else "RW-PUBLISH-2",
        Code.NOT_JOINED: "RW-LEAVE-1",
        Code.UNKNOWN_FIELD: "RW-FIELD-1",
    }
    return rules.get(cast(Code, reply.code), "RW-PUBLISH-3")


# --- history


@_item("history", "history-newest", "history-end", "history-empty", "history-backwards")
def _history(player: Player, client: RawClient, room: Room, step: Step, item: str) -> bytes:
    if not room.ref or "history" not in client.invariants.offered or not client.extended:
        return b""
    number = step.number
    start, stop, limit = {
        "history": (number, 0, 0),
        "history-newest": (0, 0, number % 5),
        "history-end": (number, number + 3, 2),
        "history-empty": (room.head + 5, 0, 0),
        "history-backwards": (number + 2, number + 1, 0),
    }[item]
    newest = item == "history-newest" or number % 3 == 2
    request, ref = client.next_request(), room.ref
    client.ask(request, partial(_history_told, player, client, ref, (start, stop, limit, newest)))
    flags = Flag.NEWEST if newest else 0
    return client.note(History(start, stop, limit, flags=flags, request=request, room=ref))


def _history_told(player: Player, client: RawClient, ref: int, asked: tuple[int, int, int, bool], reply: Frame) -> None:
    stream = client.streams.get(ref)
    if asked[1] and asked[1] < asked[0]:
        expect_error(reply, ref, Code.RANGE_INVALID, "RW-HISTORY-4")
    elif stream is None:
        expect_error(reply, ref, Code.NOT_JOINED, "RW-LEAVE-1")
    elif isinstance(reply, HistoryEnd):
        expect_room(reply, ref)
        player.model.history(stream.room, asked, reply, client.due[0].messages)
    elif isinstance(reply, Error) and reply.code in (Code.UNAVAILABLE, Code.RATE_LIMITED):
        player.model.tolerate(reply.code)
    else:
        fail("RW-HISTORY-2", "HISTORY_END", frame_line(reply))


# --- replies


def expect_error(reply: Frame, room: int, code: Code, requirement: str) -> None:
    """Raises Failed unless the reply is ERROR with this code about this room."""
    if not isinstance(reply, Error) or reply.code != code:
        fail(requirement, f"ERROR({code.name})", frame_line(reply))
    expect_room(reply, room)


def expect_room(reply: Frame, room: int) -> None:
    """Raises Failed unless the reply is about this room."""
    if reply.room != room:
        fail("RW-ERROR-4", f"room {room} in the reply", frame_line(reply))
