"""Section 3: logs, epochs and cursors."""

from conformance.server.cases.steps import case, pong
from conformance.server.context import Context
from protocol.frames import Message


@case("3/seq-from-one", "RW-MODEL-1", "RW-PROMISE-1")
async def seq_from_one(t: Context) -> None:
    """The server numbers the messages of a room 1, 2, 3 and so on, and head follows them."""
    client, joined = await t.member()
    for number in range(1, 6):
        ack = await t.publish(client, joined.room)
        t.require(ack.seq == number, f"seq {number}", ack.seq)
        _, there = await t.member(joined.name)
        t.require(there.head == number, f"head {number}", there.head, "RW-PROMISE-1")


@case("3/rooms-apart", "RW-MODEL-1", "RW-MODEL-3")
async def rooms_apart(t: Context) -> None:
    """The server counts the messages of each room apart, and gives each room an epoch of its own."""
    rooms = [await t.member() for _ in range(3)]
    for _ in range(2):
        for client, joined in rooms:
            await t.publish(client, joined.room)
    heads = [(await t.member(joined.name))[1].head for _, joined in rooms]
    t.require(heads == [2, 2, 2], "head 2 in each room", heads)
    epochs = {joined.epoch for _, joined in rooms}
    t.require(len(epochs) == 3, "three epochs", epochs, "RW-MODEL-3")


@case("3/epoch-of-empty-room", "RW-MODEL-3", "RW-MODEL-6")
async def epoch_of_empty_room(t: Context) -> None:
    """The server gives a room without messages an epoch, and keeps it for the first message."""
    client, joined = await t.member()
    t.require(joined.epoch != 0, "an epoch that is not 0", joined.epoch)
    await t.publish(client, joined.room)
    _, there = await t.member(joined.name)
    t.require(there.epoch == joined.epoch, f"epoch {joined.epoch}", there.epoch, "RW-MODEL-6")


@case("3/one-order", "RW-MODEL-2", "RW-LAG-1")
async def one_order(t: Context) -> None:
    """The server sends a member that stops reading for a while the same messages; the others do not wait."""
    publisher, joined = await t.member()
    reader, _ = await t.member(joined.name)
    slow, _ = await t.member(joined.name)
    slow.pause()
    for _ in range(25):
        await t.publish(publisher, joined.room, bytes(2000), ctype=1)
        slow.write(pong())  # it is alive, and answers no PING
    await t.marker(publisher, reader, room=joined.room)
    slow.pause(False)
    [late] = await t.marker(publisher, slow, room=joined.room)
    seen = {i.frame.seq: i.frame.payload for i in reader.received if isinstance(i.frame, Message)}
    t.require(all(seen.get(m.seq, m.payload) == m.payload for m in late), "the same content", late)
    t.require([m.seq for m in late] == list(range(1, 28)), "1 to 27", [m.seq for m in late])
