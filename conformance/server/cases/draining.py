"""Section 8.6: draining, on a server of its own that gets SIGTERM."""

from conformance.harness.verdicts import Crashed, Informative
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.octets import encode, frame
from protocol.frames import Ack, Goaway, Hello, Joined, Message, Presence, Publish
from protocol.registry import Code


async def _drained(t: Context, count: int = 1, drain_ms: int = 10_000) -> list[tuple[RawClient, Joined]]:
    """Members of one room on a server that has begun to drain."""
    await t.own_server(drain_ms=drain_ms)
    room = t.room()
    members = [await t.member(room) for _ in range(count)]
    for client, joined in members:
        await t.marker(client, room=joined.room)
    t.drain()
    for client, _ in members:
        goaway = await client.wait(lambda p=client: p.invariants.goaway, "GOAWAY(DRAINING)", "RW-DRAIN-3")  # type: ignore[misc]
        if goaway.code == Code.SHUTDOWN:
            raise Informative("the server ended at once: its drain time is 0")
        await client.expect_goaway(Code.DRAINING, "RW-DRAIN-3", closed=False)
    return members


def _answered(client: RawClient, request: int) -> bool:
    return any(item.frame.request == request for item in client.received)


def _at_once(client: RawClient) -> bool:
    """Whether GOAWAY(SHUTDOWN) came together with GOAWAY(DRAINING)."""
    came = {item.frame.code: item.at for item in client.received if isinstance(item.frame, Goaway)}
    end = came.get(Code.SHUTDOWN)
    return end is not None and end - came.get(Code.DRAINING, end) < 0.1


@case("8.6/answers", "RW-DRAIN-2", "RW-DRAIN-3", tags=["process"])
async def answers(t: Context) -> None:
    """The server answers what it reads while it drains, and a client's GOAWAY with GOAWAY(SHUTDOWN)."""
    [(client, joined)] = await _drained(t)
    request = client.ask(Publish(t.id(client), 0, b"late", room=joined.room), breaks="RW-DRAIN-1")
    await client.expect(request, Ack, "RW-DRAIN-2")
    await client.fence("RW-PING-1")
    client.send(Goaway(Code.NONE))
    await client.expect_goaway(Code.SHUTDOWN, "RW-DRAIN-3")


@case("8.6/unknown-types", "RW-TYPE-1", "RW-TYPE-2", "RW-DRAIN-2", tags=["process"])
async def unknown_types(t: Context) -> None:
    """The server still answers unknown requests and ignores ignorable frames while it drains."""
    [(client, _)] = await _drained(t)
    client.send_octets(frame(0x8021, b"\x01\x02") + frame(0x0009, request=700), breaks="RW-DRAIN-1")
    await client.expect_error(700, Code.UNKNOWN_REQUEST, "RW-TYPE-1", 0)
    await client.fence("RW-TYPE-2")
    client.send(Goaway(Code.NONE))
    await client.expect_goaway(Code.SHUTDOWN, "RW-DRAIN-3")


@case("8.6/ends", "RW-DRAIN-3", tags=["process"])
async def ends(t: Context) -> None:
    """The server ends a connection that does nothing with GOAWAY(SHUTDOWN) when the drain time is over."""
    [(client, _)] = await _drained(t, drain_ms=1_000)
    await client.expect_goaway(Code.SHUTDOWN, "RW-DRAIN-3", t.time_out("drain_ms"))


@case("8.6/no-presence", "RW-DRAIN-5", tags=["process"])
async def no_presence(t: Context) -> None:
    """The server sends no PRESENCE for connections that end while it drains."""
    (first, _), (second, _) = await _drained(t, 2)
    second.send(Goaway(Code.NONE))
    await second.expect_goaway(Code.SHUTDOWN, "RW-DRAIN-3")
    await first.fence()
    told = [p for p in first.left_over(Presence) if p.kind in (2, 3)]
    t.require(not told, "no PRESENCE", told)
    first.send(Goaway(Code.NONE))
    await first.expect_goaway(Code.SHUTDOWN, "RW-DRAIN-3")


@case("8.6/refuses-new", "RW-DRAIN-6", tags=["process"])
async def refuses_new(t: Context) -> None:
    """The server takes no new connections while it drains."""
    [(client, _)] = await _drained(t)
    try:
        other = await t.dial()
    except Crashed:
        return  # the port is closed
    other.send_preface()
    await other.wait(lambda: other.ended or other.preface or None, "a refusal", "RW-DRAIN-6")
    if not other.ended:
        other.ask(Hello(t.name(), "ANONYMOUS", b""))
        await other.wait(lambda: other.invariants.goaway or other.ended or None, "a refusal", "RW-DRAIN-6")
    await client.fence()


@case("8.6/not-open", "RW-DRAIN-3", "RW-CLOSE-2", tags=["process"])
async def drained_before_hello(t: Context) -> None:
    """The server ends a connection that is not open yet when it drains; a GOAWAY there is SHUTDOWN."""
    await t.own_server()
    client = await t.greet()
    t.drain()
    await client.wait(lambda: client.invariants.goaway or client.ended or None, "the end", "RW-DRAIN-3")
    goaway = client.invariants.goaway
    t.require(goaway is None or goaway.code == Code.SHUTDOWN, "GOAWAY(SHUTDOWN), or no GOAWAY", goaway)
    await client.expect_closed("RW-DRAIN-3")


@case("8.6/stream-goes-on", "RW-DRAIN-2", "RW-DRAIN-3", "RW-CURSOR-2", tags=["process"])
async def drained_in_full_flow(t: Context) -> None:
    """The server answers and delivers what came before the drain, then ends each connection with SHUTDOWN."""
    await t.own_server()
    client, joined = await t.member()
    reader, _ = await t.member(joined.name)
    await t.marker(client, reader, room=joined.room)
    count = min(client.welcome.window, 20)
    frames = [Publish(t.id(client), 0, b"x", request=500 + n, room=joined.room) for n in range(count)]
    client.send_octets(b"".join(map(encode, frames)), breaks="RW-DRAIN-1")
    t.drain()
    await client.wait(lambda: _answered(client, 500) or client.ended or None, "a reply", "RW-DRAIN-2")
    t.observe(_answered(client, 500) or not _at_once(client), "the server ended at once: its drain time is 0")
    replies = [await client.reply(500 + n, "RW-DRAIN-2") for n in range(count)]
    accepted = [f.id for f, reply in zip(frames, replies, strict=True) if isinstance(reply, Ack)]
    t.require(bool(accepted), "ACK", replies, "RW-DRAIN-2")
    await reader.until(joined.room, accepted[-1], "RW-CURSOR-2")
    for one in (client, reader):
        goaway = await one.wait(lambda one=one: one.invariants.goaway, "GOAWAY", "RW-DRAIN-3")  # type: ignore[misc]
        if goaway.code == Code.SHUTDOWN:
            raise Informative("the server ended at once: its drain time is 0")
        one.find(Goaway)
        one.send(Goaway(Code.NONE))
        await one.expect_goaway(Code.SHUTDOWN, "RW-DRAIN-3")
    numbers = [i.frame.seq for i in reader.received if isinstance(i.frame, Message)]
    t.require(numbers == list(range(1, len(numbers) + 1)), "no hole", numbers, "RW-CURSOR-2")
