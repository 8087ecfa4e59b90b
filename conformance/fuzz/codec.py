"""Fuzzing a codec: several codecs read and write frames and mutations of frames, and must agree.

In this process they are construct's parser and builder of the declarations (`protocol.wire`), and the code that is made
of the declarations (`protocol.codec`). With --exec there is also a program that keeps the contract of `codec.target`.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from conformance.codec import reference
from conformance.codec.target import CodecTarget
from conformance.codec.values import differences
from conformance.fuzz import strategies
from conformance.fuzz.options import Options
from conformance.fuzz.progress import Progress
from conformance.fuzz.stats import Stats
from conformance.harness.exit_status import CONFORMS, FAILS
from conformance.harness.process import arguments
from conformance.harness.verdicts import CaseEnd, ContractBroken
from conformance.wire.log import WireLog
from conformance.wire.octets import HEADER, Header
from conformance.wire.octets import decode as declared
from conformance.wire.octets import encode as declared_octets
from conformance.wire.text import hex_lines
from protocol.codec import RawFrame, decode, encode
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import RULES, Frame, Unknown
from protocol.registry import Code, Sender, is_ignorable

POOL = 600
"""Examples that hypothesis draws. All other frames are mutations of theirs."""

_AT_ONCE = 200
_WRITTEN = 4  # one in 4 frames that are read is also written


@dataclass(frozen=True)
class Differs:
    """Octets about which two codecs do not agree. `who` differs from what is expected."""

    sender: Sender
    octets: bytes
    who: str
    expected: str
    got: str


def pool(seed: int) -> list[tuple[Sender, bytes]]:
    """Returns valid frames of both ends as octets, of every type, and frames that break one rule."""
    drawn: list[tuple[Sender, bytes]] = []
    quick = settings(
        max_examples=POOL,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @seeded(seed)
    @quick
    @given(strategies.frames(), strategies.broken_frames())
    def draw(frame: Frame, broken: strategies.BrokenFrame) -> None:
        drawn.extend((sender, encode(frame)) for sender in ("C", "S") if sender in RULES[frame.TYPE].sender)
        drawn.append(("C", broken.octets))

    draw()
    return [(sender, octets) for sender, octets in drawn if len(octets) <= 2_000]


def changed(random: Random, octets: bytes) -> bytes:
    """Returns the frame with something changed, and a length that is right."""
    body = bytearray(octets)
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(4, len(body) + 1)
        kind = random.random()
        if kind < 0.4 and at < len(body):
            body[at] ^= 1 << random.randrange(8)
        elif kind < 0.6 and at < len(body):
            body[at] = random.choice((0, 1, 0x7F, 0x80, 0xC0, 0xFF))
        elif kind < 0.8:
            del body[max(at, HEADER.size) :]
        else:
            body[max(at, HEADER.size) : at] = random.randbytes(random.choice((1, 2, 4)))
    body[:4] = (len(body) - HEADER.size).to_bytes(4, "big")
    return bytes(body)


def outcome(octets: bytes, sender: Sender) -> tuple[str, Frame | Unknown | None]:
    """Reads a frame with the code made of the declarations. Returns "" and the frame, or a code's name and None."""
    _, type, flags, request, room = HEADER.unpack_from(octets)
    try:
        return "", decode(RawFrame(type, flags, request, room, octets[HEADER.size :]), sender)
    except RemoteProtocolError as error:
        return error.code.name, None


def compare(octets: bytes, sender: Sender, *, written: bool) -> Differs | None:
    """Returns what the declarations and the code made of them do not agree about, if anything."""
    code, frame = outcome(octets, sender)
    try:
        other: Frame | Unknown | None = declared(Header(*HEADER.unpack_from(octets)), octets[HEADER.size :], sender)
        said = ""
    except RemoteProtocolError as error:
        said, other = error.code.name, None
    if isinstance(other, Unknown) and code == "MALFORMED" and sender == "S" and is_ignorable(other.type):
        return None  # RW-TYPE-6 is not in the declarations, since they have no unknown frames
    if (said, other) != (code, frame):
        return Differs(sender, octets, "the code made of the declarations", f"{said} {other}", f"{code} {frame}")
    if frame is not None and written:
        again, slow = _octets(encode, frame), _octets(declared_octets, frame)
        if again != slow:
            return Differs(sender, octets, "the encoder made of the declarations", f"{slow!r}", f"{again!r}")
        if isinstance(again, bytes) and outcome(again, sender) != (code, frame):
            return Differs(sender, octets, "writing and reading again", f"{frame}", f"{outcome(again, sender)}")
    return None


def _octets(write: Callable[[Any], bytes], frame: Frame | Unknown) -> bytes | str:
    """Returns the octets of a frame, or the name of the encoder's error.

    Text that was not UTF-8 grows when it is read (RW-CHECK-5), and may not fit any more.
    """
    try:
        return write(frame)
    except LocalProtocolError as error:
        return type(error).__name__


class CodecFuzz:
    """One run. With `command` the program that it starts is compared, too."""

    def __init__(self, options: Options, command: str = "") -> None:
        self.options = options
        self.command = command
        self.stats = Stats()
        self.progress = Progress("fuzz codec", self.stats, options.max_time, options.max_examples, tables=())
        self.found: list[Differs] = []
        self._random = Random(options.seed)
        self._pool: list[tuple[Sender, bytes]] = []

    def run(self) -> int:
        """Fuzzes until time, examples or failures are used up, prints the summary, and returns the exit status."""
        if self.command:
            arguments(self.command, {})
        self._pool = pool(self.options.seed)
        interrupted = False
        self.progress.began = self.progress.began + self.progress.seconds  # drawing the pool does not count
        try:
            with self.progress:
                asyncio.run(self._with_program()) if self.command else self._alone()
        except KeyboardInterrupt:
            interrupted = True
        for differs in self.found[: self.options.max_failures]:
            self._report(differs)
        outcome = f"{len(self.found)} differences found" if self.found else "no difference found"
        self.progress.summary(outcome + (" before it was interrupted" if interrupted else ""), self.options.format)
        return FAILS if self.found else CONFORMS

    def _next(self) -> tuple[Sender, bytes]:
        sender, octets = self._random.choice(self._pool)
        if HEADER.unpack_from(octets)[0] != len(octets) - HEADER.size or self._random.random() < 0.75:
            octets = changed(self._random, octets)
        return sender, octets

    def _alone(self) -> None:
        while not self.progress.over and len(self.found) < self.options.max_failures:
            for number in range(_AT_ONCE):
                sender, octets = self._next()
                differs = compare(octets, sender, written=number % _WRITTEN == 0)
                self._count(differs, octets)
            self.progress.show()

    def _count(self, differs: Differs | None, octets: bytes) -> None:
        self.stats.scripts += 1
        self.stats.received += 1
        self.stats.octets += len(octets)
        if differs:
            self.found.append(differs)

    async def _with_program(self) -> None:
        codec = await CodecTarget.start(self.command, 15.0, self.options.timeout)
        log = WireLog()
        try:
            while not self.progress.over and len(self.found) < self.options.max_failures:
                sender, octets = self._next()
                request = {"op": "decode", "from": sender, "hex": octets.hex()}
                expected = reference.answer({"id": 0, **request})
                try:
                    answer = await codec.ask(request, log)
                    differs = disagree(sender, octets, expected, answer)
                    if differs is None and "frame" in expected and "error" not in answer:
                        differs = await self._written(codec, log, sender, octets, expected)
                except ContractBroken as end:
                    differs = Differs(sender, octets, "the program", "an answer", str(end))
                except CaseEnd as end:
                    differs = Differs(sender, octets, "the program", "an answer", f"{type(end).__name__}: {end}")
                self._count(differs or compare(octets, sender, written=True), octets)
                self.progress.show()
                if differs and codec.died:
                    await codec.stop()
                    codec = await CodecTarget.start(self.command, 15.0, self.options.timeout)
        finally:
            await codec.stop()

    async def _written(
        self, codec: CodecTarget, log: WireLog, sender: Sender, octets: bytes, expected: dict[str, Any]
    ) -> Differs | None:
        """Has the program write what it has read, and compares the octets with those of the reference."""
        request = {"op": "encode", "from": sender, "frame": expected["frame"], "value": expected["value"]}
        wanted = reference.answer({"id": 0, **request})
        answer = await codec.ask(request, log)
        if answer.get("hex", "").lower() != wanted.get("hex", "").lower():
            return Differs(sender, octets, "the program's encoder", json.dumps(wanted), json.dumps(answer))
        return None

    def _report(self, differs: Differs) -> None:
        out = sys.stderr if self.options.format == "json" else sys.stdout
        print(f"FAIL {differs.who} does not agree about octets of {differs.sender}:", file=out)
        for line in hex_lines(differs.octets):
            print(f"  {line}", file=out)
        print(f"  expected {differs.expected[:1000]}\n  got      {differs.got[:1000]}", file=out)
        if self.options.save:
            self.options.save.mkdir(parents=True, exist_ok=True)
            path = self.options.save / f"codec-{len(self.found)}-{self.options.seed}.jsonl"
            said = {"from": differs.sender, "hex": differs.octets.hex(), "expected": differs.expected}
            path.write_text(json.dumps(said | {"got": differs.got}) + "\n", encoding="utf-8")


def _refused_by_clients(read: dict[str, Any]) -> bool:
    """Whether a codec may refuse what the reference has read: JOINED with an epoch or `start` of 0 (RW-CURSOR-6)."""
    return read.get("frame") == "JOINED" and "0" in (read["value"]["epoch"], read["value"]["start"])


def disagree(sender: Sender, octets: bytes, expected: dict[str, Any], answer: dict[str, Any]) -> Differs | None:
    """Returns how a program's answer differs: it has to be the same value, or the same code."""
    same = expected.get("error") == answer.get("error") and expected.get("frame") == answer.get("frame")
    if same and "value" in expected:
        same = not differences(expected["frame"], expected["value"], answer.get("value"))
    if same or (answer.get("error") == Code.MALFORMED.name and _refused_by_clients(expected)):
        return None
    return Differs(sender, octets, "the program", json.dumps(expected), json.dumps(answer))
