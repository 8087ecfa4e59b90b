"""The standard streams of a command: closed ones are replaced, and a reader that is gone ends the command quietly."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

UNWRITTEN = 74
"""Exit status of a command whose output could not be written, for example on a full disk (EX_IOERR of sysexits.h)."""


class OutputError(Exception):
    """Standard output takes nothing more. No OSError, so that no command takes it for an error of its own files."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"standard output cannot be written: {(cause.strerror or str(cause)).lower()}")
        self.reader_gone = isinstance(cause, BrokenPipeError)


class _Output(io.FileIO):
    """Standard output. The first error is raised as OutputError, and what comes after it is dropped."""

    _gone = False

    def write(self, octets: object, /) -> int:
        if self._gone:
            return memoryview(octets).nbytes  # type: ignore[arg-type]
        try:
            return super().write(octets)  # type: ignore[arg-type]
        except OSError as error:
            self._gone = True
            raise OutputError(error) from None


class _Errors(io.FileIO):
    """Standard error. What cannot be written is dropped: the exit status still says how the command ended."""

    def write(self, octets: object, /) -> int:
        try:
            return super().write(octets)  # type: ignore[arg-type]
        except OSError:
            return memoryview(octets).nbytes  # type: ignore[arg-type]


@contextmanager
def standard_streams() -> Iterator[None]:
    """For the time of a command. Ends the process if standard output cannot be written: by SIGPIPE, as other programs,
    if its reader is gone, otherwise with one line and the status UNWRITTEN.

    Streams that somebody has put in the place of the process's own are left alone.
    """
    _fill_gaps()
    if sys.stdout is sys.__stdout__ and sys.stderr is sys.__stderr__:
        sys.stdout, sys.stderr = _wrapped("stdout", _Output), _wrapped("stderr", _Errors)
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OutputError as error:
        if error.reader_gone:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)
        print(f"roomwire-server: {error}", file=sys.stderr)
        raise SystemExit(UNWRITTEN) from None


def _fill_gaps() -> None:
    """Open /dev/null in the place of descriptors that were closed at the start: a socket or a file that got number 1
    or 2 would be written to by whatever prints."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "r" if name == "stdin" else "w")  # noqa: SIM115 - for the life of the process
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _wrapped(name: str, kind: type[io.FileIO]) -> TextIO:
    stream: TextIO = getattr(sys, name)
    raw = kind(stream.fileno(), "w", closefd=False)
    at_once = stream.isatty() or kind is _Errors
    return io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "backslashreplace", line_buffering=at_once)
