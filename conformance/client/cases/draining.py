"""Section 8.6: draining."""

from conformance.client.cases.steps import case
from conformance.client.context import Context
from protocol.frames import Goaway, Join, Publish
from protocol.registry import Code, Flag


@case("8.6/drain", "RW-DRAIN-4", "RW-DRAIN-1")
async def drain(t: Context) -> None:
    """The client, after GOAWAY(DRAINING), waits for its replies, sends no request, then sends GOAWAY(NONE)."""
    server, room = await t.member()
    id = t.publish(room, b"before")
    publish = await server.expect(Publish)
    server.send(Goaway(Code.DRAINING, 100, 0, flags=Flag.RETRY))
    await server.fence("RW-PING-1")
    t.publish(room, b"after")
    t.client.tell("join", room="other")
    await t.alive()
    await server.fence("RW-PING-1")
    requests = [*server.left_over(Publish), *server.left_over(Join)]
    t.require(not requests, "no request while the server drains", requests, "RW-DRAIN-1")
    t.require(server.invariants.goaway is None, "no GOAWAY before the last reply", server.invariants.goaway)
    await t.marker(server, room)
    server.send(t.ack(room, publish))
    await t.answer(id, "published", requirement="RW-DRAIN-4")
    await server.expect_goaway(Code.NONE, requirement="RW-DRAIN-4")


@case("8.6/idle", "RW-DRAIN-4")
async def drain_idle(t: Context) -> None:
    """The client answers GOAWAY(DRAINING) with GOAWAY(NONE) at once when it waits for no reply."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send(Goaway(Code.DRAINING, 100, 0, flags=Flag.RETRY))
    await server.expect_goaway(Code.NONE, requirement="RW-DRAIN-4")
    server.send(Goaway(Code.SHUTDOWN, 100, 0, flags=Flag.RETRY))
    await server.expect_end("RW-CLOSE-5")


@case("8.6/cut-short", "RW-CLOSE-4", "RW-DRAIN-1")
async def drain_cut_short(t: Context) -> None:
    """The client answers GOAWAY(SHUTDOWN) with GOAWAY(NONE), and repeats what was not answered later."""
    t.needs("reconnect", "rejoin", "repeat")
    server, room = await t.member()
    id = t.publish(room)
    publish = await server.expect(Publish)
    server.send(Goaway(Code.DRAINING, 10, 0, flags=Flag.RETRY), Goaway(Code.SHUTDOWN, 10, 0, flags=Flag.RETRY))
    await server.expect_goaway(Code.NONE, requirement="RW-CLOSE-4")
    await server.close()
    server = await t.reopened()
    again = t.room(room.name)
    await t.rejoin(server, again)
    repeat = await server.expect(Publish, "RW-PROMISE-5")
    t.require(repeat.id == publish.id, "the same id", repeat.id.hex(), "RW-PROMISE-5")
    server.send(t.ack(again, repeat))
    await t.answer(id, "published")
