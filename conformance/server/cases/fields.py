"""Sections 5.3 and 5.4: extension fields and flags."""

from conformance.server.cases.steps import (
    CRITICAL,
    IGNORABLE,
    SERVER,
    MakeOctets,
    answer,
    case,
    expect_accepted,
    expect_fatal,
    expect_hello_fatal,
    expect_hello_refusal,
    expect_refusal,
    goaway,
    hello,
    join,
    joined_client,
    leave,
    ping,
    publish,
    unreserved,
)
from conformance.server.context import Context
from conformance.wire.octets import b8, field, read_header
from protocol.frames import Field, Goaway, Pong
from protocol.registry import GREASE, Code, FieldType, FrameType

_UNKNOWN = field(IGNORABLE, b"\xff\0\xff") + field(0xF00D) + field(IGNORABLE, b"again")
_AGENT = field(FieldType.AGENT, b"suite/1")

_IGNORED: list[tuple[str, str, MakeOctets]] = [
    ("join", "unknown ignorable fields in JOIN", lambda p: join(p.name, tail=_UNKNOWN)),
    ("publish", "unknown ignorable fields in PUBLISH", lambda p: publish(p, tail=_UNKNOWN)),
    ("leave", "unknown ignorable fields in LEAVE", lambda p: leave(p, tail=_UNKNOWN)),
    ("ping", "unknown ignorable fields in PING", lambda p: ping(tail=_UNKNOWN)),
    ("goaway", "unknown ignorable fields in GOAWAY", lambda p: goaway(tail=_UNKNOWN)),
    (
        "agent-in-join",
        "AGENT in JOIN, which does not have that field, even twice",
        lambda p: join(p.name, tail=2 * _AGENT),
    ),
]


def _define_ignored(path: str, what: str, octets: MakeOctets) -> None:
    async def run(t: Context) -> None:
        client, place = await joined_client(t, await t.any_room(), octets)
        sent = octets(place)
        if read_header(sent).request:
            reply = await answer(t, client, sent, "RW-FIELD-1")
            t.require(reply.TYPE.name != "ERROR", "no ERROR", reply, "RW-FIELD-1")
        else:
            client.send_octets(sent)
        if read_header(sent).type == FrameType.GOAWAY:
            await client.expect_goaway(Code.NONE, "RW-FIELD-1")
            return
        await client.fence("RW-FIELD-1")

    SERVER.add(f"5.3/ignorable-{path}", ["RW-FIELD-1"], f"The server ignores {what}.", run)


for _row in _IGNORED:
    _define_ignored(*_row)


@case("5.3/ignorable-hello", "RW-FIELD-1")
async def ignorable_hello(t: Context) -> None:
    """The server ignores unknown ignorable fields in HELLO, repeated ones included."""
    client = await t.greet()
    client.send_octets(hello(tail=_UNKNOWN))
    reply = await client.reply(1, "RW-FIELD-1")
    t.require(reply.TYPE.name == "WELCOME", "WELCOME", reply)


_CRITICAL = field(CRITICAL, b"x")

_REFUSED: list[tuple[str, str, MakeOctets, MakeOctets]] = [
    ("join", "in JOIN", lambda p: join(p.name, tail=_UNKNOWN), lambda p: join(p.name, tail=_CRITICAL)),
    ("publish", "in PUBLISH", lambda p: publish(p, tail=_UNKNOWN), lambda p: publish(p, tail=_CRITICAL)),
    ("leave", "in LEAVE", lambda p: leave(p, tail=_UNKNOWN), lambda p: leave(p, tail=_CRITICAL)),
    (
        "extension-in-join",
        "(EXTENSION) in JOIN",
        lambda p: join(p.name),
        lambda p: join(p.name, tail=field(FieldType.EXTENSION, b8(b"history"))),
    ),
    (
        "behind-ignorable",
        "in JOIN, after ignorable ones,",
        lambda p: join(p.name, tail=_UNKNOWN + _UNKNOWN),
        lambda p: join(p.name, tail=_UNKNOWN + _CRITICAL + _UNKNOWN),
    ),
    (
        "private",
        "(of a private number) in JOIN",
        lambda p: join(p.name),
        lambda p: join(p.name, tail=field(0x7ABC)),
    ),
]


def _define_refused(path: str, what: str, twin: MakeOctets, broken: MakeOctets) -> None:
    async def run(t: Context) -> None:
        await expect_refusal(t, "RW-FIELD-2", twin, broken, Code.UNKNOWN_FIELD, breaks="RW-EXT-1")

    summary = f"The server sends ERROR(UNKNOWN_FIELD) for an unknown critical field {what}, and the connection goes on."
    SERVER.add(f"5.3/critical-{path}", ["RW-FIELD-2", "RW-CHECK-2"], summary, run)


for _refused in _REFUSED:
    _define_refused(*_refused)


@case("5.3/critical-hello", "RW-FIELD-2", "RW-HELLO-3")
async def critical_hello(t: Context) -> None:
    """The server answers an unknown critical field in HELLO with ERROR(UNKNOWN_FIELD), then GOAWAY(UNKNOWN_FIELD)."""
    twin, broken = hello(tail=_UNKNOWN), hello(tail=_CRITICAL)
    await expect_hello_refusal(t, "RW-FIELD-2", twin, broken, Code.UNKNOWN_FIELD, breaks="RW-EXT-1")


@case("5.3/critical-ping", "RW-FIELD-2", "RW-CODE-1")
async def critical_ping(t: Context) -> None:
    """The server answers an unknown critical field in PING, which is not a request, with GOAWAY(UNKNOWN_FIELD)."""
    await expect_fatal(
        t, "RW-FIELD-2", lambda p: ping(tail=_UNKNOWN), lambda p: ping(tail=_CRITICAL), Code.UNKNOWN_FIELD
    )


@case("5.3/critical-publish-appends-nothing", "RW-PROMISE-4", "RW-FIELD-2")
async def critical_appends_nothing(t: Context) -> None:
    """The server gives no seq to a PUBLISH that it refused for a critical field."""
    client, place = await joined_client(t, await t.any_room(), publish)
    before = await t.publish(client, place.room)
    client.send_octets(publish(place, tail=_CRITICAL), breaks="RW-EXT-1")
    await client.expect_error(700, Code.UNKNOWN_FIELD, "RW-FIELD-2")
    after = await t.publish(client, place.room)
    t.require(after.seq == before.seq + 1, f"seq {before.seq + 1} for the next one", after.seq, "RW-PROMISE-4")


@case("5.3/agent-twice", "RW-FIELD-3")
async def agent_twice(t: Context) -> None:
    """The server accepts HELLO with one AGENT, and answers one with two with MALFORMED."""
    control = await t.greet()
    await expect_accepted(t, control, hello(tail=_AGENT))
    await expect_hello_fatal(t, "RW-FIELD-3", hello(tail=_AGENT + _AGENT), Code.MALFORMED)


@case("5.3/extension-repeatable", "RW-FIELD-3", "RW-EXT-3")
async def extension_repeatable(t: Context) -> None:
    """The server accepts several fields EXTENSION in HELLO."""
    tail = b"".join(field(FieldType.EXTENSION, b8(name)) for name in (b"grease-1", b"org.example.x", b"grease-2"))
    control = await t.greet()
    await expect_accepted(t, control, hello())
    client = await t.greet()
    client.send_octets(hello(tail=tail))
    reply = await client.reply(1)
    t.require(reply.TYPE.name == "WELCOME", "WELCOME", reply)


@case("5.3/extension-value", "RW-FIELD-4")
async def extension_value(t: Context) -> None:
    """The server answers EXTENSION whose name is longer than the field with MALFORMED."""
    control = await t.greet()
    await expect_accepted(t, control, hello(tail=field(FieldType.EXTENSION, b8(b"grease-1"))))
    broken = hello(tail=field(FieldType.EXTENSION, b"\x09grease-1"))
    await expect_hello_fatal(t, "RW-FIELD-4", broken, Code.MALFORMED)


@case("5.3/extension-empty", "RW-FIELD-4")
async def extension_empty(t: Context) -> None:
    """The server answers EXTENSION without even the length of a name with MALFORMED."""
    control = await t.greet()
    await expect_accepted(t, control, hello(tail=field(FieldType.EXTENSION, b8(b""))))
    await expect_hello_fatal(t, "RW-FIELD-4", hello(tail=field(FieldType.EXTENSION)), Code.MALFORMED)


@case("5.3/relayed", "RW-FIELD-5", "RW-FIELD-6")
async def relayed(t: Context) -> None:
    """The server copies relayed fields to MESSAGE unchanged and in order, repeated and empty ones too; no others."""
    publisher, joined = await t.member(fresh=False)
    reader, _ = await t.member(joined.name)
    kept = (Field(0xC001, b"one"), Field(0xFFFF, b""), Field(0xC001, b"\x00\xff"), Field(0xC000, bytes(300)))
    mixed = (Field(IGNORABLE, b"dropped"), kept[0], kept[1], Field(0xBFFF, b""), kept[2], kept[3])
    id = t.id(publisher)
    await t.publish(publisher, joined.room, b"fields", id=id, fields=mixed)
    for client in (publisher, reader):
        message = (await client.until(joined.room, id))[-1]
        extra = [f for f in message.fields if f.type < 0xC000 and (f in mixed or f.type not in GREASE)]
        t.require(not extra, "only fields from 0xC000 on", extra, "RW-FIELD-6")
        t.require(unreserved(message.fields) == kept, f"the fields {kept}", message.fields, "RW-FIELD-5")


_FLAGGED: list[tuple[str, str, MakeOctets]] = [
    ("join", "JOIN", lambda p: join(p.name, flags=0x7FEF)),
    ("publish", "PUBLISH", lambda p: publish(p, flags=0x7FDF)),
    ("leave", "LEAVE", lambda p: leave(p, flags=0x7FFF)),
    ("ping", "PING", lambda p: ping(flags=0x7FFF)),
    ("goaway", "GOAWAY", lambda p: goaway(flags=0x7FFE)),
]


def _define_flagged(path: str, what: str, octets: MakeOctets) -> None:
    async def run(t: Context) -> None:
        client, place = await joined_client(t, await t.any_room(), octets)
        sent = octets(place)
        if read_header(sent).request:
            reply = await answer(t, client, sent, breaks="RW-FLAG-1")
            t.require(reply.TYPE.name != "ERROR", "no ERROR", reply)
        else:
            client.send_octets(sent, breaks="RW-FLAG-1")
        if read_header(sent).type == FrameType.GOAWAY:
            await client.expect_goaway(Code.NONE)
        elif read_header(sent).type == FrameType.PING:
            await client.expect_frame(Pong)
        else:
            await client.fence("RW-FLAG-1")
        await t.alive()

    SERVER.add(
        f"5.4/unknown-{path}",
        ["RW-FLAG-1"],
        f"The server accepts {what} with every flag that is not defined for it.",
        run,
    )


for _flagged in _FLAGGED:
    _define_flagged(*_flagged)


@case("5.4/unknown-hello", "RW-FLAG-1")
async def unknown_hello(t: Context) -> None:
    """The server accepts HELLO with every flag but SEQ."""
    client = await t.greet()
    client.send_octets(hello(flags=0x7FFF), breaks="RW-FLAG-1")
    reply = await client.reply(1)
    t.require(reply.TYPE.name == "WELCOME", "WELCOME", reply)
    t.require(not client.find(Goaway), "no GOAWAY", client.last_words())
