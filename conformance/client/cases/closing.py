"""Sections 8.4 to 8.7: heartbeat, closing, draining, connecting again."""

from itertools import pairwise

from conformance.client.cases.steps import PING, add, case, goaway_octets
from conformance.client.context import RECONNECTS_WITHIN, Context
from conformance.client.raw_server import SERVER_PREFACE, RawServer
from conformance.wire.octets import encode, frame
from protocol.frames import Error, Goaway, Join, Publish
from protocol.registry import Code, Flag

_H = 1000  # ms, the shortest heartbeat there is
_NO_MORE = RECONNECTS_WITHIN + 0.4  # seconds in which a client that reconnects after one failure has done so
_SPREAD = 0.02  # seconds that random waits differ by at least, but for a chance of 1 in 10,000
_DELAY = 0.6  # seconds that a machine may be busy with something else


# Heartbeat.


@case("8.4/sends", "RW-HEARTBEAT-1", tags=["waits"])
async def sends(t: Context) -> None:
    """A client that has nothing to say sends something in every H all the same."""
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
    t.require(longest <= _H / 1000 + _DELAY, "an octet in every second", f"nothing for {longest:.2f} s")


_IGNORED = frame(0x8021)


@case("8.4/ends", "RW-HEARTBEAT-2", tags=["waits"])
async def ends(t: Context) -> None:
    """When nothing has come for 2 H the client ends the connection, with TIMEOUT; not before."""
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
    """A frame that comes octet by octet keeps the connection, though none is complete for more than 2 H."""
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
    """A client goes on reading while the server does not take what it writes."""
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


# Closing.


@case("8.5/quit", "RW-CLOSE-1", "RW-CLOSE-5")
async def quit(t: Context) -> None:
    """At `quit` the client says GOAWAY(NONE), nothing more, reads to the end, says `closed`, and ends with status 0."""
    server, room = await t.member()
    await t.marker(server, room)
    t.client.tell("quit")
    await server.expect_goaway(Code.NONE, requirement="RW-CLOSE-1")
    server.send(*(room.message() for _ in range(20)))
    server.send_octets(goaway_octets(Code.NONE))
    await server.expect_end("RW-CLOSE-5")
    t.require(server.ended == "closed", "an end without a reset of the transport", server.ended, "RW-CLOSE-5")
    await t.report("closed", requirement="RW-CLOSE-5")
    t.require(await t.client.program.wait(t.options.timeout), "the program to end after quit", "it still runs")
    status = t.client.program.died
    t.require(status == "ended with status 0", "status 0", status)


@case("8.5/linger", "RW-CLOSE-5", tags=["waits"])
async def linger(t: Context) -> None:
    """A client whose GOAWAY is not answered reads on, and closes when the linger time is over."""
    server, room = await t.member()
    await t.marker(server, room)
    t.client.tell("quit")
    await server.expect_goaway(Code.NONE, requirement="RW-CLOSE-1")
    for _ in range(3):
        server.write(PING)
        await t.idle(server, 0.1)
        t.require(not server.ended, "the client to read on for a while", server.last_words())
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

    _text = "GOAWAY, of whatever code, is answered with GOAWAY(NONE), and the client closes."
    add(f"8.5/goaway-{int(_code)}", ["RW-CLOSE-4", "RW-CODE-2"], _text, _goaway)


@case("8.5/goaway-before-welcome", "RW-CLOSE-4")
async def goaway_before_welcome(t: Context) -> None:
    """GOAWAY in the place of WELCOME is answered with GOAWAY(NONE), and the client closes."""
    server, _ = await t.greeted()
    server.send_octets(goaway_octets(Code.SHUTDOWN, 1))
    await server.expect_goaway(Code.NONE, requirement="RW-CLOSE-4")
    await server.expect_end("RW-CLOSE-4")


@case("8.5/nothing-after-fatal", "RW-CLOSE-1", "RW-CLOSE-2")
async def nothing_after_fatal(t: Context) -> None:
    """After the GOAWAY to a fatal failure the client sends nothing: no PONG, no reply to commands."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send_octets(frame(0x0009) + PING * 3, breaks="RW-EXT-1")
    await server.expect_goaway(Code.UNKNOWN_TYPE)
    t.publish(room)
    server.write(PING)
    await t.alive()
    t.require(not server.breaches, "nothing after GOAWAY", server.breaches)
    t.require(len(t.messages(room)) == 1, "no message from behind the failure", t.messages(room), "RW-CLOSE-5")
    await server.close()


# Draining.


@case("8.6/drain", "RW-DRAIN-4", "RW-DRAIN-1")
async def drain(t: Context) -> None:
    """After GOAWAY(DRAINING) the client waits for its replies, sends no request, then GOAWAY(NONE)."""
    server, room = await t.member()
    id = t.publish(room, b"before")
    publish = await server.expect(Publish)
    server.send(Goaway(Code.DRAINING, 100, 0, flags=Flag.RETRY))
    await server.fence("RW-PING-1")
    t.publish(room, b"after")
    t.client.tell("join", room="other")
    await t.alive()
    await server.fence("RW-PING-1")
    requests = [*server.left_over(Publish), *server.left_over(Join)]
    t.require(not requests, "no request while the server drains", requests, "RW-DRAIN-1")
    t.require(server.invariants.goaway is None, "no GOAWAY while a reply is owed", server.invariants.goaway)
    await t.marker(server, room)
    server.send(t.ack(room, publish))
    await t.answer(id, "published", requirement="RW-DRAIN-4")
    await server.expect_goaway(Code.NONE, requirement="RW-DRAIN-4")


@case("8.6/idle", "RW-DRAIN-4")
async def drain_idle(t: Context) -> None:
    """A client that is owed nothing answers GOAWAY(DRAINING) with GOAWAY(NONE) at once."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send(Goaway(Code.DRAINING, 100, 0, flags=Flag.RETRY))
    await server.expect_goaway(Code.NONE, requirement="RW-DRAIN-4")
    server.send(Goaway(Code.SHUTDOWN, 100, 0, flags=Flag.RETRY))
    await server.expect_end("RW-CLOSE-5")


@case("8.6/cut-short", "RW-CLOSE-4", "RW-DRAIN-1")
async def drain_cut_short(t: Context) -> None:
    """GOAWAY(SHUTDOWN) while replies are owed ends the drain: GOAWAY(NONE), and the publish is repeated later."""
    t.needs("reconnect", "rejoin", "repeat")
    server, room = await t.member()
    id = t.publish(room)
    publish = await server.expect(Publish)
    server.send(Goaway(Code.DRAINING, 10, 0, flags=Flag.RETRY), Goaway(Code.SHUTDOWN, 10, 0, flags=Flag.RETRY))
    await server.expect_goaway(Code.NONE, requirement="RW-CLOSE-4")
    await server.close()
    server = await t.reopened()
    again = t.room(room.name)
    await t.rejoin(server, again)
    repeat = await server.expect(Publish, "RW-PROMISE-5")
    t.require(repeat.id == publish.id, "the same id", repeat.id.hex(), "RW-PROMISE-5")
    server.send(t.ack(again, repeat))
    await t.answer(id, "published")


# Connecting again.


@case("8.7/by-itself", "RW-RECONNECT-1", tags=["waits"])
async def by_itself(t: Context) -> None:
    """A client whose connection was lost connects again, within the bounds of its waits: 1 s, 2 s, 4 s."""
    t.needs("reconnect")
    server = await t.dialled()
    await t.opened(server)
    for bound in (1.0, 2.0, 4.0):
        began = server.now()
        await server.close(abort=True)
        server = await t.accept("RW-RECONNECT-1", bound + t.options.timeout)
        waited = server.at - began
        t.require(waited <= bound + _DELAY, f"a wait of at most {bound:g} s", f"{waited:.2f} s", "RW-RECONNECT-3")
        await t.opened(server)


@case("8.7/random", "RW-RECONNECT-3", tags=["waits"])
async def random_waits(t: Context) -> None:
    """Waits are random below 1 s; an orderly end leaves the bound as it is."""
    t.needs("reconnect")
    server = await t.open()
    waits = await _waits(t, server, goaway_octets(Code.NONE), 5)
    t.require(max(waits) <= 1 + _DELAY, "at most 1 s each", waits)
    t.require(max(waits) - min(waits) > _SPREAD, "waits that differ", waits)


async def _waits(t: Context, server: RawServer, goaway: bytes, count: int) -> list[float]:
    waits = []
    for _ in range(count):
        began = server.now()
        server.send_octets(goaway)
        await server.expect_goaway(Code.NONE, requirement="RW-CLOSE-4")
        await server.close()
        server = await t.accept("RW-RECONNECT-1", t.options.timeout + 3)
        waits.append(round(server.at - began, 3))
        await t.opened(server)
    return waits


@case("8.7/retry-and-jitter", "RW-RECONNECT-2", tags=["waits"])
async def retry_and_jitter(t: Context) -> None:
    """After GOAWAY with RETRY the client waits for retry_ms and a random part of jitter_ms."""
    t.needs("reconnect")
    server = await t.open()
    waits = await _waits(t, server, goaway_octets(Code.SHUTDOWN, 1000, 500), 4)
    t.require(min(waits) >= 1.0, "at least 1 s each", waits)
    t.require(max(waits) <= 1.5 + _DELAY, "at most 1.5 s each", waits)
    t.require(max(waits) - min(waits) > _SPREAD / 2, "waits that differ", waits)


@case("8.7/after-draining", "RW-RECONNECT-2", tags=["waits"])
async def after_draining(t: Context) -> None:
    """The time of GOAWAY(DRAINING) holds where the connection ends without another word."""
    t.needs("reconnect")
    server = await t.open()
    began = server.now()
    server.send_octets(goaway_octets(Code.DRAINING, 1500, 0))
    await server.expect_goaway(Code.NONE)
    await server.close()
    server = await t.accept("RW-RECONNECT-1", t.options.timeout + 2)
    t.require(server.at - began >= 1.5, "at least 1.5 s", f"{server.at - began:.2f} s")


@case("8.7/refused-hello", "RW-RECONNECT-2", tags=["waits"])
async def refused_hello(t: Context) -> None:
    """After ERROR to HELLO with RETRY the client waits for its retry_ms."""
    t.needs("reconnect")
    server, hello = await t.greeted()
    began = server.now()
    server.send(Error(Code.SERVER_FULL, 1200, "full", flags=Flag.RETRY, request=hello.request))
    server.send_octets(goaway_octets(Code.SERVER_FULL, 1200))
    await server.expect_end("RW-CLOSE-4")
    server = await t.accept("RW-RECONNECT-1", t.options.timeout + 2)
    t.require(server.at - began >= 1.2, "at least 1.2 s", f"{server.at - began:.2f} s")


@case("8.7/backs-off", "RW-RECONNECT-3", tags=["waits"])
async def backs_off(t: Context) -> None:
    """A server that fails at once is not asked without a pause: of four waits, in all not next to nothing."""
    t.needs("reconnect")
    server = await t.dialled()
    began = server.now()
    for bound in (1.0, 2.0, 4.0):
        ended = server.now()
        await server.close()
        server = await t.accept("RW-RECONNECT-1", bound + t.options.timeout)
        waited = server.at - ended
        t.require(waited <= bound + _DELAY, f"a wait of at most {bound:g} s", f"{waited:.2f} s")
    t.require(server.at - began > 0.1, "a pause between attempts", f"{server.at - began:.3f} s for three")


async def _come_back(t: Context) -> RawServer:
    """The control of what follows: this client does come back, when nothing speaks against it."""
    t.needs("reconnect")
    server = await t.open()
    async with t.control("connecting again"):
        server.send_octets(goaway_octets(Code.NONE))
        await server.expect_goaway(Code.NONE)
        await server.close()
        server = await t.accept(within=t.options.timeout + RECONNECTS_WITHIN)
        await server.expect_preface()
    return server


_FINAL = {
    "auth-failed": Code.AUTH_FAILED,
    "unsupported-mechanism": Code.UNSUPPORTED_MECHANISM,
    "tls-required": Code.TLS_REQUIRED,
    "name-invalid": Code.NAME_INVALID,
}
for _name, _code in _FINAL.items():

    async def _refusal(t: Context, code: Code = _code) -> None:
        server = await _come_back(t)
        hello = await t.hello(server)
        server.send(Error(code, 0, "no", request=hello.request))
        server.send_octets(goaway_octets(code))
        await server.expect_end("RW-CLOSE-4")
        await t.report("closed", requirement="RW-RECONNECT-4")
        await t.quiet(_NO_MORE, "RW-RECONNECT-4", "no further connection")

    _text = "After an ERROR to HELLO that asks for the user, the client does not connect again by itself."
    add(f"8.7/never-{_name}", ["RW-RECONNECT-4"], _text, _refusal, ["waits"])

for _name, _code in (("revoked", Code.ACCOUNT_REVOKED), ("abuse", Code.ABUSE), ("unknown-2xx", 299)):

    async def _sent_away(t: Context, code: int = _code) -> None:
        server = await _come_back(t)
        await t.opened(server)
        await server.fence()
        server.send_octets(goaway_octets(code))
        await server.expect_end("RW-CLOSE-4")
        await t.report("closed", requirement="RW-RECONNECT-4")
        await t.quiet(_NO_MORE, "RW-RECONNECT-4", "no further connection")

    _text = "After a GOAWAY without RETRY of class 2xx or 3xx, or ABUSE, the client does not connect again by itself."
    add(f"8.7/never-{_name}", ["RW-RECONNECT-4"], _text, _sent_away, ["waits"])


@case("8.7/never-version-0", "RW-RECONNECT-4", tags=["waits"])
async def version_0(t: Context) -> None:
    """After version 0 the client does not connect again by itself."""
    server = await _come_back(t)
    server.send_preface(SERVER_PREFACE[:4] + bytes(4), breaks="RW-PREFACE-8")
    await server.expect_end("RW-PREFACE-8")
    await t.report("closed", requirement="RW-RECONNECT-4")
    await t.quiet(_NO_MORE, "RW-RECONNECT-4", "no further connection")
