"""Section 6.1: types that a client does not know."""

import os

from conformance.client.cases.steps import add, case, expect_fatal
from conformance.client.context import Context
from conformance.wire.octets import encode, frame, u64
from protocol.frames import Join, Unknown
from protocol.registry import Code, Flag, FrameType


@case("6.1/ignored", "RW-TYPE-4", "RW-GREASE-2")
async def ignored(t: Context) -> None:
    """The client ignores unknown frames with bit 15 in every state, whatever request, room, flags and body are."""
    server, hello = await t.greeted()
    odd = [
        Unknown(0x8021, b""),
        Unknown(0x8021 + 0x1F * 527, os.urandom(40), flags=0x00FF),
        Unknown(0xF123, b"\x00"),
        Unknown(0x8010, b"join?", flags=Flag.EPHEMERAL, room=99),
        Unknown(0xFFFF, bytes(300), request=12345, room=2**32 - 1),
    ]
    server.send(*odd)
    server.send(t.welcome(hello))
    await t.report("connected", requirement="RW-TYPE-4")
    server.send(*odd)
    room = t.room()
    id = t.client.tell("join", room=room.name)
    join = await server.expect(Join)
    server.send(*odd, t.joined(room, join), *odd, Unknown(0x8040, b"x", room=room.ref))
    await t.answer(id, "joined", requirement="RW-TYPE-4")
    await t.marker(server, room, "RW-TYPE-4")


_CRITICAL = {
    "unassigned": frame(0x0009),
    "unassigned-request": frame(0x0123, b"xyz", request=77),
    "private": frame(0x7001),
    "hello": frame(FrameType.HELLO, b"\x03ada\x09ANONYMOUS\x00\x00", request=1),
    "publish": frame(FrameType.PUBLISH, bytes(21), request=9, room=5),
    "join": frame(FrameType.JOIN, bytes(17), request=9),
    "stop": frame(FrameType.STOP, request=9),
}

for _name, _octets in _CRITICAL.items():

    async def _critical(t: Context, octets: bytes = _octets) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        await expect_fatal(t, server, octets, "RW-TYPE-4", Code.UNKNOWN_TYPE)

    _text = f"The client sends GOAWAY(UNKNOWN_TYPE) for a critical type that clients do not receive ({_name})."
    add(f"6.1/critical-{_name}", ["RW-TYPE-4", "RW-CLOSE-2"], _text, _critical)


@case("6.1/moves-the-cursor", "RW-TYPE-5")
async def moves_the_cursor(t: Context) -> None:
    """The client moves its cursor for an unknown sequenced frame, and drops messages at or below it."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send(Unknown(0x8040, u64(2) + b"a reaction", flags=Flag.SEQ, room=room.ref))
    server.send(room.again(2, b"late"))
    room.next = 3
    await t.marker(server, room, "RW-TYPE-5")
    t.require(t.seqs(room) == ["1", "3"], "messages 1 and 3", t.seqs(room))


@case("6.1/moves-no-cursor", "RW-TYPE-5")
async def moves_no_cursor(t: Context) -> None:
    """The client moves no cursor for unknown frames of another room, with a request, or at or below the cursor."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send(
        Unknown(0x8040, u64(50), flags=Flag.SEQ, room=room.ref + 40),
        Unknown(0x8040, u64(60), flags=Flag.SEQ, request=99, room=room.ref),
        Unknown(0x8040, u64(1), flags=Flag.SEQ, room=room.ref),
        Unknown(0x8040, u64(70), room=room.ref),
    )
    await t.marker(server, room, "RW-TYPE-5")
    t.require(t.seqs(room) == ["1", "2"], "messages 1 and 2", t.seqs(room))


@case("6.1/hole-of-an-unknown", "RW-STREAM-2", "RW-TYPE-5")
async def hole_of_an_unknown(t: Context) -> None:
    """The client sends GOAWAY(SEQUENCE) for an unknown sequenced frame beyond its cursor + 1, as for a MESSAGE."""
    server, room = await t.member()
    await t.marker(server, room)
    octets = encode(Unknown(0x8040, u64(3), flags=Flag.SEQ, room=room.ref))
    await expect_fatal(t, server, octets, "RW-STREAM-2", Code.SEQUENCE)


for _name, _body in {"empty": b"", "short": bytes(7), "beyond": u64(2**53)}.items():

    async def _no_seq(t: Context, body: bytes = _body) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        octets = frame(0x8040, body, flags=0x8000, room=room.ref)
        await expect_fatal(t, server, octets, "RW-TYPE-6", Code.MALFORMED)

    _text = "The client sends GOAWAY(MALFORMED) for an unknown frame with SEQ whose body does not begin with a seq."
    add(f"6.1/no-seq-{_name}", ["RW-TYPE-6"], _text, _no_seq)
