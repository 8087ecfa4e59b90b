"""Sections 3, 7.18 and 9.1 where messages were trimmed, on servers of its own that retain little."""

import asyncio

from conformance.harness.verdicts import Informative, Unsupported
from conformance.server.cases.history import read
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire import clock
from protocol.frames import Ack, Joined, Leave, Ok, Publish
from protocol.registry import Flag

_TRIMMED_WITHIN = 20.0  # seconds that a server gets to trim


async def trimmed(t: Context, joined: Joined, oldest: int) -> int:
    """Waits until `oldest` of a room is at least this, and returns it. Raises Informative if that does not come."""
    client = await t.open()
    deadline = clock.now() + min(_TRIMMED_WITHIN, t.options.patience)
    while True:
        there = await t.join(client, joined.name)
        if there.oldest >= oldest:
            return there.oldest
        if clock.now() > deadline:
            raise Informative(f"not tried: the server retains messages from {there.oldest} on")
        await client.expect(client.ask(Leave(room=there.room)), Ok)
        await asyncio.sleep(0.1)


async def _published(t: Context, count: int) -> tuple[RawClient, Joined, list[bytes], list[Ack]]:
    """A keeper in a room with so many messages."""
    keeper, joined = await t.member(extension_names=["history"])
    ids = [t.id(keeper) for _ in range(count)]
    acks = [await t.publish(keeper, joined.room, b"%d" % at, id=id) for at, id in enumerate(ids)]
    return keeper, joined, ids, acks


@case("9.1/trimmed", "RW-CURSOR-1", "RW-MODEL-9", "RW-CURSOR-2", tags=["process"])
async def few(t: Context) -> None:
    """The server begins the stream with the oldest message where it trimmed, and sets GAP if messages are missing."""
    await t.own_server(retention_messages=5)
    _, joined, ids, _ = await _published(t, 12)
    oldest = await trimmed(t, joined, 2)
    for epoch, since in ((joined.epoch, 0), (joined.epoch, oldest - 2), (joined.epoch, oldest - 1), (0, 50)):
        client, there = await t.member(joined.name, epoch=epoch, since=since)
        t.require(there.head == 12, "head 12", there.head, "RW-MODEL-9")
        floor = max(there.oldest, there.head + 1 - t.replay_cap)
        wanted = (floor, bool(epoch) and floor > since + 1)
        found = (there.start, bool(there.flags & Flag.GAP))
        t.require(found == wanted, f"start and GAP {wanted} for since {since}", found, "RW-CURSOR-1")
        replayed = await client.until(there.room, ids[-1], "RW-CURSOR-2") if there.start <= 12 else []
        numbers = [message.seq for message in replayed]
        t.require(numbers == list(range(there.start, 13)), f"{there.start} to 12", numbers, "RW-CURSOR-2")


@case("3/head-without-messages", "RW-MODEL-9", "RW-MODEL-1", "RW-DEDUPE-3", tags=["process"])
async def none_left(t: Context) -> None:
    """The server keeps the head, delivers what comes, and remembers ids, even if it retains nothing."""
    await t.own_server(retention_messages=0)
    keeper, joined, ids, acks = await _published(t, 4)
    await t.marker(keeper, room=joined.room)
    oldest = await trimmed(t, joined, 6)
    client, there = await t.member(joined.name, epoch=joined.epoch, since=2)
    found = (there.head, there.start, oldest, bool(there.flags & Flag.GAP))
    t.require(found == (5, 6, 6, True), "head 5, start 6, oldest 6, GAP", found, "RW-MODEL-9")
    [seen] = await t.marker(keeper, client, room=joined.room)
    t.require([m.seq for m in seen] == [6], "message 6", [m.seq for m in seen], "RW-MODEL-1")
    t.needs(client, dedupe=True)
    for at, (id, first) in enumerate(zip(ids, acks, strict=True)):
        ack = await client.expect(client.ask(Publish(id, 0, b"%d" % at, room=there.room)), Ack, "RW-DEDUPE-3")
        same = (ack.seq, ack.time_ms) == (first.seq, first.time_ms)
        t.require(same and bool(ack.flags & Flag.DUPLICATE), f"DUPLICATE of seq {first.seq}", ack, "RW-DEDUPE-3")


@case("3/head-after-crash", "RW-MODEL-9", "RW-MODEL-5", "RW-DEDUPE-3", tags=["process"])
async def head_after_crash(t: Context) -> None:
    """The server keeps head, epoch and ids of a durable room over a crash, even if it trimmed all messages."""
    await t.own_server(retention_messages=0)
    keeper, joined, ids, acks = await _published(t, 4)
    if not keeper.welcome.flags & Flag.DURABLE:
        raise Unsupported("WELCOME does not say DURABLE")
    await trimmed(t, joined, 5)
    await t.crash_and_restart()
    client, there = await t.member(joined.name, epoch=joined.epoch, since=4)
    found = (there.epoch, there.head, there.start)
    t.require(found == (joined.epoch, 4, 5), f"epoch {joined.epoch}, head 4, start 5", found)
    t.needs(client, dedupe=True)
    ack = await client.expect(client.ask(Publish(ids[1], 0, b"1", room=there.room)), Ack, "RW-DEDUPE-3")
    t.require(ack.seq == acks[1].seq and bool(ack.flags & Flag.DUPLICATE), "DUPLICATE of seq 2", ack, "RW-DEDUPE-3")
    ack = await t.publish(client, there.room)
    t.require(ack.seq == 5, "seq 5 for the next", ack.seq, "RW-MODEL-1")


@case("7.18/trimmed", "RW-HISTORY-6", "RW-HISTORY-5", tags=["process"])
async def history_of_trimmed(t: Context) -> None:
    """The server begins HISTORY of a range that it trimmed in part with the oldest message."""
    await t.own_server(retention_messages=5)
    keeper, joined, _, _ = await _published(t, 12)
    t.needs(keeper, "history")
    await t.marker(keeper, room=joined.room)
    oldest = await trimmed(t, joined, 2)
    for start, end in ((0, 0), (1, 0), (1, oldest), (1, oldest + 1), (oldest + 1, 0)):
        _, reply = await read(t, keeper, joined.room, start, end, 0)
        t.require(reply.oldest >= oldest, f"oldest from {oldest}", reply.oldest)


@case("9.1/replay-cap", "RW-CURSOR-1", "RW-CURSOR-2", tags=["process"])
async def replay_cap(t: Context) -> None:
    """The server sends the newest messages up to the replay cap, with GAP where the client has a cursor."""
    await t.own_server(replay_messages=3)
    _, joined, _, _ = await _published(t, 10)
    client, there = await t.member(joined.name, since=99)
    if there.start == 1:
        raise Informative("not tried: the replay cap is above 10")
    cap = min(t.replay_cap, 3)
    first = 11 - cap
    t.observe(there.oldest <= first, f"not tried: the server retains messages from {there.oldest} on")
    t.require(there.start == first and not there.flags & Flag.GAP, f"start {first}, GAP clear", there)
    for since, start, gap in (
        (0, first, True), (first - 2, first, True), (first - 1, first, False), (9, max(first, 10), first > 10),
        (10, 11, False),
    ):  # fmt: skip
        client, there = await t.member(joined.name, epoch=joined.epoch, since=since)
        found = (there.start, bool(there.flags & Flag.GAP))
        t.require(found == (start, gap), f"start {start}, GAP {gap} for since {since}", found)
    [seen] = await t.marker(client, room=there.room)
    t.require([m.seq for m in seen] == [11], "message 11", [m.seq for m in seen], "RW-CURSOR-2")
    _, other = await t.member(joined.name, epoch=joined.epoch ^ 1 or 2, since=10)
    found = (other.start, bool(other.flags & Flag.GAP))
    t.require(found == (12 - cap, True), f"start {12 - cap}, GAP in another epoch", found)
