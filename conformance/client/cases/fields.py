"""Sections 5.3 and 5.4: extension fields and flags."""

from dataclasses import replace

from conformance.client.cases.steps import (
    BODIES,
    CRITICAL,
    IGNORABLE,
    PING,
    add,
    case,
    define_fatal,
    expect_fatal,
    goaway_octets,
    welcome_body,
)
from conformance.client.context import Context, Room
from conformance.wire.octets import b8, field, frame
from protocol.frames import Field, Goaway, Join, Presence, Publish, Roster, RosterEntry
from protocol.registry import Code, Flag, FrameType

for _name, (_type, _body, _room) in BODIES.items():

    def _with_critical(room: Room, name: str = _name) -> bytes:
        type, body, in_room = BODIES[name]
        flags = 0x8000 if type == FrameType.MESSAGE else 0
        return frame(type, body + field(CRITICAL, b"v"), room=room.ref * in_room, flags=flags)

    _text = f"The client sends GOAWAY(UNKNOWN_FIELD) for an unknown critical field in {_name.upper()}."
    define_fatal(f"5.3/critical-{_name}", "RW-FIELD-2", Code.UNKNOWN_FIELD, _text, _with_critical)


@case("5.3/ignorable", "RW-FIELD-1", "RW-GREASE-2")
async def ignorable_fields(t: Context) -> None:
    """The client ignores ignorable fields in every frame: reserved, private, relayed, unassigned, repeated."""
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
    """The client sends GOAWAY(MALFORMED) for WELCOME with AGENT twice, a field that it knows there."""
    server, hello = await t.waiting()
    octets = frame(FrameType.WELCOME, welcome_body(tail=field(0x8002, b"a") * 2), request=hello.request)
    await expect_fatal(t, server, octets, "RW-FIELD-3", Code.MALFORMED)


for _name, _field in {
    "server": field(0x8003, bytes(7)),
    "server-left-over": field(0x8003, bytes(8) + b8(b"host") + b"\x00"),
    "extension": field(0x0001, b"\x09history"),
}.items():

    async def _laid_out(t: Context, octets: bytes = _field) -> None:
        server, hello = await t.waiting()
        welcome = frame(FrameType.WELCOME, welcome_body(tail=octets), request=hello.request)
        await expect_fatal(t, server, welcome, "RW-FIELD-4", Code.MALFORMED)

    _text = "The client sends GOAWAY(MALFORMED) for a known field of WELCOME that is not laid out as its table says."
    add(f"5.3/layout-{_name}", ["RW-FIELD-4"], _text, _laid_out)


@case("5.4/unknown-flags", "RW-FLAG-1")
async def unknown_flags(t: Context) -> None:
    """The client ignores flags that are not defined for a frame, in every frame."""
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
