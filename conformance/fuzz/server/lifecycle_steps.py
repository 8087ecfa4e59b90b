"""Steps that end or stop something: clients pause or go, the server restarts or drains, time passes."""

from conformance.fuzz.failure import fail
from conformance.fuzz.server import idle
from conformance.fuzz.server.broken_frames import BROKEN
from conformance.fuzz.server.broken_steps import bench
from conformance.fuzz.server.login_steps import say_hello, until_challenge
from conformance.fuzz.server.player import Player, step
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.requests import DROPPABLE, frames, send_items
from conformance.fuzz.server.steps import Step
from conformance.wire.octets import CLIENT_PREFACE, encode
from protocol.frames import Goaway, Publish
from protocol.registry import LIMITS, Code, PresenceKind

_LEAVES = {"": 6, "broken": 1, "waits": 1, "silent": 1}
"""How a client behaves when it learns that the server drains, and how often."""


# --- clients


@step("pause")
def pause(player: Player, step: Step) -> None:
    """The client reads no more."""
    if client := player.reader(step):
        client.pause(True)


@step("resume")
def resume(player: Player, step: Step) -> None:
    """The client sends `items`, then reads again."""
    client = player.clients.get(step.client)
    if client is None:
        return
    if client.open:
        client.write(frames(player, client, step, step.items), step.cut)
    client.pause(False)


@step("drop")
def drop(player: Player, step: Step) -> None:
    """The client sends `items`, then closes its connection in the way that `what` names."""
    client = player.reader(step)
    if client is None:
        return
    del player.clients[step.client]
    send_items(player, client, step, [item for item in step.items if item in DROPPABLE])
    if step.what == "half" and client.open:
        octets = encode(Publish(bytes(16), 1, bytes(40), request=client.next_request(), room=1))
        client.write(octets[: player.random.randrange(1, len(octets))])
    client.wire.close(abort=step.what == "reset")
    client.ended(PresenceKind.LOST, seen=False)


@step("goaway")
def say_goaway(player: Player, step: Step) -> None:
    """The client sends `items` and GOAWAY, which ends the connection behind all replies."""
    client = player.reader(step)
    if client is None or not client.open:
        return
    del player.clients[step.client]
    player.others.append(client)
    octets = frames(player, client, step, step.items)
    state = client.state
    client.expects_end = True
    client.write(octets + client.note(Goaway(Code.NONE)), step.cut)
    player.until(lambda: client.goaway_ends or client.wire.ended, "GOAWAY", "RW-CLOSE-3", client)
    code = Code.SHUTDOWN if state == "DRAINING" else Code.NONE
    if client.due:
        fail("RW-CLOSE-3", f"the reply to request {client.due[0].request} before the end", client.last_words())
    if not client.goaway or client.goaway.code != code:
        fail("RW-CLOSE-3" if code == Code.NONE else "RW-DRAIN-3", f"GOAWAY({code.name})", client.last_words())
    player.stats.visit("server", state, "GOAWAY")
    player.until(lambda: client.wire.ended, "the connection closed", "RW-CLOSE-3", client)
    client.ended(PresenceKind.LEFT, seen=True)
    client.wire.close()


# --- the server


@step("restart")
def restart(player: Player, step: Step) -> None:
    """The server is killed and started again."""
    player.settle()
    if not player.network.restart():
        return
    for client in player.clients.values():
        client.ended(PresenceKind.LOST, seen=True)
        client.wire.close()
    player.clients.clear()
    player.model.restarts()


@step("operator")
def operate(player: Player, step: Step) -> None:
    """The server's operator, or its fate, does to it what `what` names, which closes all connections."""
    player.settle()
    player.all_read()
    waiting = _not_open_yet(player)
    if not player.network.operate(step.what):
        return
    player.model.draining = True  # PRESENCE of those who go is sent to no member any more
    for client in player.clients.values():
        client.expects_end = True
    _closed_before_open(player, waiting, Code.INTERNAL)
    for client in player.clients.values():
        _ended_by_server(player, client, (Code.INTERNAL,), "OPEN", "close", "RW-PROMISE-7")
    _start_again(player)


def _start_again(player: Player) -> None:
    player.clients.clear()
    player.network.restart()
    player.model.restarts()


@step("drain")
def drain(player: Player, step: Step) -> None:
    """The server is told to end (SPEC.md, section 8.6). Each client goes, stays, or breaks a rule."""
    player.settle()
    player.all_read()
    waiting = _not_open_yet(player)
    if not player.network.drain():
        return
    player.model.draining = True
    for client in player.clients.values():
        _learn_of_drain(player, client)
    _closed_before_open(player, waiting, Code.SHUTDOWN)
    stay = []
    for number, client in list(player.clients.items()):
        # A request that was under way when the client learned of the drain (RW-DRAIN-2).
        for stream in client.streams.values():
            client.write(frames(player, client, Step("send", number, stream.room.number), ["text"]))
            break
        how = player.random.choices(list(_LEAVES), list(_LEAVES.values()))[0]
        if how == "broken":
            _break_drained(player, client)
        elif how and _drain_ms(player) < 20_000:
            _until_replied(player, client)
            stay.append((client, how == "silent"))
        else:
            _goaway_drained(player, client)
    if stay and player.random.random() < 0.2 and player.network.operate("fail"):
        for client, _ in stay:
            client.expects_end = True
        for client, _ in stay:
            _ended_by_server(player, client, (Code.INTERNAL,), "DRAINING", "close", "RW-PROMISE-7")
    else:
        _until_drained(player, stay)
    _start_again(player)


def _learn_of_drain(player: Player, client: RawClient) -> None:
    player.until(lambda: client.goaway is not None, "GOAWAY(DRAINING)", "RW-DRAIN-3", client)
    if client.goaway and client.goaway.code != Code.DRAINING:
        fail("RW-DRAIN-3", "GOAWAY(DRAINING)", client.last_words())
    player.stats.visit("server", "OPEN", "drain")


def _until_replied(player: Player, client: RawClient) -> None:
    player.until(lambda: not client.due, "replies", "RW-DRAIN-2", client)


def _drain_ms(player: Player) -> int:
    return player.network.limits.get("drain_ms", LIMITS["drain_ms"].default)


def _not_open_yet(player: Player) -> list[RawClient]:
    """Makes connections that do not come as far as WELCOME: one for each state before it."""
    clients = [player.dial() for _ in range(2)]
    if player.network.accounts:
        account = min(player.network.accounts)
        late = say_hello(player, account, Step("login", what="right"))
        clients.append(late)
        late.aside = True
        until_challenge(player, late)
    for client in clients[:2]:
        client.expects_end = client.aside = True
        player.others.append(client)
    clients[0].write(CLIENT_PREFACE[:3])
    clients[1].write(CLIENT_PREFACE)
    player.until_preface(clients[1])
    return clients


def _closed_before_open(player: Player, clients: list[RawClient], code: Code) -> None:
    for client, state in zip(clients, ("WAIT_PREFACE", "WAIT_HELLO", "AUTHENTICATING"), strict=False):
        if not client.errors:  # else it was refused for having tried too often
            _closed_in(player, client, state, code)


def _closed_in(player: Player, client: RawClient, state: str, code: Code) -> None:
    rule = "RW-DRAIN-3" if code == Code.SHUTDOWN else "RW-PROMISE-7"
    player.until(lambda: client.wire.ended or client.goaway_ends, "the connection closed", rule, client)
    if state == "WAIT_PREFACE" and client.preface:
        fail(rule, "no octet before the end", client.preface.hex())
    if state != "WAIT_PREFACE" and (not client.goaway or client.goaway.code != code):
        fail(rule, f"GOAWAY({code.name})", client.last_words())
    player.stats.visit("server", state, "close")
    client.wire.close()


def _goaway_drained(player: Player, client: RawClient) -> None:
    client.expects_end = True
    client.write(client.note(Goaway(Code.NONE)))
    player.until(lambda: client.goaway_ends or client.wire.ended, "GOAWAY(SHUTDOWN)", "RW-DRAIN-3", client)
    if client.due:
        fail("RW-DRAIN-2", f"the reply to request {client.due[0].request}", client.last_words())
    if not client.goaway or client.goaway.code != Code.SHUTDOWN:
        fail("RW-DRAIN-3", "GOAWAY(SHUTDOWN)", client.last_words())
    player.stats.visit("server", "DRAINING", "GOAWAY")
    client.ended(PresenceKind.LEFT, seen=True)
    client.wire.close()


def _break_drained(player: Player, client: RawClient) -> None:
    breakage = BROKEN["unknown-critical"]
    client.half = True
    client.write(breakage.make(bench(player, client, 0)))
    _ended_by_server(player, client, tuple(breakage.codes), "DRAINING", "fatal error", breakage.requirement)


def _ended_by_server(
    player: Player, client: RawClient, codes: tuple[Code, ...], state: str, event: str, rule: str
) -> None:
    client.expects_end = True
    player.until_goaway(client, rule, *codes)
    player.stats.visit("server", state, event)
    client.ended(PresenceKind.LOST, seen=True)
    client.wire.close()


def _until_drained(player: Player, stay: list[tuple[RawClient, bool]]) -> None:
    """Waits for the server to end the connections of clients that stay. A silent one may time out before, after 2 H."""
    for client, silent in stay:
        _until_replied(player, client)
        client.expects_end = True
        client.half = silent
    for client, _ in stay:
        assert client.welcome
        early = client.half and 2 * client.welcome.heartbeat_ms < _drain_ms(player)
        _until_sent_away(player, client)
        codes = (Code.TIMEOUT,) if early else (Code.SHUTDOWN,)
        _ended_by_server(player, client, codes, "DRAINING", "time-out" if early else "drained", "RW-DRAIN-3")


def _until_sent_away(player: Player, client: RawClient) -> None:
    network = player.network
    limit = network.now() + _drain_ms(player) / 1000 + player.timeout
    while not (client.goaway_ends or client.wire.ended) and network.now() < limit:
        if network.settled:
            network.sleep(0.25)
            player.read()
        else:
            left = max(player.timeout, limit - network.now())
            player.until(lambda: client.goaway_ends, "GOAWAY(SHUTDOWN)", "RW-DRAIN-3", client, left)


# --- time


@step("idle")
def stay_idle(player: Player, step: Step) -> None:
    """Waits for the end of a connection that says no more, where waiting costs nothing."""
    known = step.what in idle.KINDS and (step.what != "login" or player.network.accounts)
    if not (known and player.network.waits):
        return
    player.settle()
    alone = Player(player.network, player.random.getrandbits(32), player.stats, player.timeout)
    watched = idle.Idle(alone, step.what)
    while not watched.poll():
        if player.network.settled:
            _pass_time(player, 0.25)
        elif not player.network.wait(0.1):
            player.read()
    alone.close()


@step("time")
def let_time_pass(player: Player, step: Step) -> None:
    """Lets `number` milliseconds pass, in pieces that are short against all heartbeats."""
    _pass_time(player, step.number / 1000)


def _pass_time(player: Player, seconds: float) -> None:
    while seconds > 0:
        beats = [client.welcome.heartbeat_ms for client in player.clients.values() if client.welcome]
        piece = min(seconds, min(beats, default=4000) / 4000)
        if not player.network.sleep(piece):
            return
        seconds -= piece
        player.read()
        for client in player.clients.values():
            if client.open and not client.paused and player.random.random() < 0.2:
                player.fence(client)
        player.settle()
