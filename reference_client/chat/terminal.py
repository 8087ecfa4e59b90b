"""The screens of the chat: a terminal whose input line survives output, and plain streams."""

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import AsyncIterator
from typing import Protocol, TextIO

from reference_client.chat.line_editor import Ended, LineEditor
from reference_client.chat.rows import clipped, rows, size_of, width_of, write_line
from reference_client.chat.streams import stdin_lines

_STDIN = 0
_CHUNK = 1 << 16
_KEPT = 500  # lines, more than a screen has rows
_PASTES_BRACKETED, _PASTES_PLAIN = "\x1b[?2004h", "\x1b[?2004l"


class Screen(Protocol):
    """What the chat needs of its screen."""

    interactive: bool

    def show(self, line: str) -> None:
        """Show a line; `line` must be harmless already."""

    def prompt(self, text: str) -> None:
        """Set the text before the input line."""

    def lines(self) -> AsyncIterator[bytes]:
        """The lines that the user enters, without line ends."""


class Plain:
    """Plain lines in and out, for pipes, files and simple terminals."""

    interactive = False

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def show(self, line: str) -> None:
        write_line(self._out, line)

    def prompt(self, text: str) -> None:
        pass

    def lines(self) -> AsyncIterator[bytes]:
        return stdin_lines()


class Terminal:
    """A terminal in cbreak mode, with the input in its last row.

    Use it as a context manager: leaving the context restores the terminal.
    """

    interactive = True

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._input = _STDIN
        self._editor = LineEditor()
        self._prompt = "> "
        self._cursor = 0  # its column
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._widths: deque[int] = deque(maxlen=_KEPT)  # of the rows that were shown last
        self._entered: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._before = termios.tcgetattr(self._input)

    def __enter__(self) -> "Terminal":
        loop = asyncio.get_running_loop()
        self._set_up()
        loop.add_reader(self._input, self._typed)
        loop.add_signal_handler(signal.SIGWINCH, self._resized)
        loop.add_signal_handler(signal.SIGCONT, self._set_up)
        return self

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._input)
        for number in (signal.SIGWINCH, signal.SIGCONT):
            loop.remove_signal_handler(number)
        self._write(f"{_PASTES_PLAIN}\r\x1b[K")
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    def _set_up(self) -> None:
        # Also after SIGCONT, since the shell has changed the mode meanwhile.
        tty.setcbreak(self._input, termios.TCSADRAIN)
        self._write(_PASTES_BRACKETED)
        self._draw()

    def show(self, line: str) -> None:
        self._lines.append(line)
        self._show_rows(rows(line, size_of(self._out)[0]))
        self._draw()

    def _show_rows(self, shown: list[str]) -> None:
        self._widths.extend(map(width_of, shown))
        self._write("\r\x1b[K" + clipped("".join(f"{row}\n" for row in shown)))

    def _resized(self) -> None:
        """Show all again that is on the screen: the terminal has broken its rows at another place, and left rests."""
        columns, lines = size_of(self._out)
        taken = sum(max(-(-width // columns), 1) for width in self._widths) + self._cursor // columns
        up = min(taken, lines - 1)
        self._write((f"\x1b[{up}A" if up else "") + "\r\x1b[J")
        self._widths.clear()
        if shown := [row for line in self._lines for row in rows(line, columns)][1 - lines :]:
            self._show_rows(shown)
        self._draw()

    def prompt(self, text: str) -> None:
        self._prompt = text
        self._draw()

    async def lines(self) -> AsyncIterator[bytes]:
        while (line := await self._entered.get()) is not None:
            yield line

    def _typed(self) -> None:
        try:
            octets = os.read(self._input, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            octets = b""  # the terminal is gone
        for done in self._editor.feed(octets) if octets else [Ended()]:
            self._entered.put_nowait(None if isinstance(done, Ended) else done.text.encode())
            if isinstance(done, Ended):
                asyncio.get_running_loop().remove_reader(self._input)
        self._draw()

    def _draw(self) -> None:
        picture, self._cursor = self._editor.picture(self._prompt, size_of(self._out)[0])
        self._write(f"\r\x1b[K{clipped(picture)}\r" + (f"\x1b[{self._cursor}C" if self._cursor else ""))

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that is gone ends the input too
            self._out.write(text)
            self._out.flush()


def can_edit() -> bool:
    """Whether input and output are a terminal that can redraw a line."""
    return os.isatty(_STDIN) and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
