"""Section 7.7: PING and PONG."""

from collections.abc import Iterator

from conformance.harness.verdicts import Failed, Informative
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.octets import HEADER, Header, encode, frame, read_header
from protocol.frames import Ping, Pong
from protocol.registry import FrameType, is_ignorable

_OPAQUE = b"unread!!"
_PONG = encode(Pong(_OPAQUE))
PING = encode(Ping(_OPAQUE))
FLOOD = PING * 4096
"""What a client sends that takes no PONG."""

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
    sent, stopped = 0, False
    while sent < 24 * 2**20 and not stopped and not client.ended:
        client.write(FLOOD)
        sent += len(FLOOD)
        try:
            await client.flush(0.5)
        except Failed:
            stopped = True
    t.timeout = max(t.timeout, t.options.patience)  # a busy machine may take long to answer so many PINGs first
    await t.alive()
    client.pause(False)
    if client.ended:
        raise Informative(f"the server ended the connection after {sent} octets: {client.ended}")
    while not all_answered(client, sent):  # so many PONGs may take long: what counts is that they come
        await wait_for_more(client, "RW-PING-1", t.options.patience)
    given_up = bool(client.ended) and bytes.fromhex("0008 0001") in client.capture[-200:]
    # The server may send PINGs of its own between the PONGs, and what a client ignores.
    rest = [
        header
        for header, _ in other_frames(client.capture)
        if header.type not in (FrameType.PING, FrameType.PONG) and not is_ignorable(header.type)
    ]
    whole = not rest and pongs(client.capture) == sent // len(PING)
    t.require(given_up or whole, "each PONG, or GOAWAY(SLOW)", "other frames, or fewer PONGs", "RW-PING-1")
    t.observe(stopped, f"{sent} octets of PINGs were read while no PONG was taken")


def pongs(octets: bytes | bytearray) -> int:
    """How many PONGs answer PINGs of a flood, with extension fields or without."""
    with_fields = sum(
        header.type == FrameType.PONG and body.startswith(_OPAQUE) for header, body in other_frames(octets)
    )
    return octets.count(_PONG) + with_fields


def other_frames(octets: bytes | bytearray) -> Iterator[tuple[Header, bytes]]:
    """The whole frames beside the plain PONGs of a flood, of which there are too many to look at each."""
    rest = bytes(octets).replace(_PONG, b"")
    at = 0
    while at + HEADER.size <= len(rest):
        header = read_header(rest[at : at + HEADER.size])
        at += HEADER.size + header.length
        if at <= len(rest):
            yield header, rest[at - header.length : at]


async def wait_for_more(client: RawClient, requirement: str, patience: float) -> None:
    """Waits until more is captured, or the connection has ended."""
    assert client.capture is not None
    seen = len(client.capture)
    await client.wait(
        lambda: client.ended or len(client.capture or b"") > seen or None, "a PONG for each PING", requirement, patience
    )


def all_answered(client: RawClient, octets: int) -> bool:
    """Whether all PONGs for so many octets of a flood seem to be there, or the connection has ended."""
    assert client.capture is not None
    return bool(client.ended) or client.capture.count(_OPAQUE) >= octets // len(PING)
