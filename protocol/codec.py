"""Frames to octets and back: the one boundary that clients and servers use.

Any octets give a frame or a RemoteProtocolError. The order of checks is that of SPEC.md: header, structure, unknown
critical field, values.
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

# The frames that each end sends, by plain number, as a header has it.
_DECODERS = {
    sender: {int(type): DECODERS[type] for type, cls in FRAMES.items() if sender in cls.RULE.sender}
    for sender in ("C", "S")
}


def encode(frame: Frame | Unknown) -> bytes:
    """Return the octets of a whole frame, header included.

    Values are checked against the layout of the body, not against the frame's rule: `request`, `room`, `flags` and the
    content of `fields` are the caller's responsibility.
    Raises LocalProtocolError if a value does not fit its field.
    """
    try:
        encoder = _ENCODERS[type(frame)]
    except KeyError:
        raise LocalProtocolError(f"{frame!r} is not a frame") from None
    return encoder(frame)


def decode(raw: RawFrame, sender: Sender) -> Frame | Unknown:
    """Return the frame in `raw`, sent by the client ("C") or the server ("S").

    A type that is not in the registry, or that `sender` never sends, gives Unknown: what follows from that depends on
    the receiver's role (SPEC.md, "Unknown types").
    Raises BadHeader, Malformed, UnknownField, NameInvalid or RangeInvalid, the first that the order of checks finds.
    """
    decoder = _DECODERS[sender].get(raw[0])
    return _decode_unknown(raw, sender) if decoder is None else decoder(raw)


def _decode_unknown(raw: RawFrame, sender: Sender) -> Unknown:
    unknown = Unknown(raw.type, raw.body, raw.flags, raw.request, raw.room)
    # [RW-TYPE-5] A client that ignores the frame moves its cursor by the seq at its start, so that must be there.
    if sender == "S" and is_ignorable(raw.type) and raw.flags & Flag.SEQ:
        name = frame_name(raw.type)
        if len(raw.body) < 8:
            raise truncated(name, "seq", 8, len(raw.body))
        if int.from_bytes(raw.body[:8], "big") > MAX_SAFE:
            raise Malformed(name, "seq", f"at most {MAX_SAFE}", str(unknown.seq))
    return unknown
