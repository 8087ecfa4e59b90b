"""Section 8.4: the heartbeat."""

import asyncio
from typing import NamedTuple

from conformance.harness.verdicts import Informative
from conformance.server.cases.ping import FLOOD, PING, all_answered, other_frames, pongs, wait_for_more
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire import clock
from conformance.wire.octets import frame, u16
from protocol.registry import Code, FrameType

_SLACK = 2.0  # seconds that a busy machine may lose
_STILL = 4.0  # seconds after which a server that reads nothing of a flood has stopped: other clients have turns, too
_OFFERED = {"heartbeat_ms": 1_500, "frame_ms": 600_000, "stall_ms": 600_000}
_LOOK = 0.25  # seconds between two looks at whether the server reads


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
    sent, waiting, still = 0, -1, 0.0
    while sent < 24 * 2**20 and still < _STILL and not client.ended:
        if client.unsent < len(FLOOD):
            client.write(FLOOD)
            sent += len(FLOOD)
            await asyncio.sleep(0)
        else:
            still = still + _LOOK if waiting == client.unsent else 0.0
            waiting = client.unsent
            await asyncio.sleep(_LOOK)  # a server that is slow has not stopped reading
    return _Flood(sent, still, waiting)


@case("8.4/time-not-read", "RW-HEARTBEAT-3", tags=["process"])
async def time_not_read(t: Context) -> None:
    """The server does not count the time in which it reads nothing, since its PONGs are not taken, as silence."""
    await t.own_server(**_OFFERED)
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
    unread = await _unread_time(client, flood.still, limit + 0.5)
    heeds = client.welcome.heartbeat_ms == _OFFERED["heartbeat_ms"]
    # A server that counts this time ends the connection after about 2 H of it, another by its own stall time.
    ended_early = bool(client.ended) and unread < 0.75 * limit and not heeds
    t.observe(not ended_early, f"the server has ended the connection after {unread:.1f} s, before 2 H")
    went_on = flood.unsent != client.unsent
    client.pause(False)
    while not all_answered(client, flood.sent):
        client.write(frame(FrameType.PONG, b"I live.."))  # a client that is silent now would break RW-HEARTBEAT-2
        await wait_for_more(client, "RW-HEARTBEAT-3", t.options.patience)
        await asyncio.sleep(0.1)
    _judge_flood(t, client, flood, limit, went_on)


async def _unread_time(client: RawClient, still: float, seconds: float) -> float:
    """Waits in which the server must not count what it does not read; for how long it has read nothing then."""
    until = clock.now() + seconds
    began = clock.now() - still
    while clock.now() < until and not client.ended:
        await asyncio.sleep(_LOOK)
    return clock.now() - began


def _judge_flood(t: Context, client: RawClient, flood: _Flood, limit: float, went_on: bool) -> None:
    """Raises Informative where the server did not stop reading, or ended the connection for another reason."""
    assert client.capture is not None
    codes = [body[:2] for header, body in other_frames(client.capture) if header.type == FrameType.GOAWAY]
    t.observe(codes != [u16(Code.SLOW)], "the server has ended a connection that did not read for 2 H")
    # PINGs that the server did not read may reset the connection before its GOAWAY is taken. Then the time tells: a
    # server that ends it after it read nothing for about 2 H counted that time; one that ends it at once did not.
    timed_out = codes == [u16(Code.TIMEOUT)] or (not codes and flood.still > limit / 2)
    t.observe(flood.still >= _STILL or timed_out, "the server has ended the connection before it stopped reading")
    unanswered = pongs(client.capture) < flood.sent // len(PING)
    cut = codes in ([], [u16(Code.TIMEOUT)]) and unanswered  # there were PINGs to read
    t.observe(cut or not went_on, "the server went on reading while no PONG was taken")
    t.require(not codes and not client.ended, "a PONG for each PING", f"{codes}, {client.ended}", "RW-HEARTBEAT-3")


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
