"""The register of client cases, and the steps that tables of them share."""

from conformance.client.context import Context, Room
from conformance.client.raw_server import RawServer
from conformance.harness.case import CaseRegistry
from conformance.wire.octets import b8, b16, b32, frame, u16, u32, u64
from protocol.registry import FrameType

CLIENT = CaseRegistry("client")
case = CLIENT.case
add = CLIENT.add

CRITICAL = 0x0003
"""A field type that is unassigned and must be understood."""

IGNORABLE = 0x8021
"""A type, of frames and fields, that is reserved: to be ignored."""

PING = frame(FrameType.PING, b"12345678")


def message_octets(of: Room, seq: int, payload: bytes = b"x", tail: bytes = b"", **header: int) -> bytes:
    """A MESSAGE of a room by its octets."""
    body = u64(seq) + u64(1) + u64(77) + bytes(16) + b"\x01" + b8(b"bob") + b32(payload) + tail
    return frame(FrameType.MESSAGE, body, **{"flags": 0x8000, "room": of.ref, **header})


def goaway_octets(code: int, retry_ms: int = 0, jitter_ms: int = 0, text: bytes = b"", tail: bytes = b"") -> bytes:
    """A GOAWAY by its octets."""
    body = u16(code) + u32(retry_ms) + u32(jitter_ms) + b16(text) + tail
    return frame(FrameType.GOAWAY, body, flags=int(bool(retry_ms)))


async def refused(
    t: Context, server: RawServer, octets: bytes, requirement: str, *codes: int, breaks: str = ""
) -> None:
    """What is wrong earns GOAWAY of its code; then the client closes, says so, and lives."""
    server.send_octets(octets, breaks=breaks or requirement)
    await server.expect_goaway(*codes, requirement=requirement)
    await server.close()
    await t.report("disconnected", requirement=requirement)
    await t.alive()
