"""Section 10.3: order against refusals."""

from conformance.client.cases.steps import back_in_room, case, lost_publishes
from conformance.client.context import Context
from protocol.frames import Publish
from protocol.registry import Code, Flag


@case("10.3/repeats-first", "RW-ORDER-3", "RW-PROMISE-5")
async def repeats_first(t: Context) -> None:
    """The client first repeats what was not answered on a new connection, with the same ids and in order."""
    t.needs("reconnect", "rejoin", "repeat")
    room, ids, publishes = await lost_publishes(t, (b"1", b"2", b"3"))
    ids.append(t.publish(room, b"4"))
    server, again, _ = await back_in_room(t, room)
    repeats = [await server.expect(Publish, "RW-ORDER-3") for _ in ids]
    found = [publish.payload for publish in repeats]
    t.require(found == [b"1", b"2", b"3", b"4"], "1, 2, 3, then the new 4", found)
    same = [publish.id for publish in repeats[:3]] == [publish.id for publish in publishes]
    t.require(same, "the ids of before", [publish.id.hex() for publish in repeats], "RW-PROMISE-5")
    server.send(*(t.ack(again, publish) for publish in repeats))
    for id in ids:
        await t.answer(id, "published", requirement="RW-ORDER-3")


@case("10.3/from-the-first-refused", "RW-ORDER-2")
async def from_the_first_refused(t: Context) -> None:
    """The client repeats from the first refused publish on, that without ORDERED, when all replies have come."""
    t.needs("ordered", "repeat")
    server, room = await t.member()
    ids = [t.publish(room, payload) for payload in (b"1", b"2", b"3", b"4")]
    one, two, three, four = [await server.expect(Publish) for _ in ids]
    t.require(all(p.flags & Flag.ORDERED for p in (two, three, four)), "the flag ORDERED", two.flags)
    server.send(t.ack(room, one), t.refusal(two, Code.RATE_LIMITED, 50), t.refusal(three, Code.PRECEDED))
    await t.idle(server, 0.2)
    early = server.left_over(Publish)
    t.require(not early, "no repeat before the last reply", early)
    server.send(t.refusal(four, Code.PRECEDED))
    repeats = [await server.expect(Publish, "RW-ORDER-2")]
    t.require(repeats[0].id == two.id and not repeats[0].flags & Flag.ORDERED, "2 without ORDERED", repeats[0])
    await server.fence()
    together = server.left_over(Publish)
    server.send(t.ack(room, repeats[0]))
    t.require(not together, "the first one alone after RATE_LIMITED", together, "RW-ORDER-4")
    repeats += [await server.expect(Publish, "RW-ORDER-2") for _ in range(2)]
    t.require([p.id for p in repeats] == [two.id, three.id, four.id], "2, 3, 4", [p.payload for p in repeats])
    server.send(*(t.ack(room, publish) for publish in repeats[1:]))
    for id in ids:
        await t.answer(id, "published", requirement="RW-ORDER-2")


@case("10.3/refused-for-good", "RW-ORDER-2")
async def refused_for_good(t: Context) -> None:
    """The client leaves out what was refused for good, and repeats what followed, the first without ORDERED."""
    t.needs("ordered", "repeat")
    server, room = await t.member()
    ids = [t.publish(room, payload) for payload in (b"1", b"2", b"3")]
    one, two, three = [await server.expect(Publish) for _ in ids]
    server.send(t.refusal(one, Code.FORBIDDEN), t.refusal(two, Code.PRECEDED, 1), t.refusal(three, Code.PRECEDED, 1))
    await t.answer(ids[0], "error")
    again = await server.expect(Publish, "RW-ORDER-2")
    t.require(again.id == two.id and not again.flags & Flag.ORDERED, "2 without ORDERED", again)
    server.send(t.ack(room, again))
    last = await server.expect(Publish, "RW-ORDER-2")
    t.require(last.id == three.id, "3", last.payload)
    server.send(t.ack(room, last))
    await t.answer(ids[2], "published", requirement="RW-ORDER-2")


@case("10.3/one-alone", "RW-ORDER-4")
async def one_alone(t: Context) -> None:
    """The client sends the first publish alone after RATE_LIMITED, and the others when it is acknowledged."""
    t.needs("ordered", "repeat")
    server, room = await t.member()
    for payload in (b"1", b"2", b"3"):
        t.publish(room, payload)
    publishes = [await server.expect(Publish) for _ in range(3)]
    server.send(*(t.refusal(publish, Code.RATE_LIMITED, 50) for publish in publishes))
    first = await server.expect(Publish, "RW-ORDER-4")
    await t.idle(server, 0.1)
    await server.fence()
    t.require(not server.left_over(Publish), "the first one alone", server.left_over(Publish))
    server.send(t.ack(room, first))
    await server.expect(Publish, "RW-ORDER-4")
