"""Sections 5.2 to 5.4: frames however they are cut, too large, of the wrong shape; fields and flags."""

from collections.abc import Callable
from dataclasses import replace

from conformance.client.cases.steps import (
    CRITICAL,
    IGNORABLE,
    PING,
    add,
    case,
    goaway_octets,
    message_octets,
    refused,
)
from conformance.client.context import NOW_MS, Context, Room
from conformance.client.raw_server import SERVER_PREFACE
from conformance.wire.octets import HEADER, b8, b16, b32, encode, field, frame, u16, u32, u64
from protocol.frames import Field, Frame, Goaway, Join, Presence, Publish, Roster, RosterEntry
from protocol.registry import Code, Flag, FrameType


@case("5.2/single-octets", "RW-FRAME-4")
async def single_octets(t: Context) -> None:
    """A whole session in single octets is the same session."""
    server = await t.dialled()
    server.invariants.prefaced = True
    for octet in SERVER_PREFACE:
        server.write(bytes([octet]))
        await server.flush()
    hello = await server.wait(lambda: server.invariants.hello, "HELLO", "RW-FRAME-4")

    async def send(*frames: Frame) -> None:
        octets = b"".join(map(encode, frames))
        await server.send_cut(octets, [octets[at : at + 1] for at in range(len(octets))])

    await send(t.welcome(hello))
    await t.report("connected", requirement="RW-FRAME-4")
    room = t.room()
    id = t.client.tell("join", room=room.name)
    join = await server.expect(Join)
    messages = [room.message(bytes([n])) for n in range(3)]
    room.next = 1
    await send(t.joined(room, join), *messages)
    await t.answer(id, "joined", requirement="RW-FRAME-4")
    room.next = 4
    await t.marker(server, room, "RW-FRAME-4")
    t.require(t.seqs(room) == ["1", "2", "3", "4"], "messages 1 to 4", t.seqs(room))


@case("5.2/cut-everywhere", "RW-FRAME-4")
async def cut_everywhere(t: Context) -> None:
    """A message in two segments, cut at each of its octets in turn, is the same message."""
    server, room = await t.member()
    size = len(encode(room.again(1, b"cut")))
    for at in range(1, size):
        octets = encode(room.message(b"cut"))
        server.send_octets(octets[:at], breaks="RW-FRAME-7")
        await t.alive()
        server.write(octets[at:])
    await t.report("message", lambda report: report.get("seq") == str(size - 1), "RW-FRAME-4")
    expected = [str(seq) for seq in range(1, size)]
    t.require(t.seqs(room) == expected, f"messages 1 to {size - 1}", t.seqs(room))


@case("5.2/many-in-one", "RW-FRAME-4")
async def many_in_one(t: Context) -> None:
    """Hundreds of frames in one segment are all taken."""
    server, room = await t.member()
    server.send(*(room.message() for _ in range(300)))
    await t.marker(server, room, "RW-FRAME-4")
    t.require(t.seqs(room) == [str(n) for n in range(1, 302)], "messages 1 to 301", t.seqs(room)[-3:])


@case("5.2/end-within-a-frame", "RW-FRAME-4")
async def end_of_stream_in_a_frame(t: Context) -> None:
    """A stream that ends within a frame is the end of the connection, and nothing of the frame is shown."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send_octets(encode(room.message(b"half"))[:-1], breaks="RW-FRAME-7")
    await server.close()
    await t.report("disconnected", requirement="RW-FRAME-4")
    t.require(t.seqs(room) == ["1"], "message 1 alone", t.seqs(room))


@case("5.2/limit-before-welcome", "RW-FRAME-2", "RW-FRAME-1")
async def limit_before_welcome(t: Context) -> None:
    """Before WELCOME, a length of 4,097 is FRAME_TOO_LARGE as soon as the header is there."""
    server, hello = await t.waiting()
    octets = HEADER.pack(4097, FrameType.WELCOME, 0, hello.request, 0)
    await refused(t, server, octets, "RW-FRAME-2", Code.FRAME_TOO_LARGE)


@case("5.2/full-welcome", "RW-FRAME-2")
async def full_welcome(t: Context) -> None:
    """A WELCOME of 4,096 octets is taken."""
    server, hello = await t.greeted()
    welcome = t.welcome(hello)
    room_left = 4096 - (len(encode(welcome)) - HEADER.size) - 4
    server.send(replace(welcome, fields=(*welcome.fields, Field(IGNORABLE, bytes(room_left)))))
    await t.report("connected", requirement="RW-FRAME-2")


for _limit in (4096, 20_000):

    async def _limits(t: Context, limit: int = _limit) -> None:
        server, room = await t.member(max_body=limit)
        overhead = len(encode(room.again(1, b""))) - HEADER.size
        server.send(room.message(bytes(limit - overhead)))
        await t.report("message", requirement="RW-FRAME-2")
        header = HEADER.pack(limit + 1, FrameType.MESSAGE, 0x8000, 0, room.ref)
        await refused(t, server, header, "RW-FRAME-1", Code.FRAME_TOO_LARGE)

    _text = "After WELCOME max_body is the limit: as much is taken, and one octet more refused by the header alone."
    add(f"5.2/limit-{_limit}", ["RW-FRAME-1", "RW-FRAME-2"], _text, _limits)


@case("5.2/length-of-four-gigabytes", "RW-FRAME-1")
async def huge_length(t: Context) -> None:
    """A length of 2^32 - 1 is refused, not waited for."""
    server, room = await t.member()
    await t.marker(server, room)
    header = HEADER.pack(2**32 - 1, 0x8021, 0, 0, 0)
    await refused(t, server, header, "RW-FRAME-1", Code.FRAME_TOO_LARGE)


@case("5.2/own-bodies", "RW-FRAME-3")
async def own_bodies(t: Context) -> None:
    """A client does not send a body above max_body: a payload that is too long fails, and the next one goes out."""
    server, room = await t.member(max_body=4096)
    id = t.publish(room, bytes(5000))
    await t.answer(id, "error", requirement="RW-FRAME-3")
    await t.published(server, room, b"short")
    t.require(not server.left_over(Publish), "nothing of the long one", server.left_over(Publish))


def _welcome(name: bytes = b"ada", tail: bytes = b"") -> bytes:
    numbers = u64(NOW_MS) + u32(65536) + u32(30000) + u32(600000) + u16(32) + u16(256)
    return u64(9) + b8(name) + numbers + b16(b"") + tail


def _entry(name: bytes = b"bob") -> bytes:
    return u64(5) + b"\x00" + b8(name)


Octets = Callable[[Room], bytes]
_BODIES: dict[str, tuple[FrameType, bytes, int]] = {
    "ping": (FrameType.PING, bytes(8), 0),
    "pong": (FrameType.PONG, bytes(8), 0),
    "goaway": (FrameType.GOAWAY, bytes(10) + b16(b"by"), 0),
    "roster": (FrameType.ROSTER, u16(1) + _entry(), 1),
    "presence": (FrameType.PRESENCE, b"\x01" + u64(5) + b8(b"bob"), 1),
    "evicted": (FrameType.EVICTED, u16(601) + u32(0) + b16(b"by"), 1),
    "message": (FrameType.MESSAGE, u64(2) + u64(1) + u64(5) + bytes(17) + b8(b"bob") + b32(b"hi"), 1),
}


def _tried(name: str, requirement: str, code: Code, text: str, octets: Octets) -> None:
    async def run(t: Context) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        await refused(t, server, octets(room), requirement, code)

    add(name, [requirement, "RW-CLOSE-2"], text, run)


def _shape(name: str, how: str, body: bytes) -> None:
    type, _, in_room = _BODIES[name]
    flags = 0x8000 if type == FrameType.MESSAGE else 0

    def octets(room: Room) -> bytes:
        return frame(type, body, room=room.ref * in_room, flags=flags)

    text = f"{name.upper()} that is {how} is MALFORMED."
    _tried(f"5.2/malformed-{name}-{how.replace(' ', '-')}", "RW-FRAME-7", Code.MALFORMED, text, octets)


for _name, (_type, _body, _room) in _BODIES.items():
    _shape(_name, "too short", _body[:-1])
    _shape(_name, "empty", b"")
    _shape(_name, "too long by one octet", _body + b"\x00")
_shape("message", "beyond its end", u64(2) + u64(1) + u64(5) + bytes(17) + b8(b"bob") + u32(2**32 - 1) + b"hi")
_shape("roster", "short of entries", u16(2) + _entry())
_shape("roster", "a promise", u16(65535))
_shape("presence", "with a cut field", b"\x01" + u64(5) + b8(b"bob") + u16(IGNORABLE) + u16(9) + b"12345678")


@case("5.2/malformed-welcome", "RW-FRAME-7", "RW-CLOSE-2")
async def malformed_welcome(t: Context) -> None:
    """A WELCOME with an octet left over is MALFORMED, and no connection."""
    server, hello = await t.waiting()
    octets = frame(FrameType.WELCOME, _welcome(tail=b"\x00"), request=hello.request)
    await refused(t, server, octets, "RW-FRAME-7", Code.MALFORMED)
    t.require(not t.client.of("connected"), "no report of a connection", t.client.of("connected"))


def _reply_shape(name: str, op: str, body: bytes, type: FrameType) -> None:
    async def run(t: Context) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        if op == "publish":
            t.publish(room)
            request = (await server.expect(Publish)).request
        else:
            t.client.tell("join", room="other")
            request = (await server.expect(Join)).request
        octets = frame(type, body, request=request, room=room.ref + 50)
        await refused(t, server, octets, "RW-FRAME-7", Code.MALFORMED)

    text = f"{name.upper()} of the wrong length is MALFORMED."
    add(f"5.2/malformed-reply-{name}", ["RW-FRAME-7", "RW-CLOSE-2"], text, run)


_reply_shape("ack-short", "publish", bytes(15), FrameType.ACK)
_reply_shape("ack-long", "publish", bytes(17), FrameType.ACK)
_reply_shape("error-short", "publish", bytes.fromhex("0191 00000032 0009") + b"slow", FrameType.ERROR)
_reply_shape("joined-short", "join", u64(7) + u64(0) + u64(1) + u64(1) + u32(1) + b"\x09lobby", FrameType.JOINED)

_HEADERS: dict[str, Octets] = {
    "ping-request": lambda room: frame(FrameType.PING, bytes(8), request=3),
    "ping-room": lambda room: frame(FrameType.PING, bytes(8), room=room.ref),
    "ping-seq": lambda room: frame(FrameType.PING, bytes(8), flags=0x8000),
    "goaway-room": lambda room: frame(FrameType.GOAWAY, bytes(12), room=room.ref),
    "presence-no-room": lambda room: frame(FrameType.PRESENCE, _BODIES["presence"][1]),
    "presence-request": lambda room: frame(FrameType.PRESENCE, _BODIES["presence"][1], request=9, room=room.ref),
    "roster-no-room": lambda room: frame(FrameType.ROSTER, _BODIES["roster"][1]),
    "evicted-request": lambda room: frame(FrameType.EVICTED, _BODIES["evicted"][1], request=9, room=room.ref),
    "message-no-seq": lambda room: message_octets(room, 2, flags=0),
    "message-no-room": lambda room: message_octets(room, 2, room=0),
    "ack-no-request": lambda room: frame(FrameType.ACK, bytes(16), room=room.ref),
    "error-no-request": lambda room: frame(FrameType.ERROR, bytes(8)),
    "joined-no-request": lambda room: frame(FrameType.JOINED, bytes(36) + b8(b"x"), room=room.ref + 1),
}
for _name, _make in _HEADERS.items():
    _tried(
        f"5.2/bad-header-{_name}",
        "RW-FRAME-6",
        Code.BAD_HEADER,
        f"A known frame with {_name.split('-', 1)[1].replace('-', ' ')} where the table says otherwise is BAD_HEADER.",
        _make,
    )


# Fields.

for _name, (_type, _body, _room) in _BODIES.items():

    def _with_critical(room: Room, name: str = _name) -> bytes:
        type, body, in_room = _BODIES[name]
        flags = 0x8000 if type == FrameType.MESSAGE else 0
        return frame(type, body + field(CRITICAL, b"v"), room=room.ref * in_room, flags=flags)

    _text = f"A field that must be understood and is not, in {_name.upper()}, is UNKNOWN_FIELD."
    _tried(f"5.3/critical-{_name}", "RW-FIELD-2", Code.UNKNOWN_FIELD, _text, _with_critical)


@case("5.3/ignorable", "RW-FIELD-1", "RW-GREASE-2")
async def ignorable_fields(t: Context) -> None:
    """Fields that are ignorable are ignored, in every frame: reserved, private, relayed, unassigned, repeated."""
    fields = tuple(Field(type, b"\xff") for type in (IGNORABLE, IGNORABLE, 0xF00F, 0xC001, 0x8005, 0x8002))
    server, hello = await t.greeted()
    welcome = t.welcome(hello)
    server.send(replace(welcome, fields=(*welcome.fields, *fields[:5])))
    await t.report("connected", requirement="RW-FIELD-1")
    room = t.room()
    id = t.client.tell("join", room=room.name)
    join = await server.expect(Join)
    server.send(replace(t.joined(room, join), fields=fields))
    await t.answer(id, "joined", requirement="RW-FIELD-1")
    server.send(
        Roster((RosterEntry(5, 0, "bob"),), fields=fields, flags=Flag.RESET, room=room.ref),
        Presence(1, 6, "eve", fields=fields, room=room.ref),
        room.message(b"m", fields=fields),
    )
    server.send_octets(PING[:3] + b"\x0e" + PING[4:] + field(IGNORABLE, b"hi"))
    id = t.publish(room)
    publish = await server.expect(Publish)
    server.send(replace(t.ack(room, publish), fields=fields))
    await t.answer(id, "published", requirement="RW-FIELD-1")
    room.next -= 1
    server.send(t.echo(room, publish, room.next, fields=fields))
    room.next += 1
    await t.marker(server, room, "RW-FIELD-1")
    t.require(t.seqs(room) == ["1", "2", "3"], "messages 1 to 3", t.seqs(room))


@case("5.3/repeated", "RW-FIELD-3")
async def repeated_field(t: Context) -> None:
    """AGENT twice in WELCOME, where the client knows it, is MALFORMED."""
    server, hello = await t.waiting()
    octets = frame(FrameType.WELCOME, _welcome(tail=field(0x8002, b"a") * 2), request=hello.request)
    await refused(t, server, octets, "RW-FIELD-3", Code.MALFORMED)


for _name, _field in {
    "server": field(0x8003, bytes(7)),
    "server-left-over": field(0x8003, bytes(8) + b8(b"host") + b"\x00"),
    "extension": field(0x0001, b"\x09history"),
}.items():

    async def _laid_out(t: Context, octets: bytes = _field) -> None:
        server, hello = await t.waiting()
        welcome = frame(FrameType.WELCOME, _welcome(tail=octets), request=hello.request)
        await refused(t, server, welcome, "RW-FIELD-4", Code.MALFORMED)

    _text = "A known field of WELCOME that is not laid out as its table says is MALFORMED."
    add(f"5.3/layout-{_name}", ["RW-FIELD-4"], _text, _laid_out)


@case("5.4/unknown-flags", "RW-FLAG-1")
async def unknown_flags(t: Context) -> None:
    """Flags that are not defined for a frame are ignored, in every frame."""
    server, hello = await t.greeted()
    odd = 0x3F40
    server.send(t.welcome(hello, flags=odd | Flag.DURABLE), breaks="RW-FLAG-1")
    await t.report("connected", requirement="RW-FLAG-1")
    room = t.room()
    id = t.client.tell("join", room=room.name)
    join = await server.expect(Join)
    server.send(t.joined(room, join, flags=odd), breaks="RW-FLAG-1")
    await t.answer(id, "joined", requirement="RW-FLAG-1")
    server.send(
        Roster((RosterEntry(5, 0xFD, "bob"),), flags=odd | Flag.RESET, room=room.ref),
        Presence(1, 6, "eve", flags=odd, room=room.ref),
        room.message(flags=odd | Flag.SEQ),
        breaks="RW-FLAG-1",
    )
    id = t.publish(room)
    publish = await server.expect(Publish)
    server.send(t.ack(room, publish, flags=odd), breaks="RW-FLAG-1")
    await t.answer(id, "published", requirement="RW-FLAG-1")
    await server.fence("RW-FLAG-1")
    server.send_octets(frame(FrameType.GOAWAY, goaway_octets(0)[16:], flags=odd), breaks="RW-FLAG-1")
    await server.expect(Goaway, "RW-FLAG-1")


# Numbers and text.

_BEYOND = {
    "message-seq": lambda room: message_octets(room, 2**53),
    "message-time": lambda room: frame(
        FrameType.MESSAGE,
        u64(2) + u64(2**63) + u64(1) + bytes(17) + b8(b"bob") + b32(b""),
        room=room.ref,
        flags=0x8000,
    ),
}
for _name, _make in _BEYOND.items():
    _tried(f"6.2/beyond-{_name}", "RW-CHECK-4", Code.MALFORMED, "A number above 2^53 - 1 is MALFORMED.", _make)


@case("6.2/beyond-ack", "RW-CHECK-4")
async def ack_beyond(t: Context) -> None:
    """An ACK with a seq above 2^53 - 1 is MALFORMED."""
    server, room = await t.member()
    t.publish(room)
    publish = await server.expect(Publish)
    octets = frame(FrameType.ACK, u64(2**53) + u64(1), request=publish.request, room=room.ref)
    await refused(t, server, octets, "RW-CHECK-4", Code.MALFORMED)


_BAD = b"\xff\xfe"
_NAMES: dict[str, Octets] = {
    "message": lambda room: frame(
        FrameType.MESSAGE, u64(2) + u64(1) + u64(5) + bytes(17) + b8(_BAD) + b32(b""), room=room.ref, flags=0x8000
    ),
    "presence": lambda room: frame(FrameType.PRESENCE, b"\x01" + u64(5) + b8(_BAD), room=room.ref),
    "roster": lambda room: frame(FrameType.ROSTER, u16(1) + _entry(_BAD), room=room.ref, flags=0x10),
}
for _name, _make in _NAMES.items():
    _text = f"A name in {_name.upper()} that is not UTF-8 is MALFORMED."
    _tried(f"6.2/name-{_name}", "RW-CHECK-6", Code.MALFORMED, _text, _make)


@case("6.2/text-is-no-error", "RW-CHECK-5")
async def ill_formed_text(t: Context) -> None:
    """Ill-formed UTF-8 in payloads and texts is no error; what was sent as text stays as its octets."""
    server, room = await t.member()
    server.send(room.message(b"\xff\xc0 text", ctype=0))
    report = await t.report("message", requirement="RW-CHECK-5")
    t.require(report.get("payload") == b"\xff\xc0 text".hex(), "the octets of the payload", report)
    id = t.publish(room)
    publish = await server.expect(Publish)
    error = u16(Code.FORBIDDEN) + u32(0) + b16(b"\xff\xff")
    server.send_octets(frame(FrameType.ERROR, error, request=publish.request, room=room.ref))
    await t.answer(id, "error", requirement="RW-CHECK-5")
    server.send_octets(frame(FrameType.EVICTED, u16(Code.KICKED) + u32(0) + b16(b"\xff"), room=room.ref))
    await t.report("evicted", requirement="RW-CHECK-5")
    await server.fence("RW-CHECK-5")
    server.send_octets(goaway_octets(Code.NONE, text=b"\xf5\x80"))
    await server.expect_goaway(Code.NONE, requirement="RW-CHECK-5")
