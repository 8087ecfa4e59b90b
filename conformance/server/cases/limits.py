"""Section 15: limits. Each case offers a server of its own small limits; one that does not heed them is not judged."""

from collections.abc import Callable

from conformance.harness.verdicts import Failed, Informative
from conformance.server.cases.repeats import first_publish
from conformance.server.cases.steps import case, expect_published
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.octets import encode, frame
from conformance.wire.text import frame_line
from protocol.frames import (
    Ack,
    Error,
    Goaway,
    Hello,
    History,
    HistoryEnd,
    Join,
    Joined,
    Leave,
    Ok,
    Ping,
    Pong,
    Publish,
    Roster,
    Welcome,
)
from protocol.registry import CONTENT_RESERVE, Code, Flag, FrameType


@case("15/join-rate", "RW-LIMIT-1", "RW-ERROR-1", "RW-CHECK-2", tags=["process"])
async def join_rate(t: Context) -> None:
    """The server tells with RATE_LIMITED after which time it accepts the same JOIN, where it limits joins."""
    await t.with_limits(join_rate=2, join_burst=3)
    client = await t.open()
    rooms = min(client.welcome.max_rooms, 30)
    for _ in range(rooms):
        wanted = Join(t.room(), 0, 0)
        reply = await client.reply(client.ask(wanted))
        if isinstance(reply, Error):
            t.require(reply.code == Code.RATE_LIMITED, "RATE_LIMITED", reply)
            await t.wait_ms(reply.retry_ms)
            reply = await t.patiently(client, wanted)
            t.require(isinstance(reply, Joined), "JOINED after retry_ms", reply)
            return
    raise Informative(f"not tried: {rooms} joins were not limited")


@case("15/history-rate", "RW-LIMIT-1", "RW-ERROR-1", "RW-REQUEST-2", tags=["process"])
async def history_rate(t: Context) -> None:
    """The server tells with RATE_LIMITED after which time it answers HISTORY, where it limits that."""
    await t.with_limits(history_rate=2, history_burst=3)
    client, joined = await t.member(extension_names=["history"])
    t.needs(client, "history")
    wanted = History(1, 0, 0, room=joined.room)
    for _ in range(30):
        reply = await client.reply(client.ask(wanted))
        if isinstance(reply, Error):
            t.require(reply.code == Code.RATE_LIMITED, "RATE_LIMITED", reply)
            await t.marker(client, room=joined.room)
            await t.wait_ms(reply.retry_ms)
            reply = await t.patiently(client, wanted)
            t.require(isinstance(reply, HistoryEnd), "HISTORY_END after retry_ms", reply)
            return
    raise Informative("not tried: 30 requests were not limited")


@case("15/rates-outlive-connections", "RW-LIMIT-3", tags=["process"])
async def rates_outlive_connections(t: Context) -> None:
    """The server does not renew the rate of joins for a new connection from the same address."""
    # Other cases at the same server would have a part in what an address may do.
    await t.own_server(local_limits=1, address_connections=3, join_rate=1, join_burst=12, room_rate=4)
    keeper, *clients = [await t.open() for _ in range(3)]
    room = (await t.join(keeper, t.room())).name
    beyond = await t.greet()
    if isinstance(await _answer(t, beyond), Welcome):
        raise Informative("not tried: the server does not limit this address")
    await beyond.expect_closed("RW-CONN-3")
    await _joins(t, clients[0], t.room)
    other = await clients[1].reply(clients[1].ask(Join(t.room(), 0, 0)))
    # Its connections alone may be limited: a server may leave an address of its own host out of its rates.
    t.observe(isinstance(other, Error), "not tried: the server has no rate for this address")
    first = await _joins(t, clients[1], lambda: room)
    for client in clients:
        client.send(Goaway(Code.NONE))
        await client.expect_goaway(Code.NONE)
        await client.expect_closed("RW-CLOSE-3")
    again = min([await _joins(t, client, lambda: room) for client in (await t.open(), await t.open())])
    t.require(again <= first // 2, f"at most half of the {first} joins of before", again, "RW-LIMIT-3")


async def _joins(t: Context, client: RawClient, room: Callable[[], str]) -> int:
    """How often the client may join a room, which it leaves again, before it has to wait."""
    count = 0
    while isinstance(reply := await client.reply(client.ask(Join(room(), 0, 0))), Joined):
        await client.expect(client.ask(Leave(room=reply.room)), Ok)
        count += 1
        t.observe(count < 60, "60 joins were not limited")
    t.require(isinstance(reply, Error) and reply.code == Code.RATE_LIMITED, "RATE_LIMITED", reply)
    return count


@case("15/rate-and-order", "RW-ORDER-1", "RW-LIMIT-1", "RW-PROMISE-8", tags=["process"])
async def rate_and_order(t: Context) -> None:
    """The server answers all that is ORDERED after a RATE_LIMITED with PRECEDED."""
    await t.with_limits(publish_rate=1, publish_burst=3)
    client, joined = await t.member()
    count = min(client.welcome.window, 16)
    frames = [
        Publish(t.id(client), 0, b"%d" % n, flags=Flag.ORDERED, request=600 + n, room=joined.room) for n in range(count)
    ]
    client.send_octets(b"".join(map(encode, frames)))
    replies = [await client.reply(600 + n) for n in range(count)]
    refused = next((at for at, reply in enumerate(replies) if isinstance(reply, Error)), count)
    if refused == count:
        raise Informative(f"not tried: {count} publishes were not limited")
    codes = [reply.code if isinstance(reply, Error) else Code.NONE for reply in replies[refused:]]
    wanted = [Code.RATE_LIMITED] + [Code.PRECEDED] * (count - refused - 1)
    t.require(codes == wanted, "RATE_LIMITED, then PRECEDED", codes)
    [seen] = await t.marker(client, room=joined.room)
    payloads = [message.payload for message in seen[:-1]]
    t.require(payloads == [f.payload for f in frames[:refused]], f"the first {refused}", payloads, "RW-PROMISE-8")


@case("15/ids-are-kept", "RW-DEDUPE-6", "RW-DEDUPE-3", tags=["process"])
async def ids_are_kept(t: Context) -> None:
    """The server refuses new publishes when it cannot remember more ids, and forgets none."""
    await t.with_limits(ids_per_room=5)
    client, joined = await t.member()
    t.needs(client, dedupe=True)
    accepted: list[tuple[Publish, Ack]] = []
    for _ in range(20):
        sent = Publish(t.id(client), 0, b"x", room=joined.room)
        reply = await client.reply(client.ask(sent))
        if isinstance(reply, Error):
            t.require(reply.code == Code.RATE_LIMITED, "RATE_LIMITED", reply)
            break
        t.require(isinstance(reply, Ack), "ACK", reply)
        accepted += [(sent, reply)] if isinstance(reply, Ack) else []
    for sent, first in accepted:
        ack = await client.expect(client.ask(sent), Ack, "RW-DEDUPE-3")
        t.require(ack.seq == first.seq and bool(ack.flags & Flag.DUPLICATE), f"DUPLICATE of seq {first.seq}", ack)


@case("15/server-full", "RW-CONN-3", "RW-ERROR-1", "RW-LIMIT-1", tags=["process"])
async def server_full(t: Context) -> None:
    """The server refuses connections beyond its limit with SERVER_FULL and a retry_ms, until one has ended."""
    await t.with_limits(address_connections=4, max_connections=4)
    clients: list[RawClient] = []
    most = t.options.limits.get("address_connections", 4) + 4
    while len(clients) < min(most, 80):
        client = await t.greet()
        reply = await _answer(t, client)
        if isinstance(reply, Welcome):
            clients.append(client)
            continue
        if reply is not None:
            refused = reply.code == Code.SERVER_FULL and reply.retry_ms > 0
            t.require(refused, "SERVER_FULL with a retry_ms", frame_line(reply))
        await client.expect_closed("RW-CONN-3")
        break
    else:
        raise Informative(f"not tried: the server let in {len(clients)} connections")
    t.require(bool(clients), "WELCOME for at least one connection", 0)
    for client in clients:
        await client.fence("RW-CLOSE-7")
    await clients.pop().close()
    for _ in range(50):
        again = await t.greet()
        if isinstance(await _answer(t, again), Welcome):
            return
        await again.close()
        await t.wait_ms(100)
    raise Failed("WELCOME for a connection after another has ended", "none within 5 s", "RW-CLOSE-6")


async def _answer(t: Context, client: RawClient) -> Welcome | Error | Goaway | None:
    """What the server answers to HELLO; None if it closes the connection."""
    request = client.ask(Hello(t.name(), "ANONYMOUS", b""))

    def find() -> Welcome | Error | Goaway | str | None:
        welcome = client.find(Welcome)
        error = client.find(Error, lambda error: error.request == request)
        return welcome or error or client.find(Goaway) or client.ended or None

    found: Welcome | Error | Goaway | str = await client.wait(find, "an answer to HELLO, or the end", "RW-HELLO-2")
    return None if isinstance(found, str) else found


@case("15/small-bodies", "RW-PUBLISH-1", "RW-FRAME-2", "RW-PUBLISH-4", tags=["process"])
async def small_bodies(t: Context) -> None:
    """The server delivers what fits into the smallest max_body, and refuses what is longer with its code."""
    await t.with_limits(max_body=4096)
    client, joined = await t.member()
    limit = client.welcome.max_body
    most = limit - CONTENT_RESERVE
    id = t.id(client)
    await t.publish(client, joined.room, bytes(most), ctype=1, id=id)
    message = (await client.until(joined.room, id))[-1]
    t.require(message.payload == bytes(most), f"{most} octets", len(message.payload), "RW-PUBLISH-4")
    for octets in (most + 1, limit - 21):
        request = client.ask(Publish(t.id(client), 1, bytes(octets), room=joined.room))
        await client.expect_error(request, Code.PAYLOAD_TOO_LARGE, "RW-PUBLISH-1", joined.room)
    await t.publish(client, joined.room)
    client.send_octets(frame(FrameType.PUBLISH, length=limit + 1, request=9, room=joined.room), breaks="RW-FRAME-2")
    await client.expect_goaway(Code.FRAME_TOO_LARGE, "RW-CLOSE-2")


@case("15/small-bodies-roster", "RW-ROSTER-2", "RW-ROSTER-1", "RW-FRAME-2", tags=["process"])
async def small_bodies_roster(t: Context) -> None:
    """The server sends a roster that is longer than the smallest max_body in several frames, each member once."""
    await t.with_limits(max_body=4096)
    first, there = await t.member()
    room, limit = there.name, first.welcome.max_body
    t.observe(limit == 4096, f"not tried: max_body is {limit}, so one frame holds the roster of 61 members")
    clients = [await t.open(f"{t.name()}-{'n' * 40}") for _ in range(59)]
    for client in clients:
        joined = await t.join(client, room)
    last, there = await t.member(room, flags=Flag.ROSTER)
    t.observe(not there.flags & Flag.QUIET, "the room is quiet already with 61 members")
    wanted = {client.welcome.member for client in (first, *clients, last)}
    found: set[int] = set()
    more = True
    while more:
        roster = await last.expect_frame(Roster, lambda r: r.room == joined.room, "ROSTER", "RW-ROSTER-1")
        found |= {entry.member for entry in roster.entries}
        more = bool(roster.flags & Flag.MORE)
    t.require(found == wanted, f"{len(wanted)} members", len(found), "RW-ROSTER-1")


@case("15/window-of-one", "RW-REQUEST-6", "RW-REQUEST-3", tags=["process"])
async def window_of_one(t: Context) -> None:
    """The server answers more requests than a window of 1 in their order, without an error."""
    await t.with_limits(window=1)
    client, joined = await t.member()
    for _ in range(3):
        await t.publish(client, joined.room)
    frames = [Publish(t.id(client), 0, b"%d" % n, request=800 + n, room=joined.room) for n in range(10)]
    octets = b"".join(map(encode, frames)) + encode(Ping(b"window 1"))
    client.send_octets(octets + encode(Leave(request=810, room=joined.room)), breaks="RW-REQUEST-5")
    for at in range(10):
        expect_published(await client.reply(800 + at, "RW-REQUEST-6"), "RW-REQUEST-6")
    await client.expect_frame(Pong, lambda pong: pong.opaque == b"window 1", "PONG", "RW-PING-1")
    await client.expect(810, Ok, "RW-REQUEST-6")


@case("15/publish-rate", "RW-LIMIT-1", "RW-ERROR-1", tags=["process"])
async def publish_rate(t: Context) -> None:
    """The server tells with RATE_LIMITED after which time it accepts a publish, where it limits them."""
    await t.with_limits(publish_rate=2, publish_burst=5)
    client, joined = await t.member()
    for _ in range(400):
        reply = await client.reply(client.ask(Publish(t.id(client), 0, b"x", room=joined.room)))
        if isinstance(reply, Error):
            t.require(reply.code == Code.RATE_LIMITED, "RATE_LIMITED", reply)
            t.require(reply.retry_ms > 0, "retry_ms above 0", reply.retry_ms)
            await t.wait_ms(reply.retry_ms)
            await t.publish(client, joined.room)
            return
    raise Informative("not tried: 400 publishes were not limited")


@case("15/repeat-not-charged", "RW-LIMIT-2", "RW-DEDUPE-4", tags=["process"])
async def repeat_not_charged(t: Context) -> None:
    """The server does not charge repeats of a known id to the rate of publishes."""
    await t.with_limits(publish_rate=1, publish_burst=5)
    client, joined, frame, first = await first_publish(t)
    for _ in range(300):
        reply = await client.reply(client.ask(Publish(t.id(client), 0, b"x", room=joined.room)))
        if isinstance(reply, Error):
            t.require(reply.code == Code.RATE_LIMITED, "RATE_LIMITED", reply)
            break
    for _ in range(50):
        ack = await client.reply(client.ask(frame))
        t.require(isinstance(ack, Ack) and ack.seq == first.seq, "ACK of the first copy", ack)
