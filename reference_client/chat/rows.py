"""Lines as rows of a terminal. No row but the first of a line begins at the left edge.

A text as long as the terminal is wide would otherwise go on at the left edge of the next row, and what stands there
could be taken for a line of its own: the time, the name and the text of somebody else.
"""

import os
import re
from collections.abc import Iterator
from typing import TextIO

from reference_client.chat.line_editor import cells

INDENT = "    "
MARGIN = "| "
"""Begins each row of a line that is shown again, as history is. Nothing of a peer begins a row."""

_NARROWEST = 16
_PIECES = re.compile(r"\x1b\[[0-9;]*m|.", re.DOTALL)  # colours, which take no column, and characters
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"


def again(line: str) -> str:
    """The line with MARGIN before each of its rows."""
    return MARGIN + line.replace("\n", "\n" + MARGIN)


def rows(line: str, columns: int) -> list[str]:
    """Break a line, which is harmless, into rows that are narrower than `columns`, at spaces where there are some."""
    indent = (MARGIN if line.startswith(MARGIN) else "") + INDENT
    return [row for part in line.split("\n") for row in _broken(part, max(columns, _NARROWEST) - 1, indent)]


def _broken(part: str, width: int, indent: str) -> Iterator[str]:
    row, used, space = "", 0, 0  # `space` is where the row may end: behind a space that is not too far left
    least = max(len(indent), width // 2)
    for piece in _PIECES.findall(part):
        taken = 0 if piece.startswith("\x1b") else cells(piece)
        if used + taken > width:
            end = space or len(row)
            yield row[:end]
            row = indent + row[end:]
            used, space = width_of(row), 0
        row += piece
        used += taken
        if piece == " " and used > least:
            space = len(row)
    yield row


def width_of(row: str) -> int:
    """The number of columns that a row takes."""
    return sum(0 if piece.startswith("\x1b") else cells(piece) for piece in _PIECES.findall(row))


def clipped(text: str) -> str:
    """The text, of which the terminal shows no more than fits: it may take characters for wider than `cells` does."""
    return f"{_NO_WRAP}{text}{_WRAP}"


def size_of(out: TextIO) -> tuple[int, int]:
    """Columns and lines of a terminal as it is now, whatever COLUMNS and LINES say."""
    try:
        size = os.get_terminal_size(out.fileno())
    except OSError:
        return 80, 24
    return size.columns or 80, size.lines or 24


def write_line(out: TextIO, line: str) -> None:
    """Write a line, which is harmless: in rows if `out` is a terminal."""
    shown = f"{line}\n"
    if out.isatty():
        shown = "".join(f"{row}\n" for row in rows(line, size_of(out)[0]))
        if os.environ.get("TERM", "dumb") != "dumb":
            shown = clipped(shown)
    out.write(shown)
    out.flush()
