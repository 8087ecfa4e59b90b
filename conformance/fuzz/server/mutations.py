"""Mutations of the octets that clients of scripts sent, which a server must survive.

Each connection has to end in normal service or in a GOAWAY with a code of SPEC.md, within time, and all that the server
says on it must be well-formed. The scripts in between show that the server still serves others.
"""

from collections.abc import Sequence
from random import Random

from conformance.fuzz.failure import Failure, Said
from conformance.fuzz.server.model import Model
from conformance.fuzz.server.network import Network
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.steps import Step
from conformance.fuzz.stats import Stats
from conformance.harness.verdicts import Failed
from conformance.wire.octets import HEADER, Header, split_frames
from conformance.wire.text import frame_line
from protocol.codec import RawFrame, decode
from protocol.errors import RemoteProtocolError
from protocol.frames import Ack, Error, Frame, Goaway, Unknown
from protocol.registry import CODES, MAGIC, PREFACE_SIZE, Code

AT_ONCE = 40
"""Connections that are open at the same time."""

LENGTHS = (0, 1, 15, 16, 4095, 4096, 4097, 65_535, 65_536, 65_537, 2**31, 2**32 - 1)


# --- making them


def conversations(log: Sequence[Said]) -> list[bytes]:
    """What each connection of a script said, from its preface on."""
    said: dict[str, bytes] = {}
    for entry in log:
        if entry.sender == "C":
            said[entry.client] = said.get(entry.client, b"") + entry.octets
    return [octets for octets in said.values() if octets.startswith(MAGIC)]


def mutated(random: Random, octets: bytes, other: bytes) -> bytes:
    """Returns octets like these with something changed. Parts of `other` may take the place of theirs."""
    changed = bytearray(octets)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(changed) + 1)
        match random.randrange(9):
            case 0 if changed:
                changed[at % len(changed)] ^= 1 << random.randrange(8)
            case 1 if changed:
                changed[at % len(changed)] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                changed[at:at] = random.randbytes(random.choice((1, 2, 8, 300)))
            case 3:
                del changed[at : at + random.choice((1, 2, 4, 16, 64))]
            case 4:
                del changed[at:]
            case 5:
                changed[at:] = other[random.randrange(len(other) + 1) :]
            case 6:
                changed = _with_wrong_length(random, changed)
            case 7:
                changed = _shuffled(random, changed, other)
            case 8 if len(changed) > PREFACE_SIZE:
                piece = changed[at : at + 40]
                changed[at:at] = piece * random.randint(1, 20)
    return bytes(changed)


def _with_wrong_length(random: Random, octets: bytearray) -> bytearray:
    frames, rest = split_frames(bytes(octets[PREFACE_SIZE:]))
    if frames:
        at = random.randrange(len(frames))
        length = random.choice((*LENGTHS, max(0, len(frames[at]) - HEADER.size + random.randint(-3, 3))))
        frames[at] = length.to_bytes(4, "big") + frames[at][4:]
    return octets[:PREFACE_SIZE] + b"".join(frames) + rest


def _shuffled(random: Random, octets: bytearray, other: bytes) -> bytearray:
    """Puts frames in another order, with some of another connection among them."""
    mine, _ = split_frames(bytes(octets[PREFACE_SIZE:]))
    theirs, _ = split_frames(other[PREFACE_SIZE:])
    frames = mine[:1] + random.sample(mine[1:] + theirs, k=len(mine[1:] + theirs))
    return octets[:PREFACE_SIZE] + b"".join(frames[: len(mine) + 3])


def burst_steps(random: Random, corpus: Sequence[bytes], count: int = AT_ONCE) -> list[Step]:
    """Returns the steps of one burst, whose octets are made of those of the corpus."""
    made = (mutated(random, random.choice(corpus), random.choice(corpus)) for _ in range(count))
    return [Step("octets", octets=octets.hex(), cut=random.choice((0, 0, 3))) for octets in made]


# --- sending them


def burst(network: Network, steps: Sequence[Step], stats: Stats, timeout: float) -> Failure | None:
    """Says what "octets" steps say, each on a connection of its own, all at once, and judges what comes.

    Returns what went wrong; `at` is the number of the step, the last one if that is not known.
    """
    log: list[Said] = []
    clients: list[RawClient] = []
    fault = ""
    try:
        for number, step in enumerate(steps):
            clients.append(RawClient(f"m{number}", network.connect(), Model(), stats, log, network.now()))
            _say(clients[-1], step)
        late = _until_closed(network, clients, timeout)
        if late is not None:
            expected = "the connection closed behind the end of the client's stream"
            return _failure(late, Failed(expected, "nothing", "RW-CLOSE-2"), log)
        for number, client in enumerate(clients):
            log.append(Said(client.label, "S", bytes(client.inbox)))
            try:
                judge(bytes(client.inbox), stats)
            except Failed as failed:
                return _failure(number, failed, log)
    except OSError as error:
        fault = network.fault() or str(error)
    finally:
        for client in clients:
            client.wire.close()
    if fault := fault or network.fault():
        return Failure("RW-CLOSE-7", "a server that goes on serving", fault, len(steps) - 1, tuple(log), crashed=True)
    return None


def _say(client: RawClient, step: Step) -> None:
    octets = bytes.fromhex(step.octets)
    client.stats.connections += 1
    client.stats.sent += len(split_frames(octets[PREFACE_SIZE:])[0])
    client.write(octets, step.cut)
    client.wire.eof()


def _until_closed(network: Network, clients: Sequence[RawClient], timeout: float) -> int | None:
    """Reads until all connections are closed. Returns the number of the first that is still open after `timeout` s."""
    deadline = network.now() + timeout
    while True:
        for client in clients:
            client.inbox += client.wire.read()
        still_open = [number for number, client in enumerate(clients) if not client.wire.ended]
        if not still_open:
            return None
        left = deadline - network.now()
        if left <= 0 or not network.wait(left):
            return still_open[0]


def _failure(number: int, failed: Failed, log: Sequence[Said]) -> Failure:
    mine = tuple(said for said in log if said.client == f"m{number}")
    return Failure(failed.requirement, failed.expected, failed.got, number, mine)


# --- judging what comes


def judge(octets: bytes, stats: Stats) -> None:
    """Holds all that a server said on a connection against what it may say on any. Raises Failed."""
    stats.octets += len(octets)
    if not octets:
        return
    if not MAGIC.startswith(octets[:4]) or (len(octets) < PREFACE_SIZE and len(octets) > 4):
        raise Failed(f"a preface that begins with {MAGIC.hex()}", octets[:8].hex(), "RW-PREFACE-2")
    if octets[4:5] == b"\0" and len(octets) > PREFACE_SIZE:
        raise Failed("nothing behind a preface with version 0", octets[8:40].hex(), "RW-PREFACE-4")
    frames, rest = split_frames(octets[PREFACE_SIZE:])
    if len(rest) >= HEADER.size and HEADER.unpack_from(rest)[0] > 2**24:
        raise Failed("a body of at most max_body octets", rest[:16].hex(), "RW-FRAME-3")
    last: Goaway | None = None
    for one in frames:
        stats.received += 1
        frame = _decoded(one)
        if last and last.code != Code.DRAINING:
            raise Failed("nothing after GOAWAY", frame_line(frame), "RW-CLOSE-1")
        stats.acknowledged += isinstance(frame, Ack)
        if isinstance(frame, (Error, Goaway)):
            carrier = "E" if isinstance(frame, Error) else "G"
            rule = CODES.get(Code(frame.code)) if frame.code in Code._value2member_map_ else None
            if rule is None or carrier not in rule.carriers:
                raise Failed("a code of section 16 in its carrier", frame_line(frame), "RW-CODE-1")
            stats.codes[carrier, frame.code] += 1
        if isinstance(frame, Goaway):
            last = frame


def _decoded(octets: bytes) -> Frame | Unknown:
    header = Header(*HEADER.unpack_from(octets))
    try:
        return decode(RawFrame(header.type, header.flags, header.request, header.room, octets[HEADER.size :]), "S")
    except RemoteProtocolError as error:
        raise Failed("a well-formed frame", f"{error} in {octets[:64].hex()}", "RW-FRAME-7") from None
