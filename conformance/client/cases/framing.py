"""Section 5.2: lengths, segments, and frames that are not laid out as their tables say."""

from dataclasses import replace

from conformance.client.cases.steps import (
    BODIES,
    IGNORABLE,
    MakeOctets,
    add,
    case,
    define_fatal,
    expect_fatal,
    message_octets,
    roster_entry,
    welcome_body,
)
from conformance.client.context import Context, Room
from conformance.client.raw_server import SERVER_PREFACE
from conformance.wire.octets import HEADER, b8, encode, frame, u16, u32, u64
from protocol.frames import Field, Frame, Join, Publish
from protocol.registry import Code, FrameType


@case("5.2/single-octets", "RW-FRAME-4")
async def single_octets(t: Context) -> None:
    """The client takes a whole session in single octets as it takes it in one piece."""
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
    """The client takes a message in two segments, cut at each of its octets in turn."""
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
    """The client takes hundreds of frames in one segment."""
    server, room = await t.member()
    server.send(*(room.message() for _ in range(300)))
    await t.marker(server, room, "RW-FRAME-4")
    t.require(t.seqs(room) == [str(n) for n in range(1, 302)], "messages 1 to 301", t.seqs(room)[-3:])


@case("5.2/end-within-a-frame", "RW-FRAME-4")
async def end_of_stream_in_a_frame(t: Context) -> None:
    """The client takes a stream that ends within a frame as the end, and reports nothing of the frame."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send_octets(encode(room.message(b"half"))[:-1], breaks="RW-FRAME-7")
    await server.close()
    await t.report("disconnected", requirement="RW-FRAME-4")
    t.require(t.seqs(room) == ["1"], "message 1 alone", t.seqs(room))


@case("5.2/limit-before-welcome", "RW-FRAME-2", "RW-FRAME-1")
async def limit_before_welcome(t: Context) -> None:
    """The client sends GOAWAY(FRAME_TOO_LARGE) for a header of 4,097 octets before WELCOME, without a body."""
    server, hello = await t.waiting()
    octets = HEADER.pack(4097, FrameType.WELCOME, 0, hello.request, 0)
    await expect_fatal(t, server, octets, "RW-FRAME-2", Code.FRAME_TOO_LARGE)


@case("5.2/full-welcome", "RW-FRAME-2")
async def full_welcome(t: Context) -> None:
    """The client takes a WELCOME of 4,096 octets."""
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
        await expect_fatal(t, server, header, "RW-FRAME-1", Code.FRAME_TOO_LARGE)

    _text = "The client takes a body of max_body octets, and answers a header that announces more with FRAME_TOO_LARGE."
    add(f"5.2/limit-{_limit}", ["RW-FRAME-1", "RW-FRAME-2"], _text, _limits)


@case("5.2/length-of-four-gigabytes", "RW-FRAME-1")
async def huge_length(t: Context) -> None:
    """The client sends GOAWAY(FRAME_TOO_LARGE) for a header of 2^32 - 1 octets, and does not wait for them."""
    server, room = await t.member()
    await t.marker(server, room)
    header = HEADER.pack(2**32 - 1, 0x8021, 0, 0, 0)
    await expect_fatal(t, server, header, "RW-FRAME-1", Code.FRAME_TOO_LARGE)


@case("5.2/own-bodies", "RW-FRAME-3")
async def own_bodies(t: Context) -> None:
    """The client reports a payload that is too long for max_body as failed, and sends the next one."""
    server, room = await t.member(max_body=4096)
    id = t.publish(room, bytes(5000))
    await t.answer(id, "error", requirement="RW-FRAME-3")
    await t.published(server, room, b"short")
    t.require(not server.left_over(Publish), "no PUBLISH of the long payload", server.left_over(Publish))


def _define_malformed(name: str, slug: str, what: str, body: bytes) -> None:
    type, _, in_room = BODIES[name]
    flags = 0x8000 if type == FrameType.MESSAGE else 0

    def octets(room: Room) -> bytes:
        return frame(type, body, room=room.ref * in_room, flags=flags)

    text = f"The client sends GOAWAY(MALFORMED) for {name.upper()} {what}."
    define_fatal(f"5.2/malformed-{name}-{slug}", "RW-FRAME-7", Code.MALFORMED, text, octets)


for _name, (_type, _body, _room) in BODIES.items():
    _define_malformed(_name, "too-short", "that is too short", _body[:-1])
    _define_malformed(_name, "empty", "without a body", b"")
    _define_malformed(_name, "too-long-by-one-octet", "with an octet left over", _body + b"\x00")
_define_malformed(
    "message",
    "beyond-its-end",
    "whose payload is longer than the body",
    u64(2) + u64(1) + u64(5) + bytes(17) + b8(b"bob") + u32(2**32 - 1) + b"hi",
)
_define_malformed("roster", "short-of-entries", "with fewer entries than it counts", u16(2) + roster_entry())
_define_malformed("roster", "a-promise", "that counts 65,535 entries and has none", u16(65535))
_define_malformed(
    "presence",
    "with-a-cut-field",
    "with a field that is cut off",
    b"\x01" + u64(5) + b8(b"bob") + u16(IGNORABLE) + u16(9) + b"12345678",
)


@case("5.2/malformed-welcome", "RW-FRAME-7", "RW-CLOSE-2")
async def malformed_welcome(t: Context) -> None:
    """The client sends GOAWAY(MALFORMED) for a WELCOME with an octet left over, and reports no connection."""
    server, hello = await t.waiting()
    octets = frame(FrameType.WELCOME, welcome_body(tail=b"\x00"), request=hello.request)
    await expect_fatal(t, server, octets, "RW-FRAME-7", Code.MALFORMED)
    t.require(not t.client.of("connected"), "no report of a connection", t.client.of("connected"))


def _define_malformed_reply(name: str, op: str, body: bytes, type: FrameType) -> None:
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
        await expect_fatal(t, server, octets, "RW-FRAME-7", Code.MALFORMED)

    text = f"The client sends GOAWAY(MALFORMED) for {type.name} of the wrong length."
    add(f"5.2/malformed-reply-{name}", ["RW-FRAME-7", "RW-CLOSE-2"], text, run)


_define_malformed_reply("ack-short", "publish", bytes(15), FrameType.ACK)
_define_malformed_reply("ack-long", "publish", bytes(17), FrameType.ACK)
_define_malformed_reply("error-short", "publish", bytes.fromhex("0191 00000032 0009") + b"slow", FrameType.ERROR)
_define_malformed_reply(
    "joined-short", "join", u64(7) + u64(0) + u64(1) + u64(1) + u32(1) + b"\x09lobby", FrameType.JOINED
)


_HEADERS: dict[str, MakeOctets] = {
    "ping-request": lambda room: frame(FrameType.PING, bytes(8), request=3),
    "ping-room": lambda room: frame(FrameType.PING, bytes(8), room=room.ref),
    "ping-seq": lambda room: frame(FrameType.PING, bytes(8), flags=0x8000),
    "goaway-room": lambda room: frame(FrameType.GOAWAY, bytes(12), room=room.ref),
    "presence-no-room": lambda room: frame(FrameType.PRESENCE, BODIES["presence"][1]),
    "presence-request": lambda room: frame(FrameType.PRESENCE, BODIES["presence"][1], request=9, room=room.ref),
    "roster-no-room": lambda room: frame(FrameType.ROSTER, BODIES["roster"][1]),
    "evicted-request": lambda room: frame(FrameType.EVICTED, BODIES["evicted"][1], request=9, room=room.ref),
    "message-no-seq": lambda room: message_octets(room, 2, flags=0),
    "message-no-room": lambda room: message_octets(room, 2, room=0),
    "ack-no-request": lambda room: frame(FrameType.ACK, bytes(16), room=room.ref),
    "error-no-request": lambda room: frame(FrameType.ERROR, bytes(8)),
    "joined-no-request": lambda room: frame(FrameType.JOINED, bytes(36) + b8(b"x"), room=room.ref + 1),
}

for _name, _make in _HEADERS.items():
    _kind, _, _what = _name.partition("-")
    _text = f"The client sends GOAWAY(BAD_HEADER) for {_kind.upper()} with {_what.replace('-', ' ')} in its header."
    define_fatal(f"5.2/bad-header-{_name}", "RW-FRAME-6", Code.BAD_HEADER, _text, _make)
