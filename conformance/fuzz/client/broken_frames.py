"""Frames of a server that break one named rule each, and the codes of the GOAWAY that they earn (RW-CHECK-3)."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from conformance.wire.octets import b8, b16, b32, field, frame, u16, u32, u64
from protocol.registry import GREASE, MAX_SAFE, Code, Flag, FrameType


@dataclass(frozen=True)
class ClientBench:
    """What a broken frame is made of.

    `room` is the ref of a room that the client is in, or 0, and `next` the seq that comes next there. `request` is a
    number that no request has.
    """

    random: Random
    room: int
    next: int
    request: int
    max_body: int

    def message(
        self, *, seq: int = 0, room: int = 0, name: bytes = b"bob", tail: bytes = b"", request: int = 0
    ) -> bytes:
        """Returns a MESSAGE, which is valid unless an argument makes it wrong."""
        body = u64(seq or self.next) + u64(1_700_000_000_000) + u64(77) + self.random.randbytes(16) + b"\1"
        body += b8(name) + b32(b"x") + tail
        return frame(FrameType.MESSAGE, body, flags=Flag.SEQ, request=request, room=room or self.room)

    def presence(self, *, room: int = 0, name: bytes = b"bob", tail: bytes = b"") -> bytes:
        """Returns a PRESENCE."""
        return frame(FrameType.PRESENCE, b"\1" + u64(78) + b8(name) + tail, room=room or self.room)

    def joined(self, *, epoch: int = 9, start: int = 1, room: int = 0) -> bytes:
        """Returns a JOINED that answers no request."""
        body = u64(epoch) + u64(0) + u64(start) + u64(1) + u32(1) + b8(b"elsewhere")
        return frame(FrameType.JOINED, body, request=self.request, room=room or 0x7000)


@dataclass(frozen=True)
class ClientBreakage:
    """One way to be wrong: the rule, the codes, and the octets. With `member` the client has to be in a room."""

    requirement: str
    codes: frozenset[Code]
    make: Callable[[ClientBench], bytes]
    member: bool = True


BROKEN: dict[str, ClientBreakage] = {}
"""By name."""


def _breaks(
    name: str, requirement: str, *codes: Code, make: Callable[[ClientBench], bytes], member: bool = True
) -> None:
    BROKEN[name] = ClientBreakage(requirement, frozenset(codes), make, member)


def _cut(octets: bytes, random: Random) -> bytes:
    """Returns the frame with a body that ends too early, and a length that is right."""
    body = octets[16 : 16 + random.randrange(len(octets) - 17)]
    return len(body).to_bytes(4, "big") + octets[4:16] + body


_breaks("truncated", "RW-FRAME-7", Code.MALFORMED, make=lambda b: _cut(b.message(), b.random))
_breaks("left-over", "RW-FRAME-7", Code.MALFORMED, make=lambda b: b.presence(tail=b"\0\1\0"))
_breaks("field-too-long", "RW-FRAME-7", Code.MALFORMED, make=lambda b: b.presence(tail=u16(GREASE[0]) + u16(99) + b"a"))
_breaks("critical-field", "RW-FIELD-2", Code.UNKNOWN_FIELD, make=lambda b: b.presence(tail=field(0x0030, b"x")))
_breaks("name-not-utf8", "RW-CHECK-6", Code.MALFORMED, make=lambda b: b.presence(name=b"\xff\xfe"))
_breaks("message-name", "RW-CHECK-6", Code.MALFORMED, make=lambda b: b.message(name=b"\xe2\x82"))
_breaks("too-large", "RW-FRAME-1", Code.FRAME_TOO_LARGE, member=False,
        make=lambda b: frame(FrameType.PING, length=b.max_body + b.random.randint(1, 2**20)))  # fmt: skip
_breaks("unknown-critical", "RW-TYPE-4", Code.UNKNOWN_TYPE, member=False, make=lambda b: frame(0x0109, b"x"))
_breaks("client-frame", "RW-TYPE-4", Code.UNKNOWN_TYPE, member=False,
        make=lambda b: frame(b.random.choice([FrameType.JOIN, FrameType.PUBLISH, FrameType.LEAVE]), b""))  # fmt: skip
_breaks("sequenced-short", "RW-TYPE-6", Code.MALFORMED,
        make=lambda b: frame(0xF123, b"1234567", flags=Flag.SEQ, room=b.room))  # fmt: skip
_breaks(
    "ping-request", "RW-FRAME-6", Code.BAD_HEADER, member=False, make=lambda b: frame(6, bytes(8), request=b.request)
)
_breaks("ping-room", "RW-FRAME-6", Code.BAD_HEADER, member=False, make=lambda b: frame(6, bytes(8), room=5))
_breaks("ping-seq", "RW-FRAME-6", Code.BAD_HEADER, member=False, make=lambda b: frame(6, bytes(8), flags=Flag.SEQ))
_breaks("room-0", "RW-FRAME-6", Code.BAD_HEADER, make=lambda b: frame(0x13, b"\1" + u64(7) + b8(b"x")))
_breaks("message-without-seq", "RW-FRAME-6", Code.BAD_HEADER,
        make=lambda b: b.message()[:6] + b"\0\0" + b.message()[8:])  # fmt: skip
_breaks("hole", "RW-STREAM-2", Code.SEQUENCE, make=lambda b: b.message(seq=b.next + b.random.choice((1, 2, 9))))
_breaks("sequenced-hole", "RW-STREAM-2", Code.SEQUENCE,
        make=lambda b: frame(0xF123, u64(b.next + 1), flags=Flag.SEQ, room=b.room))  # fmt: skip
_breaks("seq-too-large", "RW-CHECK-4", Code.MALFORMED, Code.SEQUENCE, make=lambda b: b.message(seq=MAX_SAFE + 2))
_breaks("message-elsewhere", "RW-STREAM-3", Code.UNEXPECTED, member=False, make=lambda b: b.message(seq=1, room=0x6001))
_breaks("presence-elsewhere", "RW-STREAM-3", Code.UNEXPECTED, member=False, make=lambda b: b.presence(room=0x6001))
_breaks("evicted-elsewhere", "RW-STREAM-3", Code.UNEXPECTED, member=False,
        make=lambda b: frame(0x15, u16(602) + u32(0) + b16(b""), room=0x6001))  # fmt: skip
_breaks("joined-unasked", "RW-REQUEST-8", Code.UNEXPECTED, member=False, make=lambda b: b.joined())
_breaks("ok-unasked", "RW-REQUEST-8", Code.UNEXPECTED, member=False, make=lambda b: frame(5, b"", request=b.request))
_breaks("ack-unasked", "RW-REQUEST-8", Code.UNEXPECTED,
        make=lambda b: frame(0x21, u64(1) + u64(1), request=b.request, room=b.room))  # fmt: skip
_breaks("history-unasked", "RW-REQUEST-8", Code.UNEXPECTED, make=lambda b: b.message(seq=1, request=b.request))
_breaks("welcome-again", "RW-REQUEST-8", Code.UNEXPECTED, member=False,
        make=lambda b: frame(2, u64(1) + b8(b"a") + u64(1) + u32(65536) + u32(30_000) + u32(0) + u16(32) + u16(9)
                             + b16(b""), request=1))  # fmt: skip
