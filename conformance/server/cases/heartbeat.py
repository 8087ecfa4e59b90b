"""Sections 7.7 and 8.4: PING, PONG and the heartbeat."""

import asyncio
from typing import NamedTuple

from conformance.harness.verdicts import Failed, Informative
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire import clock
from conformance.wire.octets import HEADER, Header, encode, frame, read_header, u16
from protocol.frames import Ping, Pong
from protocol.registry import Code, FrameType

_SLACK = 2.0  # seconds that a busy machine may lose
_STILL = 4.0  # seconds after which a server that reads nothing of a flood has stopped: other clients have turns, too
_LOOK = 0.25  # seconds between two looks at whether the server reads


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
    client = await t.open()
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
    while not _answered(client, pong, sent):  # so many PONGs may take long: what counts is that they come
        await _more(client, "RW-PING-1", t.options.patience)
    given_up = bool(client.ended) and bytes.fromhex("0008 0001") in client.capture[-200:]
    # A server whose H is short sends PINGs between the PONGs, as it must.
    rest = [header for header, _ in _others(client.capture, pong) if header.type != FrameType.PING]
    whole = not rest and client.capture.count(pong) * len(pong) == sent
    t.require(given_up or whole, "each PONG, or GOAWAY(SLOW)", "other frames, or fewer PONGs", "RW-PING-1")
    t.observe(stopped, f"{sent} octets of PINGs were read while no PONG was taken")


def _silence_limit(t: Context, client: RawClient) -> float:
    """2 H in seconds. Raises Informative if that is beyond the patience of the run."""
    limit = 2 * client.welcome.heartbeat_ms / 1000
    if limit + _SLACK > t.options.patience:
        raise Informative(f"not tried: 2 H are {limit:g} s, the patience of this run is {t.options.patience:g} s")
    return limit


class _Flood(NamedTuple):
    """PINGs sent, in octets; seconds in which the server read none of them; octets unsent at the last look."""

    sent: int
    still: float
    unsent: int


async def _flood(client: RawClient) -> _Flood:
    """Sends PINGs until the server stops reading them."""
    sent, waiting, still, chunk = 0, -1, 0.0, encode(Ping(b"unread!!")) * 4096
    while sent < 24 * 2**20 and still < _STILL and not client.ended:
        if client.unsent < len(chunk):
            client.write(chunk)
            sent += len(chunk)
            await asyncio.sleep(0)
        else:
            still = still + _LOOK if waiting == client.unsent else 0.0
            waiting = client.unsent
            await asyncio.sleep(_LOOK)  # a server that is slow has not stopped reading
    return _Flood(sent, still, waiting)


@case("8.4/time-not-read", "RW-HEARTBEAT-3", tags=["process"])
async def time_not_read(t: Context) -> None:
    """The server does not count the time in which it reads nothing, since its PONGs are not taken, as silence."""
    await t.own_server(heartbeat_ms=1_500, frame_ms=600_000, stall_ms=600_000)
    client = await t.open(receive_buffer=4096)
    limit = _silence_limit(t, client)
    await client.fence()
    client.pause()
    client.capture = bytearray()
    flood = await _flood(client)
    t.observe(
        flood.still >= _STILL or bool(client.ended),
        f"the server has read {flood.sent} octets of PINGs while no PONG was taken",
    )
    await asyncio.sleep(limit + 0.5)  # what the server must not count
    went_on = flood.unsent != client.unsent
    client.pause(False)
    pong = encode(Pong(b"unread!!"))
    while not _answered(client, pong, flood.sent):
        client.write(frame(FrameType.PONG, b"I live.."))  # a client that is silent now would break RW-HEARTBEAT-2
        await _more(client, "RW-HEARTBEAT-3", t.options.patience)
        await asyncio.sleep(0.1)
    _judge_flood(t, client, flood, limit, went_on)


def _judge_flood(t: Context, client: RawClient, flood: _Flood, limit: float, went_on: bool) -> None:
    """Raises Informative where the server did not stop reading, or ended the connection for another reason."""
    assert client.capture is not None
    pong = encode(Pong(b"unread!!"))
    codes = [body[:2] for header, body in _others(client.capture, pong) if header.type == FrameType.GOAWAY]
    t.observe(codes != [u16(Code.SLOW)], "the server has ended a connection that did not read for 2 H")
    # PINGs that the server did not read may reset the connection before its GOAWAY is taken. Then the time tells: a
    # server that ends it after it read nothing for about 2 H counted that time; one that ends it at once did not.
    timed_out = codes == [u16(Code.TIMEOUT)] or (not codes and flood.still > limit / 2)
    t.observe(flood.still >= _STILL or timed_out, "the server has ended the connection before it stopped reading")
    all_answered = client.capture.count(pong) * len(pong) >= flood.sent
    cut = codes in ([], [u16(Code.TIMEOUT)]) and not all_answered  # there were PINGs to read
    t.observe(cut or not went_on, "the server went on reading while no PONG was taken")
    t.require(not codes and not client.ended, "a PONG for each PING", f"{codes}, {client.ended}", "RW-HEARTBEAT-3")


def _others(octets: bytes | bytearray, pong: bytes) -> list[tuple[Header, bytes]]:
    """The whole frames that are not this PONG, of which there are too many to look at each."""
    rest = bytes(octets).replace(pong, b"")
    found, at = [], 0
    while at + HEADER.size <= len(rest):
        header = read_header(rest[at : at + HEADER.size])
        at += HEADER.size + header.length
        found.append((header, rest[at - header.length : at]))
    return found


async def _more(client: RawClient, requirement: str, patience: float) -> None:
    """Waits until more is captured, or the connection has ended."""
    assert client.capture is not None
    seen = len(client.capture)
    await client.wait(
        lambda: client.ended or len(client.capture or b"") > seen or None, "a PONG for each PING", requirement, patience
    )


def _answered(client: RawClient, pong: bytes, octets: int) -> bool:
    """Whether all PONGs have come, or the connection has ended."""
    assert client.capture is not None
    return bool(client.ended) or (len(client.capture) >= octets and client.capture.count(pong) * len(pong) >= octets)


@case("8.4/silent-client", "RW-HEARTBEAT-2", tags=["waits"])
async def silent_client(t: Context) -> None:
    """The server sends GOAWAY(TIMEOUT) to a client that sends nothing for 2 H, and not earlier."""
    client = await t.open()
    await client.fence()
    limit = _silence_limit(t, client)
    client.answers_pings = False
    last = clock.now()
    await client.expect_goaway(Code.TIMEOUT, "RW-HEARTBEAT-2", limit + _SLACK + t.options.timeout)
    lasted = clock.now() - last
    t.require(lasted > limit - _SLACK, f"nothing before {limit:g} s", f"GOAWAY after {lasted:.1f} s")
    await t.alive()


@case("8.4/any-octet-counts", "RW-HEARTBEAT-2", "RW-HEARTBEAT-1", tags=["waits"])
async def any_octet_counts(t: Context) -> None:
    """The server keeps a client that sends only PONGs beyond 2 H, and sends it an octet in every H."""
    client = await t.open()
    await client.fence()
    limit = _silence_limit(t, client)
    period = limit / 2
    until = clock.now() + limit + _SLACK
    pause = min(period / 4, 5.0)
    last, unread = client.last_octet, 0.0
    while clock.now() < until:
        begun = clock.now()
        await asyncio.sleep(pause)
        client.send_octets(frame(FrameType.PONG, b"I live.."))
        now = clock.now()
        # Time in which the suite itself was not scheduled is not the server's silence.
        unread = now - begun - pause + (unread if client.last_octet == last else 0.0)
        last = client.last_octet
        silent = now - last - unread
        t.require(
            silent <= period + _SLACK,
            f"an octet in every {period:g} s",
            f"{silent:.1f} s of silence",
            "RW-HEARTBEAT-1",
        )
        t.require(not client.ended, "the connection open", client.last_words(), "RW-HEARTBEAT-2")
    await client.fence()
