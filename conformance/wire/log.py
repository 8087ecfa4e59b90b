"""The log of what goes over the wire in a case, in both directions of all its connections, with times."""

from dataclasses import dataclass
from typing import NamedTuple

from conformance.wire import clock
from conformance.wire.text import hex_lines, stream_lines
from protocol.registry import Sender

_KEPT = 400  # newest entries that a log remembers at least
TRACED = 200  # newest entries that a report has
_LINE_KEPT = 8000  # characters of a line that a log remembers
_LINE_SHOWN = 300  # characters of a line that a failure shows


class Entry(NamedTuple):
    """The octets of a write or of a received frame, or a `line` of a program's contract.

    `at` is in seconds since the case began. `framed` says that the octets are frames.
    """

    at: float
    peer: str
    sender: Sender
    octets: bytes
    note: str
    framed: bool
    line: str = ""


@dataclass
class WireLog:
    """Remembers the newest entries. `render` shows `shown` of each direction."""

    shown: int = 6

    def __post_init__(self) -> None:
        self._began = clock.now()
        self._entries: list[Entry] = []

    def add(self, peer: str, sender: Sender, octets: bytes, note: str = "", *, framed: bool = True) -> None:
        """Adds octets; `framed` says that they are frames and not a preface."""
        self._add(Entry(clock.now() - self._began, peer, sender, octets, note, framed))

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        if len(self._entries) > 2 * _KEPT:
            del self._entries[:_KEPT]

    def event(self, peer: str, note: str) -> None:
        """Adds an event without octets, for example the end of a stream."""
        self.add(peer, "S", b"", note, framed=False)

    def said(self, peer: str, sender: Sender, line: str) -> None:
        """Adds a line of a program's standard input or output."""
        self._add(Entry(clock.now() - self._began, peer, sender, b"", "", False, line[:_LINE_KEPT]))

    @property
    def entries(self) -> list[Entry]:
        """All entries that are remembered, oldest first."""
        return self._entries

    def newest(self, count: int = TRACED) -> tuple[Entry, ...]:
        """The newest entries, oldest first."""
        return tuple(self._entries[-count:])

    def render(self) -> tuple[str, ...]:
        """The newest frames of both directions, oldest first, decoded and with their octets."""
        newest: dict[str, int] = {}
        keep = []
        for entry in reversed(self._entries):
            way = entry.sender if entry.octets else "event"
            newest[way] = newest.get(way, 0) + 1
            if newest[way] <= self.shown:
                keep.append(entry)
        return tuple(line for entry in reversed(keep) for line in _lines(entry))


def _lines(entry: Entry) -> list[str]:
    if entry.line:
        return [f"{entry.at:8.3f} {entry.peer} {'->' if entry.sender == 'C' else '<-'} {entry.line[:_LINE_SHOWN]}"]
    arrow = {"C": "->", "S": "<-"}[entry.sender] if entry.octets else "--"
    said = stream_lines(entry.octets, entry.sender) if entry.framed else []
    note = [f"({entry.note})"] if entry.note and said else [entry.note] if entry.note else []
    lines = [f"{entry.at:8.3f} {entry.peer} {arrow} {text}" for text in (said + note or ["octets"])]
    return lines + [f"{'':16}{line}" for line in hex_lines(entry.octets)]
