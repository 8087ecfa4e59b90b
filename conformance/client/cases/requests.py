"""Sections 6, 7.4 and 7.7: requests and their replies, unknown types, codes, PING."""

import os

from conformance.client.cases.steps import add, case, message_octets, refused
from conformance.client.context import Context
from conformance.wire.octets import b16, encode, field, frame, u16, u32, u64
from protocol.frames import Ack, Evicted, Field, Frame, Join, Leave, Ok, Ping, Pong, Publish, Unknown
from protocol.registry import Code, Flag, FrameType

# Unknown types.


@case("6.1/ignored", "RW-TYPE-4", "RW-GREASE-2")
async def ignored(t: Context) -> None:
    """Frames of unknown type with bit 15 are ignored in every state, whatever their request, room, flags and body."""
    server, hello = await t.greeted()
    odd = [
        Unknown(0x8021, b""),
        Unknown(0x8021 + 0x1F * 527, os.urandom(40), flags=0x00FF),
        Unknown(0xF123, b"\x00"),
        Unknown(0x8010, b"join?", flags=Flag.EPHEMERAL, room=99),
        Unknown(0xFFFF, bytes(300), request=12345, room=2**32 - 1),
    ]
    server.send(*odd)
    server.send(t.welcome(hello))
    await t.report("connected", requirement="RW-TYPE-4")
    server.send(*odd)
    room = t.room()
    id = t.client.tell("join", room=room.name)
    join = await server.expect(Join)
    server.send(*odd, t.joined(room, join), *odd, Unknown(0x8040, b"x", room=room.ref))
    await t.answer(id, "joined", requirement="RW-TYPE-4")
    await t.marker(server, room, "RW-TYPE-4")


@case("17.4/reserved", "RW-GREASE-2", "RW-TYPE-4")
async def reserved(t: Context) -> None:
    """Reserved types and fields, from the first to the last, are ignored like any other unknown ones."""
    server, room = await t.member()
    for n in (0, 1, 263, 527):
        server.send(Unknown(0x8021 + 0x1F * n, os.urandom(n % 50), room=room.ref * (n % 2)))
        server.send(room.message(fields=(Field(0x8021 + 0x1F * n, os.urandom(3)),)))
    await t.marker(server, room, "RW-GREASE-2")
    await server.fence("RW-GREASE-2")


_CRITICAL = {
    "unassigned": frame(0x0009),
    "unassigned-request": frame(0x0123, b"xyz", request=77),
    "private": frame(0x7001),
    "hello": frame(FrameType.HELLO, b"\x03ada\x09ANONYMOUS\x00\x00", request=1),
    "publish": frame(FrameType.PUBLISH, bytes(21), request=9, room=5),
    "join": frame(FrameType.JOIN, bytes(17), request=9),
    "stop": frame(FrameType.STOP, request=9),
}
for _name, _octets in _CRITICAL.items():

    async def _critical(t: Context, octets: bytes = _octets) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        await refused(t, server, octets, "RW-TYPE-4", Code.UNKNOWN_TYPE)

    _text = "A frame of a type that clients do not receive, without bit 15, is UNKNOWN_TYPE."
    add(f"6.1/critical-{_name}", ["RW-TYPE-4", "RW-CLOSE-2"], _text, _critical)


@case("6.1/moves-the-cursor", "RW-TYPE-5")
async def moves_the_cursor(t: Context) -> None:
    """An unknown sequenced frame moves the cursor: the next message is no hole, and one below is dropped."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send(Unknown(0x8040, u64(2) + b"a reaction", flags=Flag.SEQ, room=room.ref))
    server.send(room.again(2, b"late"))
    room.next = 3
    await t.marker(server, room, "RW-TYPE-5")
    t.require(t.seqs(room) == ["1", "3"], "messages 1 and 3", t.seqs(room))


@case("6.1/moves-no-cursor", "RW-TYPE-5")
async def moves_no_cursor(t: Context) -> None:
    """An unknown sequenced frame of a foreign room, with a request, or at or below the cursor moves nothing."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send(
        Unknown(0x8040, u64(50), flags=Flag.SEQ, room=room.ref + 40),
        Unknown(0x8040, u64(60), flags=Flag.SEQ, request=99, room=room.ref),
        Unknown(0x8040, u64(1), flags=Flag.SEQ, room=room.ref),
        Unknown(0x8040, u64(70), room=room.ref),
    )
    await t.marker(server, room, "RW-TYPE-5")
    t.require(t.seqs(room) == ["1", "2"], "messages 1 and 2", t.seqs(room))


@case("6.1/hole-of-an-unknown", "RW-STREAM-2", "RW-TYPE-5")
async def hole_of_an_unknown(t: Context) -> None:
    """An unknown sequenced frame beyond the cursor + 1 is SEQUENCE, as a MESSAGE is."""
    server, room = await t.member()
    await t.marker(server, room)
    octets = encode(Unknown(0x8040, u64(3), flags=Flag.SEQ, room=room.ref))
    await refused(t, server, octets, "RW-STREAM-2", Code.SEQUENCE)


for _name, _body in {"empty": b"", "short": bytes(7), "beyond": u64(2**53)}.items():

    async def _no_seq(t: Context, body: bytes = _body) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        octets = frame(0x8040, body, flags=0x8000, room=room.ref)
        await refused(t, server, octets, "RW-TYPE-6", Code.MALFORMED)

    _text = "An unknown frame with SEQ whose body does not begin with a seq is MALFORMED."
    add(f"6.1/no-seq-{_name}", ["RW-TYPE-6"], _text, _no_seq)


# Replies.


@case("6/numbers", "RW-REQUEST-1")
async def numbers(t: Context) -> None:
    """Requests that are unanswered at one time have different numbers, none of them 0."""
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

    _text = f"With a window of {_window}, no more requests are unanswered, and all are sent in the end."
    add(f"6/window-{_window}", ["RW-REQUEST-5"], _text, _windowed)


@case("6/window-of-all-kinds", "RW-REQUEST-5")
async def window_of_all_kinds(t: Context) -> None:
    """JOIN, PUBLISH and LEAVE share one window."""
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
    """Each reply goes to its request, by the number alone."""
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
    """An ACK that comes behind EVICTED answers its PUBLISH all the same."""
    server, room = await t.member()
    id = t.publish(room)
    publish = await server.expect(Publish)
    server.send(Evicted(Code.KICKED, room=room.ref), t.ack(room, publish))
    report = await t.answer(id, "published", requirement="RW-REQUEST-7")
    t.require(report.get("seq") == "1", "seq 1", report)
    await server.fence("RW-REQUEST-7")


@case("6/nobodys-reply", "RW-REQUEST-8")
async def nobodys_reply(t: Context) -> None:
    """A reply that answers no request is UNEXPECTED."""
    server, room = await t.member()
    await t.marker(server, room)
    octets = frame(FrameType.ACK, u64(2) + u64(1), request=0x70000001, room=room.ref)
    await refused(t, server, octets, "RW-REQUEST-8", Code.UNEXPECTED)


@case("6/reply-twice", "RW-REQUEST-8")
async def reply_twice(t: Context) -> None:
    """A second reply to a request is UNEXPECTED."""
    server, room = await t.member()
    publish = await t.published(server, room)
    await refused(t, server, encode(t.ack(room, publish)), "RW-REQUEST-8", Code.UNEXPECTED)


@case("6/reply-of-another-kind", "RW-REQUEST-8")
async def reply_of_another_kind(t: Context) -> None:
    """OK does not answer a PUBLISH: UNEXPECTED."""
    server, room = await t.member()
    t.publish(room)
    publish = await server.expect(Publish)
    octets = encode(Ok(request=publish.request, room=room.ref))
    await refused(t, server, octets, "RW-REQUEST-8", Code.UNEXPECTED)


@case("6/reply-out-of-order", "RW-REQUEST-8")
async def reply_out_of_order(t: Context) -> None:
    """A reply to the second of two requests before one to the first is UNEXPECTED."""
    server, room = await t.member()
    t.publish(room, b"1")
    t.publish(room, b"2")
    await server.expect(Publish)
    second = await server.expect(Publish)
    await refused(t, server, encode(t.ack(room, second)), "RW-REQUEST-8", Code.UNEXPECTED)


@case("6/ref-in-use", "RW-REQUEST-9")
async def ref_in_use(t: Context) -> None:
    """A JOINED with the ref of a room that the client is in is UNEXPECTED."""
    server, room = await t.member()
    await t.marker(server, room)
    t.client.tell("join", room="other")
    join = await server.expect(Join)
    await refused(t, server, encode(t.joined(room, join)), "RW-REQUEST-9", Code.UNEXPECTED)


@case("6/message-of-no-request", "RW-REQUEST-8")
async def message_of_no_request(t: Context) -> None:
    """A MESSAGE whose request is no HISTORY of the client is UNEXPECTED."""
    server, room = await t.member()
    await t.marker(server, room)
    await refused(t, server, message_octets(room, 2, request=0x70000001), "RW-REQUEST-8", Code.UNEXPECTED)


# Codes.


@case("7.4/unknown-code", "RW-CODE-2", "RW-ERROR-3")
async def unknown_code(t: Context) -> None:
    """An unknown code without RETRY: the request has failed for good, and nothing else has."""
    server, room = await t.member()
    for code in (399, 0, 999, 65535):
        id = t.publish(room)
        publish = await server.expect(Publish)
        body = u16(code) + u32(0) + b16(b"wait 1 s and retry")
        server.send_octets(frame(FrameType.ERROR, body, request=publish.request, room=room.ref))
        report = await t.answer(id, "error", requirement="RW-CODE-2")
        t.require(report.get("code") == code, f"code {code} in the report", report, "RW-ERROR-3")
    await t.marker(server, room, "RW-CODE-2")
    t.require(not server.left_over(Publish), "no repeat", server.left_over(Publish), "RW-ERROR-3")


@case("7.4/unknown-code-retry", "RW-ERROR-3", "RW-CODE-2")
async def unknown_code_retry(t: Context) -> None:
    """An unknown code with RETRY: the same may be sent again, and is the same."""
    t.needs("repeat")
    server, room = await t.member()
    id = t.publish(room, b"again")
    publish = await server.expect(Publish)
    body = u16(499) + u32(50) + b16(b"never come back")
    server.send_octets(frame(FrameType.ERROR, body, request=publish.request, room=room.ref, flags=1))
    again = await server.expect(Publish, "RW-ERROR-3")
    t.require(again.id == publish.id, f"id {publish.id.hex()}", again.id.hex(), "RW-PROMISE-5")
    server.send(t.ack(room, again))
    await t.answer(id, "published", requirement="RW-ERROR-3")


@case("7.4/join-refused", "RW-CODE-2")
async def join_refused(t: Context) -> None:
    """An ERROR to JOIN fails the join, and the next one is a new request."""
    server = await t.open()
    id = t.client.tell("join", room="secret")
    join = await server.expect(Join)
    body = u16(Code.FORBIDDEN) + u32(0) + b16(b"no") + field(0x8004, b"SCRAM-SHA-256") + field(0x8004, b"X")
    server.send_octets(frame(FrameType.ERROR, body, request=join.request))
    report = await t.answer(id, "error", requirement="RW-CODE-2")
    t.require(report.get("code") == Code.FORBIDDEN, "FORBIDDEN", report)
    await t.join(server, t.room("lobby"))


@case("7.13/leave", "RW-MODEL-8", "RW-REQUEST-1")
async def leave(t: Context) -> None:
    """LEAVE carries the room's ref; the stream goes on until it is answered, and a late EVICTED is no error."""
    server, room = await t.member()
    await t.marker(server, room)
    id = t.client.tell("leave", room=room.name)
    request = await server.expect(Leave, "RW-MODEL-8")
    t.require(request.room == room.ref, f"room {room.ref}", request.room)
    server.send(room.message(b"still here"), Ok(request=request.request, room=room.ref))
    await t.answer(id, "left", requirement="RW-REQUEST-7")
    t.require(t.seqs(room) == ["1", "2"], "messages 1 and 2", t.seqs(room), "RW-STREAM-1")
    await server.fence()


@case("7.13/evicted-while-leaving", "RW-REQUEST-7")
async def evicted_while_leaving(t: Context) -> None:
    """EVICTED that crosses LEAVE ends the membership; the NOT_JOINED behind it is no error."""
    server, room = await t.member()
    id = t.client.tell("leave", room=room.name)
    request = await server.expect(Leave)
    server.send(Evicted(Code.ROOM_CLOSED, flags=Flag.RETRY, room=room.ref))
    body = u16(Code.NOT_JOINED) + u32(0) + b16(b"")
    server.send_octets(frame(FrameType.ERROR, body, request=request.request, room=room.ref))
    await t.answer(id, "left", requirement="RW-REQUEST-7")
    await server.fence("RW-REQUEST-7")
    t.require(not server.left_over(Join), "no JOIN of a room that is being left", server.left_over(Join))


# PING.


@case("7.7/answered", "RW-PING-1")
async def pings_answered(t: Context) -> None:
    """Each PING is answered with a PONG that has the same eight octets, many in one segment too."""
    server = await t.open()
    wanted = [os.urandom(8) for _ in range(25)]
    server.send(*(Ping(opaque) for opaque in wanted))
    pongs = [(await server.expect(Pong, "RW-PING-1")).opaque for _ in wanted]
    t.require(pongs == wanted, "the octets of the PINGs", [pong.hex() for pong in pongs])


@case("7.7/unasked", "RW-PING-3")
async def unasked_pong(t: Context) -> None:
    """A PONG that nobody asked for is ignored."""
    server, room = await t.member()
    server.send(Pong(b"unasked!"), Pong(bytes(8)))
    await t.marker(server, room, "RW-PING-3")
    await server.fence("RW-PING-3")
