"""Section 9.4: evictions."""

from dataclasses import replace

from conformance.client.cases.steps import add, case
from conformance.client.context import Context
from protocol.frames import Evicted, Join, Publish
from protocol.registry import Code, Flag


@case("9.4/evicted-keeps-ids", "RW-PROMISE-5", "RW-ORDER-3", "RW-REQUEST-7")
async def evicted_keeps_ids(t: Context) -> None:
    """The client reports a publish once that is acknowledged after the eviction from its room."""
    t.needs("rejoin")
    server, room = await t.member()
    id = t.publish(room)
    publish = await server.expect(Publish)
    server.send(Evicted(Code.LAGGED, flags=Flag.RETRY, room=room.ref), t.ack(room, publish))
    again = t.room(room.name, next=1)
    await t.answer(id, "published", requirement="RW-REQUEST-7")
    join = await server.expect(Join)
    server.send(t.joined(again, join, head=1), t.echo(again, publish, 1))
    again.next = 2
    await t.marker(server, again)
    published = t.client.of("published")
    t.require(len(published) == 1, "one report", published)
    t.require(not server.left_over(Publish), "no repeat", server.left_over(Publish))


@case("9.4/joins-again", "RW-LAG-4", "RW-RECOVER-1")
async def joins_again(t: Context) -> None:
    """The client joins again with its cursor after EVICTED with RETRY, when retry_ms has passed, not earlier."""
    t.needs("rejoin")
    server, room = await t.member(next=5)
    await t.marker(server, room)
    sent = server.now()
    server.send(Evicted(Code.ROOM_CLOSED, 400, "come back", flags=Flag.RETRY, room=room.ref))
    join = await server.expect(Join, "RW-LAG-4")
    waited = server.now() - sent
    t.require((join.epoch, join.since) == (7, 5), "epoch 7, since 5", join, "RW-RECOVER-1")
    t.require(waited >= 0.4, "at least 400 ms", f"{waited * 1000:.0f} ms")


@case("9.4/lagged-twice", "RW-LAG-4", "RW-PROMISE-10")
async def lagged_twice(t: Context) -> None:
    """The client joins with epoch 0 after EVICTED(LAGGED) twice without progress, and reports the gap."""
    t.needs("rejoin")
    server, room = await t.member(next=5)
    await t.marker(server, room)
    lagged = Evicted(Code.LAGGED, flags=Flag.RETRY)
    server.send(replace(lagged, room=room.ref))
    again = t.room(room.name, next=6)
    await t.rejoin(server, again, head=100)
    await t.marker(server, again)  # seq 6, which was there when the client joined
    server.send(replace(lagged, room=again.ref))
    join = await server.expect(Join, "RW-LAG-4")
    t.require(join.epoch == 0, "epoch 0", join)
    last = t.room(room.name, next=90)
    server.send(t.joined(last, join, head=100))
    await t.marker(server, last)
    gaps = t.client.of("gap")
    t.require(bool(gaps) and gaps[-1].get("start") == "90", "a gap up to 90", gaps, "RW-PROMISE-10")


for _code in (Code.KICKED, Code.BANNED, 699):

    async def _final(t: Context, code: int = _code) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        server.send(Evicted(code, room=room.ref))
        report = await t.report("evicted", requirement="RW-LAG-5")
        t.require(report.get("code") == code and report.get("again") is not True, f"code {code}, for good", report)
        await server.fence()
        await t.idle(server, 0.6)
        t.require(not server.left_over(Join), "no JOIN", server.left_over(Join), "RW-LAG-5")

    _text = f"The client does not join again by itself after EVICTED with code {int(_code)}, without RETRY."
    add(f"9.4/final-{int(_code)}", ["RW-LAG-5"], _text, _final, ["waits"])


@case("9.4/not-joined-is-repeated", "RW-LAG-6")
async def not_joined_is_repeated(t: Context) -> None:
    """The client repeats a publish that earned NOT_JOINED because it crossed EVICTED, with its id."""
    t.needs("rejoin", "repeat")
    server, room = await t.member()
    id = t.publish(room, b"crossing")
    publish = await server.expect(Publish)
    server.send(Evicted(Code.ROOM_CLOSED, flags=Flag.RETRY, room=room.ref), t.refusal(publish, Code.NOT_JOINED))
    again = t.room(room.name)
    await t.rejoin(server, again)
    repeat = await server.expect(Publish, "RW-LAG-6")
    t.require((repeat.id, repeat.room) == (publish.id, again.ref), "the same id, the new ref", repeat, "RW-LAG-6")
    server.send(t.ack(again, repeat))
    await t.answer(id, "published", requirement="RW-LAG-6")
