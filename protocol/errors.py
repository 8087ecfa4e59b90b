"""What goes wrong, one class for each code that the protocol layer itself can find.

SPEC.md, "Errors". Codes that only a server's rooms, accounts or limits can earn have no class here.
"""

from typing import ClassVar

from protocol.registry import Code


class RoomwireError(Exception):
    """Base of everything that this package raises on purpose."""


class LocalProtocolError(RoomwireError):
    """This side asked for something that the protocol does not allow. Nothing was sent."""


class RemoteProtocolError(RoomwireError):
    """The peer broke a rule. `code` is what to answer it with.

    `frame` and `field` name the place, `expected` and `found` say what was wrong; each is "" where unknown.
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
    """The body is not what the declaration of its frame says. Fatal."""

    code = Code.MALFORMED


class FrameTooLarge(RemoteProtocolError):
    """The header promises a body above the limit. Fatal, and found before the body is stored."""

    code = Code.FRAME_TOO_LARGE


class UnknownType(RemoteProtocolError):
    """A type that must be understood, and is not. Fatal."""

    code = Code.UNKNOWN_TYPE


class BadHeader(RemoteProtocolError):
    """Request, room or SEQ other than the frame's type requires. Fatal."""

    code = Code.BAD_HEADER


class Unexpected(RemoteProtocolError):
    """A frame that does not exist in this state. Fatal."""

    code = Code.UNEXPECTED


class SequenceBroken(RemoteProtocolError):
    """A room's stream jumped past the cursor. Fatal; reconnecting helps."""

    code = Code.SEQUENCE


class TimedOut(RemoteProtocolError):
    """The peer was silent, or did not finish, for too long. Fatal; reconnecting helps."""

    code = Code.TIMEOUT


class NameInvalid(RemoteProtocolError):
    """A name that no room or person may have. Earns an ERROR; the connection goes on after HELLO."""

    code = Code.NAME_INVALID


class UnknownField(RemoteProtocolError):
    """An extension field that must be understood, and is not. Earns an ERROR, or is fatal if request is 0."""

    code = Code.UNKNOWN_FIELD


class RangeInvalid(RemoteProtocolError):
    """A number outside its range. Earns an ERROR."""

    code = Code.RANGE_INVALID
