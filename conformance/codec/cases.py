"""Cases for encoders and decoders: what each vector asks of them.

Decoding, encoding and feeding in pieces are judged apart. A refusal counts only if the codec has just decoded a frame,
and decodes another one after it.
"""

import json
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from conformance.codec.context import Context
from conformance.codec.values import differences
from conformance.files import VECTORS
from conformance.harness.case import Case, CaseRegistry
from conformance.harness.verdicts import Failed

_WHOLE = 192  # octets of the longest frame that is cut at each place
_CUTS = 48  # places at which a longer frame is cut
_SIZES = (1, 2, 3, 5, 7, 16, 17, 1000)  # octets of a piece of a sequence of frames
_BY_SECTION = {
    "5.1": "RW-PREFACE-7",
    "5.3": "RW-FIELD-1",
    "5.4": "RW-FLAG-1",
    "6.2": "RW-CHECK-5",
    "17.3": "RW-EXT-3",
    "17.4": "RW-GREASE-2",
}


class Vector(NamedTuple):
    """A line of valid.jsonl or malformed.jsonl; `error` is "" in the first, `value` empty in the second."""

    id: str
    section: str
    requirement: str
    sender: str
    frame: str
    note: str
    hex: str
    value: dict[str, Any]
    encode: bool
    error: str
    limit: int

    @property
    def octets(self) -> bytes:
        """What goes over the wire."""
        return bytes.fromhex(self.hex)


@cache
def vectors(name: str) -> tuple[Vector, ...]:
    """The vectors of a file, in its order."""
    lines = (VECTORS / name).read_text(encoding="utf-8").splitlines()
    return tuple(_vector(json.loads(line)) for line in lines if line)


def _vector(line: dict[str, Any]) -> Vector:
    section = line["section"]
    return Vector(
        id=line["id"],
        section=section,
        requirement=line.get("requirement") or _BY_SECTION.get(section, "RW-FRAME-7"),
        sender=line["from"],
        frame=line.get("frame", ""),
        note=line["note"],
        hex="".join(line["hex"].split()).lower(),
        value=line.get("value", {}),
        encode=line.get("encode", True),
        error=line.get("error", ""),
        limit=line.get("limit", 65536),
    )


def cuts(length: int) -> Iterable[int]:
    """Where a frame is cut in two: everywhere, or at the header and evenly after it."""
    if length <= _WHOLE:
        return range(1, length)
    return sorted({1, 4, 15, 16, 17, length - 1, *range(1, length, max(1, length // _CUTS))})


async def _decode(t: Context, vector: Vector) -> None:
    op = "preface" if vector.frame.endswith("_PREFACE") else "decode"
    answer = await t.ask(op, sender=vector.sender, hex=vector.hex, limit=vector.limit)
    _same_frame(vector, answer, op)


async def _encode(t: Context, vector: Vector) -> None:
    answer = await t.ask("encode", frame=vector.frame, value=vector.value)
    found = answer.get("hex", answer)
    if not isinstance(found, str) or found.lower() != vector.hex:
        raise Failed(f'"hex": {vector.hex}', json.dumps(found))


async def _feed(t: Context, vector: Vector) -> None:
    octets = vector.octets
    for chunks in _pieces(octets):
        answer = await t.feed(vector.sender, chunks, vector.limit)
        frames = answer.get("frames")
        if not isinstance(frames, list) or len(frames) != 1 or answer.get("need_more") is not False:
            raise Failed(f"one frame and need_more false, cut at {len(chunks[0])}", json.dumps(answer))
        _same_frame(vector, frames[0], f"feed, cut at {len(chunks[0])}")
    for length in (1, 15, len(octets) - 1):
        answer = await t.feed(vector.sender, [octets[:length]], vector.limit)
        if answer.get("frames") != [] or answer.get("need_more") is not True:
            raise Failed(f"no frame yet and need_more true after {length} octets", json.dumps(answer))


def _pieces(octets: bytes) -> Iterable[list[bytes]]:
    yield [octets]
    for cut in cuts(len(octets)):
        yield [octets[:cut], octets[cut:]]
    if len(octets) <= _WHOLE:
        yield [octets[at : at + 1] for at in range(len(octets))]


def _same_frame(vector: Vector, answer: Any, what: str) -> None:
    if not isinstance(answer, dict) or answer.get("frame") != vector.frame or "value" not in answer:
        raise Failed(f'"frame": "{vector.frame}" with its value ({what})', json.dumps(answer))
    wrong = differences(vector.frame, vector.value, answer["value"])
    if wrong:
        raise Failed(f"{vector.frame}: {wrong[0].expected} ({what})", f"{vector.frame}: {wrong[0].found}")


async def _refuse(t: Context, vector: Vector) -> None:
    await t.control()
    answer = await t.ask("decode", sender=vector.sender, hex=vector.hex, limit=vector.limit)
    _refused(vector, answer, "decode")
    await t.alive()


async def _refuse_fed(t: Context, vector: Vector) -> None:
    await t.control()
    for chunks in _pieces(vector.octets):
        _refused(vector, await t.feed(vector.sender, chunks, vector.limit), f"feed, cut at {len(chunks[0])}")
    await t.alive()


def _refused(vector: Vector, answer: dict[str, Any], what: str) -> None:
    if answer.get("error") != vector.error or answer.get("frames") or "value" in answer:
        raise Failed(f'"error": "{vector.error}" and no frame ({what})', json.dumps(answer))


async def _sequence(t: Context, sender: str) -> None:
    taken = [v for v in vectors("valid.jsonl") if v.sender == sender and not v.frame.endswith("_PREFACE")]
    octets = b"".join(vector.octets for vector in taken)
    for size in _SIZES:
        chunks = [octets[at : at + size] for at in range(0, len(octets), size)]
        answer = await t.feed(sender, chunks, 65536)
        frames = answer.get("frames")
        if not isinstance(frames, list) or len(frames) != len(taken):
            raise Failed(f"{len(taken)} frames in pieces of {size}", json.dumps(answer))
        for vector, frame in zip(taken, frames, strict=True):
            _same_frame(vector, frame, f"{vector.id} in pieces of {size}")


async def _refused_behind(t: Context, sender: str) -> None:
    """The codec gives back the frames before a bad one, and not the bad one and what follows."""
    await t.control()
    first, last = t.ping(), t.ping()
    bad = next(v for v in vectors("malformed.jsonl") if v.sender == sender and v.error == "MALFORMED")
    answer = await t.feed(sender, [first.octets + bad.octets + last.octets], 65536)
    frames = answer.get("frames")
    if answer.get("error") != "MALFORMED" or not isinstance(frames, list) or len(frames) != 1:
        raise Failed('one frame and "error": "MALFORMED"', json.dumps(answer))
    t.same_ping(first, frames[0])
    await t.alive()


@cache
def codec_cases() -> tuple[Case, ...]:
    """All cases for codecs, in the order of the document."""
    register = CaseRegistry("codec")

    def add(kind: str, vector: Vector, text: str, step: Any, *requirements: str) -> None:
        async def run(t: Context) -> None:
            await step(t, vector)

        register.add(f"{vector.section}/{kind}/{vector.id}", requirements, f"{text}: {vector.note}.", run)

    for vector in vectors("valid.jsonl"):
        preface = vector.frame.endswith("_PREFACE")
        add("decode", vector, f"The codec decodes {vector.frame}", _decode, vector.requirement)
        if vector.encode:
            add("encode", vector, f"The codec encodes {vector.frame}", _encode, vector.requirement)
        if not preface:
            add("feed", vector, f"The codec reads {vector.frame} in pieces", _feed, "RW-FRAME-4", vector.requirement)
    for vector in vectors("malformed.jsonl"):
        add("refuse", vector, f"The codec refuses with {vector.error}", _refuse, vector.requirement)
        text = f"The codec refuses with {vector.error}, in pieces"
        add("refuse-fed", vector, text, _refuse_fed, "RW-FRAME-4", vector.requirement)
    for sender in "CS":
        _define_streams(register, sender)
    return tuple(sorted(register.cases.values(), key=lambda case: [int(part) for part in case.section.split(".")]))


def _define_streams(register: CaseRegistry, sender: str) -> None:
    async def sequence(t: Context) -> None:
        await _sequence(t, sender)

    async def behind(t: Context) -> None:
        await _refused_behind(t, sender)

    who = {"C": "a client", "S": "a server"}[sender]
    text = f"The codec reads all valid frames of {who} as one stream, in pieces of many sizes."
    register.add(f"5.2/feed/sequence-{sender}", ["RW-FRAME-4"], text, sequence)
    text = f"The codec gives back the frames before a bad one in a stream of {who}, and none after it."
    register.add(f"5.2/refuse-fed/behind-{sender}", ["RW-FRAME-7", "RW-FRAME-4"], text, behind)
