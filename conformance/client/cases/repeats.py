"""Sections 4, 10.1 and 10.2: ids, publishing again, and publishes whose outcome stays unknown."""

from dataclasses import replace

from conformance.client.cases.steps import back_in_room, case, lost_publishes
from conformance.client.context import NOW_MS, Context
from protocol.frames import Goaway, Join, Publish
from protocol.registry import Code, Flag

_SKEW_MS = 5000  # that a client may take from WELCOME to a publish


@case("10.1/ids", "RW-ID-1")
async def ids(t: Context) -> None:
    """The client makes ids of the time of the server's clock and 80 bits that differ from message to message."""
    server, room = await t.member()
    for n in range(16):
        t.publish(room, bytes([n]))
    publishes = [await server.expect(Publish) for _ in range(16)]
    for publish in publishes:
        time_ms = int.from_bytes(publish.id[:6], "big")
        near = -50 <= time_ms - NOW_MS <= _SKEW_MS
        t.require(near, f"a time from {NOW_MS} on, the server's", publish.id.hex())
    tails = [publish.id[6:] for publish in publishes]
    t.require(len(set(tails)) == 16, "16 different random parts", [tail.hex() for tail in tails])
    for at in range(10):  # 16 random octets are all the same with a chance of 256 to the -15
        values = {tail[at] for tail in tails}
        t.require(len(values) > 1, f"random bits in octet {at + 6}", [tail.hex() for tail in tails])


@case("10.1/clock-follows", "RW-ID-1")
async def clock_follows(t: Context) -> None:
    """The client uses the clock of the WELCOME of a new connection."""
    t.needs("reconnect", "rejoin")
    server, room = await t.member()
    await server.close()
    server = await t.reopened(now_ms=NOW_MS + 10**9)
    again = t.room(room.name)
    await t.rejoin(server, again)
    publish = await t.published(server, again)
    time_ms = int.from_bytes(publish.id[:6], "big") - NOW_MS - 10**9
    t.require(-50 <= time_ms <= _SKEW_MS, "a time of the new clock", publish.id.hex())


@case("10.2/duplicate", "RW-PROMISE-5")
async def duplicate(t: Context) -> None:
    """The client takes an ACK with DUPLICATE, and a seq below its cursor, as the ACK of the first copy."""
    t.needs("reconnect", "rejoin", "repeat")
    room, [id], _ = await lost_publishes(t, (b"twice",))
    server, again, _ = await back_in_room(t, room)
    repeat = await server.expect(Publish)
    server.send(replace(t.ack(again, repeat, flags=Flag.DUPLICATE), seq=3))
    report = await t.answer(id, "published", requirement="RW-PROMISE-5")
    t.require(report.get("seq") == "3", "seq 3", report)
    await server.fence()


@case("10.2/never-blindly", "RW-DEDUPE-7", "RW-PROMISE-6")
async def never_blindly(t: Context) -> None:
    """The client does not repeat a publish without a reply if dedupe_ms is 0; it reports it as unknown."""
    t.needs("reconnect", "rejoin")
    room, [id], _ = await lost_publishes(t, (b"once",), dedupe_ms=0)
    server, again, _ = await back_in_room(t, room, dedupe_ms=0)
    await t.marker(server, again)
    await server.fence()
    t.require(not server.left_over(Publish), "no repeat", server.left_over(Publish))
    report = await t.answer(id, "error", requirement="RW-PROMISE-6")
    t.require(report.get("unknown") is True, "unknown: true", report, "RW-PROMISE-6")


@case("10.2/not-given-up-early", "RW-DEDUPE-8", "RW-DEDUPE-7")
async def not_given_up_early(t: Context) -> None:
    """The client, if dedupe_ms is 0, waits for the stream up to head before it gives up a publish."""
    t.needs("reconnect", "rejoin")
    room, [id], [publish] = await lost_publishes(t, (b"once",), dedupe_ms=0)
    server = await t.reopened(dedupe_ms=0)
    again = t.room(room.name, next=room.next)
    join = await server.expect(Join)
    server.send(t.joined(again, join, head=room.next + 1))
    server.send(again.message(b"of another"))
    await server.fence()
    server.send(t.echo(again, publish, again.next))
    report = await t.answer(id, "published", "error", requirement="RW-DEDUPE-8")
    t.require(
        report.get("event") == "published", "published, since the message came in the stream", report, "RW-DEDUPE-8"
    )


@case("10.2/expired-then-in-stream", "RW-DEDUPE-8", "RW-RECOVER-2")
async def expired_then_in_stream(t: Context) -> None:
    """The client, if its repeat got ID_EXPIRED, waits for the stream up to head before it gives up the publish."""
    t.needs("reconnect", "rejoin", "repeat")
    room, [id], [publish] = await lost_publishes(t, (b"late",))
    server = await t.reopened()
    again = t.room(room.name, next=room.next)
    join = await server.expect(Join)
    server.send(t.joined(again, join, head=room.next + 1))
    repeat = await server.expect(Publish)
    t.require(repeat.id == publish.id, f"a repeat with the id {publish.id.hex()}", repeat, "RW-PROMISE-5")
    server.send(t.refusal(repeat, Code.ID_EXPIRED))
    server.send(again.message(b"of another"))
    await server.fence()
    server.send(t.echo(again, publish, again.next))
    report = await t.answer(id, "published", "error", requirement="RW-DEDUPE-8")
    found = (report.get("event"), report.get("seq"))
    wanted = ("published", str(room.next + 1))
    t.require(found == wanted, "published, since the message came in the stream", report, "RW-DEDUPE-8")
    await server.fence()
    t.require(not server.left_over(Publish), "no further repeat", server.left_over(Publish), "RW-RECOVER-2")


@case("4/unknown-when-given-up", "RW-PROMISE-6")
async def unknown_when_given_up(t: Context) -> None:
    """The client reports a publish as unknown if any copy was not answered, though another was refused."""
    t.needs("reconnect", "rejoin", "repeat")
    room, [id], _ = await lost_publishes(t, (b"doubt",))
    server, _, _ = await back_in_room(t, room)
    repeat = await server.expect(Publish)
    server.send(t.refusal(repeat, Code.ID_EXPIRED))
    report = await t.answer(id, "error", requirement="RW-PROMISE-6")
    t.require(report.get("unknown") is True, "unknown: true", report)


@case("4/unknown-at-quit", "RW-PROMISE-6")
async def unknown_at_quit(t: Context) -> None:
    """The client reports a publish without a reply at `quit` as unknown, if at all, and not as failed."""
    server, room = await t.member()
    id = t.publish(room)
    await server.expect(Publish)
    t.client.tell("quit")
    await server.expect(Goaway)
    await server.close()
    await t.report("closed")
    answers = [r for r in t.client.reports if r.get("id") == id]
    wrong = [r for r in answers if r.get("event") != "error" or r.get("unknown") is not True]
    t.require(not wrong, "unknown: true, if anything", wrong)
