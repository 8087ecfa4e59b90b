"""Section 11: coming back with a cursor."""

from dataclasses import replace

from conformance.client.cases.steps import case, lost_publishes
from conformance.client.context import Context
from conformance.wire.octets import frame
from protocol.frames import Join, Publish
from protocol.registry import Flag


@case("11/cursor", "RW-RECOVER-1", "RW-MODEL-8")
async def cursor(t: Context) -> None:
    """The client joins each room again with its cursor after a lost connection, and uses the new refs."""
    t.needs("reconnect", "rejoin")
    server, one = await t.member(next=41)
    two = t.room("two", next=7, epoch=2**64 - 2)
    await t.join(server, two)
    await t.marker(server, one)
    await t.marker(server, one)
    await server.close(abort=True)
    server = await t.reopened()
    joins = {}
    for _ in range(2):
        join = await server.expect(Join, "RW-RECOVER-1")
        joins[join.name] = join.epoch, join.since
        again = t.room(join.name, next=join.since + 1, epoch=join.epoch)
        server.send(t.joined(again, join))
    wanted = {"lobby": (7, 42), "two": (2**64 - 2, 6)}
    t.require(joins == wanted, f"cursors {wanted}", joins)
    publish = t.publish(two)
    frame = await server.expect(Publish, "RW-MODEL-8")
    t.require(frame.room in server.invariants.refs, "a ref of this connection", frame, "RW-MODEL-8")
    server.send(t.ack(again, replace(frame)))
    await t.answer(publish, "published")


@case("11/cursor-of-unknown", "RW-RECOVER-1", "RW-TYPE-5")
async def cursor_of_unknown(t: Context) -> None:
    """The client counts unknown sequenced frames, and messages that came twice, in its cursor as seen once."""
    t.needs("reconnect", "rejoin")
    server, room = await t.member()
    await t.marker(server, room)
    server.send_octets(frame(0x8040, bytes(7) + b"\x02more", flags=0x8000, room=room.ref))
    server.send(room.again(1), room.again(2))
    await server.fence()
    await server.close()
    server = await t.reopened()
    join = await server.expect(Join, "RW-RECOVER-1")
    t.require((join.epoch, join.since) == (7, 2), "epoch 7, since 2", join)


@case("11/shown-once", "RW-RECOVER-3", "RW-MODEL-10")
async def shown_once(t: Context) -> None:
    """The client shows messages that the server sends again once, and those of a new epoch as others."""
    t.needs("reconnect", "rejoin")
    server, room = await t.member()
    server.send(room.message(), room.message())
    await t.marker(server, room)
    await server.close()
    server = await t.reopened()
    again = t.room(room.name, next=2)
    await t.rejoin(server, again, head=3)
    server.send(again.message(), again.message())
    await t.marker(server, again, "RW-RECOVER-3")
    t.require(t.seqs(room) == ["1", "2", "3", "4"], "messages 1 to 4, each once", t.seqs(room))
    await server.close()
    server = await t.reopened(within=t.options.timeout + 4)
    fresh = t.room(room.name, epoch=8)
    await t.rejoin(server, fresh, flags=Flag.GAP)
    await t.marker(server, fresh, "RW-MODEL-10")
    found = [(r.get("epoch"), r.get("seq")) for r in t.messages(room)]
    t.require(found[4:] == [("8", "1")], "message 1 of epoch 8", found, "RW-MODEL-10")


@case("11/own-message-acknowledges", "RW-RECOVER-2")
async def own_message(t: Context) -> None:
    """The client takes a publish as acknowledged when it finds its id in a MESSAGE."""
    t.needs("reconnect", "rejoin", "repeat")
    room, [id], [publish] = await lost_publishes(t, (b"there",))
    server = await t.reopened()
    again = t.room(room.name, next=room.next)
    async with t.control("joining again"):
        join = await server.expect(Join)
        server.send(t.joined(again, join, head=room.next), t.echo(again, publish, again.next))
    report = await t.answer(id, "published", requirement="RW-RECOVER-2")
    t.require(report.get("seq") == str(room.next), f"seq {room.next}", report)
