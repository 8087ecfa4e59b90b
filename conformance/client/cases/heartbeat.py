"""Section 8.4: the heartbeat."""

from itertools import pairwise

from conformance.client.cases.steps import SLACK, case
from conformance.client.context import Context
from conformance.wire.octets import encode, frame
from protocol.frames import Goaway, Publish
from protocol.registry import Code

_H = 1000  # ms, the shortest heartbeat there is


@case("8.4/sends", "RW-HEARTBEAT-1", tags=["waits"])
async def sends(t: Context) -> None:
    """The client sends something in every H, even if it has nothing to say."""
    server = await t.open(heartbeat_ms=_H)
    async with t.control("PING and PONG"):
        await server.fence()
    began, seen = server.now(), len(server.octet_times)
    while server.now() - began < 3.2:
        server.send_octets(_IGNORED)
        await t.idle(server, 0.3)
    times = [began, *server.octet_times[seen:], server.now()]
    longest = max(after - before for before, after in pairwise(times))
    t.require(not server.ended, "a connection that lasts", server.last_words(), "RW-HEARTBEAT-2")
    t.require(longest <= _H / 1000 + SLACK, "an octet in every second", f"nothing for {longest:.2f} s")


_IGNORED = frame(0x8021)


@case("8.4/ends", "RW-HEARTBEAT-2", tags=["waits"])
async def ends(t: Context) -> None:
    """The client ends a connection on which nothing comes for 2 H with GOAWAY(TIMEOUT), and not earlier."""
    server = await t.open(heartbeat_ms=_H)
    server.answers_pings = False
    server.send_octets(_IGNORED)
    began = server.now()
    goaway = await server.wait(
        lambda: server.find(Goaway), "the end of the connection", "RW-HEARTBEAT-2", 2 * _H / 1000 + 3
    )
    waited = server.now() - began
    t.require(goaway.code == Code.TIMEOUT, "TIMEOUT", goaway, "RW-CLOSE-2")
    t.require(waited >= 2 * _H / 1000 - 0.05, "at least 2 s", f"{waited:.2f} s")


@case("8.4/every-octet-counts", "RW-HEARTBEAT-2", tags=["waits"])
async def every_octet_counts(t: Context) -> None:
    """The client keeps a connection whose frame comes octet by octet for more than 2 H."""
    server, room = await t.member(heartbeat_ms=_H)
    server.answers_pings = False
    octets = encode(room.message(b"slowly"))
    server.send_octets(octets[:1], breaks="RW-FRAME-7")
    for at in range(1, 8):
        await t.idle(server, 0.4)
        server.write(octets[at : at + 1])
    server.write(octets[8:])
    await t.report("message", requirement="RW-HEARTBEAT-2")
    t.require(not server.invariants.goaway, "no GOAWAY", server.last_words())


@case("8.4/reads-while-it-writes", "RW-HEARTBEAT-4")
async def reads_while_it_writes(t: Context) -> None:
    """The client goes on reading while the server does not take what it writes."""
    server, room = await t.member(max_body=2**21, window=1000)
    server.pause()
    for _ in range(8):
        t.publish(room, bytes(2**20))
    await t.client.flush()
    for _ in range(3):
        await t.marker(server, room, "RW-HEARTBEAT-4")
    server.pause(False)
    for _ in range(8):
        await server.expect(Publish, "RW-HEARTBEAT-4")
