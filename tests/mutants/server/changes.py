"""The changes that many server mutants are made of: frames on their way out and in, codes, refusals."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from conformance.wire.octets import frame
from protocol.frames import (
    Ack,
    Error,
    Frame,
    Goaway,
    HistoryEnd,
    Joined,
    Message,
    Publish,
    Welcome,
)
from protocol.registry import (
    Code,
    Flag,
)
from tests.mutants.servers import Invalid, MutantConnection, Received, Receives, Sends, Sent

FATAL = frame(0x0009)
"""An unknown critical frame: a server that receives it ends the connection."""


def unchanged(c: MutantConnection, received: Received) -> list[Sent]:
    """Changes no frame, but hands frames to the server only when they are complete."""
    return [received]


def changes(kind: type, change: Callable[[Any], Any]) -> Sends:
    """Changes frames of one kind that the server sends; None leaves the frame out."""

    def sends(c: MutantConnection, sent: Sent) -> list[Sent]:
        if not isinstance(sent, kind):
            return [sent]
        other = change(sent)
        return [] if other is None else [other]

    return sends


def recoded(codes: Mapping[int, Code], *kinds: type) -> Sends:
    """Sends other codes in ERROR and GOAWAY, or only in frames of these kinds."""

    def sends(c: MutantConnection, sent: Any) -> list[Sent]:
        code = codes.get(sent.code) if isinstance(sent, Error | Goaway) else None
        if code is None or (kinds and not isinstance(sent, kinds)):
            return [sent]
        retry = Flag.RETRY if code.retry else 0
        return [replace(sent, code=code, flags=retry, retry_ms=1 if retry else 0)]

    return sends


def without(kind: type, test: Callable[[Any], bool] = lambda sent: True) -> Sends:
    """Leaves out the frames of one kind, or those that the test picks."""
    return changes(kind, lambda sent: None if test(sent) else sent)


def ignores(code: Code) -> Receives:
    """Ignores frames that earn a code."""

    def receives(c: MutantConnection, received: Received) -> list[Sent]:
        if isinstance(received, Invalid) and received.error.code == code:
            return []
        return [received]

    return receives


def fatal_if(test: Callable[[MutantConnection, Any], bool]) -> Receives:
    """Ends the connection over frames that break no rule."""
    return lambda c, received: [FATAL] if not isinstance(received, Invalid) and test(c, received) else [received]


def changes_stream(change: Callable[[MutantConnection, Message], Message | None]) -> Sends:
    """Changes each MESSAGE of the stream; None leaves it out."""

    def sends(c: MutantConnection, sent: Sent) -> list[Sent]:
        if isinstance(sent, Joined):
            c.notes["head"] = sent.head
        if isinstance(sent, Welcome):
            c.notes["member"] = sent.member
        if not isinstance(sent, Message) or sent.request:
            return [sent]
        other = change(c, sent)
        return [] if other is None else [other]

    return sends


def accepts(code: Code) -> Sends:
    """Answers a request that earns a code as if it had succeeded."""
    success: dict[Code, Callable[[Error], Frame]] = {
        Code.RANGE_INVALID: lambda f: HistoryEnd(1, 1, 1, request=f.request, room=f.room),
    }

    def ack(f: Error) -> Frame:
        return Ack(1, 1, fields=(), flags=0, request=f.request, room=f.room)

    return lambda c, f: [success.get(code, ack)(f)] if isinstance(f, Error) and f.code == code else [f]


def refuses(test: Callable[[MutantConnection, Publish], bool], code: Code) -> dict[str, Any]:
    """Answers publishes that break no rule with ERROR of a code."""

    def receives(c: MutantConnection, received: Received) -> list[Sent]:
        if isinstance(received, Publish):
            if test(c, received):
                c.notes.setdefault("refused requests", set()).add(received.request)
                c.notes.setdefault("refused ids", set()).add(received.id)
            else:
                c.notes.setdefault("refused requests", set()).discard(received.request)
        return [received]

    def sends(c: MutantConnection, sent: Sent) -> list[Sent]:
        if isinstance(sent, Message) and sent.id in c.notes.get("refused ids", ()):
            return []  # the message of a refused publish
        if isinstance(sent, Ack) and sent.request in c.notes.get("refused requests", ()):
            retry = (1, Flag.RETRY) if code.retry else (0, 0)
            return [Error(code, retry[0], "", fields=(), flags=retry[1], request=sent.request, room=sent.room)]
        return [sent]

    return {"receives": receives, "sends": sends}
