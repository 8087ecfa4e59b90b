"""The codec, compared with construct itself and with hand-written code for each frame."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Any

from benchmarks import figures
from benchmarks.figures import Figure
from protocol import layout, wire
from protocol.codec import RawFrame, decode, encode
from protocol.errors import RemoteProtocolError
from protocol.frames import Ack, Frame, Message, Publish
from protocol.registry import HEADER_SIZE, MAX_SAFE, Flag, FrameType, Sender

GROUP = "Codec, ratios of passes one after the other"
SUBJECT = "protocol.codec"
PASS_SECONDS = 0.02

PROMISE = "refuse a ROSTER that promises 65,535 entries"
PROMISE_NANOSECONDS = 10_000_000
"""SECURITY.md, check 12."""

PUBLISH = Publish(bytes(range(16)), 0, b"x" * 64, request=3, room=7)
MESSAGE = Message(1234, 1_700_000_000_000, 0x1122334455667788, bytes(range(16)), 0, "alice", b"x" * 64, room=7)
ACK = Ack(1234, 1_700_000_000_000, request=3, room=7)

_head_publish = Struct(">IHHII16sBI").pack
_head_message = Struct(">IHHIIQQQ16sBB").pack
_whole_ack = Struct(">IHHIIQQ").pack
_length = Struct(">I")
_publish = Struct(">16sBI").unpack_from
_message = Struct(">QQQ16sBB").unpack_from
_ack = Struct(">QQ").unpack


@dataclass(frozen=True, slots=True)
class Case:
    """Three functions that do the same: the codec's, construct's, and a hand-written one."""

    name: str
    codec: Callable[[], object]
    construct: Callable[[], object]
    hand: Callable[[], object]


def cases() -> Iterator[Case]:
    """The cases: encode a frame to octets, or decode a body to a frame (by hand, to a plain tuple of its values)."""
    hands: list[tuple[Frame, Sender, Callable[[Any], bytes], Callable[[RawFrame], object]]] = [
        (PUBLISH, "C", encode_publish, decode_publish),
        (MESSAGE, "S", encode_message, decode_message),
        (ACK, "S", encode_ack, decode_ack),
    ]
    for frame, sender, hand_encode, hand_decode in hands:
        yield _case(frame, sender, hand_encode, hand_decode, encoding=True)
        yield _case(frame, sender, hand_encode, hand_decode, encoding=False)


def _case(
    frame: Frame,
    sender: Sender,
    hand_encode: Callable[[Any], bytes],
    hand_decode: Callable[[RawFrame], object],
    *,
    encoding: bool,
) -> Case:
    whole = encode(frame)
    assert hand_encode(frame) == whole, f"{frame.TYPE.name}: the code by hand is wrong"
    raw = RawFrame(frame.TYPE, frame.flags, frame.request, frame.room, whole[HEADER_SIZE:])
    body = wire.BODIES[frame.TYPE]
    values = dict(body.parse(raw.body))
    if not encoding:
        name = f"decode {frame.TYPE.name}"
        return Case(name, lambda: decode(raw, sender), lambda: body.parse(raw.body), lambda: hand_decode(raw))

    def by_construct() -> bytes:
        octets = body.build(values)
        return layout.HEADER.build(_header(frame, len(octets))) + octets

    assert by_construct() == whole, f"{frame.TYPE.name}: what construct built is wrong"
    return Case(f"encode {frame.TYPE.name}", lambda: encode(frame), by_construct, lambda: hand_encode(frame))


def _header(frame: Frame, length: int) -> dict[str, Any]:
    return {"length": length, "type": frame.TYPE, "flags": frame.flags, "request": frame.request, "room": frame.room}


def run(passes: int) -> Iterator[Figure]:
    """Measure each case in `passes`; in each pass, the three functions run one after the other."""
    for case in cases():
        functions = (case.codec, case.construct, case.hand)
        counts = [_calibrated(function) for function in functions]
        for _ in range(passes):
            codec, construct, hand = (_nanoseconds(*pair) for pair in zip(functions, counts, strict=True))
            for quantity, value in (
                (figures.NANOSECONDS, codec),
                (figures.AGAINST_CONSTRUCT, construct / codec),
                (figures.AGAINST_HAND, codec / hand),
            ):
                yield Figure(GROUP, case.name, SUBJECT, quantity, value)
    count = _calibrated(refuse_promise)
    for _ in range(passes):
        yield Figure(GROUP, PROMISE, SUBJECT, figures.NANOSECONDS, _nanoseconds(refuse_promise, count))


def refuse_promise() -> None:
    """Decode a ROSTER with three entries of the 65,535 that it promises (RW-FRAME-7)."""
    entries = (bytes(8) + b"\x00\x03ada") * 3
    try:
        decode(RawFrame(FrameType.ROSTER, Flag.RESET, 0, 5, b"\xff\xff" + entries), "S")
    except RemoteProtocolError:
        return
    raise AssertionError("the codec accepted the ROSTER")


def _calibrated(function: Callable[[], object]) -> int:
    count = 1
    while (spent := _nanoseconds(function, count) * count / 1e9) < PASS_SECONDS / 4:
        count *= 2
    return max(1, int(count * PASS_SECONDS / spent))


def _nanoseconds(function: Callable[[], object], count: int) -> float:
    start = time.process_time_ns()  # the time of this process alone
    for _ in range(count):
        function()
    return (time.process_time_ns() - start) / count


# --- hand-written code for one frame each, with the checks of SPEC.md


def encode_publish(frame: Publish) -> bytes:
    payload = frame.payload
    size = len(payload)
    return _head_publish(21 + size, 0x20, frame.flags, frame.request, frame.room, frame.id, frame.ctype, size) + payload


def decode_publish(raw: RawFrame) -> object:
    _, flags, request, room, body = raw
    if not request or not room or flags & 0x8000:
        raise ValueError(raw)
    id, ctype, size = _publish(body)
    if len(body) != 21 + size:
        raise ValueError(raw)
    return flags, request, room, id, ctype, body[21:]


def encode_message(frame: Message) -> bytes:
    name, payload = frame.name.encode(), frame.payload
    size = len(payload)
    head = _head_message(
        46 + len(name) + size, 0x22, frame.flags, frame.request, frame.room,
        frame.seq, frame.time_ms, frame.sender, frame.id, frame.ctype, len(name),
    )  # fmt: skip
    return head + name + _length.pack(size) + payload


def decode_message(raw: RawFrame) -> object:
    _, flags, request, room, body = raw
    if not room or not flags & 0x8000:
        raise ValueError(raw)
    seq, time_ms, sender, id, ctype, size = _message(body)
    at = 42 + size
    name = body[42:at].decode()
    (size,) = _length.unpack_from(body, at)
    if len(body) != at + 4 + size or seq > MAX_SAFE or time_ms > MAX_SAFE:
        raise ValueError(raw)
    return flags, request, room, seq, time_ms, sender, id, ctype, name, body[at + 4 :]


def encode_ack(frame: Ack) -> bytes:
    return _whole_ack(16, 0x21, frame.flags, frame.request, frame.room, frame.seq, frame.time_ms)


def decode_ack(raw: RawFrame) -> object:
    _, flags, request, room, body = raw
    if not request or not room or flags & 0x8000:
        raise ValueError(raw)
    seq, time_ms = _ack(body)
    if seq > MAX_SAFE or time_ms > MAX_SAFE:
        raise ValueError(raw)
    return flags, request, room, seq, time_ms
