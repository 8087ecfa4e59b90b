"""Section 5.2: lengths, segments and unfinished frames."""

import asyncio

from conformance.server.cases.steps import IGNORABLE, case, expect_accepted, expect_published, hello, ping
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire import clock
from conformance.wire.octets import HEADER, encode, field, frame
from protocol.frames import Ack, Goaway, Hello, Join, Joined, Leave, Ok, Ping, Pong, Publish, Welcome
from protocol.registry import HELLO_MAX_BODY, Code, FrameType


def filler(octets: int) -> bytes:
    """Ignorable extension fields that take this many octets, 4 at least."""
    parts = []
    while octets:
        size = octets - 4 if octets <= 60_000 else 50_000
        parts.append(field(IGNORABLE, bytes(size)))
        octets -= 4 + size
    return b"".join(parts)


async def _too_large(t: Context, client: RawClient, header: bytes, requirement: str) -> None:
    client.send_octets(header, breaks="RW-FRAME-3")
    await client.expect_goaway(Code.FRAME_TOO_LARGE, requirement)
    await t.alive()


async def _send_singly(client: RawClient, octets: bytes) -> None:
    """Sends whole frames in single octets, between which a server of the same process has a turn, too."""
    client.send_octets(octets, slices=(octets[:1],))
    for at in range(1, len(octets)):
        await asyncio.sleep(0)
        client.write(octets[at : at + 1])


@case("5.2/segments-octets", "RW-FRAME-4", "RW-CONN-2")
async def segments_octets(t: Context) -> None:
    """The server takes HELLO, JOIN, PUBLISH, LEAVE and PING in single octets as it takes them in one piece."""
    other, there = await t.member()
    client = await t.greet()
    octets = encode(Hello(t.name(), "ANONYMOUS", b"", request=client.next_request()))
    await _send_singly(client, octets)
    await client.expect(1, Welcome, "RW-CONN-2")
    octets = encode(Join(there.name, 0, 0, request=client.next_request()))
    await _send_singly(client, octets)
    await client.expect(2, Joined)
    id = t.id(client)
    octets = encode(Publish(id, 0, b"slow", request=client.next_request(), room=there.room))
    await _send_singly(client, octets)
    await client.expect(3, Ack)
    seen = await other.until(there.room, id)
    t.require(seen[-1].payload == b"slow", "the payload as it was sent", seen[-1].payload)
    octets = leave_octets(client, there.room)
    await _send_singly(client, octets)
    await client.expect(4, Ok)
    octets = encode(Ping(b"abcdefgh"))
    await _send_singly(client, octets)
    await client.expect_frame(Pong)


def leave_octets(client: RawClient, room: int) -> bytes:
    """LEAVE with a fresh request number."""
    return encode(Leave(request=client.next_request(), room=room))


@case("5.2/segments-together", "RW-FRAME-4", "RW-REQUEST-3")
async def segments_together(t: Context) -> None:
    """The server reads several frames in one segment, and a header cut in two, like any others."""
    client, joined = await t.member()
    t.needs(client, window=3)
    first, second = t.id(client), t.id(client)
    octets = (
        encode(Publish(first, 0, b"one", request=101, room=joined.room))
        + encode(Ping(b"together"))
        + encode(Publish(second, 0, b"two", request=102, room=joined.room))
        + encode(Leave(request=103, room=joined.room))
        + encode(Ping(b"the last"))
    )
    cut = len(octets) // 2
    client.send_octets(octets, slices=(octets[:7], octets[7:cut], octets[cut:]))
    await client.expect(101, Ack)
    expect_published(await client.reply(102))
    await client.expect(103, Ok)
    for opaque in (b"together", b"the last"):
        pong = await client.expect_frame(Pong)
        t.require(pong.opaque == opaque, f"PONG {opaque.hex()}", pong.opaque.hex(), "RW-PING-1")


@case("5.2/limit-before-welcome", "RW-FRAME-2")
async def limit_before_welcome(t: Context) -> None:
    """The server accepts a HELLO of 4,096 octets, and answers one of 4,097 with FRAME_TOO_LARGE."""
    small = len(hello()) - HEADER.size
    control = await t.greet()
    await expect_accepted(t, control, hello(tail=filler(HELLO_MAX_BODY - small)))
    client = await t.greet()
    await _too_large(t, client, hello(tail=filler(HELLO_MAX_BODY + 1 - small)), "RW-FRAME-2")


@case("5.2/length-alone-before-welcome", "RW-FRAME-1")
async def length_alone_before_welcome(t: Context) -> None:
    """The server answers the header of a HELLO of 4,097 octets with FRAME_TOO_LARGE, without its body."""
    control = await t.greet()
    await expect_accepted(t, control, hello())
    client = await t.greet()
    await _too_large(t, client, hello(length=HELLO_MAX_BODY + 1)[: HEADER.size], "RW-FRAME-1")


@case("5.2/limit-after-welcome", "RW-FRAME-2")
async def limit_after_welcome(t: Context) -> None:
    """The server accepts a body of max_body octets, and answers the header of a longer one with FRAME_TOO_LARGE."""
    client = await t.open()
    limit = client.welcome.max_body
    await expect_accepted(t, client, ping(tail=filler(limit - 8)))
    client.send_octets(frame(IGNORABLE, bytes(limit)))
    await client.fence("RW-FRAME-2")
    await _too_large(t, client, frame(FrameType.PING, length=limit + 1), "RW-FRAME-2")


@case("5.2/length-alone", "RW-FRAME-1")
async def length_alone(t: Context) -> None:
    """The server answers a header that announces 2^32 - 1 octets with FRAME_TOO_LARGE, without a body."""
    client = await t.open()
    await expect_accepted(t, client, ping())
    await _too_large(t, client, frame(FrameType.PING, length=2**32 - 1), "RW-FRAME-1")


@case("5.2/length-before-type", "RW-CHECK-1", "RW-FRAME-1")
async def length_before_type(t: Context) -> None:
    """The server checks the length first, even of a type that it would ignore or does not know."""
    for kind, request in ((IGNORABLE, 0), (0x7001, 0), (FrameType.JOIN, 0)):
        client = await t.open()
        await client.fence()
        octets = frame(kind, request=request, length=client.welcome.max_body + 1)
        await _too_large(t, client, octets, "RW-CHECK-1")


@case("5.2/length-before-state", "RW-CHECK-1")
async def length_before_state(t: Context) -> None:
    """The server checks the length before the state: a PING of 4,097 octets before HELLO earns FRAME_TOO_LARGE."""
    control = await t.greet()
    await expect_accepted(t, control, hello())
    client = await t.greet()
    await _too_large(t, client, frame(FrameType.PING, length=HELLO_MAX_BODY + 1), "RW-CHECK-1")


@case("5.2/frame-time-out", "RW-FRAME-5", tags=["waits"])
async def frame_time_out(t: Context) -> None:
    """The server ends a connection that sends half a frame and no more with GOAWAY(TIMEOUT)."""
    client = await t.open()
    await expect_accepted(t, client, ping())
    client.send_octets(ping()[:20], breaks="RW-FRAME-5")
    await client.expect_goaway(Code.TIMEOUT, "RW-FRAME-5", t.time_out("frame_ms"))
    await t.alive()


@case("5.2/frame-time-out-dripping", "RW-FRAME-5", tags=["waits"])
async def frame_time_out_dripping(t: Context) -> None:
    """The server ends a connection whose frame grows by an octet a second with GOAWAY(TIMEOUT)."""
    client = await t.open()
    await expect_accepted(t, client, ping())
    octets = frame(IGNORABLE, bytes(min(4000, client.welcome.max_body)))
    client.send_octets(octets[:20], breaks="RW-FRAME-5")
    deadline = clock.now() + t.time_out("frame_ms")
    at = 20
    while not client.ended and not client.invariants.goaway and clock.now() < deadline:
        await asyncio.sleep(min(1.0, client.welcome.heartbeat_ms / 4000))
        client.write(octets[at : at + 1])
        at += 1
    await client.expect_goaway(Code.TIMEOUT, "RW-FRAME-5", 1.0)
    await t.alive()


@case("5.2/whole-frames-keep-time", "RW-FRAME-5", "RW-CLOSE-7")
async def whole_frames(t: Context) -> None:
    """The server waits for the second half of a frame while another connection's handshake goes by."""
    client = await t.open()
    octets = ping(b"two part")
    client.write(octets[:18])
    await t.alive()
    t.require(not client.find(Goaway), "the connection open", client.last_words())
    client.send_octets(octets, slices=(octets[18:],))
    await client.expect_frame(Pong, lambda pong: pong.opaque == b"two part")
