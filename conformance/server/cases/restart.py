"""Sections 3, 4, 7.2, 10.1 and 10.2 across a crash, on a server of its own that is killed and started again."""

from conformance.harness.verdicts import Unsupported
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from protocol.frames import Ack, Joined, Message, Publish
from protocol.registry import CONTENT_RESERVE, Flag


async def _published(t: Context, count: int) -> tuple[RawClient, Joined, list[bytes], list[Ack]]:
    """A server of its own, with acknowledged messages in one room."""
    await t.own_server()
    client, joined = await t.member()
    ids = [t.id(client) for _ in range(count)]
    acks = [await t.publish(client, joined.room, b"%d" % at, id=id) for at, id in enumerate(ids)]
    return client, joined, ids, acks


async def _durable(t: Context, count: int) -> tuple[RawClient, Joined, list[bytes], list[Ack]]:
    client, joined, ids, acks = await _published(t, count)
    if not client.welcome.flags & Flag.DURABLE:
        raise Unsupported("WELCOME does not say DURABLE")
    return client, joined, ids, acks


@case("4/acknowledged-survives", "RW-PROMISE-2", "RW-PROMISE-1", "RW-MODEL-5", tags=["process"])
async def acknowledged_survives(t: Context) -> None:
    """The server keeps all acknowledged messages, and the epoch, when it is killed and started again."""
    _, joined, ids, acks = await _durable(t, 20)
    await t.crash_and_restart()
    client, again = await t.member(joined.name, epoch=joined.epoch, since=0)
    t.require(again.epoch == joined.epoch, f"epoch {joined.epoch}", again.epoch, "RW-MODEL-5")
    t.require(again.head == acks[-1].seq, f"head {acks[-1].seq}", again.head)
    messages = await client.until(again.room, ids[-1])
    wanted = [(ack.seq, ack.time_ms, id) for ack, id in zip(acks, ids, strict=True)]
    found = [(m.seq, m.time_ms, m.id) for m in messages]
    t.require(found == wanted[again.start - 1 :], "the messages as they were acknowledged", found)


@case("4/prefix-survives", "RW-PROMISE-3", "RW-PROMISE-1", tags=["process"])
async def prefix_survives(t: Context) -> None:
    """The server, killed amid publishes, loses nothing that it acknowledged or delivered, and has no hole."""
    client, joined, _, acks = await _durable(t, 5)
    reader, _ = await t.member(joined.name)
    ids = [t.id(client) for _ in range(min(client.welcome.window, 32))]
    requests = [client.ask(Publish(id, 0, b"racing", room=joined.room)) for id in ids]
    await client.reply(requests[0])
    await t.crash_and_restart()
    seen = [i.frame for p in (client, reader) for i in p.received if isinstance(i.frame, (Ack, Message))]
    promised = max([acks[-1].seq, *(frame.seq for frame in seen)])
    again, there = await t.member(joined.name, epoch=joined.epoch, since=0)
    t.require(there.epoch == joined.epoch, f"epoch {joined.epoch}", there.epoch, "RW-MODEL-5")
    t.require(there.head >= promised, f"a head of at least {promised}", there.head, "RW-PROMISE-1")
    [stream] = await t.marker(again, room=there.room)
    numbers = [message.seq for message in stream]
    t.require(numbers == list(range(there.start, there.head + 2)), "no hole", numbers, "RW-PROMISE-3")


@case("10.2/repeat-after-crash", "RW-DEDUPE-3", "RW-DEDUPE-1", tags=["process"])
async def repeat_after_crash(t: Context) -> None:
    """The server still knows the ids of acknowledged messages when it is killed and started again."""
    _, joined, ids, acks = await _durable(t, 5)
    await t.crash_and_restart()
    client, there = await t.member(joined.name)
    t.needs(client, dedupe=True)
    for at, (id, first) in enumerate(zip(ids, acks, strict=True)):
        ack = await client.expect(client.ask(Publish(id, 0, b"%d" % at, room=there.room)), Ack)
        same = (ack.seq, ack.time_ms) == (first.seq, first.time_ms)
        t.require(same and bool(ack.flags & Flag.DUPLICATE), f"DUPLICATE of seq {first.seq}", ack)


@case("10.2/repeat-waits", "RW-DEDUPE-5", "RW-PROMISE-1", tags=["process"])
async def repeat_waits(t: Context) -> None:
    """The server keeps a message, killed right after it acknowledged its repeat on another connection."""
    first, joined, _, _ = await _durable(t, 1)
    t.needs(first, dedupe=True)
    second, _ = await t.member(joined.name)
    id = t.id(first)
    first.ask(Publish(id, 0, b"twice", room=joined.room))
    ack = await second.expect(second.ask(Publish(id, 0, b"twice", room=joined.room)), Ack)
    await t.crash_and_restart()
    client, there = await t.member(joined.name, epoch=joined.epoch, since=ack.seq - 1)
    t.require(there.head >= ack.seq, f"a head of at least {ack.seq}", there.head)
    [message] = await client.until(there.room, id)
    t.require(message.seq == ack.seq, f"the message at seq {ack.seq}", message)


@case("7.2/max-body-of-what-is-retained", "RW-WELCOME-5", tags=["process"])
async def max_body_of_what_is_retained(t: Context) -> None:
    """The server announces a max_body for all that it retains, even if started again with a smaller limit."""
    await t.own_server(max_body=65_536)
    client, joined = await t.member()
    if not client.welcome.flags & Flag.DURABLE:
        raise Unsupported("WELCOME does not say DURABLE")
    id = t.id(client)
    await t.publish(client, joined.room, bytes(client.welcome.max_body - CONTENT_RESERVE), id=id, ctype=1)
    await t.crash_and_restart(max_body=4_096)
    again, there = await t.member(joined.name)
    if there.oldest > there.head:
        raise Unsupported("what was published is not retained")
    before, now = client.welcome.max_body, again.welcome.max_body
    size = 46 + len(client.welcome.name.encode()) + before - CONTENT_RESERVE
    t.require(now >= size, f"a max_body of at least {size}, the body of a message that is retained", now)
    _, there = await t.member(joined.name, epoch=joined.epoch, since=0)
    t.require(there.start == 1, "the message", there, "RW-CURSOR-1")


@case("3/volatile-new-epoch", "RW-MODEL-4", tags=["process"])
async def volatile_new_epoch(t: Context) -> None:
    """The server gives a room a new epoch when it is volatile, and is killed and started again."""
    client, joined, _, _ = await _published(t, 3)
    if client.welcome.flags & Flag.DURABLE:
        raise Unsupported("WELCOME says DURABLE, so the server keeps the epoch")
    await t.crash_and_restart()
    _, again = await t.member(joined.name, epoch=joined.epoch, since=1)
    t.require(again.epoch != joined.epoch, f"another epoch than {joined.epoch}", again.epoch)
    t.require(bool(again.flags & Flag.GAP), "GAP: the epochs differ", hex(again.flags), "RW-CURSOR-1")


@case("10.1/clock-after-crash", "RW-ID-4", "RW-ACK-1", tags=["process"])
async def clock_after_crash(t: Context) -> None:
    """The server does not let its clock and times go back over a restart where it keeps the epoch."""
    before, joined, _, acks = await _durable(t, 3)
    await t.crash_and_restart()
    client, there = await t.member(joined.name)
    t.require(
        client.welcome.now_ms >= before.welcome.now_ms,
        f"a clock from {before.welcome.now_ms}",
        client.welcome.now_ms,
    )
    ack = await t.publish(client, there.room)
    t.require(ack.time_ms >= acks[-1].time_ms, f"a time from {acks[-1].time_ms}", ack.time_ms, "RW-ACK-1")
    t.require(ack.seq == acks[-1].seq + 1, f"seq {acks[-1].seq + 1}", ack.seq, "RW-MODEL-1")
