"""Section 7.13: leaving."""

from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.wire.octets import encode
from protocol.frames import History, Leave, Message, Ok, Presence, Publish
from protocol.registry import Code


@case("7.13/ok", "RW-REQUEST-2", "RW-LEAVE-1")
async def ok(t: Context) -> None:
    """The server answers LEAVE with OK, and a second one with NOT_JOINED."""
    client, joined = await t.member(fresh=False)
    await client.expect(client.ask(Leave(room=joined.room)), Ok, "RW-REQUEST-2")
    request = client.ask(Leave(room=joined.room), breaks="RW-MODEL-8")
    await client.expect_error(request, Code.NOT_JOINED, "RW-LEAVE-1", joined.room)


@case("7.13/not-joined", "RW-LEAVE-1")
async def not_joined(t: Context) -> None:
    """The server sends NOT_JOINED for LEAVE and PUBLISH with the ref of a room of others."""
    _, joined = await t.member(fresh=False)
    stranger = await t.open()
    for frame in (Leave(room=joined.room), Publish(t.id(stranger), 0, b"x", room=joined.room)):
        request = stranger.ask(frame, breaks="RW-MODEL-8")
        await stranger.expect_error(request, Code.NOT_JOINED, room=joined.room)
    await stranger.fence()
    client, again = await t.member(joined.name)
    t.require(again.head == joined.head, f"head {joined.head}: nothing was appended", again.head, "RW-PROMISE-4")
    await client.fence()


@case("7.13/not-joined-history", "RW-LEAVE-1")
async def not_joined_history(t: Context) -> None:
    """The server sends NOT_JOINED for HISTORY with the ref of a room of others."""
    _, joined = await t.member(fresh=False)
    stranger = await t.open(extension_names=["history"])
    t.needs(stranger, "history")
    request = stranger.ask(History(1, 0, 0, room=joined.room), breaks="RW-MODEL-8")
    await stranger.expect_error(request, Code.NOT_JOINED, room=joined.room)


@case("7.13/silence", "RW-LEAVE-2")
async def silence(t: Context) -> None:
    """The server sends nothing of the room's stream after the OK, no MESSAGE and no PRESENCE."""
    stays, joined = await t.member(fresh=False)
    goes, _ = await t.member(joined.name)
    await goes.expect(goes.ask(Leave(room=joined.room)), Ok)
    for _ in range(3):
        await t.marker(stays, room=joined.room)
    third, _ = await t.member(joined.name)
    await t.marker(third, stays, room=joined.room)
    start = len(goes.received)
    await goes.fence()
    late = [item.frame for item in goes.received[start:] if isinstance(item.frame, (Message, Presence))]
    t.require(not late, "no frame of the stream", late)


@case("7.13/one-of-two", "RW-LEAVE-2", "RW-MODEL-2")
async def one_of_two(t: Context) -> None:
    """The server leaves the other membership as it is after LEAVE of one room."""
    client = await t.open()
    t.needs(client, rooms=2)
    one, two = await t.join(client, t.room()), await t.join(client, t.room())
    await client.expect(client.ask(Leave(room=one.room)), Ok)
    other, _ = await t.member(two.name)
    await t.marker(other, client, room=two.room)


@case("7.13/last-publish", "RW-PROMISE-8", "RW-LEAVE-2")
async def last_publish(t: Context) -> None:
    """The server accepts a PUBLISH with a LEAVE in the same segment, and the others get the message."""
    stays, joined = await t.member(fresh=False)
    goes, _ = await t.member(joined.name)
    t.needs(goes, window=2)
    id = t.id(goes)
    octets = encode(Publish(id, 0, b"bye", request=91, room=joined.room)) + encode(Leave(request=92, room=joined.room))
    goes.send_octets(octets)
    ack = await goes.reply(91)
    await goes.expect(92, Ok)
    seen = await stays.until(joined.room, id)
    t.require(seen[-1].seq == getattr(ack, "seq", None), "the message with the seq of its ACK", seen[-1], "RW-ACK-2")
    await t.marker(stays, room=joined.room)
