"""Section 6.2: which failure the server answers when there are several."""

from conformance.server.cases.steps import (
    CRITICAL,
    SERVER,
    MakeOctets,
    Place,
    case,
    expect_accepted,
    expect_fatal,
    expect_hello_fatal,
    expect_hello_refusal,
    expect_refusal,
    goaway,
    hello,
    history,
    join,
    joined_client,
    leave,
    ping,
    publish,
)
from conformance.server.context import Context
from conformance.wire.octets import b8, field, frame, u64
from protocol.frames import Join, Joined, Publish
from protocol.registry import MAX_SAFE, Code, FieldType, FrameType

_CRITICAL = field(CRITICAL)


_FATAL: list[tuple[str, str, MakeOctets, MakeOctets, Code]] = [
    (
        "type-before-header",
        "The server checks the type before the header: WELCOME with a room and request 0 earns UNKNOWN_TYPE",
        lambda p: ping(),
        lambda p: frame(FrameType.WELCOME, room=p.room),
        Code.UNKNOWN_TYPE,
    ),
    (
        "header-before-structure",
        "The server checks the header before the structure: JOIN without request and body earns BAD_HEADER",
        lambda p: join(p.name),
        lambda p: frame(FrameType.JOIN),
        Code.BAD_HEADER,
    ),
    (
        "structure-before-field",
        "The server checks the structure before fields: a critical field and an octet left over earn MALFORMED",
        lambda p: join(p.name),
        lambda p: join(p.name, tail=_CRITICAL + b"\0"),
        Code.MALFORMED,
    ),
    (
        "structure-before-own",
        "The server checks the structure before the room: PUBLISH to a foreign room, too long, earns MALFORMED",
        lambda p: publish(p),
        lambda p: publish(p, room=p.room + 99, tail=b"\0"),
        Code.MALFORMED,
    ),
    (
        "header-before-field",
        "The server checks the header before fields: PING with a request and a critical field earns BAD_HEADER",
        lambda p: ping(),
        lambda p: ping(request=9, tail=_CRITICAL),
        Code.BAD_HEADER,
    ),
]


def _define_fatal(path: str, what: str, twin: MakeOctets, broken: MakeOctets, code: Code) -> None:
    async def run(t: Context) -> None:
        await expect_fatal(t, "RW-CHECK-1", twin, broken, code)

    SERVER.add(f"6.2/{path}", ["RW-CHECK-1"], f"{what}.", run)


for _fatal in _FATAL:
    _define_fatal(*_fatal)


def _elsewhere(p: Place, payload: bytes = b"hi", tail: bytes = b"") -> bytes:
    return publish(p, payload, tail=tail, room=p.room + 99)


_ONCE: list[tuple[str, str, str, MakeOctets, MakeOctets, Code, str]] = [
    (
        "field-before-name",
        "RW-CHECK-1",
        "The server checks fields before the name: JOIN with a bad name and a critical field earns UNKNOWN_FIELD",
        lambda p: join(p.name),
        lambda p: join(b"\x07", tail=_CRITICAL),
        Code.UNKNOWN_FIELD,
        "RW-EXT-1",
    ),
    (
        "field-before-not-joined",
        "RW-CHECK-1",
        "The server checks fields before the room: a critical field to a foreign room earns UNKNOWN_FIELD",
        lambda p: publish(p),
        lambda p: _elsewhere(p, tail=_CRITICAL),
        Code.UNKNOWN_FIELD,
        "RW-EXT-1",
    ),
    (
        "field-before-range",
        "RW-CHECK-1",
        "The server checks fields before ranges: since too large and a critical field earn UNKNOWN_FIELD",
        lambda p: join(p.name),
        lambda p: join(p.name, since=MAX_SAFE + 1, tail=_CRITICAL),
        Code.UNKNOWN_FIELD,
        "RW-EXT-1",
    ),
    (
        "type-before-structure",
        "RW-CHECK-1",
        "The server checks the type before the structure: a request WELCOME without a body earns UNKNOWN_REQUEST",
        lambda p: join(p.name),
        lambda p: frame(FrameType.WELCOME, request=700),
        Code.UNKNOWN_REQUEST,
        "RW-EXT-1",
    ),
    (
        "range-since",
        "RW-CHECK-4",
        "The server sends RANGE_INVALID for JOIN with since 2^53, and accepts 2^53 - 1",
        lambda p: join(p.name, since=MAX_SAFE),
        lambda p: join(p.name, since=MAX_SAFE + 1),
        Code.RANGE_INVALID,
        "",
    ),
    (
        "range-since-greatest",
        "RW-CHECK-4",
        "The server answers JOIN with since 2^64 - 1 with RANGE_INVALID",
        lambda p: join(p.name, epoch=2**64 - 1, since=MAX_SAFE),
        lambda p: join(p.name, epoch=2**64 - 1, since=2**64 - 1),
        Code.RANGE_INVALID,
        "",
    ),
    (
        "name-ill-formed",
        "RW-CHECK-6",
        "The server answers JOIN whose name is not UTF-8 with NAME_INVALID",
        lambda p: join(p.name),
        lambda p: join(p.name[:-1] + b"\xc3"),
        Code.NAME_INVALID,
        "",
    ),
    (
        "name-overlong",
        "RW-CHECK-6",
        "The server answers JOIN whose name has an overlong form of UTF-8 with NAME_INVALID",
        lambda p: join(p.name),
        lambda p: join(p.name + b"\xc1\xa1"),
        Code.NAME_INVALID,
        "",
    ),
    (
        "name-surrogate",
        "RW-CHECK-6",
        "The server answers JOIN whose name has an encoded surrogate with NAME_INVALID",
        lambda p: join(p.name),
        lambda p: join(p.name + b"\xed\xa0\x80"),
        Code.NAME_INVALID,
        "",
    ),
    (
        "join-name-before-range",
        "RW-CHECK-1",
        "The server checks for ill-formed names before numbers out of range: JOIN with both earns NAME_INVALID",
        lambda p: join(p.name),
        lambda p: join(b"\xff", since=MAX_SAFE + 1),
        Code.NAME_INVALID,
        "",
    ),
    (
        "join-range-before-name",
        "RW-CHECK-1",
        "The server checks ranges before the rules of names: JOIN that breaks both earns RANGE_INVALID",
        lambda p: join(p.name),
        lambda p: join(b"\x07", since=MAX_SAFE + 1),
        Code.RANGE_INVALID,
        "",
    ),
    (
        "publish-room-before-payload",
        "RW-CHECK-1",
        "The server answers PUBLISH with NOT_JOINED rather than PAYLOAD_INVALID",
        lambda p: publish(p),
        lambda p: _elsewhere(p, payload=b"\xff"),
        Code.NOT_JOINED,
        "RW-MODEL-8",
    ),
    (
        "publish-payload-before-expired",
        "RW-CHECK-1",
        "The server answers PUBLISH with PAYLOAD_INVALID rather than ID_EXPIRED",
        lambda p: publish(p),
        lambda p: publish(p._replace(id=bytes(16)), payload=b"\xff"),
        Code.PAYLOAD_INVALID,
        "RW-ID-1",
    ),
    (
        "publish-room-before-expired",
        "RW-CHECK-1",
        "The server answers PUBLISH with NOT_JOINED rather than ID_EXPIRED",
        lambda p: publish(p),
        lambda p: _elsewhere(p._replace(id=bytes(16))),
        Code.NOT_JOINED,
        "RW-MODEL-8",
    ),
]


def _define_once(
    path: str, requirement: str, what: str, twin: MakeOctets, broken: MakeOctets, code: Code, breaks: str
) -> None:
    async def run(t: Context) -> None:
        await expect_refusal(t, requirement, twin, broken, code, breaks=breaks)

    SERVER.add(f"6.2/{path}", [requirement], f"{what}.", run)


for _once in _ONCE:
    _define_once(*_once)


@case("6.2/history-range", "RW-CHECK-4", "RW-CHECK-1")
async def history_range(t: Context) -> None:
    """The server sends RANGE_INVALID for HISTORY with a start or end of 2^53, rather than NOT_JOINED."""
    bodies = (u64(MAX_SAFE + 1) + u64(0) + b"\0\0", u64(1) + u64(2**63) + b"\0\0")
    for body in bodies:
        await expect_refusal(
            t,
            "RW-CHECK-4",
            lambda p: history(p, u64(MAX_SAFE) + u64(MAX_SAFE) + b"\0\0"),
            lambda p, body=body: history(p, body),  # type: ignore[misc]
            Code.RANGE_INVALID,
            "history",
        )
    await expect_refusal(
        t,
        "RW-CHECK-1",
        history,
        lambda p: history(p, bodies[0], room=p.room + 99),
        Code.RANGE_INVALID,
        "history",
        "RW-MODEL-8",
    )


@case("6.2/range-since-then-joined", "RW-CHECK-4", "RW-CHECK-2")
async def range_since_then_joined(t: Context) -> None:
    """The server sends RANGE_INVALID for JOIN with since 2^63 - 1; the room can then be joined as before."""
    member, there = await t.member(fresh=False)
    client = await t.open()
    for since in (2**63 - 1, MAX_SAFE + 1):
        client.send_octets(join(there.name.encode(), there.epoch, since))
        await client.expect_error(700, Code.RANGE_INVALID, "RW-CHECK-4", 0)
    reply = await t.patiently(client, Join(there.name, there.epoch, 0))
    t.require(isinstance(reply, Joined), "JOINED", reply, "RW-CHECK-2")
    await t.publish(client, there.room)
    await t.marker(member, client, room=there.room)


@case("6.2/join-range-before-joined", "RW-CHECK-1")
async def join_range_before_joined(t: Context) -> None:
    """The server answers JOIN with RANGE_INVALID or NAME_INVALID rather than ALREADY_JOINED."""
    client, joined = await t.member(fresh=False)
    request = client.ask(Join(joined.name, 0, 0))
    await client.expect_error(request, Code.ALREADY_JOINED, "RW-JOIN-1")
    name = joined.name.encode()
    client.send_octets(join(name, since=MAX_SAFE + 1))
    await client.expect_error(700, Code.RANGE_INVALID, "RW-CHECK-1", 0)
    client.send_octets(join(b" " + name))
    await client.expect_error(700, Code.NAME_INVALID, "RW-CHECK-1", 0)


@case("6.2/publish-payload-before-repeat", "RW-CHECK-1", "RW-PUBLISH-2")
async def payload_before_repeat(t: Context) -> None:
    """The server answers PUBLISH with PAYLOAD_INVALID before it looks for a repeat of a known id."""
    client, joined = await t.member(fresh=False)
    t.needs(client, dedupe=True)
    id = t.id(client)
    await t.publish(client, joined.room, id=id)
    request = client.ask(Publish(id, 0, b"\xff\xfe", room=joined.room))
    await client.expect_error(request, Code.PAYLOAD_INVALID)
    request = client.ask(Publish(id, 0, b"other", room=joined.room))
    await client.expect_error(request, Code.ID_CONFLICT, "RW-DEDUPE-2")


@case("6.2/text-ill-formed", "RW-CHECK-5")
async def text_ill_formed(t: Context) -> None:
    """The server takes ill-formed UTF-8 in AGENT, in the name of an extension and in the text of GOAWAY."""
    client = await t.greet()
    client.send_octets(hello(tail=field(FieldType.AGENT, b"\xff\xc0") + field(FieldType.EXTENSION, b8(b"\xff"))))
    reply = await client.reply(1)
    t.require(reply.TYPE.name == "WELCOME", "WELCOME", reply)
    client.send_octets(goaway(b"\xff\xfe\x80"))
    await client.expect_goaway(Code.NONE)


@case("6.2/mechanism-ill-formed", "RW-CHECK-5", "RW-SASL-1")
async def mechanism_ill_formed(t: Context) -> None:
    """The server answers ill-formed UTF-8 in mechanism with UNSUPPORTED_MECHANISM, not with MALFORMED."""
    await expect_hello_refusal(t, "RW-CHECK-5", hello(), hello(mechanism=b"\xffNONE"), Code.UNSUPPORTED_MECHANISM)


@case("6.2/hello-name-ill-formed", "RW-CHECK-6", "RW-HELLO-3")
async def hello_name_ill_formed(t: Context) -> None:
    """The server answers HELLO whose name is not UTF-8 with ERROR(NAME_INVALID), then GOAWAY(NAME_INVALID)."""
    await expect_hello_refusal(t, "RW-CHECK-6", hello(), hello(name=b"ad\xe9"), Code.NAME_INVALID)


@case("6.2/hello-name-before-mechanism", "RW-CHECK-1")
async def name_before_mechanism(t: Context) -> None:
    """The server answers HELLO with NAME_INVALID rather than UNSUPPORTED_MECHANISM."""
    await expect_hello_refusal(t, "RW-CHECK-1", hello(), hello(name=b"", mechanism=b"X-NONE"), Code.NAME_INVALID)


@case("6.2/state-before-type", "RW-CHECK-1", "RW-HELLO-5")
async def state_before_type(t: Context) -> None:
    """The server answers an unknown request before HELLO with UNEXPECTED, not with UNKNOWN_REQUEST."""
    control = await t.greet()
    await expect_accepted(t, control, hello())
    await expect_hello_fatal(t, "RW-CHECK-1", frame(0x0009, request=1), Code.UNEXPECTED, breaks="RW-HELLO-1")


@case("6.2/state-before-header", "RW-CHECK-1", "RW-HELLO-6")
async def state_before_header(t: Context) -> None:
    """The server answers a second HELLO with UNEXPECTED, even if it has request 0 and no body."""
    client, _ = await joined_client(t, await t.any_room(), publish)
    await expect_accepted(t, client, ping())
    client.send_octets(frame(FrameType.HELLO), breaks="RW-HELLO-1")
    await client.expect_goaway(Code.UNEXPECTED, "RW-CHECK-1")
    await t.alive()


@case("6.2/refusal-is-not-fatal", "RW-CHECK-2")
async def refusal_is_not_fatal(t: Context) -> None:
    """The server serves a connection as before after many requests that it refused."""
    client, place = await joined_client(t, await t.any_room(), publish)
    for octets, code in (
        (join(b"\x00"), Code.NAME_INVALID),
        (publish(place, b"\xff"), Code.PAYLOAD_INVALID),
        (leave(place, room=place.room + 1), Code.NOT_JOINED),
        (frame(0x0009, request=700), Code.UNKNOWN_REQUEST),
        (join(place.name, since=2**60), Code.RANGE_INVALID),
    ):
        client.send_octets(octets, breaks="RW-MODEL-8")
        await client.expect_error(700, code)
    await t.publish(client, place.room)
