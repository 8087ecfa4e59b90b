"""Errors that the client raises, beside those of `protocol.errors`."""

from protocol.errors import RoomwireError
from protocol.registry import Code


def code_name(code: int | None) -> str:
    """The name of a code, or "code N" where the code is unknown."""
    if code is None:
        return "no code"
    try:
        return Code(code).name
    except ValueError:
        return f"code {code}"


class ClientError(RoomwireError):
    """The base of the errors below. `code` is a number of SPEC.md, section 16, or None where the server sent none."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text, code)
        self.text = text
        self.code = code

    def __str__(self) -> str:
        if self.code is None:
            return self.text
        return f"{code_name(self.code)}: {self.text}" if self.text else code_name(self.code)


class Unreachable(ClientError):
    """The connection could not be opened."""


class Refused(ClientError):
    """The server refused or ended the session, and connecting again would not help."""


class JoinError(ClientError):
    """The client could not join the room, or the server ended the membership for good."""


class PublishError(ClientError):
    """The message was not published."""


class OutcomeUnknown(ClientError):
    """The reply was lost for good, so it is unknown whether the message was published (RW-PROMISE-6)."""


class TooManyPending(ClientError):
    """Too many requests wait for their replies; the session takes no more for now."""


class StopError(ClientError):
    """The server did not agree to stop."""


class HistoryError(ClientError):
    """The server did not send the room's history."""
