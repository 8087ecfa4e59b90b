"""What can go wrong: one class for each code that the protocol layer itself detects.

See SPEC.md, "Errors". Codes that depend on a server's rooms, accounts or limits have no class here.
"""

from typing import ClassVar

from protocol.registry import Code


class RoomwireError(Exception):
    """Base of all exceptions that this package raises on purpose."""


class LocalProtocolError(RoomwireError):
    """The caller asked for something that the protocol does not allow. Nothing was sent."""


class RemoteProtocolError(RoomwireError):
    """The peer broke a rule. `code` is the code to answer with.

    `frame` and `field` name the place, `expected` and `found` say what is wrong. Each is "" where it is unknown.
    """

    code: ClassVar[Code]

    def __init__(self, frame: str = "", field: str = "", expected: str = "", found: str = "") -> None:
        super().__init__(frame, field, expected, found)
        self.frame = frame
        self.field = field
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        place = ".".join(part for part in (self.frame, self.field) if part)
        found = f"found {self.found}" if self.found else ""
        wrong = ", ".join(part for part in (self.expected and f"expected {self.expected}", found) if part)
        return ": ".join(part for part in (self.code.name, place, wrong) if part)


class Malformed(RemoteProtocolError):
    """A body is not laid out as its frame declares. Fatal."""

    code = Code.MALFORMED


class FrameTooLarge(RemoteProtocolError):
    """A header announces a body above the limit. Fatal, and raised before any of the body is stored."""

    code = Code.FRAME_TOO_LARGE


class UnknownType(RemoteProtocolError):
    """A frame has a critical type that the receiver does not know. Fatal."""

    code = Code.UNKNOWN_TYPE


class BadHeader(RemoteProtocolError):
    """`request`, `room` or the flag SEQ is not as the frame's type requires. Fatal."""

    code = Code.BAD_HEADER


class Unexpected(RemoteProtocolError):
    """A frame arrived in a state that does not allow it. Fatal."""

    code = Code.UNEXPECTED


class SequenceBroken(RemoteProtocolError):
    """A room's stream skips a seq. Fatal; reconnecting helps."""

    code = Code.SEQUENCE


class TimedOut(RemoteProtocolError):
    """The peer was silent for too long, or did not complete something in time. Fatal; reconnecting helps."""

    code = Code.TIMEOUT


class NameInvalid(RemoteProtocolError):
    """A name that no room or person may have. Earns an ERROR, after which the connection goes on, except for HELLO."""

    code = Code.NAME_INVALID


class UnknownField(RemoteProtocolError):
    """A critical extension field that the receiver does not know. Earns an ERROR, or is fatal if `request` is 0."""

    code = Code.UNKNOWN_FIELD


class RangeInvalid(RemoteProtocolError):
    """A number is outside its range. Earns an ERROR."""

    code = Code.RANGE_INVALID
