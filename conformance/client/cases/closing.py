"""Section 8.5: how connections end."""

from conformance.client.cases.steps import PING, add, case, goaway_octets
from conformance.client.context import Context
from conformance.wire.octets import frame
from protocol.registry import Code


@case("8.5/quit", "RW-CLOSE-1", "RW-CLOSE-5")
async def quit(t: Context) -> None:
    """The client, at `quit`, sends GOAWAY(NONE), reads to the end, reports `closed`, and ends with status 0."""
    server, room = await t.member()
    await t.marker(server, room)
    t.client.tell("quit")
    await server.expect_goaway(Code.NONE, requirement="RW-CLOSE-1")
    server.send(*(room.message() for _ in range(20)))
    server.send_octets(goaway_octets(Code.NONE))
    await server.expect_end("RW-CLOSE-5")
    t.require(server.ended == "closed", "an end without a reset of the transport", server.ended, "RW-CLOSE-5")
    await t.report("closed", requirement="RW-CLOSE-5")
    t.require(await t.client.program.wait(t.options.timeout), "the end of the program after quit", "it still runs")
    status = t.client.program.died
    t.require(status == "ended with status 0", "status 0", status)


@case("8.5/linger", "RW-CLOSE-5", tags=["waits"])
async def linger(t: Context) -> None:
    """The client reads on when its GOAWAY is not answered, and closes after the linger time."""
    server, room = await t.member()
    await t.marker(server, room)
    t.client.tell("quit")
    await server.expect_goaway(Code.NONE, requirement="RW-CLOSE-1")
    for _ in range(3):
        server.write(PING)
        await t.idle(server, 0.1)
        t.require(not server.ended, "a client that reads on for a while", server.last_words())
    await server.expect_end("RW-CLOSE-5", within=t.options.timeout + 2)


for _code in (Code.NONE, Code.SHUTDOWN, Code.SLOW, Code.INTERNAL, Code.MALFORMED, 999):

    async def _goaway(t: Context, code: int = _code) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        server.send_octets(goaway_octets(code, int(code in (405, 501, 504)), text=b"bye"))
        await server.expect_goaway(Code.NONE, requirement="RW-CLOSE-4")
        await server.expect_end("RW-CLOSE-4")
        report = await t.report("disconnected", requirement="RW-CLOSE-4")
        t.require(report.get("code") == code, f"code {int(code)}", report, "RW-ERROR-3")

    _text = f"The client answers GOAWAY with code {int(_code)} with GOAWAY(NONE), and closes the connection."
    add(f"8.5/goaway-{int(_code)}", ["RW-CLOSE-4", "RW-CODE-2"], _text, _goaway)


@case("8.5/goaway-before-welcome", "RW-CLOSE-4")
async def goaway_before_welcome(t: Context) -> None:
    """The client answers GOAWAY in place of WELCOME with GOAWAY(NONE), and closes the connection."""
    server, _ = await t.greeted()
    server.send_octets(goaway_octets(Code.SHUTDOWN, 1))
    await server.expect_goaway(Code.NONE, requirement="RW-CLOSE-4")
    await server.expect_end("RW-CLOSE-4")


@case("8.5/nothing-after-fatal", "RW-CLOSE-1", "RW-CLOSE-2")
async def nothing_after_fatal(t: Context) -> None:
    """The client sends nothing after its GOAWAY for a fatal failure, no PONG and no request."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send_octets(frame(0x0009) + PING * 3, breaks="RW-EXT-1")
    await server.expect_goaway(Code.UNKNOWN_TYPE)
    t.publish(room)
    server.write(PING)
    await t.alive()
    t.require(not server.breaches, "nothing after GOAWAY", server.breaches)
    t.require(len(t.messages(room)) == 1, "no message from after the failure", t.messages(room), "RW-CLOSE-5")
    await server.close()
