"""Sections 7.1, 7.2 and 8.3: the handshake."""

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
    """The server answers HELLO with ANONYMOUS with a WELCOME whose limits are within their ranges."""
    client = await t.greet()
    name = t.name()
    answer = await client.hello(name)
    t.require(answer.name in (name, f"~{name}"), f"the name {name} or ~{name}", answer.name, "RW-SASL-5")
    await client.fence()


@case("7.1/initial-response-ignored", "RW-SASL-7")
async def initial_response_ignored(t: Context) -> None:
    """The server ignores the initial response of ANONYMOUS."""
    for auth in (b"trace@example.org", b"\xff\x00\xff", bytes(1000)):
        client = await t.greet()
        request = client.ask(Hello(t.name(), "ANONYMOUS", auth))
        await client.expect(request, Welcome)


@case("7.1/unsupported-mechanism", "RW-SASL-1", "RW-HELLO-3")
async def unsupported_mechanism(t: Context) -> None:
    """The server answers an unknown mechanism with ERROR and the mechanisms that it offers, then GOAWAY."""
    for name in (b"X-NOT-A-MECHANISM", b"", b"anonymous"):
        broken = hello(mechanism=name)
        error = await expect_hello_refusal(t, "RW-SASL-1", hello(), broken, Code.UNSUPPORTED_MECHANISM)
        offered = mechanisms_of(error)
        t.require("ANONYMOUS" in offered, "ANONYMOUS among the fields MECHANISM", offered, "RW-SASL-1")


@case("7.1/bad-name", "RW-HELLO-3", "RW-NAME-2")
async def bad_name(t: Context) -> None:
    """The server answers an empty name in HELLO with ERROR(NAME_INVALID), then GOAWAY(NAME_INVALID)."""
    await expect_hello_refusal(t, "RW-HELLO-3", hello(name=b"a"), hello(name=b""), Code.NAME_INVALID)


_EARLY: list[tuple[str, str, bytes]] = [
    ("join", "JOIN", join(b"early", request=1)),
    ("ping", "PING", ping()),
    ("pong", "PONG", frame(FrameType.PONG, bytes(8))),
    ("publish", "PUBLISH", frame(FrameType.PUBLISH, bytes(21), request=1, room=1)),
    ("leave", "LEAVE", frame(FrameType.LEAVE, request=1, room=1)),
    ("auth", "AUTH that it did not ask for", frame(FrameType.AUTH, b16(b"x"), request=1)),
    ("ignorable-request", "an ignorable unknown frame with a request", frame(IGNORABLE, request=1)),
    ("critical", "an unknown critical frame", frame(0x7123)),
]


def _define_early(path: str, what: str, octets: bytes) -> None:
    async def run(t: Context) -> None:
        control = await t.greet()
        await expect_accepted(t, control, hello())
        await expect_hello_fatal(t, "RW-HELLO-5", octets, Code.UNEXPECTED, breaks="RW-HELLO-1")

    requirements = ["RW-HELLO-5", *(["RW-AUTH-2"] if path == "auth" else [])]
    SERVER.add(
        f"7.1/before-hello-{path}",
        requirements,
        f"The server sends GOAWAY(UNEXPECTED) for {what} before HELLO.",
        run,
    )


for _row in _EARLY:
    _define_early(*_row)


@case("7.1/second-hello", "RW-HELLO-6")
async def second_hello(t: Context) -> None:
    """The server answers a second HELLO with GOAWAY(UNEXPECTED)."""
    client = await t.open()
    await expect_accepted(t, client, ping())
    client.ask(Hello(t.name(), "ANONYMOUS", b""), breaks="RW-HELLO-1")
    await client.expect_goaway(Code.UNEXPECTED)
    await t.alive()


@case("7.1/auth-when-open", "RW-AUTH-2")
async def auth_when_open(t: Context) -> None:
    """The server answers AUTH after WELCOME with GOAWAY(UNEXPECTED)."""
    client = await t.open()
    await expect_accepted(t, client, ping())
    client.send_octets(frame(FrameType.AUTH, b16(b"x"), request=1), breaks="RW-AUTH-1")
    await client.expect_goaway(Code.UNEXPECTED)
    await t.alive()


@case("7.1/goaway-before-hello", "RW-CLOSE-3")
async def goaway_before_hello(t: Context) -> None:
    """The server answers GOAWAY(NONE) in place of HELLO with GOAWAY(NONE), and closes the connection."""
    client = await t.greet()
    client.send_octets(goaway())
    await client.expect_goaway(Code.NONE)
    await t.alive()


@case("7.1/time-out", "RW-HELLO-4", tags=["waits"])
async def time_out(t: Context) -> None:
    """The server sends GOAWAY(TIMEOUT) to a client that sends no HELLO."""
    await t.open()
    client = await t.greet()
    await client.expect_goaway(Code.TIMEOUT, "RW-HELLO-4", t.time_out("handshake_ms"))
    await t.alive()


@case("7.1/time-out-half", "RW-HELLO-4", tags=["waits"])
async def time_out_half(t: Context) -> None:
    """The server sends GOAWAY(TIMEOUT) to a client that sends half a HELLO."""
    await t.open()
    client = await t.greet()
    client.send_octets(hello()[:20], breaks="RW-HELLO-1")
    await client.expect_goaway(Code.TIMEOUT, "RW-HELLO-4", t.time_out("handshake_ms"))
    await t.alive()


@case("7.2/members-differ", "RW-WELCOME-1")
async def members_differ(t: Context) -> None:
    """The server gives each connection a number of its own, even with the same name, or after another has ended."""
    name, members = t.name(), set()
    for _ in range(6):
        client = await t.open(name)
        members.add(client.welcome.member)
        if len(members) % 2:
            await client.close()
    t.require(len(members) == 6 and 0 not in members, "6 different numbers other than 0", sorted(members))


@case("7.2/no-extension-unasked", "RW-WELCOME-2", "RW-EXT-3")
async def no_extension_unasked(t: Context) -> None:
    """The server names no extension in WELCOME that HELLO did not name, or that does not exist."""
    client = await t.open()
    t.require(not extensions(client.welcome), "no extension", extensions(client.welcome))
    client = await t.open(extension_names=["org.example.unheard-of", "grease-a", "history"])
    extra = set(extensions(client.welcome)) - {"history"}
    t.require(not extra, "history at most", extra, "RW-EXT-3")


@case("7.2/extension-data", "RW-EXT-3")
async def extension_data(t: Context) -> None:
    """The server ignores unknown extensions, whatever their data and their names are."""
    client = await t.greet()
    items = (extension("org.example.x", b"\xff" * 200), extension("", b""), extension("UPPER case!", b"\x00"))
    await client.hello(t.name(), items)


@case("7.2/not-verified", "RW-SASL-4", "RW-MESSAGE-2")
async def not_verified(t: Context) -> None:
    """The server does not set VERIFIED for an anonymous client, neither in WELCOME nor in MESSAGE."""
    client, joined = await t.member()
    t.require(not client.welcome.flags & Flag.VERIFIED, "VERIFIED clear in WELCOME", hex(client.welcome.flags))
    [[message]] = await t.marker(client, room=joined.room)
    t.require(not message.flags & Flag.VERIFIED, "VERIFIED clear in MESSAGE", hex(message.flags), "RW-MESSAGE-2")


@case("7.2/clock", "RW-ID-4")
async def clock(t: Context) -> None:
    """The server's clock in WELCOME does not go back from one connection to the next."""
    times = [(await t.open()).welcome.now_ms for _ in range(3)]
    t.require(times == sorted(times), "times that do not decrease", times)


@case("8.3/pipelined", "RW-FRAME-4", "RW-HELLO-2")
async def pipelined(t: Context) -> None:
    """The server accepts HELLO between ignorable frames in one segment."""
    client = await t.greet()
    client.send_octets(frame(IGNORABLE, b"1") + encode(Hello(t.name(), "ANONYMOUS", b"", request=7)) + frame(IGNORABLE))
    await client.expect(7, Welcome)
    await client.fence()


@case("8.3/abandoned", "RW-CLOSE-7")
async def abandoned(t: Context) -> None:
    """The server is not harmed by handshakes that are broken off at any place."""
    octets = hello(tail=field(FieldType.EXTENSION, b8(b"grease-9")))
    for length in (0, 1, 15, 16, 17, len(octets) - 1, len(octets)):
        client = await t.greet()
        client.write(octets[:length])
        await client.close(abort=length % 2 == 0)
    await t.alive()
