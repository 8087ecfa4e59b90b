"""The frames that the items of a "send" stand for, and what may be answered to each."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import cast

from conformance.fuzz.failure import Content, fail
from conformance.fuzz.server.model import CAPACITY, Fate, Model, Room
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
"""Names of rooms, and others that mean the same (SPEC.md, section 12)."""

_PUBLISHES = frozenset(
    [
        "text",
        "empty",
        "octets",
        "ctype",
        "relayed",
        "field",
        "large",
        "ordered",
        "repeat",
        "repeat-old",
        "repeat-ordered",
        "conflict",
        "conflict-field",
        "bad-text",
        "too-large",
        "expired",
        "ahead",
        "ordered-bad-text",
        "flags",
    ]
)
DROPPABLE = _PUBLISHES | {"ping", "pong", "unknown"}
"""Items that may be on their way when a connection is dropped: whether they arrived shows later, or not at all."""

_FOREIGN_FLAGS = 0x0FCE
_FLOOD_MESSAGE = 48 * 1024  # octets
_FLOOD_AT_ONCE = 4  # messages, so that those who read are not left behind


class Requests:
    """Makes the frames of one script. `fresh` makes names of rooms its own, `random` chooses ids and octets.

    A flood has more than `buffers` octets; with 0 there is none.
    """

    def __init__(self, model: Model, random: Random, fresh: str, now: Callable[[], float], buffers: int) -> None:
        self.buffers = buffers
        self.model = model
        self.random = random
        self.fresh = fresh
        self._now = now
        self._count = 0

    def name(self, room: int, spelling: int = 0) -> str:
        """A name of a room."""
        spellings = SPELLINGS[room % len(SPELLINGS)]
        if self.model.ascii_only:
            spellings = tuple(name for name in spellings if name.isascii()) or ("cafe",)
        return f"{self.fresh} {spellings[spelling % len(spellings)]} {room // len(SPELLINGS)}"

    def new_id(self, end: RawClient, off_ms: int = 0) -> bytes:
        """An id of the server's clock, or one that is off."""
        assert end.welcome
        now = end.welcome.now_ms + int((self._now() - end.welcomed) * 1000) + off_ms
        return max(0, now).to_bytes(6, "big") + self.random.randbytes(10)

    def make(self, end: RawClient, step: Step, item: str) -> bytes:
        """The octets of an item, with its reply expected; b"" for one that makes no sense now."""
        room = self.model.room(step.room)
        if item.startswith("join"):
            return self._join(end, room, step, item)
        if item in _PUBLISHES:
            return self._publish(end, room, step, item)
        if item == "flood":
            return self._flood(end, room, step)
        if item.startswith("history"):
            return self._history(end, room, step, item)
        match item:
            case "leave":
                ref = room.ref or 0x6000_0000
                request = end.next_request()
                self.model_visit(end, "IN" if end in room.members else "", "send LEAVE")
                if ref in end.streams:
                    end.leaving.add(ref)
                end.ask(request, lambda reply: self._left(end, ref, reply))
                return end.note(Leave(request=request, room=ref))
            case "ping":
                return end.ping(self.random.randbytes(8))
            case "pong":
                return end.note(Pong(self.random.randbytes(8)))
            case "unknown":
                type = self.random.choice([*GREASE[:40], 0xF000, 0xFFFF, 0x8100])
                flags = self.random.getrandbits(15) if type not in GREASE else 0
                return end.note(Unknown(type, self.random.randbytes(self.random.randrange(20)), flags, 0, step.number))
        request = end.next_request()
        asked = Unknown(self.random.choice([0x0109, 0x7ABC, *GREASE[:9]]), b"", 0, request, room.ref)
        end.ask(request, lambda reply: expect_error(reply, asked.room, Code.UNKNOWN_REQUEST, "RW-TYPE-1"))
        return end.note(asked)

    def model_visit(self, end: RawClient, state: str, event: str) -> None:
        """Counts a transition of a membership."""
        if state:
            end.stats.visit("membership", state, event)

    # --- joining, leaving

    def _join(self, end: RawClient, room: Room, step: Step, item: str) -> bytes:
        epoch, seq = end.cursors.get(room.number, (0, 0))
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
        request = end.next_request()
        name = self.name(room.number, step.number)
        end.stats.visit("membership", "OUT", "send JOIN")
        end.ask(request, lambda reply: self._joined(end, room, reply, name, cursor, step.roster))
        flags = Flag.ROSTER if step.roster else 0
        return end.note(Join(name, *cursor, flags=flags, request=request))

    def _joined(
        self, end: RawClient, room: Room, reply: Frame, name: str, cursor: tuple[int, int], roster: bool
    ) -> None:
        assert end.welcome
        refused = isinstance(reply, Error) and reply.code == Code.NAME_INVALID
        if refused and not name.isascii() and self.model.ascii_only is not False:
            self.model.ascii_only = True  # RW-NAME-6
        elif end in room.members:
            expect_error(reply, room.ref, Code.ALREADY_JOINED, "RW-JOIN-1")
        elif len(end.streams) >= end.welcome.max_rooms:
            expect_error(reply, 0, Code.TOO_MANY_ROOMS, "RW-JOIN-2")
            end.stats.visit("membership", "JOINING", "ERROR")
        elif isinstance(reply, Joined):
            if not name.isascii():
                self.model.ascii_only = False
            stream = self.model.joined(end, room, reply, name, cursor, roster=roster)
            end.streams[reply.room] = stream
            end.cursors[room.number] = (reply.epoch, reply.start - 1)
            end.stats.visit("membership", "JOINING", "JOINED")
        elif isinstance(reply, Error) and reply.code in CAPACITY:
            expect_room(reply, 0)
            self.model.tolerate(reply.code)
            end.stats.visit("membership", "JOINING", "ERROR")
        elif isinstance(reply, Error) and reply.code == Code.NO_SUCH_ROOM and not room.epoch:
            expect_room(reply, 0)
            self.model.tolerate(reply.code)
        else:
            fail("RW-CURSOR-1", f"JOINED for {name!r}", frame_line(reply))

    def _left(self, end: RawClient, ref: int, reply: Frame) -> None:
        stream = end.streams.get(ref)
        if stream is None:
            expect_error(reply, ref, Code.NOT_JOINED, "RW-LEAVE-1")
            if ref in end.leaving:  # an EVICTED was under way
                end.leaving.discard(ref)
                end.stats.visit("membership", "LEAVING", "ERROR(NOT_JOINED)")
            return
        if not isinstance(reply, Ok):
            fail("RW-REQUEST-2", "OK", frame_line(reply))
        expect_room(reply, ref)
        del end.streams[ref]
        end.leaving.discard(ref)
        end.stats.visit("membership", "LEAVING", "OK")
        self.model.gone(end, stream.room, PresenceKind.LEFT, seen=True)

    # --- publishing

    def _publish(self, end: RawClient, room: Room, step: Step, item: str) -> bytes:
        assert end.welcome
        if not room.ref:
            return b""
        made = self._content(end, room, step, item)
        if made is None:
            return b""
        id, content, extra = made
        flags = Flag.ORDERED if "ordered" in item else 0
        if item == "flags":
            flags |= _FOREIGN_FLAGS & ~RULES[FrameType.PUBLISH].flags
        request = end.next_request()
        fields = tuple(Field(*pair) for pair in content.fields)
        if extra:
            at = self.random.randrange(len(fields) + 1)
            fields = (*fields[:at], extra, *fields[at:])
        publish = Publish(
            id, content.ctype, content.payload, fields=fields, flags=flags, request=request, room=room.ref
        )
        fate = room.fates.get(id)
        counted = content.size <= end.welcome.max_body - CONTENT_RESERVE and not (
            content.ctype == 0 and not content.is_text
        )
        if counted and fate is None and item not in ("expired", "ahead"):
            fate = room.fates[id] = Fate(content)
        if fate and fate.content == content and counted:
            fate.sent += 1
        mine = fate if fate and fate.content == content and counted else None
        end.ask(request, lambda reply: self._published(end, room, publish, mine, item, reply), lambda: _lost(mine))
        return end.note(publish)

    def _flood(self, end: RawClient, room: Room, step: Step) -> bytes:
        """A few large messages, of the many that no transport holds."""
        assert end.welcome
        size = min(end.welcome.max_body - CONTENT_RESERVE, _FLOOD_MESSAGE)
        if not room.ref or room.ref not in end.streams:
            return b""
        count = min(_FLOOD_AT_ONCE, self.buffers // size)
        return b"".join(self._publish(end, room, step, "flood-one") for _ in range(count))

    def floods(self, end: RawClient) -> int:
        """How many times "flood" makes more than all transports hold together."""
        assert end.welcome
        size = min(end.welcome.max_body - CONTENT_RESERVE, _FLOOD_MESSAGE)
        return -(-self.buffers // (size * _FLOOD_AT_ONCE))

    def _content(self, end: RawClient, room: Room, step: Step, item: str) -> tuple[bytes, Content, Field | None] | None:
        """Id, content, and a field that is not relayed."""
        assert end.welcome
        self._count += 1
        text = f"{self._count} {end.label}".encode()
        random = self.random
        plain = item.removeprefix("ordered-")
        if item.startswith(("repeat", "conflict")):
            return self._again(room, step, item)
        off = {"expired": -(self.model.dedupe_ms + 120_000), "ahead": 180_000}.get(item, 0)
        id = self.new_id(end, off)
        if off and int.from_bytes(id[:6], "big") == 0:
            return None  # the clock does not reach back so far
        most = end.welcome.max_body - CONTENT_RESERVE
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
        }.get(plain, Content(0, text))
        return id, content, Field(random.choice(GREASE), text) if item == "field" else None

    def _again(self, room: Room, step: Step, item: str) -> tuple[bytes, Content, Field | None] | None:
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
        extra = Field(self.random.choice(GREASE), b"again") if self.random.random() < 0.3 else None
        return id, content, extra

    def _published(
        self, end: RawClient, room: Room, publish: Publish, mine: Fate | None, item: str, reply: Frame
    ) -> None:
        assert end.welcome
        if mine:
            mine.sent -= 1
        stream, content, line = end.streams.get(publish.room), Content.of(publish), frame_line(reply)
        if stream is None:
            expect_error(reply, publish.room, Code.NOT_JOINED, "RW-LEAVE-1")
            return
        if not isinstance(reply, (Ack, Error)):
            fail("RW-REQUEST-2", "ACK or ERROR", line)
        expect_room(reply, publish.room)
        fate = room.fates.get(publish.id)
        wanted: Code | None = None
        rule = ""
        maybe: set[Code] = set()
        dedupe = end.welcome.dedupe_ms
        known = fate is not None and fate.acked and dedupe > 0
        if content.size > end.welcome.max_body - CONTENT_RESERVE:
            wanted, rule = Code.PAYLOAD_TOO_LARGE, "RW-PUBLISH-1"
        elif content.ctype == 0 and not content.is_text:
            wanted, rule = Code.PAYLOAD_INVALID, "RW-PUBLISH-2"
        elif known and fate and fate.content != content:
            wanted, rule = Code.ID_CONFLICT, "RW-DEDUPE-2"
        elif known:
            if self._age_ms(end, publish) > dedupe - 2_000:
                maybe = {Code.ID_EXPIRED}
        elif item in ("expired", "ahead") and dedupe > 0 and (fate is None or not fate.unknown):
            wanted, rule = Code.ID_EXPIRED, "RW-ID-2"
        elif publish.flags & Flag.ORDERED and stream.refused:
            if fate and fate.unknown:
                maybe = {Code.PRECEDED, *CAPACITY}
            else:
                wanted, rule = Code.PRECEDED, "RW-ORDER-1"
        else:
            maybe = {Code.RATE_LIMITED, Code.UNAVAILABLE}
        if wanted is not None:
            expect_error(reply, publish.room, wanted, rule)
            if item in ("expired", "ahead"):
                room.fates.pop(publish.id, None)
        elif isinstance(reply, Error) and reply.code not in maybe:
            expected = "ACK with DUPLICATE" if known else "ACK"
            fail("RW-DEDUPE-1" if known else _rule_of(reply, publish), expected, line)
        if isinstance(reply, Error):
            if reply.code in CAPACITY:
                self.model.tolerate(reply.code)
            self.model.refused(stream, publish)
        else:
            room.fates.setdefault(publish.id, Fate(content))
            self.model.acknowledged(stream, publish, reply)

    def _age_ms(self, end: RawClient, publish: Publish) -> int:
        now = int.from_bytes(self.new_id(end)[:6], "big")
        return now - int.from_bytes(publish.id[:6], "big")

    # --- history

    def _history(self, end: RawClient, room: Room, step: Step, item: str) -> bytes:
        if not room.ref or "history" not in end.invariants.offered or not end.extended:
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
        request, ref = end.next_request(), room.ref
        asked = (start, stop, limit, newest)
        end.ask(request, lambda reply: self._told(end, ref, asked, reply))
        flags = Flag.NEWEST if newest else 0
        return end.note(History(start, stop, limit, flags=flags, request=request, room=ref))

    def _told(self, end: RawClient, ref: int, asked: tuple[int, int, int, bool], reply: Frame) -> None:
        stream = end.streams.get(ref)
        if asked[1] and asked[1] < asked[0]:
            expect_error(reply, ref, Code.RANGE_INVALID, "RW-HISTORY-4")
        elif stream is None:
            expect_error(reply, ref, Code.NOT_JOINED, "RW-LEAVE-1")
        elif isinstance(reply, HistoryEnd):
            expect_room(reply, ref)
            self.model.history(stream.room, asked, reply, end.due[0].messages)
        elif isinstance(reply, Error) and reply.code in (Code.UNAVAILABLE, Code.RATE_LIMITED):
            self.model.tolerate(reply.code)
        else:
            fail("RW-HISTORY-2", "HISTORY_END", frame_line(reply))


def _lost(fate: Fate | None) -> None:
    if fate:
        fate.sent -= 1
        fate.unknown += 1


def _rule_of(reply: Error, publish: Publish) -> str:
    """The requirement that a refusal of a good publish breaks."""
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


def expect_error(reply: Frame, room: int, code: Code, requirement: str) -> None:
    """Raises Failed unless the reply is ERROR with this code about this room."""
    if not isinstance(reply, Error) or reply.code != code:
        fail(requirement, f"ERROR({code.name})", frame_line(reply))
    expect_room(reply, room)


def expect_room(reply: Frame, room: int) -> None:
    """Raises Failed unless the reply is about this room."""
    if reply.room != room:
        fail("RW-ERROR-4", f"room {room} in the reply", frame_line(reply))


def normal(text: str) -> str:
    """A name in the form in which a server sends it."""
    return unicodedata.normalize("NFC", text)
