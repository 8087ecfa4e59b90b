"""Lines for a descriptor, written on a thread of their own: a reader that does not read makes nobody wait."""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

MOST_OCTETS = 1024 * 1024
"""Octets that wait to be written. Lines that come then are dropped, counted, and told of later."""

END_SECONDS = 1.0
"""How long the end of the process waits for a reader."""


class LineWriter:
    """Writes lines to a descriptor, in order. Its methods may be called on any thread."""

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0  # lines since the start
        self.tell: Callable[[int], str] | None = None  # makes the line that says how many lines were dropped
        self.failed: Callable[[OSError], None] | None = None  # called on the writer's thread when a write fails
        self._descriptor = descriptor
        self._untold = 0  # lines that were dropped, and no line has told of them
        self._waiting: deque[bytes] = deque()
        self._octets = 0  # of what is waiting
        self._full = False  # since the writer last took what is waiting
        self._broken = False  # the last write failed: the next line is the next attempt
        self._busy = False  # the writer writes
        self._changed = Condition()
        # A daemon: it may never return from a write, and the process ends all the same.
        Thread(target=self._run, name=f"lines-{descriptor}", daemon=True).start()

    def put(self, line: str) -> None:
        """Write a line as soon as the reader takes it. Never waits for the reader."""
        octets = line.encode(errors="backslashreplace") + b"\n"
        with self._changed:
            self._full = self._full or self._octets + len(octets) > MOST_OCTETS
            if self._full:
                self.dropped += 1
                self._untold += 1
                return
            self._waiting.append(octets)
            self._octets += len(octets)
            self._changed.notify_all()

    def finish(self, seconds: float = END_SECONDS) -> bool:
        """Wait until everything is written, or was tried in vain, but at most `seconds`. Returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy and not self._due(), seconds)

    # --- on the writer's thread

    def _run(self) -> None:
        torn = False  # what was written ends within a line
        while True:
            lines, untold = self._take()
            octets = b"\n" * torn + b"".join(lines)
            written, error = self._write(memoryview(octets))
            # The end of the torn line is no line of these, nor is the one that tells of others.
            lost = octets.count(b"\n", max(written, torn)) - bool(untold) if error else 0
            torn = octets[written - 1 : written] != b"\n" if written else torn
            with self._changed:
                self._busy, self._broken = False, error is not None
                self.dropped += lost
                self._untold += lost if error else -untold
                self._changed.notify_all()
            if error is not None and self.failed is not None:
                self.failed(error)

    def _due(self) -> bool:
        return bool(self._waiting) or bool(self._untold and self.tell and not self._broken)

    def _take(self) -> tuple[list[bytes], int]:
        """Wait for lines. Returns them, and how many lines were dropped, if the last of them tells it."""
        with self._changed:
            self._changed.wait_for(self._due)
            lines, untold = list(self._waiting), self._untold if self.tell else 0
            if self.tell and untold:
                lines.append(self.tell(untold).encode(errors="backslashreplace") + b"\n")
            self._waiting.clear()
            self._octets, self._full, self._busy = 0, False, True
            return lines, untold

    def _write(self, octets: memoryview) -> tuple[int, OSError | None]:
        """Write all of it. Returns how much was written, and the error if something was not."""
        written = 0
        while written < len(octets):
            try:
                written += os.write(self._descriptor, octets[written : written + 65536])
            except BlockingIOError:  # another process made the pipe non-blocking
                select.select((), (self._descriptor,), ())
            except OSError as error:
                return written, error
        return written, None
