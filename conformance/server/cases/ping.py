"""Section 7.7: PING and PONG."""

from conformance.harness.verdicts import Failed, Informative
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.octets import HEADER, Header, encode, frame, read_header
from protocol.frames import Ping, Pong
from protocol.registry import FrameType

_BUFFER = 32 * 1024  # octets of PONGs that the transport of a client that does not read holds, about


@case("7.7/same-opaque", "RW-PING-1")
async def same_opaque(t: Context) -> None:
    """The server answers each PING with one PONG of the same octets, in order."""
    client = await t.open()
    values = [bytes(8), b"\xff" * 8, bytes.fromhex("F552575001010000"), b"12345678", b"12345678"]
    client.send_octets(b"".join(encode(Ping(value)) for value in values))
    for value in values:
        pong = await client.expect_frame(Pong)
        t.require(pong.opaque == value, f"PONG {value.hex()}", pong.opaque.hex())
    await client.fence()
    t.require(not client.left_over(Pong), "no further PONG", client.left_over(Pong))


@case("7.7/unasked-pong", "RW-PING-3")
async def unasked_pong(t: Context) -> None:
    """The server ignores a PONG that it did not ask for."""
    client, joined = await t.member()
    for value in (bytes(8), b"\xff" * 8):
        client.send_octets(frame(FrameType.PONG, value))
    await client.fence("RW-PING-3")
    await t.publish(client, joined.room)


@case("7.7/many-unread", "RW-PING-4", "RW-PING-1", tags=["slow", "process"])
async def many_unread(t: Context) -> None:
    """The server stops reading a client that sends PINGs and reads nothing, and answers all of them in the end."""
    await t.with_limits(heartbeat_ms=60_000)  # so that the server sends no PING of its own
    client = await t.open(receive_buffer=_BUFFER)
    await client.fence()
    client.pause()
    client.capture = bytearray()
    sent, chunk = 0, encode(Ping(b"unread!!")) * 4096
    stopped = False
    while sent < 24 * 2**20 and not stopped and not client.ended:
        client.write(chunk)
        sent += len(chunk)
        try:
            await client.flush(0.5)
        except Failed:
            stopped = True
    await t.alive()
    client.pause(False)
    if client.ended:
        raise Informative(f"the server ended the connection after {sent} octets: {client.ended}")
    pong = encode(Pong(b"unread!!"))
    while not all_answered(client, pong, sent):  # so many PONGs may take long: what counts is that they come
        await wait_for_more(client, "RW-PING-1", t.options.patience)
    given_up = bool(client.ended) and bytes.fromhex("0008 0001") in client.capture[-200:]
    # A server whose H is short sends PINGs between the PONGs, as it must.
    rest = [header for header, _ in other_frames(client.capture, pong) if header.type != FrameType.PING]
    whole = not rest and client.capture.count(pong) * len(pong) == sent
    t.require(given_up or whole, "each PONG, or GOAWAY(SLOW)", "other frames, or fewer PONGs", "RW-PING-1")
    t.observe(stopped, f"{sent} octets of PINGs were read while no PONG was taken")


def other_frames(octets: bytes | bytearray, pong: bytes) -> list[tuple[Header, bytes]]:
    """The whole frames that are not this PONG, of which there are too many to look at each."""
    rest = bytes(octets).replace(pong, b"")
    found, at = [], 0
    while at + HEADER.size <= len(rest):
        header = read_header(rest[at : at + HEADER.size])
        at += HEADER.size + header.length
        found.append((header, rest[at - header.length : at]))
    return found


async def wait_for_more(client: RawClient, requirement: str, patience: float) -> None:
    """Waits until more is captured, or the connection has ended."""
    assert client.capture is not None
    seen = len(client.capture)
    await client.wait(
        lambda: client.ended or len(client.capture or b"") > seen or None, "a PONG for each PING", requirement, patience
    )


def all_answered(client: RawClient, pong: bytes, octets: int) -> bool:
    """Whether all PONGs have come, or the connection has ended."""
    assert client.capture is not None
    return bool(client.ended) or (len(client.capture) >= octets and client.capture.count(pong) * len(pong) >= octets)
