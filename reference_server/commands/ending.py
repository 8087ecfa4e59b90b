"""SIGTERM, SIGHUP and Ctrl-C while a command works: it leaves nothing half made, and prints one line.

A signal that was ignored when the command began (nohup) stays so.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread
from typing import Any, Self

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Ended(BaseException):
    """A signal of this number ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _handled(handler: Callable[[int, object], Any]) -> Iterator[None]:
    numbers = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def ends() -> Iterator[Callable[[], None]]:
    """A signal raises Ended in the block; further ones are ignored. Yields a function after whose call all are ignored:
    what is then committed is also told."""

    def ignore() -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)

    def end(number: int, frame: object) -> None:
        ignore()
        raise Ended(number)

    with _handled(end):
        yield ignore


class Ending:
    """Whether a signal has asked the command to end: for what cannot be interrupted at any point."""

    def __init__(self) -> None:
        self._number = 0
        self._block = ExitStack()

    def __enter__(self) -> Self:
        self._block.enter_context(_handled(self._ask))
        return self

    def __exit__(self, *error: object) -> None:
        self._block.close()

    def _ask(self, number: int, frame: object) -> None:
        self._number = self._number or number

    def asked(self) -> bool:
        return self._number != 0

    def check(self) -> None:
        """Raises Ended if a signal has asked: for what stops by an exception, where it leaves nothing half made."""
        if self._number:
            raise Ended(self._number)

    def how_ended(self, what: str) -> tuple[str, int]:
        return how_ended(self._number, what)


@contextmanager
def ends_at_once(fail: Callable[[str, int], int], what: str) -> Iterator[None]:
    """A signal ends the process in the block, also within a long call of SQLite, for what leaves a whole store whenever
    it is killed. Calls `fail` on another thread with the line and the exit status."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def watch() -> None:
        while number := ours.recv(1)[0]:
            if number in _SIGNALS:
                os._exit(fail(*how_ended(number, what)))

    watching = Thread(target=watch, daemon=True)
    with ours, theirs, _handled(lambda number, frame: None):
        before = signal.set_wakeup_fd(theirs.fileno())
        watching.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            theirs.send(b"\0")
            watching.join()


def how_ended(number: int, what: str) -> tuple[str, int]:
    """The line that says so, and the exit status: that of a program which the signal ends."""
    return f"ended by {signal.Signals(number).name}: {what}", 128 + number
