"""Steps that end a connection: the transport, the server, a rule that it breaks, or the application."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from conformance.client.raw_server import RawServer
from conformance.fuzz.client.broken_frames import BROKEN, ClientBench
from conformance.fuzz.client.command_steps import publish_in
from conformance.fuzz.client.model import ClientRoom
from conformance.fuzz.client.player import HASTY_MS, RETRY_MS, ClientPlayer, step
from conformance.fuzz.client.room_steps import add_text
from conformance.fuzz.client.steps import ClientStep
from conformance.fuzz.failure import fail
from conformance.wire import clock
from conformance.wire.octets import encode
from conformance.wire.text import code_name
from protocol.frames import Goaway, Pong, Publish
from protocol.registry import Code

_MOST_FAILURES = 4  # connections lost in a row, after which a client waits too long before the next one

End: TypeAlias = Callable[[ClientPlayer, ClientStep, RawServer], Awaitable[None]]


def _ends(name: str, *, orderly: bool = False) -> Callable[[End], End]:
    """Registers a function that takes the steps of a name on an open connection, and is followed by the next one."""

    def register(end: End) -> End:
        async def take(player: ClientPlayer, step: ClientStep) -> None:
            server = player.server
            if server is None or (player.failures >= _MOST_FAILURES and not orderly):
                return
            player.absorb()
            await end(player, step, server)
            if player.server is None and not player.over:
                await player.open()

        step(name)(take)
        return end

    return register


# --- the transport


@_ends("drop")
async def drop(player: ClientPlayer, step: ClientStep, server: RawServer) -> None:
    """The connection is lost in the way that `what` names."""
    if step.what == "unanswered":
        for frame in player.queue:
            if isinstance(frame, Publish):
                player.answer_publish(frame, silently=True)
    for room in player.rooms.values():
        if step.what == "half" and room.ref:
            add_text(player, room)
            octets = encode(room.log[-1].frame(room.ref))
            server.write(octets[: player.random.randrange(1, len(octets))])
            break
    player.visit("any", "end of stream")
    await player.lost(server, abort=step.what == "reset")


@_ends("silent")
async def fall_silent(player: ClientPlayer, step: ClientStep, server: RawServer) -> None:
    """The server sends nothing for two heartbeats, which the client has to notice (RW-HEARTBEAT-2)."""
    server.answers_pings = False
    player.may_end = True
    within = 2 * HASTY_MS / 1000 + player.timeout + 5
    goaway = await server.wait(lambda: server.find(Goaway), "GOAWAY(TIMEOUT)", "RW-HEARTBEAT-2", within)
    player.stats.codes["G", goaway.code] += 1
    if goaway.code != Code.TIMEOUT:
        fail("RW-HEARTBEAT-2", "GOAWAY(TIMEOUT)", f"GOAWAY({code_name(goaway.code)})")
    player.visit("OPEN", "time-out")
    await player.lost(server)


# --- the server


@_ends("goaway")
async def goaway(player: ClientPlayer, step: ClientStep, server: RawServer) -> None:
    """The server says GOAWAY with the code `what`."""
    code = Code[step.what]
    if code == Code.DRAINING:
        await _drain(player, server)
        return
    player.may_end = True
    player.say_goaway(server, code)
    await player.expect_goaway_none(server)
    player.visit("OPEN", "GOAWAY")
    final = not code.retry and (code == Code.ABUSE or code // 100 in (2, 3))
    orderly = code in (Code.NONE, Code.SHUTDOWN)
    await player.lost(server, retry_ms=RETRY_MS if code.retry else 0, final=final, orderly=orderly)


@_ends("drain", orderly=True)
async def drain(player: ClientPlayer, step: ClientStep, server: RawServer) -> None:
    """The server drains. If `what` names something, it happens while the client waits for a reply."""
    if step.what and any(room.wanted and room.ref for room in player.rooms.values()):
        await _interrupted_drain(player, step.what, server)
    else:
        await _drain(player, server)


async def _drain(player: ClientPlayer, server: RawServer) -> None:
    """The client waits for its replies, says GOAWAY(NONE), and is answered with SHUTDOWN (RW-DRAIN-4)."""
    player.held = False
    player.say_goaway(server, Code.DRAINING)
    said_at = player.said_goaway_at
    player.visit("OPEN", "GOAWAY(DRAINING)")
    player.may_end = True
    deadline = clock.now() + player.timeout
    while True:
        player.absorb()
        if player.has_heard and not player.queue:
            player.visit("DRAINING", "frame")
        if server.observer.goaway or server.ended:
            break
        if deadline <= clock.now():
            fail("RW-DRAIN-4", "GOAWAY(NONE) when all is answered", "nothing")
        await player.wait_until(deadline)
    player.absorb()
    goaway = server.observer.goaway
    if goaway is None or goaway.code != Code.NONE:
        fail("RW-DRAIN-4", "GOAWAY(NONE)", server.last_words())
    player.visit("DRAINING", "all replied")
    if not server.ended:
        player.say_goaway(server, Code.SHUTDOWN)
    await server.expect_end("RW-CLOSE-4")
    player.said_goaway_at = said_at  # the client need not have read SHUTDOWN
    await player.lost(server, retry_ms=RETRY_MS, orderly=True)


async def _interrupted_drain(player: ClientPlayer, how: str, server: RawServer) -> None:
    """While the client waits for a reply behind GOAWAY(DRAINING), something else ends the connection."""
    player.held = True
    publish_in(player, next(room for room in player.rooms.values() if room.wanted and room.ref))
    await player.until_read()
    player.say_goaway(server, Code.DRAINING)
    player.visit("OPEN", "GOAWAY(DRAINING)")
    player.may_end = True
    if how == "quit":
        player.held = False
        await _quit(player)
        player.visit("DRAINING", "close")
    elif how == "goaway":
        player.say_goaway(server, Code.SHUTDOWN)
        await player.expect_goaway_none(server)
        player.visit("DRAINING", "GOAWAY")
        await player.lost(server, retry_ms=RETRY_MS, orderly=True)
    else:
        breakage = BROKEN["unknown-critical"]
        player.stats.broken[breakage.requirement] += 1
        server.send_octets(breakage.make(_bench(player, None)), breaks=breakage.requirement)
        await server.expect_goaway(*breakage.codes, requirement=breakage.requirement)
        player.visit("DRAINING", "fatal error")
        await player.lost(server)


def _bench(player: ClientPlayer, room: ClientRoom | None) -> ClientBench:
    ref, next = (room.ref, room.sent + 1) if room else (0, 1)
    return ClientBench(player.random, ref, next, 0x7000_0000, 65_536)


@_ends("break")
async def break_rule(player: ClientPlayer, step: ClientStep, server: RawServer) -> None:
    """The server sends the broken frame that `what` names (BROKEN)."""
    room, breakage = player.rooms.get(step.room), BROKEN.get(step.what)
    if breakage is None or (breakage.member and not (room and room.ref)):
        return
    player.may_end = True
    player.stats.broken[breakage.requirement] += 1
    server.send_octets(breakage.make(_bench(player, room)), breaks=breakage.requirement)
    await server.expect_goaway(*breakage.codes, requirement=breakage.requirement)
    for code in breakage.codes:
        player.stats.codes["G", code] += 1
    player.visit("OPEN", "fatal error")
    if player.last and step.number == 6:  # nothing is said: the linger time ends it
        await server.expect_end("RW-CLOSE-5", 60.0)
        player.visit("CLOSING", "time-out")
    elif player.random.random() < 0.5:
        server.send(Pong(bytes(8)))
        player.visit("CLOSING", "frame")
        server.send(Goaway(Code.NONE))
        player.visit("CLOSING", "GOAWAY")
        await server.expect_end("RW-CLOSE-5")
    await player.lost(server)
    if player.last:
        player.over = True  # a client takes its time to come back, which other scripts see


# --- the application


@step("quit")
async def quit_client(player: ClientPlayer, step: ClientStep) -> None:
    """The application ends the connection, while a reply is due if `what` is "held"."""
    player.held = False
    room = next((room for room in player.rooms.values() if room.wanted), None)
    if step.what == "held" and room:
        player.held = True
        publish_in(player, room)
        await player.until_read()
    await _quit(player)


async def _quit(player: ClientPlayer) -> None:
    """The client says GOAWAY(NONE), and reports `closed`."""
    server = player.server
    for command in player.publishes():
        command.lost = command.lost or bool(command.ids)
        command.unknown = command.unknown or player.is_queued(command)
    player.over = player.may_end = True
    player.client.tell("quit")
    if server is not None:
        goaway = await server.wait(lambda: server.find(Goaway), "GOAWAY(NONE)", "RW-CLOSE-2", player.timeout + 3)
        if goaway.code != Code.NONE:
            fail("RW-CLOSE-2", "GOAWAY(NONE)", f"GOAWAY({code_name(goaway.code)})")
        player.visit("OPEN", "close")
        server.send(Goaway(Code.NONE))
        player.visit("CLOSING", "GOAWAY")
        await server.expect_end("RW-CLOSE-5")
        await server.close()
    await player.until_closed("")
    player.absorb_reports()
