"""Sections 7.1 to 7.3 and 8.3, 13: the handshake."""

from conformance.server.cases.steps import (
    IGNORABLE,
    SERVER,
    case,
    expect_accepted,
    expect_hello_fatal,
    expect_hello_refusal,
    goaway,
    hello,
    join,
    ping,
)
from conformance.server.context import Context
from conformance.wire.octets import b8, b16, encode, field, frame
from protocol.fields import extension, extensions, mechanisms_of
from protocol.frames import Hello, Welcome
from protocol.registry import Code, FieldType, Flag, FrameType


@case("7.1/welcome", "RW-HELLO-2", "RW-WELCOME-4", "RW-SASL-3")
async def welcome(t: Context) -> None:
    """HELLO with ANONYMOUS is answered with WELCOME, whose limits are within their ranges."""
    client = await t.greet()
    name = t.name()
    answer = await client.hello(name)
    t.require(answer.name in (name, f"~{name}"), f"the name {name} or ~{name}", answer.name, "RW-SASL-5")
    await client.fence()


@case("7.1/initial-response-ignored", "RW-SASL-7")
async def initial_response_ignored(t: Context) -> None:
    """The initial response of ANONYMOUS may be anything."""
    for auth in (b"trace@example.org", b"\xff\x00\xff", bytes(1000)):
        client = await t.greet()
        request = client.ask(Hello(t.name(), "ANONYMOUS", auth))
        await client.expect(request, Welcome)


@case("7.1/unsupported-mechanism", "RW-SASL-1", "RW-HELLO-3")
async def unsupported_mechanism(t: Context) -> None:
    """An unknown mechanism earns ERROR(UNSUPPORTED_MECHANISM) with those offered, then GOAWAY with that code."""
    for name in (b"X-NOT-A-MECHANISM", b"", b"anonymous"):
        broken = hello(mechanism=name)
        error = await expect_hello_refusal(t, "RW-SASL-1", hello(), broken, Code.UNSUPPORTED_MECHANISM)
        offered = mechanisms_of(error)
        t.require("ANONYMOUS" in offered, "ANONYMOUS among the fields MECHANISM", offered, "RW-SASL-1")


@case("7.1/bad-name", "RW-HELLO-3", "RW-NAME-2")
async def bad_name(t: Context) -> None:
    """A HELLO with an empty name earns ERROR(NAME_INVALID), then GOAWAY(NAME_INVALID)."""
    await expect_hello_refusal(t, "RW-HELLO-3", hello(name=b"a"), hello(name=b""), Code.NAME_INVALID)


_EARLY: list[tuple[str, str, bytes]] = [
    ("join", "JOIN", join(b"early", request=1)),
    ("ping", "PING", ping()),
    ("pong", "PONG", frame(FrameType.PONG, bytes(8))),
    ("publish", "PUBLISH", frame(FrameType.PUBLISH, bytes(21), request=1, room=1)),
    ("leave", "LEAVE", frame(FrameType.LEAVE, request=1, room=1)),
    ("auth", "AUTH that was not asked for", frame(FrameType.AUTH, b16(b"x"), request=1)),
    ("ignorable-request", "An ignorable unknown frame with a request", frame(IGNORABLE, request=1)),
    ("critical", "An unknown critical frame", frame(0x7123)),
]


def _define_early(path: str, what: str, octets: bytes) -> None:
    async def run(t: Context) -> None:
        control = await t.greet()
        await expect_accepted(t, control, hello())
        await expect_hello_fatal(t, "RW-HELLO-5", octets, Code.UNEXPECTED, breaks="RW-HELLO-1")

    requirements = ["RW-HELLO-5", *(["RW-AUTH-2"] if path == "auth" else [])]
    SERVER.add(f"7.1/before-hello-{path}", requirements, f"{what} before HELLO is UNEXPECTED.", run)


for _row in _EARLY:
    _define_early(*_row)


@case("7.1/second-hello", "RW-HELLO-6")
async def second_hello(t: Context) -> None:
    """A second HELLO is UNEXPECTED."""
    client = await t.open()
    await expect_accepted(t, client, ping())
    client.ask(Hello(t.name(), "ANONYMOUS", b""), breaks="RW-HELLO-1")
    await client.expect_goaway(Code.UNEXPECTED)
    await t.alive()


@case("7.1/auth-when-open", "RW-AUTH-2")
async def auth_when_open(t: Context) -> None:
    """AUTH after WELCOME is UNEXPECTED."""
    client = await t.open()
    await expect_accepted(t, client, ping())
    client.send_octets(frame(FrameType.AUTH, b16(b"x"), request=1), breaks="RW-AUTH-1")
    await client.expect_goaway(Code.UNEXPECTED)
    await t.alive()


@case("7.1/goaway-before-hello", "RW-CLOSE-3")
async def goaway_before_hello(t: Context) -> None:
    """GOAWAY(NONE) in the place of HELLO is answered with GOAWAY(NONE) and the end."""
    client = await t.greet()
    client.send_octets(goaway())
    await client.expect_goaway(Code.NONE)
    await t.alive()


@case("7.1/time-out", "RW-HELLO-4", tags=["waits"])
async def time_out(t: Context) -> None:
    """A connection without HELLO is sent GOAWAY(TIMEOUT)."""
    await t.open()
    client = await t.greet()
    await client.expect_goaway(Code.TIMEOUT, "RW-HELLO-4", t.time_out("handshake_ms"))
    await t.alive()


@case("7.1/time-out-half", "RW-HELLO-4", tags=["waits"])
async def time_out_half(t: Context) -> None:
    """A connection with half a HELLO is sent GOAWAY(TIMEOUT)."""
    await t.open()
    client = await t.greet()
    client.send_octets(hello()[:20], breaks="RW-HELLO-1")
    await client.expect_goaway(Code.TIMEOUT, "RW-HELLO-4", t.time_out("handshake_ms"))
    await t.alive()


@case("7.2/members-differ", "RW-WELCOME-1")
async def members_differ(t: Context) -> None:
    """Each connection has a number of its own, also with the same name, and after another has ended."""
    name, members = t.name(), set()
    for _ in range(6):
        client = await t.open(name)
        members.add(client.welcome.member)
        if len(members) % 2:
            await client.close()
    t.require(len(members) == 6 and 0 not in members, "6 different numbers, none of them 0", sorted(members))


@case("7.2/no-extension-unasked", "RW-WELCOME-2", "RW-EXT-3")
async def no_extension_unasked(t: Context) -> None:
    """WELCOME names no extension that HELLO did not, and none that does not exist."""
    client = await t.open()
    t.require(not extensions(client.welcome), "no extension", extensions(client.welcome))
    client = await t.open(extension_names=["org.example.unheard-of", "grease-a", "history"])
    extra = set(extensions(client.welcome)) - {"history"}
    t.require(not extra, "history at most", extra, "RW-EXT-3")


@case("7.2/extension-data", "RW-EXT-3")
async def extension_data(t: Context) -> None:
    """Unknown extensions with any data, and names of any form, are ignored."""
    client = await t.greet()
    items = (extension("org.example.x", b"\xff" * 200), extension("", b""), extension("UPPER case!", b"\x00"))
    await client.hello(t.name(), items)


@case("7.2/not-verified", "RW-SASL-4", "RW-MESSAGE-2")
async def not_verified(t: Context) -> None:
    """An anonymous client is not VERIFIED, neither in WELCOME nor in its messages."""
    client, joined = await t.member()
    t.require(not client.welcome.flags & Flag.VERIFIED, "VERIFIED clear in WELCOME", hex(client.welcome.flags))
    [[message]] = await t.marker(client, room=joined.room)
    t.require(not message.flags & Flag.VERIFIED, "VERIFIED clear in MESSAGE", hex(message.flags), "RW-MESSAGE-2")


@case("7.2/clock", "RW-ID-4")
async def clock(t: Context) -> None:
    """The clock of a later WELCOME is not before that of an earlier one."""
    times = [(await t.open()).welcome.now_ms for _ in range(3)]
    t.require(times == sorted(times), "times that do not step back", times)


@case("8.3/pipelined", "RW-FRAME-4", "RW-HELLO-2")
async def pipelined(t: Context) -> None:
    """Ignorable frames, HELLO and ignorable frames again in one segment are a handshake."""
    client = await t.greet()
    client.send_octets(frame(IGNORABLE, b"1") + encode(Hello(t.name(), "ANONYMOUS", b"", request=7)) + frame(IGNORABLE))
    await client.expect(7, Welcome)
    await client.fence()


@case("8.3/abandoned", "RW-CLOSE-7")
async def abandoned(t: Context) -> None:
    """Handshakes that are broken off at any place leave the server as it was."""
    octets = hello(tail=field(FieldType.EXTENSION, b8(b"grease-9")))
    for length in (0, 1, 15, 16, 17, len(octets) - 1, len(octets)):
        client = await t.greet()
        client.write(octets[:length])
        await client.close(abort=length % 2 == 0)
    await t.alive()
