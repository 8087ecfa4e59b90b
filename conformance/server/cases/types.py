"""Section 6.1: types that a server does not know."""

from conformance.server.cases.steps import IGNORABLE, SERVER, case, expect_accepted, expect_fatal, hello, ping
from conformance.server.context import Context
from conformance.wire.octets import b16, frame
from protocol.registry import Code, Flag, FrameType

_REQUESTS: list[tuple[str, str, int]] = [
    ("critical", "an unassigned critical type", 0x0009),
    ("ignorable", "an unassigned ignorable type", 0x8009),
    ("reserved", "a reserved type", IGNORABLE),
    ("private", "a private critical type", 0x7FFF),
    ("private-ignorable", "a private ignorable type", 0xF000),
    ("zero", "type 0", 0x0000),
]


def _define_request(path: str, what: str, kind: int) -> None:
    async def run(t: Context) -> None:
        client, joined = await t.member(fresh=False)
        await expect_accepted(t, client, ping())
        for room, body in ((0, b""), (joined.room, b"\x01\x02\x03"), (joined.room + 9, bytes(100))):
            request = client.next_request()
            client.send_octets(frame(kind, body, request=request, room=room), breaks="RW-EXT-1")
            await client.expect_error(request, Code.UNKNOWN_REQUEST, "RW-TYPE-1", room)
        await client.fence()

    SERVER.add(
        f"6.1/request-{path}",
        ["RW-TYPE-1", "RW-ERROR-4"],
        f"The server sends ERROR(UNKNOWN_REQUEST) for {what} with a request number.",
        run,
    )


for _request in _REQUESTS:
    _define_request(*_request)

_SERVERS = (
    "WELCOME",
    "ERROR",
    "OK",
    "JOINED",
    "ROSTER",
    "PRESENCE",
    "EVICTED",
    "ACK",
    "MESSAGE",
    "HISTORY_END",
)


@case("6.1/request-of-servers-types", "RW-TYPE-1")
async def servers_types(t: Context) -> None:
    """The server answers a request of a type that only servers send with ERROR(UNKNOWN_REQUEST)."""
    client = await t.open()
    await expect_accepted(t, client, ping())
    for name in _SERVERS:
        request = client.next_request()
        client.send_octets(frame(FrameType[name], bytes(40), request=request), breaks="RW-EXT-1")
        await client.expect_error(request, Code.UNKNOWN_REQUEST, "RW-TYPE-1", 0)
    await client.fence()


@case("6.1/request-of-extensions", "RW-TYPE-1", "RW-EXT-1")
async def extensions_types(t: Context) -> None:
    """The server answers HISTORY and STOP without their extensions with ERROR(UNKNOWN_REQUEST)."""
    client, joined = await t.member(fresh=False)
    for kind, room, body in ((FrameType.HISTORY, joined.room, bytes(18)), (FrameType.STOP, 0, b"")):
        request = client.next_request()
        client.send_octets(frame(kind, body, request=request, room=room), breaks="RW-EXT-1")
        await client.expect_error(request, Code.UNKNOWN_REQUEST, "RW-TYPE-1", room)
    await client.fence()
    await t.alive()


@case("6.1/ignored", "RW-TYPE-2")
async def ignored(t: Context) -> None:
    """The server ignores ignorable unknown frames with request 0, whatever their body, flags and room are."""
    client, joined = await t.member(fresh=False)
    for kind in (IGNORABLE, 0xFFFF, 0xF000, 0x8001):
        for room, flags, body in (
            (0, 0, b""),
            (joined.room, 0x7FFF, b"\xff" * 50),
            (12345, Flag.EPHEMERAL, bytes(9)),
        ):
            client.send_octets(frame(kind, body, room=room, flags=flags))
    await client.fence("RW-TYPE-2")
    await t.publish(client, joined.room)


@case("6.1/ignored-with-seq", "RW-TYPE-2")
async def ignored_with_seq(t: Context) -> None:
    """The server ignores ignorable unknown frames with the flag SEQ like any others."""
    client, joined = await t.member(fresh=False)
    octets = frame(0x8009, bytes(8), flags=Flag.SEQ, room=joined.room) + frame(0xF001, b"", flags=Flag.SEQ)
    client.send_octets(octets, breaks="RW-EXT-1")
    await client.fence("RW-TYPE-2")
    await t.publish(client, joined.room)


_FATAL: list[tuple[str, str, int]] = [
    ("critical", "an unassigned critical type", 0x0009),
    ("private", "a private critical type", 0x7000),
    ("welcome", "WELCOME from a client", FrameType.WELCOME),
    ("message", "MESSAGE from a client, even without SEQ,", FrameType.MESSAGE),
    ("zero", "type 0", 0),
]


def _define_fatal(path: str, what: str, kind: int) -> None:
    async def run(t: Context) -> None:
        await expect_fatal(
            t, "RW-TYPE-3", lambda p: frame(IGNORABLE, b"?"), lambda p: frame(kind, b"?"), Code.UNKNOWN_TYPE
        )

    summary = f"The server sends GOAWAY(UNKNOWN_TYPE) for {what} with request 0."
    SERVER.add(f"6.1/fatal-{path}", ["RW-TYPE-3", "RW-CHECK-2"], summary, run)


for _fatal in _FATAL:
    _define_fatal(*_fatal)


@case("6.1/ignored-before-hello", "RW-TYPE-2", "RW-HELLO-5")
async def ignored_before_hello(t: Context) -> None:
    """The server ignores ignorable unknown frames with request 0 before HELLO, too."""
    client = await t.greet()
    client.send_octets(frame(IGNORABLE, b"early") + frame(0xF123, b16(b"x"), room=4))
    client.send_octets(hello())
    reply = await client.reply(1, "RW-TYPE-2")
    t.require(reply.TYPE.name == "WELCOME", "WELCOME", reply)
