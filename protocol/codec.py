"""Frames to octets and back: the one boundary that everybody uses.

Whatever octets come in, a frame or one of this project's RemoteProtocolErrors comes out. SPEC.md, "Order of
checks": header, structure, unknown critical field, values.
"""

from collections.abc import Callable
from struct import Struct
from struct import error as StructError
from typing import Any

from protocol.compiled import DECODERS, ENCODERS, PACKERS
from protocol.errors import LocalProtocolError, Malformed
from protocol.frames import FRAMES, Frame, Unknown
from protocol.framing import RawFrame, check_header, frame_name
from protocol.layout import HEADER, plain_format
from protocol.registry import MAX_SAFE, Flag, FrameType, Sender, is_ignorable
from protocol.wire import truncated

__all__ = ["RawFrame", "check_header", "decode", "encode", "pack_ack", "pack_message"]

pack_ack = PACKERS[FrameType.ACK]
"""(seq, time_ms, extension fields as octets, flags, request, room) to the octets of an ACK. See compiled.PACKERS."""

pack_message = PACKERS[FrameType.MESSAGE]
"""(seq, time_ms, sender, id, ctype, name as octets, payload, fields as octets, flags, request, room) to a MESSAGE."""

_pack_header = Struct(plain_format(HEADER)).pack


def _encode_unknown(frame: Unknown) -> bytes:
    try:
        header = _pack_header(len(frame.body), frame.type, frame.flags, frame.request, frame.room)
        return header + frame.body
    except (StructError, TypeError, AttributeError) as error:
        raise LocalProtocolError(f"{frame!r}: {error}") from None


_ENCODERS: dict[type, Callable[[Any], bytes]] = {**ENCODERS, Unknown: _encode_unknown}

# What each end sends, by number: a frame's header holds a plain one.
_DECODERS = {
    sender: {int(type): DECODERS[type] for type, cls in FRAMES.items() if sender in cls.RULE.sender}
    for sender in ("C", "S")
}


def encode(frame: Frame | Unknown) -> bytes:
    """The octets of a whole frame, header included.

    Values are held against the declaration of the body, not against the registry: request, room and flags
    are the caller's, and so is what stands in `fields`.
    Raises LocalProtocolError if a value does not fit its field.
    """
    try:
        encoder = _ENCODERS[type(frame)]
    except KeyError:
        raise LocalProtocolError(f"{frame!r} is no frame") from None
    return encoder(frame)


def decode(raw: RawFrame, sender: Sender) -> Frame | Unknown:
    """The frame in `raw`, sent by the client ("C") or the server ("S").

    A type that this end never sends, or that nobody knows, gives Unknown: what that means depends on the
    receiver's role (SPEC.md, "Unknown types").
    Raises BadHeader, Malformed, UnknownField, NameInvalid or RangeInvalid, whichever is found first.
    """
    decoder = _DECODERS[sender].get(raw[0])
    return _decode_unknown(raw, sender) if decoder is None else decoder(raw)


def _decode_unknown(raw: RawFrame, sender: Sender) -> Unknown:
    unknown = Unknown(raw.type, raw.body, raw.flags, raw.request, raw.room)
    # [RW-TYPE-5] A client that ignores the frame moves its cursor by the seq in front, so that must be there.
    if sender == "S" and is_ignorable(raw.type) and raw.flags & Flag.SEQ:
        name = frame_name(raw.type)
        if len(raw.body) < 8:
            raise truncated(name, "seq", 8, len(raw.body))
        if int.from_bytes(raw.body[:8], "big") > MAX_SAFE:
            raise Malformed(name, "seq", f"at most {MAX_SAFE}", str(unknown.seq))
    return unknown
