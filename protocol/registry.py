"""Numbers of Roomwire/1: types, flags, codes, fields and limits.

Everything here is a table of SPEC.md too ("Flags", "Frames", "Errors", "Extension fields", "Limits and
timers", "Numbers"), and tests compare the two. What each frame is made of is in `frames.py`.
"""

from enum import IntEnum
from typing import Literal, NamedTuple

MAGIC = bytes.fromhex("F5525750")
VERSION = 1
PREFACE_SIZE = 8
HEADER_SIZE = 16
MAX_SAFE = 2**53 - 1
"""The greatest seq or time. Up to it, a double, and so every language's number, holds each integer exactly."""

HELLO_MAX_BODY = 4096
"""The limit of a body until WELCOME announces another, in octets."""

CONTENT_RESERVE = 256
"""Payload and relayed fields of a PUBLISH are at least this many octets below max_body, so that the MESSAGE fits."""

Sender = Literal["C", "S"]
"""Which end sent a frame: the client or the server."""


class FrameType(IntEnum):
    """The `type` of a frame's header. SPEC.md, "Frames"."""

    HELLO = 0x0001
    WELCOME = 0x0002
    AUTH = 0x0003
    ERROR = 0x0004
    OK = 0x0005
    PING = 0x0006
    PONG = 0x0007
    GOAWAY = 0x0008
    JOIN = 0x0010
    JOINED = 0x0011
    ROSTER = 0x0012
    PRESENCE = 0x0013
    LEAVE = 0x0014
    EVICTED = 0x0015
    PUBLISH = 0x0020
    ACK = 0x0021
    MESSAGE = 0x0022
    HISTORY = 0x0040
    HISTORY_END = 0x0041
    STOP = 0x0048


class Flag:
    """Bits of a header's `flags`. The high octet means the same in every frame, the low octet depends on the type.

    These are plain integers and no IntFlag, because the codec masks flags millions of times a second.
    """

    SEQ = 0x8000
    EPHEMERAL = 0x4000
    RETRY = 0x0001
    VERIFIED = 0x0002
    MORE = 0x0004
    DURABLE = 0x0010
    ROSTER = 0x0010
    GAP = 0x0010
    RESET = 0x0010
    DUPLICATE = 0x0010
    NEWEST = 0x0010
    QUIET = 0x0020
    ORDERED = 0x0020


class FieldType(IntEnum):
    """The `type` of an extension field. SPEC.md, "Extension fields"."""

    EXTENSION = 0x0001
    AGENT = 0x8002
    SERVER = 0x8003
    MECHANISM = 0x8004


class PresenceKind(IntEnum):
    """`kind` of PRESENCE. A receiver ignores a kind that it does not know."""

    JOINED = 1
    LEFT = 2
    LOST = 3
    QUIET = 4


class ContentType(IntEnum):
    """`ctype` of PUBLISH and MESSAGE. A server relays other numbers as they are."""

    TEXT = 0
    OCTETS = 1


class Code(IntEnum):
    """Why a request, a membership or a connection failed. SPEC.md, "Errors"."""

    NONE = 0
    MALFORMED = 101
    FRAME_TOO_LARGE = 102
    UNKNOWN_TYPE = 103
    BAD_HEADER = 104
    UNEXPECTED = 105
    SEQUENCE = 106
    TIMEOUT = 107
    AUTH_FAILED = 201
    UNSUPPORTED_MECHANISM = 202
    TLS_REQUIRED = 203
    ACCOUNT_REVOKED = 204
    UNKNOWN_REQUEST = 301
    NAME_INVALID = 302
    NOT_JOINED = 303
    ALREADY_JOINED = 304
    ID_CONFLICT = 305
    PAYLOAD_INVALID = 306
    PAYLOAD_TOO_LARGE = 307
    FORBIDDEN = 308
    NO_SUCH_ROOM = 309
    UNKNOWN_FIELD = 310
    RANGE_INVALID = 311
    ID_EXPIRED = 312
    RATE_LIMITED = 401
    TOO_MANY_ROOMS = 402
    ROOM_FULL = 403
    SERVER_FULL = 404
    SLOW = 405
    ABUSE = 406
    PRECEDED = 407
    INTERNAL = 501
    UNAVAILABLE = 502
    DRAINING = 503
    SHUTDOWN = 504
    LAGGED = 601
    KICKED = 602
    BANNED = 603
    ROOM_CLOSED = 604
    LOG_RESET = 605

    @property
    def carriers(self) -> str:
        """The frames that carry this code: E for ERROR, V for EVICTED, G for GOAWAY."""
        return CODES[self].carriers

    @property
    def retry(self) -> bool:
        """Whether this code is sent with the flag RETRY: the same may succeed later."""
        return CODES[self].retry


class CodeRule(NamedTuple):
    """One row of the table of codes."""

    carriers: str
    retry: bool = False


CODES: dict[Code, CodeRule] = {
    Code.NONE: CodeRule("G"),
    Code.MALFORMED: CodeRule("G"),
    Code.FRAME_TOO_LARGE: CodeRule("G"),
    Code.UNKNOWN_TYPE: CodeRule("G"),
    Code.BAD_HEADER: CodeRule("G"),
    Code.UNEXPECTED: CodeRule("G"),
    Code.SEQUENCE: CodeRule("G", retry=True),
    Code.TIMEOUT: CodeRule("G", retry=True),
    Code.AUTH_FAILED: CodeRule("EG"),
    Code.UNSUPPORTED_MECHANISM: CodeRule("EG"),
    Code.TLS_REQUIRED: CodeRule("EG"),
    Code.ACCOUNT_REVOKED: CodeRule("G"),
    Code.UNKNOWN_REQUEST: CodeRule("E"),
    Code.NAME_INVALID: CodeRule("EG"),  # GOAWAY only after the ERROR to a HELLO
    Code.NOT_JOINED: CodeRule("E"),
    Code.ALREADY_JOINED: CodeRule("E"),
    Code.ID_CONFLICT: CodeRule("E"),
    Code.PAYLOAD_INVALID: CodeRule("E"),
    Code.PAYLOAD_TOO_LARGE: CodeRule("E"),
    Code.FORBIDDEN: CodeRule("E"),
    Code.NO_SUCH_ROOM: CodeRule("E"),
    Code.UNKNOWN_FIELD: CodeRule("EG"),  # GOAWAY where the frame's request is 0
    Code.RANGE_INVALID: CodeRule("E"),
    Code.ID_EXPIRED: CodeRule("E"),
    Code.RATE_LIMITED: CodeRule("EG", retry=True),  # GOAWAY only after the ERROR to a HELLO
    Code.TOO_MANY_ROOMS: CodeRule("E"),
    Code.ROOM_FULL: CodeRule("E", retry=True),
    Code.SERVER_FULL: CodeRule("EG", retry=True),
    Code.SLOW: CodeRule("G", retry=True),
    Code.ABUSE: CodeRule("G"),
    Code.PRECEDED: CodeRule("E", retry=True),
    Code.INTERNAL: CodeRule("EG", retry=True),
    Code.UNAVAILABLE: CodeRule("E", retry=True),
    Code.DRAINING: CodeRule("G", retry=True),
    Code.SHUTDOWN: CodeRule("G", retry=True),
    Code.LAGGED: CodeRule("V", retry=True),
    Code.KICKED: CodeRule("V"),
    Code.BANNED: CodeRule("EV"),
    Code.ROOM_CLOSED: CodeRule("V", retry=True),
    Code.LOG_RESET: CodeRule("V", retry=True),
}


class Limit(NamedTuple):
    """A limit in `unit`. An operator may set it from `low` to `high`; it is fixed if they are equal."""

    default: int
    low: int
    high: int
    unit: str


_U16 = 2**16 - 1
_U32 = 2**32 - 1

LIMITS: dict[str, Limit] = {
    "max_body": Limit(65_536, 4_096, 2**24, "octets"),
    "hello_max_body": Limit(HELLO_MAX_BODY, HELLO_MAX_BODY, HELLO_MAX_BODY, "octets"),
    "window": Limit(32, 1, _U16, "requests"),
    "max_rooms": Limit(256, 1, _U16, "rooms"),
    "heartbeat_ms": Limit(30_000, 1_000, 600_000, "ms"),
    "dedupe_ms": Limit(600_000, 0, _U32, "ms"),
    "preface_ms": Limit(5_000, 1, _U32, "ms"),
    "handshake_ms": Limit(10_000, 1, _U32, "ms"),
    "frame_ms": Limit(30_000, 1, _U32, "ms"),
    "stall_ms": Limit(30_000, 1, _U32, "ms"),
    "linger_ms": Limit(2_000, 1, _U32, "ms"),
    "drain_ms": Limit(10_000, 0, _U32, "ms"),
    "jitter_ms": Limit(5_000, 0, _U32, "ms"),
    "replay_messages": Limit(10_000, 0, _U32, "messages"),
    "history_messages": Limit(500, 1, _U16, "messages"),
    "history_octets": Limit(2**20, 1, _U32, "octets"),
    "retention_messages": Limit(10_000, 0, _U32, "messages"),
    "retention_ms": Limit(7 * 24 * 3_600_000, 0, MAX_SAFE, "ms"),
    "publish_rate": Limit(20, 1, _U32, "per second"),
    "publish_burst": Limit(100, 1, _U32, "messages"),
    "join_rate": Limit(2, 1, _U32, "per second"),
    "join_burst": Limit(20, 1, _U32, "joins"),
    "history_rate": Limit(10, 1, _U32, "per second"),
    "history_burst": Limit(50, 1, _U32, "requests"),
    "room_rate": Limit(10, 1, _U32, "per minute and address"),
    "quiet_members": Limit(500, 0, _U32, "members"),
    "auth_steps": Limit(4, 4, 4, "AUTH frames"),
    "auth_rate": Limit(10, 1, _U32, "per minute and address"),
    "address_connections": Limit(64, 1, _U32, "connections"),
    "account_connections": Limit(16, 1, _U32, "connections"),
}


GREASE = range(0x8021, 0x8021 + 0x1F * 528, 0x1F)
"""The 528 numbers of types and fields that mean nothing. Peers send them, so that every receiver learns to ignore."""


def is_ignorable(number: int) -> bool:
    """Whether a receiver that does not know this frame type or field type ignores it."""
    return number >= 0x8000


def is_relayed(field_type: int) -> bool:
    """Whether a server copies the field, unchanged, from PUBLISH to MESSAGE."""
    return field_type >= 0xC000


def is_private(number: int) -> bool:
    """Whether a frame type or field type is for private use: SPEC.md never assigns it."""
    return 0x7000 <= number <= 0x7FFF or number >= 0xF000
