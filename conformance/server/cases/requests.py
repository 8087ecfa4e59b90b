"""Section 6: requests and their replies."""

from conformance.harness.verdicts import Informative
from conformance.server.cases.steps import case, expect_published
from conformance.server.context import Context
from conformance.wire.octets import encode
from protocol.frames import (
    Ack,
    Error,
    Frame,
    History,
    HistoryEnd,
    Join,
    Joined,
    Leave,
    Message,
    Ok,
    Ping,
    Pong,
    Publish,
)
from protocol.registry import Code


@case("6/replies-in-order", "RW-REQUEST-3", "RW-REQUEST-2")
async def replies_in_order(t: Context) -> None:
    """The server answers quick and slow requests in one segment in their order, each once."""
    client, joined = await t.member(fresh=False)
    t.needs(client, window=5)
    ref = joined.room
    frames: list[Frame] = [
        Publish(t.id(client), 0, b"one", request=31, room=ref),
        Leave(request=30, room=ref + 1000),
        Publish(t.id(client), 0, b"two", request=29, room=ref),
        Join("\u0007", 0, 0, request=28),
        Leave(request=27, room=ref),
    ]
    client.send_octets(b"".join(map(encode, frames)), breaks="RW-MODEL-8")
    await client.expect(31, Ack)
    await client.expect_error(30, Code.NOT_JOINED)
    expect_published(await client.reply(29))
    await client.expect_error(28, Code.NAME_INVALID)
    await client.expect(27, Ok)
    await client.fence()
    t.require(not client.left_over(Ack, Error, Ok), "one reply to each request", client.left_over(Ack, Error, Ok))


@case("6/request-numbers", "RW-REQUEST-2")
async def request_numbers(t: Context) -> None:
    """The server takes any request number but 0: the greatest, a lower one after it, and one used before."""
    client, joined = await t.member(fresh=False)
    for request in (0xFFFFFFFF, 1, 0x80000000, 1, 0xFFFFFFFF):
        client.send(Leave(request=request, room=joined.room + 77), breaks="RW-MODEL-8")
        await client.expect_error(request, Code.NOT_JOINED)


@case("6/more-than-window", "RW-REQUEST-6")
async def more_than_window(t: Context) -> None:
    """The server answers more requests than the window without an error, in their order."""
    client, joined = await t.member(fresh=False)
    await t.publish(client, joined.room)
    count = min(3 * client.welcome.window + 1, 5000)
    first = 1000
    octets = b"".join(encode(Leave(request=first + n, room=joined.room + 77)) for n in range(count))
    client.send_octets(octets, breaks="RW-REQUEST-5")
    for number in range(count):
        await client.expect_error(first + number, Code.NOT_JOINED, "RW-REQUEST-6")
    await client.fence()
    await t.alive()


@case("6/publishes-beyond-window", "RW-REQUEST-6", "RW-REQUEST-2")
async def publishes_beyond_window(t: Context) -> None:
    """The server answers each of more publishes than the window with ACK or RATE_LIMITED."""
    client, joined = await t.member(fresh=False)
    count = min(client.welcome.window + 10, 1000)
    ids = [t.id(client) for _ in range(count)]
    octets = b"".join(encode(Publish(id, 0, b"x", request=1000 + n, room=joined.room)) for n, id in enumerate(ids))
    client.send_octets(octets, breaks="RW-REQUEST-5")
    accepted = 0
    for number in range(count):
        reply = await client.reply(1000 + number, "RW-REQUEST-6")
        limited = isinstance(reply, Error) and reply.code == Code.RATE_LIMITED
        t.require(limited or isinstance(reply, Ack), "ACK or RATE_LIMITED", reply)
        accepted += isinstance(reply, Ack)
    t.require(accepted > 0, "at least one ACK", "none", "RW-REQUEST-6")
    await t.alive()


@case("6/error-echoes-room", "RW-ERROR-4")
async def error_echoes_room(t: Context) -> None:
    """The server puts the room of the request into ERROR and OK, whatever it is."""
    client, joined = await t.member(fresh=False)
    for room in (joined.room + 5, 0xFFFFFFFF):
        request = client.ask(Publish(t.id(client), 0, b"x", room=room), breaks="RW-MODEL-8")
        await client.expect_error(request, Code.NOT_JOINED, room=room)
    request = client.ask(Leave(room=joined.room))
    reply = await client.expect(request, Ok)
    t.require(reply.room == joined.room, f"room {joined.room} in OK", reply.room)


@case("6/reply-not-interleaved", "RW-REQUEST-4", "RW-HISTORY-1")
async def reply_not_interleaved(t: Context) -> None:
    """The server puts no frame of another reply between the MESSAGEs of a reply to HISTORY."""
    client, joined = await t.member(extension_names=["history"])
    t.needs(client, "history", window=4)
    for _ in range(3):
        await t.publish(client, joined.room)
    frames: list[Frame] = [
        History(1, 0, 0, request=51, room=joined.room),
        Publish(t.id(client), 0, b"between", request=52, room=joined.room),
        History(1, 0, 0, request=53, room=joined.room),
        Leave(request=54, room=joined.room),
    ]
    start = len(client.received)
    client.send_octets(b"".join(map(encode, frames)))
    await client.expect(54, Ok)
    numbers = [item.frame.request for item in client.received[start:] if item.frame.request]
    t.require(numbers == sorted(numbers), "the replies one after another", numbers, "RW-REQUEST-4")
    for request in (51, 53):
        await client.expect(request, HistoryEnd)


@case("6/pong-after-replies", "RW-PING-2")
async def pong_after_replies(t: Context) -> None:
    """The server sends a PONG after the replies to all requests that came before its PING."""
    client, joined = await t.member(fresh=False)
    count = min(client.welcome.window, 10)
    octets = b"".join(encode(Publish(t.id(client), 0, b"x", request=200 + n, room=joined.room)) for n in range(count))
    client.send_octets(octets + encode(Ping(b"fence me")))
    await client.expect_frame(Pong, lambda pong: pong.opaque == b"fence me")
    at = next(n for n, item in enumerate(client.received) if isinstance(item.frame, Pong))
    replied = sum(item.frame.request >= 200 for item in client.received[:at])
    t.require(replied == count, f"{count} replies before PONG", replied)


@case("6/reply-after-eviction-of-membership", "RW-REQUEST-2", "RW-LEAVE-1")
async def replies_after_leave(t: Context) -> None:
    """The server answers requests about a room that follow LEAVE in the same segment with NOT_JOINED."""
    client, joined = await t.member(fresh=False)
    t.needs(client, window=3)
    frames: list[Frame] = [
        Leave(request=61, room=joined.room),
        Publish(t.id(client), 0, b"late", request=62, room=joined.room),
        Leave(request=63, room=joined.room),
    ]
    client.send_octets(b"".join(map(encode, frames)), breaks="RW-MODEL-8")
    await client.expect(61, Ok)
    await client.expect_error(62, Code.NOT_JOINED, "RW-LEAVE-1", joined.room)
    await client.expect_error(63, Code.NOT_JOINED, "RW-LEAVE-1", joined.room)


@case("6/reply-does-not-wait-for-stream", "RW-PROMISE-12")
async def reply_does_not_wait(t: Context) -> None:
    """The server answers a request without sending a room's stream first."""
    writer, joined = await t.member(fresh=False)
    for _ in range(20):
        await t.publish(writer, joined.room, bytes(1000), ctype=1)
    reader = await t.open()
    request = reader.ask(Join(joined.name, 0, 20))
    reply = await reader.reply(request)
    if isinstance(reply, Error) and reply.code == Code.RATE_LIMITED:
        raise Informative("the server limited the rate of joins")
    t.require(isinstance(reply, Joined), "JOINED", reply)
    await reader.fence("RW-PROMISE-12")
    t.require(not reader.find(Error), "no ERROR", "ERROR")
    await t.marker(writer, reader, room=joined.room)
    t.require(not reader.left_over(Message), "the whole stream read", "more", "RW-CURSOR-2")
