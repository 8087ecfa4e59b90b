"""Roomwire/1 without I/O and without a clock: octets, frames, and the rules between them. See SPEC.md.

`encode` and `decode` convert between a frame (`protocol.frames`) and its octets, `FrameReader` cuts a stream into
frames, and every error is a `RoomwireError`. `protocol.client` and `protocol.server` hold what a connection may do,
and when.
"""

from protocol.codec import decode, encode
from protocol.errors import LocalProtocolError, RemoteProtocolError, RoomwireError
from protocol.framing import FrameReader, RawFrame
from protocol.registry import Code, Flag, FrameType

__all__ = [
    "Code",
    "Flag",
    "FrameReader",
    "FrameType",
    "LocalProtocolError",
    "RawFrame",
    "RemoteProtocolError",
    "RoomwireError",
    "decode",
    "encode",
]
