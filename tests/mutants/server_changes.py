"""How broken servers are declared, and the changes that many of them are made of."""

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
from tests.mutants.servers import Alteration, Broken, Heard, Hears, Piece, Says, Wrong

FATAL = frame(0x0009)
"""A frame that ends the connection: what a server is made to read that refuses something."""

SERVERS: list[Broken] = []
"""The broken servers, as the modules that are imported declare them."""


def broken(name: str, *breaks: str, **how: Any) -> None:
    """Declares a broken server."""
    SERVERS.append(Broken(name, breaks, **how))


def unchanged(a: Alteration, heard: Heard) -> list[Piece]:
    """Frames as they are, once they are whole."""
    return [heard]


def of(kind: type, change: Callable[[Any], Any]) -> Says:
    """Changes frames of one kind that the server says; None leaves them out."""

    def says(a: Alteration, said: Piece) -> list[Piece]:
        if not isinstance(said, kind):
            return [said]
        other = change(said)
        return [] if other is None else [other]

    return says


def never(said: Any) -> None:
    """Leaves a frame out."""
    return


def recoded(codes: Mapping[int, Code], *kinds: type) -> Says:
    """Other codes in ERROR and GOAWAY, or in frames of these kinds alone."""

    def says(a: Alteration, said: Any) -> list[Piece]:
        code = codes.get(said.code) if isinstance(said, Error | Goaway) else None
        if code is None or (kinds and not isinstance(said, kinds)):
            return [said]
        retry = Flag.RETRY if code.retry else 0
        return [replace(said, code=code, flags=retry, retry_ms=1 if retry else 0)]

    return says


def without(kind: type, test: Callable[[Any], bool]) -> Says:
    """Leaves some frames out."""
    return of(kind, lambda said: None if test(said) else said)


def wrong(code: Code, instead: Callable[[Wrong], list[Piece]] = lambda heard: []) -> Hears:
    """Takes no offence at what earns a code."""

    def hears(a: Alteration, heard: Heard) -> list[Piece]:
        if isinstance(heard, Wrong) and heard.error.code == code:
            return instead(heard)
        return [heard]

    return hears


def fatal_if(test: Callable[[Alteration, Any], bool]) -> Hears:
    """Ends the connection over frames that are fine."""
    return lambda a, heard: [FATAL] if not isinstance(heard, Wrong) and test(a, heard) else [heard]


def stream(change: Callable[[Alteration, Message], Message | None]) -> Says:
    """Changes MESSAGEs of the stream; None leaves them out."""

    def says(a: Alteration, said: Piece) -> list[Piece]:
        if isinstance(said, Joined):
            a.notes["head"] = said.head
        if isinstance(said, Welcome):
            a.notes["member"] = said.member
        if not isinstance(said, Message) or said.request:
            return [said]
        other = change(a, said)
        return [] if other is None else [other]

    return says


def pretends(code: Code) -> Says:
    """Does not refuse with a code: says that all went well."""
    success: dict[Code, Callable[[Error], Frame]] = {
        Code.RANGE_INVALID: lambda f: HistoryEnd(1, 1, 1, request=f.request, room=f.room),
    }

    def ack(f: Error) -> Frame:
        return Ack(1, 1, fields=(), flags=0, request=f.request, room=f.room)

    return lambda a, f: [success.get(code, ack)(f)] if isinstance(f, Error) and f.code == code else [f]


def minds(test: Callable[[Alteration, Publish], bool], code: Code) -> dict[str, Any]:
    """Refuses publishes that are fine with a code."""

    def hears(a: Alteration, heard: Heard) -> list[Piece]:
        if isinstance(heard, Publish):
            if test(a, heard):
                a.notes.setdefault("minded", set()).add(heard.request)
                a.notes.setdefault("ids", set()).add(heard.id)
            else:
                a.notes.setdefault("minded", set()).discard(heard.request)
        return [heard]

    def says(a: Alteration, said: Piece) -> list[Piece]:
        if isinstance(said, Message) and said.id in a.notes.get("ids", ()):
            return []  # what was refused does not come back
        if isinstance(said, Ack) and said.request in a.notes.get("minded", ()):
            retry = (1, Flag.RETRY) if code.retry else (0, 0)
            return [Error(code, retry[0], "", fields=(), flags=retry[1], request=said.request, room=said.room)]
        return [said]

    return {"hears": hears, "says": says}
