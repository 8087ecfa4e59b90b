"""Lines for people and lines of JSON for programs, made of events."""

import base64
import json
import os
import zlib
from collections.abc import Iterable
from datetime import datetime
from typing import TextIO

from reference_client import events
from reference_client.chat.render import harmless, named, plain
from reference_client.chat.rows import INDENT
from reference_client.errors import code_name
from reference_client.session.membership import Member

_NAME_COLOURS = (31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96)
_DIM = 2
_RED = 31


def wants_colour(stream: TextIO) -> bool:
    """Whether to write colours to `stream` (see no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


class Show:
    """Makes lines for people, in which all text of peers is harmless."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour
        self._day = datetime.now().date()

    def message(self, message: events.MessageReceived, *, room: str | None) -> str:
        """A message's line. `room` is given if several are shown; a verified name is in square brackets."""
        name = self._painted(named(message.name, message.verified), self._colour_of(message.name))
        label = f"{plain(room)} " if room is not None else ""
        if message.ctype == 0:
            text = harmless(message.text, multiline=True).replace("\n", f"\n{INDENT}")
        else:
            text = f"({len(message.payload)} octets of type {message.ctype})"
        return f"{self._time(message.time_ms)} {label}{name} {text}"

    def note(self, text: str) -> str:
        """A line that reports something; `text` must be harmless."""
        return self._painted(f"* {text}", _DIM)

    def problem(self, text: str) -> str:
        """A line that reports a problem; `text` must be harmless."""
        return self._painted(f"! {text}", _RED)

    def event(self, event: events.Event) -> str | None:
        """An event's line, or None if it is not shown."""
        match event:
            case events.Joined(again=True):
                return self.note(f"back in {plain(event.name)}")
            case events.Joined():
                return self.note(f"you are in {plain(event.name)}, {event.members} here")
            case events.Left():
                return self.note(f"you left {plain(event.room)}")
            case events.MemberJoined():
                return self.note(f"{named(event.name, event.verified)} joined {plain(event.room)}")
            case events.MemberLeft():
                how = "was lost from" if event.lost else "left"
                return self.note(f"{named(event.name, event.verified)} {how} {plain(event.room)}")
            case events.RoomQuiet():
                return self.note(f"{plain(event.room)} is too full to show who comes and goes")
            case events.Gap():
                return self.problem(f"{plain(event.room)}: {missing(event)}")
            case events.Disconnected():
                why = described(event.code, event.text)
                again = "" if event.retry_in is None else f"; trying again in {event.retry_in:.1f} s"
                return self.problem(f"not connected: {why}{again}")
            case events.Connected(again=True):
                return self.note(f"connected again, as {plain(event.name)}")
            case events.Connected():
                return self.note(f"connected, as {plain(event.name)}")
            case events.Draining():
                return self.note(f"the server is about to end: {harmless(event.text)}")
            case events.Evicted() | events.JoinFailed():
                what = "you were put out of" if isinstance(event, events.Evicted) else "not in"
                again = "" if event.retry_in is None else f"; trying again in {event.retry_in:.1f} s"
                return self.problem(f"{what} {plain(event.room)}: {described(event.code, event.text)}{again}")
        return None

    def roster(self, room: str, roster: Iterable[Member], members: int) -> str:
        """The line with a room's members: their names, or their number if no name is known."""
        names = [named(who.name, who.verified) for who in sorted(roster, key=lambda who: who.name.casefold())]
        if not names:
            return self.note(f"{plain(room)}: {members} here, names unknown")
        return self.note(f"{plain(room)}: {', '.join(names)}")

    def _time(self, time_ms: int) -> str:
        try:
            when = datetime.fromtimestamp(time_ms / 1000)
        except (ValueError, OverflowError, OSError):
            return "--:--:--"  # a server may send any number
        shown = f"{when:%H:%M:%S}" if when.date() == self._day else f"{when:%Y-%m-%d %H:%M:%S}"
        return self._painted(shown, _DIM)

    def _colour_of(self, name: str) -> int:
        return _NAME_COLOURS[zlib.crc32(name.encode()) % len(_NAME_COLOURS)]

    def _painted(self, text: str, colour: int) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text


def missing(gap: events.Gap) -> str:
    """A gap in words."""
    if gap.old_epoch != gap.epoch:
        return "the log was reset; messages may be missing here"
    count = gap.start - gap.after - 1
    if count <= 0:
        return "messages may be missing here"
    return "1 message is missing here" if count == 1 else f"{count} messages are missing here"


def described(code: int | None, text: str) -> str:
    """A code and its text, harmless."""
    if code is None:
        return harmless(text)
    return f"{code_name(code)}: {harmless(text)}" if text else code_name(code)


def json_line(kind: str, **values: object) -> str:
    """One line of JSON; it is ASCII, and so harmless on a terminal."""
    return json.dumps({"type": kind} | values)


def json_message(message: events.MessageReceived) -> str:
    """A message's line of JSON. 64-bit numbers are hexadecimal, since many JSON readers would round them."""
    content: dict[str, object] = (
        {"text": message.text} if message.ctype == 0 else {"base64": base64.b64encode(message.payload).decode()}
    )
    return json_line(
        "message",
        room=message.room,
        epoch=f"{message.epoch:016x}",
        seq=message.seq,
        time_ms=message.time_ms,
        sender=f"{message.sender:016x}",
        name=message.name,
        verified=message.verified,
        own=message.own,
        id=message.id.hex(),
        ctype=message.ctype,
        **content,
    )


def json_gap(gap: events.Gap) -> str:
    """A gap's line of JSON. The missing messages are after (old_epoch, after) and before (epoch, start)."""
    return json_line(
        "gap",
        room=gap.room,
        old_epoch=f"{gap.old_epoch:016x}",
        after=gap.after,
        epoch=f"{gap.epoch:016x}",
        start=gap.start,
    )
