"""What the client raises on purpose, beside the errors of `protocol.errors`."""

from protocol.errors import RoomwireError
from protocol.registry import Code


def code_name(code: int | None) -> str:
    """A code as people know it; an unknown one as its number."""
    if code is None:
        return "no code"
    try:
        return Code(code).name
    except ValueError:
        return f"code {code}"


class ClientError(RoomwireError):
    """Base of the errors below. `code` is a number of SPEC.md, section 16, or None where the server gave none."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text, code)
        self.text = text
        self.code = code

    def __str__(self) -> str:
        if self.code is None:
            return self.text
        return f"{code_name(self.code)}: {self.text}" if self.text else code_name(self.code)


class Unreachable(ClientError):
    """No connection could be made."""


class Refused(ClientError):
    """The server ended the session, or would not begin it, and there is no use in trying again."""


class JoinError(ClientError):
    """The room was not joined, or the membership was ended for good."""


class PublishError(ClientError):
    """The message was not published."""


class OutcomeUnknown(ClientError):
    """Nobody can tell whether the message was published: the answer was lost, and asking again would not help."""


class TooManyPending(ClientError):
    """So many publishes wait for an answer that no more are taken."""


class StopError(ClientError):
    """The server was not stopped."""


class HistoryError(ClientError):
    """The server did not give the room's history."""
