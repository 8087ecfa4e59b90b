"""Section 6.2: numbers out of range and ill-formed text."""

from conformance.client.cases.steps import (
    MakeOctets,
    case,
    define_fatal,
    expect_fatal,
    goaway_octets,
    message_octets,
    roster_entry,
)
from conformance.client.context import Context
from conformance.wire.octets import b8, b16, b32, frame, u16, u32, u64
from protocol.frames import Publish
from protocol.registry import Code, FrameType

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
    define_fatal(
        f"6.2/beyond-{_name}",
        "RW-CHECK-4",
        Code.MALFORMED,
        "The client sends GOAWAY(MALFORMED) for a number above 2^53 - 1.",
        _make,
    )


@case("6.2/beyond-ack", "RW-CHECK-4")
async def ack_beyond(t: Context) -> None:
    """The client sends GOAWAY(MALFORMED) for an ACK with a seq above 2^53 - 1."""
    server, room = await t.member()
    t.publish(room)
    publish = await server.expect(Publish)
    octets = frame(FrameType.ACK, u64(2**53) + u64(1), request=publish.request, room=room.ref)
    await expect_fatal(t, server, octets, "RW-CHECK-4", Code.MALFORMED)


_BAD = b"\xff\xfe"


_NAMES: dict[str, MakeOctets] = {
    "message": lambda room: frame(
        FrameType.MESSAGE, u64(2) + u64(1) + u64(5) + bytes(17) + b8(_BAD) + b32(b""), room=room.ref, flags=0x8000
    ),
    "presence": lambda room: frame(FrameType.PRESENCE, b"\x01" + u64(5) + b8(_BAD), room=room.ref),
    "roster": lambda room: frame(FrameType.ROSTER, u16(1) + roster_entry(_BAD), room=room.ref, flags=0x10),
}

for _name, _make in _NAMES.items():
    _text = f"The client sends GOAWAY(MALFORMED) for a name in {_name.upper()} that is not UTF-8."
    define_fatal(f"6.2/name-{_name}", "RW-CHECK-6", Code.MALFORMED, _text, _make)


@case("6.2/text-is-no-error", "RW-CHECK-5")
async def ill_formed_text(t: Context) -> None:
    """The client takes ill-formed UTF-8 in payloads and texts, and reports the octets of a payload as they are."""
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
