"""Octets of frames: literal ones for what has to be wrong, and those of frames by construct's declarations.

The suite does not use the code that frames and decodes in the reference programs. This module reads headers, and
`protocol.wire` reads bodies by declarations that tests hold against SPEC.md.
"""

import struct
from dataclasses import asdict
from dataclasses import fields as dataclass_fields
from typing import Any, NamedTuple, cast

from protocol.errors import BadHeader
from protocol.frames import FRAMES, HEADER_MEMBERS, RULES, Field, Frame, Unknown
from protocol.layout import Counted, members
from protocol.registry import Flag, FrameType, Sender
from protocol.wire import BODIES, decode_body, encode_body

CLIENT_PREFACE = bytes.fromhex("F5525750 0101 0000")
HEADER = struct.Struct(">IHHII")


class Header(NamedTuple):
    """The 16 octets before a body, as numbers."""

    length: int
    type: int
    flags: int
    request: int
    room: int


def u16(number: int) -> bytes:
    """Two octets, big-endian."""
    return struct.pack(">H", number)


def u32(number: int) -> bytes:
    """Four octets, big-endian."""
    return struct.pack(">I", number)


def u64(number: int) -> bytes:
    """Eight octets, big-endian."""
    return struct.pack(">Q", number)


def b8(octets: bytes) -> bytes:
    """Octets after a length of 8 bits, the layout of name8 and text8."""
    return bytes([len(octets)]) + octets


def b16(octets: bytes) -> bytes:
    """Octets after a length of 16 bits, the layout of b16 and text16."""
    return u16(len(octets)) + octets


def b32(octets: bytes) -> bytes:
    """Octets after a length of 32 bits."""
    return u32(len(octets)) + octets


def field(type: int, value: bytes = b"") -> bytes:
    """An extension field."""
    return u16(type) + b16(value)


def frame(
    type: int,
    body: bytes = b"",
    *,
    request: int = 0,
    room: int = 0,
    flags: int = 0,
    length: int | None = None,
) -> bytes:
    """A whole frame; `length` gives a wrong length of the body."""
    return HEADER.pack(len(body) if length is None else length, type, flags, request, room) + body


def read_header(octets: bytes | bytearray) -> Header:
    """The header at the start of at least 16 octets."""
    return Header(*HEADER.unpack_from(octets))


def encode(value: Frame | Unknown) -> bytes:
    """The octets of a frame. Raises LocalProtocolError if a value does not fit its field."""
    if isinstance(value, Unknown):
        body = value.body
        return frame(value.type, body, request=value.request, room=value.room, flags=value.flags)
    body = encode_body(value.TYPE, _plain(value))
    return frame(value.TYPE, body, request=value.request, room=value.room, flags=value.flags)


def decode(header: Header, body: bytes, sender: Sender) -> Frame | Unknown:
    """The frame that `sender` sent. Raises RemoteProtocolError for the first fault."""
    type, rule = header.type, RULES.get(header.type)
    if rule is None or sender not in rule.sender:
        return Unknown(type, body, header.flags, header.request, header.room)
    name = FrameType(type).name
    for place, number, wanted in (
        ("request", header.request, rule.request),
        ("room", header.room, rule.room),
    ):
        if wanted != "any" and (number != 0) != (wanted == "nonzero"):
            raise BadHeader(name, place, "0" if number else "other than 0", str(number))
    if bool(header.flags & Flag.SEQ) != rule.seq:
        raise BadHeader(name, "flags", "SEQ" if rule.seq else "no SEQ", f"{header.flags:#06x}")
    values = decode_body(FrameType(type), body)
    values["fields"] = tuple(Field(**item) for item in values["fields"])
    for name, node in members(BODIES[FrameType(type)]):
        if isinstance(node, Counted):
            values[name] = tuple(node.cls(**item) for item in values[name])
    make = cast(Any, FRAMES[FrameType(type)])
    return cast(Frame, make(**values, flags=header.flags, request=header.request, room=header.room))


def body_values(value: Frame) -> dict[str, Any]:
    """The fields of a frame's body by name, in the order of the wire."""
    names = [item.name for item in dataclass_fields(value) if item.name not in HEADER_MEMBERS]
    return {name: getattr(value, name) for name in names}


def split_frames(octets: bytes) -> tuple[list[bytes], bytes]:
    """The whole frames at the start of octets, and the octets after them."""
    frames = []
    while len(octets) >= HEADER.size and len(octets) >= (size := HEADER.size + read_header(octets).length):
        frames.append(octets[:size])
        octets = octets[size:]
    return frames, octets


def _plain(value: Frame) -> dict[str, Any]:
    return {
        name: [asdict(item) for item in given] if isinstance(given, tuple) else given
        for name, given in [*body_values(value).items(), ("fields", value.fields)]
    }
