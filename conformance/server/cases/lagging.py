"""Section 9.4, and what of section 9.3 is about members that do not read.

These members have a transport that holds little, so that a few megaoctets in their room are more than it takes.
"""

import asyncio
from collections.abc import Callable

from conformance.harness.verdicts import Failed, Informative
from conformance.server.cases.presence import known_members
from conformance.server.cases.retention import trimmed
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire import clock
from conformance.wire.octets import frame
from conformance.wire.text import code_name
from protocol.frames import Ack, Error, Evicted, Message, Presence, Publish
from protocol.registry import CONTENT_RESERVE, Code, Flag, FrameType, PresenceKind

_FLOOD = 12 * 2**20  # octets, more than any transport holds for a client that does not read
_BUFFER = 32 * 1024  # octets
_PATIENT = {"stall_ms": 600_000, "heartbeat_ms": 60_000}
_PONG = frame(FrameType.PONG, b"I live..")


async def _flood(t: Context, publisher: RawClient, room: int, *readers: RawClient, most: int = 16) -> int:
    """Publishes more than a transport holds, all of which the readers get meanwhile; the last seq.

    The readers are never behind by more than `most` messages, so that a member who reads loses none.
    """
    payload = bytes(min(48 * 1024, publisher.welcome.max_body - CONTENT_RESERVE))
    batch = min(publisher.welcome.window, most)
    head = accepted = 0
    while accepted < _FLOOD // len(payload):
        frames = [Publish(t.id(publisher), 1, payload, room=room) for _ in range(batch)]
        requests = [publisher.ask(frame) for frame in frames]
        last, wait = b"", 0
        for sent, request in zip(frames, requests, strict=True):
            reply = await publisher.reply(request)
            if isinstance(reply, Error) and reply.code == Code.RATE_LIMITED:
                wait = reply.retry_ms
                continue
            t.require(isinstance(reply, Ack), "ACK", reply)
            head = reply.seq if isinstance(reply, Ack) else head
            last, accepted = sent.id, accepted + 1
        for reader in (publisher, *readers) if last else ():
            await reader.until(room, last, "RW-LAG-1")
        if wait:
            await t.wait_ms(wait)
        for client in t.clients:  # a server that sends much need not PING: a client that only reads would be silent
            client.write(_PONG)
    return head


async def _trims_without_laggards(t: Context, publisher: RawClient, count: int) -> None:
    """Raises Informative unless the server trims so many messages in a room all of whose members read."""
    joined = await t.join(publisher, t.room())
    for _ in range(count):
        await t.publish(publisher, joined.room)
    await t.marker(publisher, room=joined.room)
    await trimmed(t, joined, count - 20)


def _numbers(client: RawClient) -> list[int]:
    return [item.frame.seq for item in client.received if isinstance(item.frame, Message)]


async def _reads_on(client: RawClient, done: Callable[[], bool], expected: str, requirement: str) -> None:
    """Waits as long as octets come: there is much to read."""
    while not done() and not client.ended:
        before = client.octets

        def came(before: int = before) -> bool | None:
            return bool(done() or client.ended or client.octets > before) or None

        await client.wait(came, expected, requirement)


@case("9.4/lagged", "RW-LAG-3", "RW-LAG-7", "RW-LAG-1", "RW-PRESENCE-3", tags=["process"])
async def lagged(t: Context) -> None:
    """The server evicts a member behind what is retained with LAGGED, and lets it join again with GAP."""
    await t.own_server(retention_messages=8, **_PATIENT)
    publisher, joined = await t.member()
    reader, _ = await t.member(joined.name)
    slow, there = await t.member(joined.name, receive_buffer=_BUFFER)
    await slow.fence()
    slow.pause()
    head = await _flood(t, publisher, joined.room, reader, most=4)
    try:
        oldest = await trimmed(t, joined, head - 20)
    except Informative:
        await _trims_without_laggards(t, publisher, head)
        _, there = await t.member(joined.name)
        oldest, expected = there.oldest, "messages trimmed as in a room where all members read"
        t.require(oldest >= head - 20, expected, f"messages retained from {oldest} on", "RW-LAG-7")
    slow.pause(False)
    await _reads_on(
        slow,
        lambda: bool(slow.left_over(Evicted)) or head in _numbers(slow),
        "EVICTED(LAGGED), or each message",
        "RW-LAG-3",
    )
    if head in _numbers(slow):
        raise Informative("the transport held all that the member did not read")
    evicted = await slow.expect_frame(Evicted, requirement="RW-LAG-3")
    t.require(evicted.code == Code.LAGGED and evicted.room == joined.room, "EVICTED(LAGGED)", evicted)
    if not there.flags & Flag.QUIET:
        await reader.expect_presence(joined.room, slow.welcome.member, (PresenceKind.LEFT,), "RW-PRESENCE-3")
    cursor = max(_numbers(slow), default=0)
    t.require(cursor + 1 < oldest, f"LAGGED only where a message is missing: a cursor below {oldest - 1}", cursor)
    await t.wait_ms(evicted.retry_ms)
    again = await t.join(slow, joined.name, epoch=joined.epoch, since=cursor)
    t.require(again.start > cursor + 1 and bool(again.flags & Flag.GAP), "GAP", again, "RW-CURSOR-1")
    await t.marker(publisher, slow, reader, room=joined.room)


@case("9.4/slow", "RW-LAG-2", "RW-LAG-1", "RW-PRESENCE-3", tags=["process"])
async def slow(t: Context) -> None:
    """The server ends a connection that takes nothing for the stall time; a GOAWAY there is SLOW."""
    await t.own_server(stall_ms=3_000, heartbeat_ms=60_000)
    publisher, joined = await t.member()
    reader, _ = await t.member(joined.name)
    slow, there = await t.member(joined.name, receive_buffer=_BUFFER)
    t.not_quiet(there)
    await slow.fence()
    slow.pause()
    head = await _flood(t, publisher, joined.room, reader)
    deadline = clock.now() + t.time_out("stall_ms")
    member = slow.welcome.member
    while not reader.find(Presence, lambda p: p.member == member and p.kind in (PresenceKind.LEFT, PresenceKind.LOST)):
        reader.raise_breach()
        slow.write(_PONG)  # it sends, so it is alive: it only does not read
        await asyncio.sleep(0.1)
        if clock.now() > deadline:
            slow.pause(False)
            await _reads_on(slow, lambda: head in _numbers(slow), "each message, or the end", "RW-LAG-2")
            if not slow.ended and "stall_ms" in t.options.limits:
                raise Failed("the end of a connection that takes nothing", "all messages after a while", "RW-LAG-2")
            if not slow.ended:
                raise Informative("the transport held all that the member did not read")
            raise Failed("PRESENCE(lost) of the member that did not read", "none", "RW-LAG-2")
    slow.pause(False)
    await _reads_on(slow, lambda: False, "the connection ended", "RW-LAG-2")
    goaway = slow.invariants.goaway
    t.require(
        goaway is None or goaway.code == Code.SLOW, "GOAWAY(SLOW), or no GOAWAY", goaway and code_name(goaway.code)
    )
    await t.marker(publisher, reader, room=joined.room)


@case("9.3/roster-repair", "RW-ROSTER-3", "RW-ROSTER-4", "RW-LAG-1", tags=["process"])
async def roster_repair(t: Context) -> None:
    """The server tells a member that reads on who came and went while it did not read."""
    await t.own_server(**_PATIENT)
    publisher, joined = await t.member()
    slow, there = await t.member(joined.name, flags=Flag.ROSTER, receive_buffer=_BUFFER)
    t.not_quiet(there)
    gone, _ = await t.member(joined.name)
    await slow.expect_presence(joined.room, gone.welcome.member, (PresenceKind.JOINED,))
    slow.pause()
    head = await _flood(t, publisher, joined.room)
    await gone.close()
    await publisher.expect_presence(joined.room, gone.welcome.member, (PresenceKind.LOST,))
    came, _ = await t.member(joined.name)
    await publisher.expect_presence(joined.room, came.welcome.member, (PresenceKind.JOINED,))
    slow.pause(False)
    wanted = {client.welcome.member for client in (publisher, slow, came)}
    expected = f"ROSTER and PRESENCE that give {sorted(wanted)}"
    await _reads_on(
        slow, lambda: bool(slow.left_over(Evicted)) or head in _numbers(slow), "each message", "RW-CURSOR-2"
    )
    t.observe(
        not any(e.code == Code.LAGGED for e in slow.left_over(Evicted)), "the member that did not read has lagged"
    )
    await slow.wait(lambda: known_members(slow) == wanted or slow.ended or None, expected, "RW-ROSTER-3")
    t.require(known_members(slow) == wanted, expected, sorted(known_members(slow)), "RW-ROSTER-3")
    await t.marker(publisher, slow, room=joined.room)
