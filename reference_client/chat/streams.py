"""The standard streams of roomwire-chat: closed, full, without a reader."""

import asyncio
import os
import select
import signal
import stat
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import NoReturn, TextIO

UNWRITTEN = 74
"""Exit status of a command whose output could not be written, for example on a full disk (EX_IOERR of sysexits.h)."""

_STDIN = 0
_MAX_LINE = 1 << 24
_CHUNK = 1 << 16
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class InputError(Exception):
    """The standard input ended with an error. `str()` says which."""


def fill_gaps() -> None:
    """Open /dev/null in the place of standard streams that were closed at the start.

    Otherwise a socket would get their number, and be written to by `print`. Reading the standard input is an error.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY)  # gets the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115 - for the life of the process
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8")  # noqa: SIM115


def end_unread() -> NoReturn:
    """End the process as others end whose output nobody reads any more: by SIGPIPE."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGPIPE)
    os._exit(128 + signal.SIGPIPE)  # it is blocked


def drop_output() -> None:
    """Let nothing more be written, as Python does at its end: that would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def ending_unread(out: TextIO) -> Iterator[None]:
    """Raise BrokenPipeError in the current task as soon as `out` is a pipe that nobody reads any more.

    Who only waits for messages would otherwise notice when the next one is written, which may be never.
    """
    loop, task, gone = asyncio.get_running_loop(), asyncio.current_task(), False
    assert task is not None

    def check() -> None:
        nonlocal gone
        poll = select.poll()
        poll.register(out.fileno(), 0)
        loop.remove_reader(out.fileno())
        gone = any(events & select.POLLERR for _, events in poll.poll(0))
        if gone:
            task.cancel()

    is_pipe = stat.S_ISFIFO(os.fstat(out.fileno()).st_mode)
    if is_pipe:
        loop.add_reader(out.fileno(), check)
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise BrokenPipeError from None
        raise
    finally:
        if is_pipe:
            loop.remove_reader(out.fileno())


async def stdin_lines() -> AsyncIterator[bytes]:
    """The lines of the standard input, without line ends, read no faster than they are taken.

    A byte order mark before the first line is dropped. Raises InputError after the last whole line if reading fails.

    A thread reads them, since asyncio cannot wait for every kind of input. It reads from the descriptor and not from
    sys.stdin, whose lock it would still hold when the program ends.
    """
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue(1)

    def read() -> None:
        chunk: bytes | OSError = b"-"
        while chunk and not isinstance(chunk, OSError):
            try:
                chunk = os.read(_STDIN, _CHUNK)
            except OSError as error:
                chunk = error
            try:
                asyncio.run_coroutine_threadsafe(chunks.put(chunk), loop).result()
            except Exception:
                return  # the loop has ended

    threading.Thread(target=read, name="stdin", daemon=True).start()
    rest, begun = b"", False
    while chunk := await chunks.get():
        if isinstance(chunk, OSError):
            raise InputError((chunk.strerror or str(chunk)).lower())
        rest += chunk
        if not begun and len(rest) < len(_BYTE_ORDER_MARK) and _BYTE_ORDER_MARK.startswith(rest):
            continue
        rest, begun = (rest if begun else rest.removeprefix(_BYTE_ORDER_MARK)), True
        *whole, rest = rest.split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r")
        if len(rest) > _MAX_LINE:
            yield rest  # too large for any server, which will refuse it
            rest = b""
    if rest:
        yield rest.removesuffix(b"\r")
