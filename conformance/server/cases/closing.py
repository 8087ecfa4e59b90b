"""Section 8.5: how connections end."""

from conformance.harness.verdicts import Unsupported
from conformance.server.cases.steps import case, ping
from conformance.server.context import Context
from conformance.wire.octets import b16, encode, frame, u16, u32
from protocol.frames import Ack, Error, Goaway, Message, Publish
from protocol.registry import Code, Flag, FrameType


@case("8.5/goaway-answered", "RW-CLOSE-3")
async def goaway_answered(t: Context) -> None:
    """The server answers GOAWAY(NONE) with GOAWAY(NONE), and closes the connection."""
    client, _ = await t.member(fresh=False)
    client.send(Goaway(Code.NONE, text="bye"))
    await client.expect_goaway(Code.NONE, "RW-CLOSE-3")


@case("8.5/goaway-any-code", "RW-CLOSE-3", "RW-FLAG-1")
async def goaway_any_code(t: Context) -> None:
    """The server answers a client's GOAWAY with GOAWAY(NONE), whatever its code, text and times are."""
    for code, flags in ((Code.MALFORMED, 0), (Code.SEQUENCE, Flag.RETRY), (999, 0), (65535, Flag.RETRY)):
        client = await t.open()
        body = u16(code) + u32(2**32 - 1) + u32(7) + b16(b"\xff text")
        client.send_octets(frame(FrameType.GOAWAY, body, flags=flags))
        await client.expect_goaway(Code.NONE, "RW-CLOSE-3")


@case("8.5/replies-first", "RW-CLOSE-3", "RW-REQUEST-2")
async def replies_first(t: Context) -> None:
    """The server answers the requests in front of a GOAWAY in the same segment before it sends its own GOAWAY."""
    client, joined = await t.member(fresh=False)
    keeper, _ = await t.member(joined.name)
    count = min(client.welcome.window, 16)
    ids = [t.id(client) for _ in range(count)]
    frames = [Publish(id, 0, b"last", request=500 + n, room=joined.room) for n, id in enumerate(ids)]
    client.send_octets(b"".join(map(encode, frames)) + encode(Goaway(Code.NONE)))
    replies = [await client.reply(500 + n, "RW-CLOSE-3") for n in range(count)]
    await client.expect_goaway(Code.NONE, "RW-CLOSE-3")
    accepted = [reply.seq for reply in replies if isinstance(reply, Ack)]
    limited = all(isinstance(r, Ack) or (isinstance(r, Error) and r.code == Code.RATE_LIMITED) for r in replies)
    t.require(bool(accepted) and limited, "ACK for the publishes", replies, "RW-CLOSE-3")
    [seen] = await t.marker(keeper, room=joined.room)
    missing = set(accepted) - {message.seq for message in seen}
    t.require(not missing, "a MESSAGE for each ACK", f"seq {missing} missing", "RW-PROMISE-1")


@case("8.5/nothing-after-goaway", "RW-CLOSE-1")
async def nothing_after_goaway(t: Context) -> None:
    """The server does nothing with what a client sends after its GOAWAY."""
    client, joined = await t.member(fresh=False)
    keeper, _ = await t.member(joined.name)
    late = t.id(client)
    octets = encode(Goaway(Code.NONE)) + encode(Publish(late, 0, b"late", request=9, room=joined.room))
    client.send_octets(octets, breaks="RW-CLOSE-1")
    await client.expect_goaway(Code.NONE, "RW-CLOSE-3")
    [seen] = await t.marker(keeper, room=joined.room)
    t.require(not any(message.id == late for message in seen), "no MESSAGE of the late PUBLISH", seen)


@case("8.5/fatal-is-read", "RW-CLOSE-5", "RW-CLOSE-2")
async def fatal_is_read(t: Context) -> None:
    """The server lets a client that keeps sending after a fatal mistake read the GOAWAY."""
    client = await t.open()
    await client.fence()
    client.send_octets(frame(0x0009), breaks="RW-EXT-1")
    for _ in range(64):
        client.write(ping() * 200)
    await client.expect_goaway(Code.UNKNOWN_TYPE, "RW-CLOSE-5")
    t.require(client.ended == "closed", "an end without a reset of the transport", client.ended, "RW-CLOSE-5")
    await t.alive()


@case("8.5/fatal-without-answer", "RW-CLOSE-5", tags=["waits"])
async def fatal_without_answer(t: Context) -> None:
    """The server closes the connection when the linger time is over, if the client does not answer its GOAWAY."""
    client = await t.open()
    await client.fence()
    client.send_octets(frame(0x0009), breaks="RW-EXT-1")
    await client.expect_goaway(Code.UNKNOWN_TYPE, "RW-CLOSE-2", closed=False)
    await client.wait(
        lambda: client.ended or None,
        "the server to close after the linger time",
        "RW-CLOSE-5",
        t.time_out("linger_ms"),
    )


@case("8.5/leaves-rooms", "RW-CLOSE-6")
async def leaves_rooms(t: Context) -> None:
    """The server ends the memberships of a connection that has ended, in whatever way."""
    keeper, joined = await t.member()
    for way in ("goaway", "close", "reset", "fatal"):
        client, there = await t.member(joined.name)
        t.require(there.members == 2, "2 members", there.members, "RW-PRESENCE-5")
        t.not_quiet(there)
        if way == "goaway":
            client.send(Goaway(Code.NONE))
            await client.expect_goaway(Code.NONE, "RW-CLOSE-3")
        elif way == "fatal":
            client.send_octets(frame(0x0009), breaks="RW-EXT-1")
            await client.expect_goaway(Code.UNKNOWN_TYPE, "RW-TYPE-3")
        else:
            await client.close(abort=way == "reset")
        member = client.welcome.member
        await keeper.expect_presence(joined.room, member, (2, 3), "RW-CLOSE-6")


@case("8.5/others-unaffected", "RW-CLOSE-7")
async def others_unaffected(t: Context) -> None:
    """The server sends the whole stream to the other members while members of their room fail in many ways."""
    publisher, joined = await t.member()
    reader, _ = await t.member(joined.name)
    for number, octets in enumerate((frame(0x0009), ping()[:9], ping(b""), b"\xff" * 16, b"")):
        client, _ = await t.member(joined.name)
        client.send_octets(octets, breaks="RW-FRAME-7")
        await t.marker(publisher, reader, room=joined.room)
        await client.close(abort=number % 2 == 0)
        await t.marker(reader, publisher, reader, room=joined.room)
    streams = [[i.frame.seq for i in p.received if isinstance(i.frame, Message)] for p in (publisher, reader)]
    t.require(streams[0] == streams[1] == list(range(1, 11)), "messages 1 to 10 for both", streams, "RW-MODEL-2")


@case("8.5/half-close", "RW-CLOSE-6", "RW-REQUEST-2")
async def half_close(t: Context) -> None:
    """The server ends the connection and its memberships when the client's stream ends."""
    keeper, joined = await t.member(fresh=False)
    client, there = await t.member(joined.name)
    t.not_quiet(there)
    if client.tls:
        raise Unsupported("the suite cannot end one direction of a connection over TLS alone")
    client.send_eof()
    await client.wait(lambda: client.ended or None, "the connection closed", "RW-CLOSE-6")
    await keeper.expect_presence(joined.room, client.welcome.member, (3,), "RW-PRESENCE-3")
