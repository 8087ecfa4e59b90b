"""Octets to raw frames, however the transport cuts them. SPEC.md, "Header".

Bodies stay octets here; `codec.decode` decodes them.
"""

from struct import Struct
from typing import NamedTuple

from protocol.errors import BadHeader, FrameTooLarge
from protocol.frames import RULES
from protocol.layout import HEADER, plain_format
from protocol.registry import HEADER_SIZE, HELLO_MAX_BODY, Flag, FrameType

_read_header = Struct(plain_format(HEADER)).unpack_from
_new = tuple.__new__  # takes half the time of a NamedTuple's own


class RawFrame(NamedTuple):
    """The fields of a header without its length, and the octets of the body."""

    type: int
    flags: int
    request: int
    room: int
    body: bytes


def frame_name(type: int) -> str:
    """What errors call a frame: its name, or its number if it has none."""
    return FrameType(type).name if type in RULES else f"frame {type:#06x}"


def check_header(raw: RawFrame) -> None:
    """Check `request`, `room` and SEQ by the frame's rule. An unknown type has no rule. Raises BadHeader."""
    rule = RULES.get(raw.type)
    if rule is None:
        return
    # [RW-FRAME-6]
    for field, number, wanted in (("request", raw.request, rule.request), ("room", raw.room, rule.room)):
        if wanted != "any" and (number != 0) != (wanted == "nonzero"):
            raise BadHeader(frame_name(raw.type), field, "0" if number else "other than 0", str(number))
    if bool(raw.flags & Flag.SEQ) != rule.seq:
        raise BadHeader(frame_name(raw.type), "flags", *(("SEQ", "clear") if rule.seq else ("no SEQ", "set")))


class FrameReader:
    """Collects octets and returns whole frames.

    `max_body` is the limit of a body in octets. It may be raised at any time, and holds for the frames whose header is
    read after that. However the octets are cut, the frames are the same and the cost is linear. [RW-FRAME-4]
    """

    __slots__ = ("_buffer", "_needed", "_refusal", "_start", "max_body")

    def __init__(self, max_body: int = HELLO_MAX_BODY) -> None:
        self.max_body = max_body
        self._buffer: bytes | bytearray = b""  # the octets as fed while frames arrive whole, else collected
        self._start = 0  # where the next frame begins in the buffer
        self._needed = HEADER_SIZE  # octets from there that the next step needs
        self._refusal: tuple[str, str, str, str] | None = None  # an exception would keep call frames alive

    @property
    def buffered(self) -> int:
        """The number of octets that were fed and not yet returned."""
        return len(self._buffer) - self._start

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take octets as they arrived. Raises nothing. Call `next_frame` until it returns None."""
        buffer = self._buffer
        if self._refusal:
            return
        if self._start == len(buffer):
            self._buffer = bytes(data)
        elif isinstance(buffer, bytes):
            self._buffer = bytearray(memoryview(buffer)[self._start :])
            self._buffer += data
        else:
            del buffer[: self._start]
            buffer += data
        self._start = 0

    def next_frame(self) -> RawFrame | None:
        """Return the next frame, or None if it is not complete.

        Raises FrameTooLarge if its header announces a body of more than `max_body`. The buffer is dropped then, the
        body is never stored, and every later call raises the same.
        """
        buffer, start = self._buffer, self._start
        if len(buffer) - start < self._needed:
            self._wait()
            return None
        length, type, flags, request, room = _read_header(buffer, start)
        # [RW-FRAME-1]
        if length > self.max_body and self._needed == HEADER_SIZE:
            self._buffer, self._start = b"", 0
            self._refusal = (frame_name(type), "length", f"at most {self.max_body}", str(length))
            raise FrameTooLarge(*self._refusal)
        body = start + HEADER_SIZE
        end = body + length
        if end > len(buffer):
            self._needed = HEADER_SIZE + length
            self._wait()
            return None
        self._start = end
        self._needed = HEADER_SIZE
        octets = buffer[body:end] if isinstance(buffer, bytes) else bytes(memoryview(buffer)[body:end])
        return _new(RawFrame, (type, flags, request, room, octets))

    def _wait(self) -> None:
        if self._refusal:
            raise FrameTooLarge(*self._refusal)
        if self._start:  # so that an idle connection keeps no octets that were returned
            self._buffer = self._buffer[self._start :]
            self._start = 0
