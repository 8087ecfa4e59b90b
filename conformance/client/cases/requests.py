"""Section 6: requests and their replies."""

from conformance.client.cases.steps import add, case, expect_fatal, message_octets
from conformance.client.context import Context
from conformance.wire.octets import encode, frame, u64
from protocol.frames import Ack, Evicted, Frame, Join, Ok, Publish
from protocol.registry import Code, FrameType


@case("6/numbers", "RW-REQUEST-1")
async def numbers(t: Context) -> None:
    """The client gives requests that are unanswered at one time different numbers other than 0."""
    server, room = await t.member()
    for n in range(20):
        t.publish(room, bytes([n]))
    publishes = [await server.expect(Publish) for _ in range(20)]
    t.require(len({p.request for p in publishes}) == 20, "20 numbers", [p.request for p in publishes])
    server.send(*(t.ack(room, publish) for publish in publishes))
    await t.published(server, room, b"one more")


for _window in (1, 3):

    async def _windowed(t: Context, window: int = _window) -> None:
        server, room = await t.member(window=window)
        ids = [t.publish(room, bytes([n])) for n in range(8)]
        sent: list[bytes] = []
        while len(sent) < len(ids):
            publish = await server.expect(Publish, "RW-REQUEST-5")
            sent.append(publish.payload)
            await server.fence()
            server.send(t.ack(room, publish))
        t.require(sent == [bytes([n]) for n in range(8)], "the order of the commands", sent)
        for id in ids:
            await t.answer(id, "published", requirement="RW-REQUEST-5")

    _text = (
        f"The client has at most {_window} unanswered requests if that is the window, and sends all of them in the end."
    )
    add(f"6/window-{_window}", ["RW-REQUEST-5"], _text, _windowed)


@case("6/window-of-all-kinds", "RW-REQUEST-5")
async def window_of_all_kinds(t: Context) -> None:
    """The client counts JOIN, PUBLISH and LEAVE in one window."""
    server, room = await t.member(window=2)
    t.publish(room, b"1")
    t.publish(room, b"2")
    t.client.tell("join", room="other")
    first = await server.expect(Publish)
    second = await server.expect(Publish)
    await t.alive()
    await server.fence()
    t.require(not server.left_over(Join), "no JOIN while two requests are unanswered", server.left_over(Join))
    server.send(t.ack(room, first), t.ack(room, second))
    await server.expect(Join, "RW-REQUEST-5")


@case("6/matched", "RW-REQUEST-7")
async def matched(t: Context) -> None:
    """The client matches each reply to its request by the number alone."""
    server, room = await t.member()
    ids = [t.publish(room, bytes([n])) for n in range(3)]
    other = t.room("other")
    joining = t.client.tell("join", room=other.name)
    publishes = [await server.expect(Publish) for _ in ids]
    join = await server.expect(Join)
    replies: dict[int, Frame] = {join.request: t.joined(other, join)}
    for seq, publish in zip((31, 32, 33), publishes, strict=True):
        replies[publish.request] = Ack(seq, 5, request=publish.request, room=room.ref)
    asked = [item.frame.request for item in server.received]
    server.send(*(replies[request] for request in asked if request in replies))
    for id, place in zip(ids, ("31", "32", "33"), strict=True):
        report = await t.answer(id, "published", requirement="RW-REQUEST-7")
        t.require(report.get("seq") == place, f"seq {place}", report)
    report = await t.answer(joining, "joined", requirement="RW-REQUEST-7")
    t.require(report.get("room") == "other", 'the room "other"', report)


@case("6/reply-after-eviction", "RW-REQUEST-7")
async def reply_after_eviction(t: Context) -> None:
    """The client takes an ACK after EVICTED as the answer to its PUBLISH."""
    server, room = await t.member()
    id = t.publish(room)
    publish = await server.expect(Publish)
    server.send(Evicted(Code.KICKED, room=room.ref), t.ack(room, publish))
    report = await t.answer(id, "published", requirement="RW-REQUEST-7")
    t.require(report.get("seq") == "1", "seq 1", report)
    await server.fence("RW-REQUEST-7")


@case("6/nobodys-reply", "RW-REQUEST-8")
async def nobodys_reply(t: Context) -> None:
    """The client sends GOAWAY(UNEXPECTED) for a reply to none of its requests."""
    server, room = await t.member()
    await t.marker(server, room)
    octets = frame(FrameType.ACK, u64(2) + u64(1), request=0x70000001, room=room.ref)
    await expect_fatal(t, server, octets, "RW-REQUEST-8", Code.UNEXPECTED)


@case("6/reply-twice", "RW-REQUEST-8")
async def reply_twice(t: Context) -> None:
    """The client sends GOAWAY(UNEXPECTED) for a second reply to a request."""
    server, room = await t.member()
    publish = await t.published(server, room)
    await expect_fatal(t, server, encode(t.ack(room, publish)), "RW-REQUEST-8", Code.UNEXPECTED)


@case("6/reply-of-another-kind", "RW-REQUEST-8")
async def reply_of_another_kind(t: Context) -> None:
    """The client sends GOAWAY(UNEXPECTED) for OK in reply to a PUBLISH."""
    server, room = await t.member()
    t.publish(room)
    publish = await server.expect(Publish)
    octets = encode(Ok(request=publish.request, room=room.ref))
    await expect_fatal(t, server, octets, "RW-REQUEST-8", Code.UNEXPECTED)


@case("6/reply-out-of-order", "RW-REQUEST-8")
async def reply_out_of_order(t: Context) -> None:
    """The client sends GOAWAY(UNEXPECTED) for a reply to the second of two requests before one to the first."""
    server, room = await t.member()
    t.publish(room, b"1")
    t.publish(room, b"2")
    await server.expect(Publish)
    second = await server.expect(Publish)
    await expect_fatal(t, server, encode(t.ack(room, second)), "RW-REQUEST-8", Code.UNEXPECTED)


@case("6/ref-in-use", "RW-REQUEST-9")
async def ref_in_use(t: Context) -> None:
    """The client sends GOAWAY(UNEXPECTED) for a JOINED with the ref of a room that it is in."""
    server, room = await t.member()
    await t.marker(server, room)
    t.client.tell("join", room="other")
    join = await server.expect(Join)
    await expect_fatal(t, server, encode(t.joined(room, join)), "RW-REQUEST-9", Code.UNEXPECTED)


@case("6/message-of-no-request", "RW-REQUEST-8")
async def message_of_no_request(t: Context) -> None:
    """The client sends GOAWAY(UNEXPECTED) for a MESSAGE whose request is no HISTORY of its own."""
    server, room = await t.member()
    await t.marker(server, room)
    await expect_fatal(t, server, message_octets(room, 2, request=0x70000001), "RW-REQUEST-8", Code.UNEXPECTED)
