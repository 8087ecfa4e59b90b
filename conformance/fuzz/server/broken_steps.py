"""Steps that break a rule or send mutated octets: the error or the end that must follow, and nothing else."""

from conformance.fuzz.failure import fail
from conformance.fuzz.server.broken_frames import BROKEN, HANDSHAKES, Bench, Breakage, Handshake, header_promises
from conformance.fuzz.server.mutations import burst
from conformance.fuzz.server.player import Player, step
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.requests import expect_error
from conformance.fuzz.server.steps import Step
from conformance.harness.verdicts import Crashed
from conformance.wire.octets import encode, read_header
from conformance.wire.text import code_name, frame_line
from protocol.frames import Frame, Goaway, Pong
from protocol.registry import MAGIC, Code, FrameType, PresenceKind


def bench(player: Player, client: RawClient, room: int) -> Bench:
    """Returns what a broken frame of this client is made of."""
    ref = player.model.room(room).ref
    id = player.new_id(client) if client.welcome else bytes(16)
    return Bench(player.random, client.next_request(), ref if ref in client.streams else 0, id, client.limit)


# --- on open connections


@step("break")
def break_rule(player: Player, step: Step) -> None:
    """Sends the frame that `what` names (BROKEN)."""
    client, breakage = player.reader(step), BROKEN.get(step.what)
    if client is None or breakage is None or not client.open:
        return
    parts = bench(player, client, step.room)
    octets = breakage.make(parts)
    player.stats.broken[breakage.requirement] += 1
    if breakage.fatal:
        _break_for_good(player, client, step, breakage, octets)
        return
    header = read_header(octets)
    [code] = breakage.codes
    stream = client.streams.get(header.room) if breakage.publish else None

    def judge(reply: Frame) -> None:
        expect_error(reply, header.room, code, breakage.requirement)
        if header.type == FrameType.LEAVE and header.room in client.streams:
            player.stats.visit("membership", "LEAVING", "ERROR")
        if stream:
            stream.refused = True

    client.note_octets(octets)
    client.ask(parts.request, judge)
    client.write(octets, step.cut)
    player.fence(client)


def _break_for_good(player: Player, client: RawClient, step: Step, breakage: Breakage, octets: bytes) -> None:
    """Sends octets that end the connection, and judges how it ends."""
    client.intact = not header_promises(octets, client.limit)
    if client.intact:
        client.note_octets(octets)
    client.half = True
    del player.clients[step.client]
    player.others.append(client)
    client.write(octets, step.cut)
    client.expects_end = True
    names = " or ".join(code.name for code in breakage.codes)
    expected = f"GOAWAY({names}) for {breakage.name}"
    player.until(lambda: client.goaway_ends or client.wire.ended, f"GOAWAY({names})", breakage.requirement, client)
    if client.goaway is None:
        fail("RW-CLOSE-2", expected, client.last_words())
    if client.goaway.code not in breakage.codes:
        fail(breakage.requirement, expected, f"GOAWAY({code_name(client.goaway.code)})")
    player.stats.visit("server", "OPEN", "fatal error")
    after_goaway(player, client)
    client.ended(PresenceKind.LOST, seen=True)
    client.wire.close()


def after_goaway(player: Player, client: RawClient) -> None:
    """Sends more behind the server's GOAWAY, then waits for the end: the server closes after this side (RW-CLOSE-5)."""
    client.due.clear()
    if player.random.random() < 0.5 and client.intact:
        client.write(encode(Pong(bytes(8))) + encode(Goaway(Code.NONE)))
        player.stats.visit("server", "CLOSING", "GOAWAY")
    else:
        client.write(bytes(40))
        player.stats.visit("server", "CLOSING", "frame")
        client.wire.eof()
    player.until(lambda: client.wire.ended, "the connection closed after GOAWAY", "RW-CLOSE-5", client)


# --- on new connections


@step("handshake")
def handshake(player: Player, step: Step) -> None:
    """Begins a connection in the wrong way that `what` names (HANDSHAKES)."""
    wrong = HANDSHAKES.get(step.what)
    if wrong is None:
        return
    client = player.dial_aside()
    octets = wrong.make(bench(player, client, 0))
    player.stats.broken[wrong.requirement] += 1
    if octets.startswith(MAGIC) and octets[8:]:
        client.intact = not header_promises(octets[8:], client.limit)
        if client.intact:
            client.note_octets(octets[8:])
        client.write(octets[:8])
        player.until_preface(client)
        octets = octets[8:]
    client.errors.clear()
    client.write(octets, step.cut)
    player.stats.sent += 1
    player.until(lambda: client.wire.ended or client.goaway_ends, f"the end after {wrong.name}", "RW-CLOSE-2", client)
    _judge_handshake(player, client, wrong)
    if not client.wire.ended:
        after_goaway(player, client)
    client.wire.close()
    player.stats.visit("server", "any", "end of stream")


def _judge_handshake(player: Player, client: RawClient, wrong: Handshake) -> None:
    if wrong.silent:
        if client.preface:
            fail(wrong.requirement, "no octet before the end", client.preface.hex())
        player.stats.visit("server", "WAIT_PREFACE", "wrong preface")
    elif wrong.version0:
        if client.preface[4:5] != b"\0":
            got = client.preface.hex() or client.last_words()
            fail(wrong.requirement, "a preface with version 0", got)
        player.stats.visit("server", "WAIT_PREFACE", "no common version")
    elif wrong.refused:
        expect_refusal(player, client, wrong.code or Code.NONE, wrong.requirement)
    else:
        code = wrong.code or Code.NONE
        if not client.goaway:
            fail("RW-CLOSE-2", f"GOAWAY({code.name})", client.last_words())
        if client.goaway.code != code:
            fail(wrong.requirement, f"GOAWAY({code.name})", client.last_words())
        player.stats.visit("server", "WAIT_HELLO", "GOAWAY" if code == Code.NONE else "fatal error")


def expect_refusal(player: Player, client: RawClient, code: Code, requirement: str) -> None:
    """Judges that ERROR, and GOAWAY behind it, refuse a HELLO with this code. Raises Failed."""
    if not client.goaway:
        fail("RW-CLOSE-2", f"GOAWAY({code.name})", client.last_words())
    if not client.errors:
        fail("RW-HELLO-2", f"ERROR({code.name})", client.last_words())
    error = client.errors[0]
    if error.code != code:
        fail(requirement, f"ERROR({code.name})", frame_line(error))
    if code == Code.UNSUPPORTED_MECHANISM and not error.fields:
        fail("RW-SASL-1", "the mechanisms that are offered in fields MECHANISM", frame_line(error))
    if client.goaway.code != error.code:
        fail("RW-HELLO-3", f"GOAWAY({code.name}) behind the ERROR", client.last_words())
    player.stats.visit("server", "WAIT_HELLO", "refused")


@step("octets")
def say_octets(player: Player, step: Step) -> None:
    """Says mutated octets on a connection of their own."""
    failure = burst(player.network, [step], player.stats, player.timeout)
    if failure is not None:
        player.log += failure.log
        if failure.crashed:
            raise Crashed(failure.got)
        fail(failure.requirement, failure.expected, failure.got)
