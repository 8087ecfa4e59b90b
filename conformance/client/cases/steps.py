"""The register of client cases, and the steps that cases share."""

from collections.abc import Callable

from conformance.client.context import NOW_MS, Context, Room
from conformance.client.raw_server import RawServer
from conformance.harness.case import CaseRegistry
from conformance.wire.octets import b8, b16, b32, frame, u16, u32, u64
from protocol.frames import Join, Publish
from protocol.registry import Code, FrameType

CLIENT = CaseRegistry("client")
case = CLIENT.case
add = CLIENT.add

CRITICAL = 0x0003
"""A field type that is unassigned, and critical: bit 15 is clear."""

IGNORABLE = 0x8021
"""A reserved type of frames and fields, which a receiver ignores."""

PING = frame(FrameType.PING, b"12345678")

SLACK = 0.6  # seconds that a machine may be busy with something else

MakeOctets = Callable[[Room], bytes]


def message_octets(of: Room, seq: int, payload: bytes = b"x", tail: bytes = b"", **header: int) -> bytes:
    """A MESSAGE of a room, without the checks of `encode`."""
    body = u64(seq) + u64(1) + u64(77) + bytes(16) + b"\x01" + b8(b"bob") + b32(payload) + tail
    return frame(FrameType.MESSAGE, body, **{"flags": 0x8000, "room": of.ref, **header})


def goaway_octets(code: int, retry_ms: int = 0, jitter_ms: int = 0, text: bytes = b"", tail: bytes = b"") -> bytes:
    """A GOAWAY of any code, without the checks of `encode`."""
    body = u16(code) + u32(retry_ms) + u32(jitter_ms) + b16(text) + tail
    return frame(FrameType.GOAWAY, body, flags=int(bool(retry_ms)))


def welcome_body(name: bytes = b"ada", tail: bytes = b"") -> bytes:
    """The body of a WELCOME with the limits of section 15."""
    numbers = u64(NOW_MS) + u32(65536) + u32(30000) + u32(600000) + u16(32) + u16(256)
    return u64(9) + b8(name) + numbers + b16(b"") + tail


def roster_entry(name: bytes = b"bob") -> bytes:
    """One entry of a ROSTER."""
    return u64(5) + b"\x00" + b8(name)


BODIES: dict[str, tuple[FrameType, bytes, int]] = {
    "ping": (FrameType.PING, bytes(8), 0),
    "pong": (FrameType.PONG, bytes(8), 0),
    "goaway": (FrameType.GOAWAY, bytes(10) + b16(b"by"), 0),
    "roster": (FrameType.ROSTER, u16(1) + roster_entry(), 1),
    "presence": (FrameType.PRESENCE, b"\x01" + u64(5) + b8(b"bob"), 1),
    "evicted": (FrameType.EVICTED, u16(601) + u32(0) + b16(b"by"), 1),
    "message": (FrameType.MESSAGE, u64(2) + u64(1) + u64(5) + bytes(17) + b8(b"bob") + b32(b"hi"), 1),
}
"""The unasked frames of a server: type, a well-formed body, and 1 if the header names a room."""


async def expect_fatal(
    t: Context, server: RawServer, octets: bytes, requirement: str, *codes: int, breaks: str = ""
) -> None:
    """The client answers these octets with GOAWAY of one of the codes, reports the end, and still takes commands."""
    server.send_octets(octets, breaks=breaks or requirement)
    await server.expect_goaway(*codes, requirement=requirement)
    await server.close()
    await t.report("disconnected", requirement=requirement)
    await t.alive()


def define_fatal(path: str, requirement: str, code: Code, text: str, octets: MakeOctets) -> None:
    """Adds a case: a member is sent these octets, and ends the connection with this code."""

    async def run(t: Context) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        await expect_fatal(t, server, octets(room), requirement, code)

    add(path, [requirement, "RW-CLOSE-2"], text, run)


async def lost_publishes(
    t: Context, payloads: tuple[bytes, ...], **limits: int
) -> tuple[Room, list[int], list[Publish]]:
    """Publishes that the server reads and does not answer before it closes: the room, their commands, the frames."""
    server, room = await t.member(next=5, **limits)
    await t.marker(server, room)
    ids = [t.publish(room, payload) for payload in payloads]
    async with t.control("publishing"):
        publishes = [await server.expect(Publish) for _ in payloads]
    await server.close()
    return room, ids, publishes


async def back_in_room(t: Context, room: Room, **limits: int) -> tuple[RawServer, Room, Join]:
    """The client connects again by itself, and joins its room, which has a new ref."""
    server = await t.reopened(**limits)
    again = t.room(room.name, next=room.next)
    return server, again, await t.rejoin(server, again)
