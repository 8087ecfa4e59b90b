"""Frames of a client that break one named rule each, and the code that each must earn at a server.

`BROKEN` is for connections that are open, `HANDSHAKES` for new ones. Random choices come from the `Bench`, which also
holds what makes the rest of the frame valid. So exactly one thing is wrong, unless the name says otherwise:
"header-before-body" breaks two rules, and the order of checks (RW-CHECK-1) says which one counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from conformance.wire.octets import CLIENT_PREFACE, HEADER, b8, b16, b32, field, frame, u16, u64
from protocol.registry import GREASE, MAGIC, MAX_SAFE, Code, Flag, FrameType

CRITICAL = (0x0005, 0x0030, 0x7000, 0x7FFF)
"""Numbers of types and fields that are unassigned and must not be ignored."""

NAMES = {
    "name-empty": b"",
    "name-long": b"x" * 65,
    "name-long-unicode": "\u00e9".encode() * 33,
    "name-not-utf8": b"\xff",
    "name-cut": b"a\xe2\x82",
    "name-overlong": b"\xc0\xaf",
    "name-surrogate": b"\xed\xa0\x80",
    "name-control": b"a\x07b",
    "name-nul": b"a\0b",
    "name-newline": b"a\nb",
    "name-format": "a\u200bb".encode(),
    "name-bidi": "a\u202eb".encode(),
    "name-private": "a\ue000".encode(),
    "name-unassigned": "a\u0378".encode(),
    "name-blank": "\u2800".encode(),
    "name-filler-last": "a \u3164".encode(),
    "name-separator": "a\u2028b".encode(),
    "name-no-break-space": "a\u00a0b".encode(),
    "name-space-first": b" a",
    "name-space-last": b"a ",
    "name-two-spaces": b"a  b",
    "name-mark-first": "\u0301a".encode(),
    "name-invisible": "\u115f\u1160".encode(),
}
"""Names that no room and no client may have."""


MECHANISMS = (b"", b"X-NONE", b"\xff")
"""SASL mechanisms that no server offers."""


@dataclass(frozen=True)
class Bench:
    """What a broken frame is made of. `room` is the ref of a room that the client is in, or 0; `id` is valid."""

    random: Random
    request: int
    room: int
    id: bytes
    max_body: int

    @property
    def elsewhere(self) -> int:
        """A ref of a room that the client is not in."""
        return 0x6000_0000 + self.random.randrange(2**20)

    def join(self, name: bytes = b"nowhere", since: int = 0, tail: bytes = b"") -> bytes:
        """Returns the body of a JOIN."""
        return b8(name) + u64(0) + u64(since) + tail

    def publish(self, payload: bytes = b"hi", ctype: int = 1, tail: bytes = b"") -> bytes:
        """Returns the body of a PUBLISH."""
        return self.id + bytes([ctype]) + b32(payload) + tail

    def any(self) -> tuple[FrameType, bytes, int, int]:
        """Returns type, body, request and room of a valid frame whose body is not empty."""
        room = self.room or self.elsewhere
        return self.random.choice(
            [
                (FrameType.JOIN, self.join(), self.request, 0),
                (FrameType.PUBLISH, self.publish(), self.request, room),
                (FrameType.PING, self.random.randbytes(8), 0, 0),
                (FrameType.PONG, self.random.randbytes(8), 0, 0),
                (FrameType.GOAWAY, u16(0) + bytes(8) + u16(0), 0, 0),
            ]
        )


@dataclass(frozen=True)
class Breakage:
    """One way to be wrong. `requirement` is the rule that says what it earns: any of `codes`.

    `fatal`: it earns GOAWAY and the end of the connection, else ERROR, and the connection goes on. `publish`: it counts
    as a PUBLISH that was refused (RW-ORDER-1) if the client is in the room.
    """

    name: str
    requirement: str
    codes: frozenset[Code]
    fatal: bool
    make: Callable[[Bench], bytes]
    publish: bool = False


BROKEN: dict[str, Breakage] = {}
"""For open connections, by name."""


def _breaks(
    name: str,
    requirement: str,
    code: Code,
    make: Callable[[Bench], bytes],
    *,
    fatal: bool = True,
    publish: bool = False,
) -> None:
    BROKEN[name] = Breakage(name, requirement, frozenset({code}), fatal, make, publish)


def _truncated(b: Bench) -> bytes:
    type, body, request, room = b.any()
    return frame(type, body[: b.random.randrange(len(body))], request=request, room=room)


def _left_over(b: Bench) -> bytes:
    type, body, request, room = b.any()
    return frame(type, body + b.random.randbytes(b.random.randint(1, 3)), request=request, room=room)


def _long_field(b: Bench) -> bytes:
    type, body, request, room = b.any()
    tail = u16(b.random.choice(GREASE)) + u16(b.random.randint(3, 2**16 - 1)) + b"ab"
    return frame(type, body + tail, request=request, room=room)


def _no_request(b: Bench) -> bytes:
    choices = [
        (FrameType.JOIN, b.join(), 0),
        (FrameType.PUBLISH, b.publish(), b.room or b.elsewhere),
        (FrameType.LEAVE, b"", b.elsewhere),
    ]
    type, body, room = b.random.choice(choices)
    return frame(type, body, room=room)


def _a_request(b: Bench) -> bytes:
    type = b.random.choice([FrameType.PING, FrameType.PONG])
    return frame(type, bytes(8), request=b.request)


def _a_room(b: Bench) -> bytes:
    choices = [(FrameType.JOIN, b.join(), b.request), (FrameType.PING, bytes(8), 0), (FrameType.PONG, bytes(8), 0)]
    type, body, request = b.random.choice(choices)
    return frame(type, body, request=request, room=b.room or b.elsewhere)


def _no_room(b: Bench) -> bytes:
    type, body = b.random.choice([(FrameType.PUBLISH, b.publish()), (FrameType.LEAVE, b"")])
    return frame(type, body, request=b.request)


def _seq(b: Bench) -> bytes:
    type, body, request, room = b.any()
    return frame(type, body, request=request, room=room, flags=Flag.SEQ)


def _server_type(b: Bench) -> FrameType:
    return b.random.choice([FrameType.WELCOME, FrameType.ACK, FrameType.MESSAGE, FrameType.EVICTED, FrameType.ROSTER])


def _too_large(b: Bench) -> bytes:
    type = b.random.choice([*FrameType, 0x0009, *GREASE[:3]])
    length = b.random.choice([b.max_body + 1, b.max_body + b.random.randint(1, 2**20), 2**32 - 1])
    return frame(type, length=length, request=b.random.choice([0, b.request]))


def _critical(b: Bench) -> bytes:
    return field(b.random.choice(CRITICAL), b.random.randbytes(b.random.randrange(9)))


def _hello(name: bytes = b"fuzz", mechanism: bytes = b"ANONYMOUS", tail: bytes = b"") -> bytes:
    return b8(name) + b8(mechanism) + b16(b"") + tail


_breaks("truncated", "RW-FRAME-7", Code.MALFORMED, _truncated)
_breaks("left-over", "RW-FRAME-7", Code.MALFORMED, _left_over)
_breaks("field-too-long", "RW-FRAME-7", Code.MALFORMED, _long_field)
_breaks("name-too-long", "RW-FRAME-7", Code.MALFORMED, lambda b: frame(0x10, b"\x40" + bytes(18), request=b.request))
_breaks(
    "payload-too-long", "RW-FRAME-7", Code.MALFORMED,
    lambda b: frame(0x20, b.id + b"\1" + b"\0\0\1\0" + bytes(9), request=b.request, room=b.room or 1),
)  # fmt: skip
_breaks("request-0", "RW-FRAME-6", Code.BAD_HEADER, _no_request)
_breaks("request-set", "RW-FRAME-6", Code.BAD_HEADER, _a_request)
_breaks("room-set", "RW-FRAME-6", Code.BAD_HEADER, _a_room)
_breaks("room-0", "RW-FRAME-6", Code.BAD_HEADER, _no_room)
_breaks("seq", "RW-FRAME-6", Code.BAD_HEADER, _seq)
_breaks("hello-again", "RW-HELLO-6", Code.UNEXPECTED, lambda b: frame(0x01, _hello(), request=b.request))
_breaks("auth", "RW-AUTH-2", Code.UNEXPECTED, lambda b: frame(0x03, b16(b"x"), request=b.request))
_breaks(
    "unknown-critical", "RW-TYPE-3", Code.UNKNOWN_TYPE,
    lambda b: frame(b.random.choice(CRITICAL) | 0x100, b.random.randbytes(5), room=b.room),
)  # fmt: skip
_breaks(
    "server-frame", "RW-TYPE-3", Code.UNKNOWN_TYPE,
    lambda b: frame(_server_type(b), b.random.randbytes(4), room=b.room),
)  # fmt: skip
_breaks("too-large", "RW-FRAME-1", Code.FRAME_TOO_LARGE, _too_large)
_breaks("critical-field-ping", "RW-FIELD-2", Code.UNKNOWN_FIELD, lambda b: frame(0x06, bytes(8) + _critical(b)))
_breaks("length-before-type", "RW-CHECK-1", Code.FRAME_TOO_LARGE, lambda b: frame(0x09, length=2**24 + 1))
_breaks("type-before-header", "RW-CHECK-1", Code.UNKNOWN_TYPE, lambda b: frame(0x02, b"", room=5))
_breaks("header-before-body", "RW-CHECK-1", Code.BAD_HEADER, lambda b: frame(0x20, b"\1", request=b.request))
_breaks(
    "structure-before-field", "RW-CHECK-1", Code.MALFORMED,
    lambda b: frame(0x10, b.join(tail=_critical(b) + b"\x80\x21\0"), request=b.request),
)  # fmt: skip
_breaks(
    "structure-before-name", "RW-CHECK-1", Code.MALFORMED,
    lambda b: frame(0x10, b.join(b"\xff")[:-1], request=b.request),
)  # fmt: skip

_breaks(
    "critical-field-join", "RW-FIELD-2", Code.UNKNOWN_FIELD, fatal=False,
    make=lambda b: frame(0x10, b.join(tail=_critical(b)), request=b.request),
)  # fmt: skip
_breaks(
    "critical-field-publish", "RW-FIELD-2", Code.UNKNOWN_FIELD, fatal=False, publish=True,
    make=lambda b: frame(0x20, b.publish(tail=_critical(b)), request=b.request, room=b.room or b.elsewhere),
)  # fmt: skip
_breaks(
    "critical-field-leave", "RW-FIELD-2", Code.UNKNOWN_FIELD, fatal=False,
    make=lambda b: frame(0x14, _critical(b), request=b.request, room=b.room or b.elsewhere),
)  # fmt: skip
_breaks(
    "field-before-name", "RW-CHECK-1", Code.UNKNOWN_FIELD, fatal=False,
    make=lambda b: frame(0x10, b.join(b"\xff", tail=_critical(b)), request=b.request),
)  # fmt: skip
_breaks(
    "name-before-range", "RW-CHECK-1", Code.NAME_INVALID, fatal=False,
    make=lambda b: frame(0x10, b.join(b"\xff", MAX_SAFE + 1), request=b.request),
)  # fmt: skip
_breaks(
    "since-too-large", "RW-CHECK-4", Code.RANGE_INVALID, fatal=False,
    make=lambda b: frame(0x10, b.join(since=b.random.choice([MAX_SAFE + 1, 2**64 - 1])), request=b.request),
)  # fmt: skip
for _type, _body in ((0x14, b""), (0x20, None)):
    _breaks(
        f"not-joined-{FrameType(_type).name.lower()}", "RW-LEAVE-1", Code.NOT_JOINED, fatal=False,
        make=lambda b, type=_type, body=_body: frame(  # type: ignore[misc]
            type, b.publish() if body is None else body, request=b.request, room=b.elsewhere
        ),
    )  # fmt: skip
_breaks(
    "unknown-request-critical", "RW-TYPE-1", Code.UNKNOWN_REQUEST, fatal=False,
    make=lambda b: frame(b.random.choice(CRITICAL) | 0x100, b.random.randbytes(5), request=b.request, room=b.room),
)  # fmt: skip
_breaks(
    "unknown-request-ignorable", "RW-TYPE-1", Code.UNKNOWN_REQUEST, fatal=False,
    make=lambda b: frame(b.random.choice(GREASE), b.random.randbytes(5), request=b.request, room=b.room),
)  # fmt: skip
_breaks(
    "server-frame-request", "RW-TYPE-1", Code.UNKNOWN_REQUEST, fatal=False,
    make=lambda b: frame(_server_type(b), b.random.randbytes(4), request=b.request, room=b.room),
)  # fmt: skip
_breaks(
    "stop", "RW-EXT-1", Code.UNKNOWN_REQUEST, fatal=False, make=lambda b: frame(0x48, request=b.request)
)  # fmt: skip
for _name, _octets in NAMES.items():
    try:
        _octets.decode()
        _rule = "RW-NAME-2" if len(_octets) > 64 or not _octets else "RW-NAME-3"
    except UnicodeDecodeError:
        _rule = "RW-CHECK-6"
    _rule = {"name-invisible": "RW-NAME-4", "name-blank": "RW-NAME-8", "name-filler-last": "RW-NAME-8"}.get(
        _name, _rule
    )
    _breaks(
        _name, _rule, Code.NAME_INVALID, fatal=False,
        make=lambda b, name=_octets: frame(0x10, b.join(name), request=b.request),  # type: ignore[misc]
    )  # fmt: skip


@dataclass(frozen=True)
class Handshake:
    """One way not to come in, and what must follow: GOAWAY with `code`, behind an ERROR with it if `refused`.

    With no `code` the connection ends without a frame: behind a preface with version 0 if `version0`, without even a
    preface if `silent`.
    """

    name: str
    requirement: str
    make: Callable[[Bench], bytes]
    code: Code | None = None
    refused: bool = False
    version0: bool = False
    silent: bool = False


HANDSHAKES: dict[str, Handshake] = {}
"""For new connections, by name."""


def _comes(name: str, requirement: str, make: Callable[[Bench], bytes], code: Code | None = None, **how: bool) -> None:
    HANDSHAKES[name] = Handshake(name, requirement, make, code, **how)


def _wrong_magic(b: Bench) -> bytes:
    at = b.random.randrange(4)
    other = MAGIC[at] ^ b.random.randint(1, 255)
    return MAGIC[:at] + bytes([other]) + b.random.randbytes(b.random.randrange(12))


def _no_version(b: Bench) -> bytes:
    low, high = b.random.choice([(2, 9), (0, 0), (255, 255), (1, 0), (2, 1)])
    return MAGIC + bytes([low, high, 0, 0])


def _behind_preface(make: Callable[[Bench], bytes]) -> Callable[[Bench], bytes]:
    return lambda b: CLIENT_PREFACE + make(b)


def _not_hello(b: Bench) -> bytes:
    type, body, request, room = b.random.choice(
        [
            (FrameType.JOIN, b.join(), b.request, 0),
            (FrameType.PING, bytes(8), 0, 0),
            (FrameType.PONG, bytes(8), 0, 0),
            (FrameType.AUTH, b16(b""), b.request, 0),
            (FrameType.LEAVE, b"", b.request, 1),
        ]
    )
    return frame(type, body, request=request, room=room)


def _cut_hello(b: Bench) -> bytes:
    body = _hello()
    return frame(0x01, body[: b.random.randrange(len(body))], request=b.request)


_comes("magic", "RW-PREFACE-5", _wrong_magic, silent=True)
_comes("version", "RW-PREFACE-4", _no_version, version0=True)
_comes("not-hello", "RW-HELLO-5", _behind_preface(_not_hello), Code.UNEXPECTED)
_comes(
    "unknown-request-first", "RW-HELLO-5",
    _behind_preface(lambda b: frame(b.random.choice(GREASE), b"", request=b.request)), Code.UNEXPECTED,
)  # fmt: skip
_comes(
    "unknown-critical-first", "RW-HELLO-5", _behind_preface(lambda b: frame(0x0109, b"")), Code.UNEXPECTED,
)  # fmt: skip
_comes("hello-cut", "RW-FRAME-7", _behind_preface(_cut_hello), Code.MALFORMED)
_comes(
    "hello-left-over", "RW-FRAME-7",
    _behind_preface(lambda b: frame(0x01, _hello(tail=b"\0\1\0"), request=b.request)), Code.MALFORMED,
)  # fmt: skip
_comes(
    "hello-agent-twice", "RW-FIELD-3",
    _behind_preface(lambda b: frame(0x01, _hello(tail=field(0x8002, b"a") * 2), request=b.request)), Code.MALFORMED,
)  # fmt: skip
_comes(
    "hello-extension", "RW-FIELD-4",
    _behind_preface(lambda b: frame(0x01, _hello(tail=field(0x0001, b"\x09abc")), request=b.request)), Code.MALFORMED,
)  # fmt: skip
_comes("hello-request-0", "RW-FRAME-6", _behind_preface(lambda b: frame(0x01, _hello())), Code.BAD_HEADER)
_comes(
    "hello-room", "RW-FRAME-6",
    _behind_preface(lambda b: frame(0x01, _hello(), request=b.request, room=7)), Code.BAD_HEADER,
)  # fmt: skip
_comes(
    "hello-too-large", "RW-FRAME-2",
    _behind_preface(lambda b: frame(0x01, length=b.random.choice([4097, 65536]), request=b.request)),
    Code.FRAME_TOO_LARGE,
)  # fmt: skip
_comes(
    "hello-critical-field", "RW-FIELD-2",
    _behind_preface(lambda b: frame(0x01, _hello(tail=_critical(b)), request=b.request)),
    Code.UNKNOWN_FIELD, refused=True,
)  # fmt: skip
_comes(
    "hello-name", "RW-NAME-3",
    _behind_preface(lambda b: frame(0x01, _hello(b.random.choice(list(NAMES.values()))), request=b.request)),
    Code.NAME_INVALID, refused=True,
)  # fmt: skip
_comes(
    "hello-mechanism", "RW-SASL-1",
    _behind_preface(lambda b: frame(0x01, _hello(mechanism=b.random.choice(MECHANISMS)), request=b.request)),
    Code.UNSUPPORTED_MECHANISM, refused=True,
)  # fmt: skip
_comes("goaway-first", "RW-CLOSE-3", _behind_preface(lambda b: frame(0x08, bytes(12))), Code.NONE)


def header_promises(octets: bytes, limit: int) -> bool:
    """Whether a frame's header promises more octets than there are, so that no frame can follow it."""
    return len(octets) >= HEADER.size and HEADER.unpack_from(octets)[0] > min(limit, len(octets) - HEADER.size)
