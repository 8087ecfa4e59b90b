"""The signals that end a server, on a thread of their own, which waits neither for the loop nor for disk or log."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from threading import Thread
from time import sleep

ENDING = (signal.SIGTERM, signal.SIGINT)

END_SECONDS = 2.0
"""How long a server may take to end by itself after the signal that ends it at once."""

STATUS = 1
"""Exit status of a server that did not end by itself in this time."""


class EndSignals:
    """Takes SIGTERM and SIGINT. Made on the main thread, before any other thread starts, since these inherit that the
    signals are blocked. A signal that arrives before `serve` is called ends the process."""

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        for number in ENDING:  # a shell starts what it puts into the background with SIGINT ignored
            signal.signal(number, signal.SIG_DFL)
        self._signalled: Callable[[str], bool] | None = None
        Thread(target=self._wait, name="signals", daemon=True).start()

    def serve(self, signalled: Callable[[str], bool]) -> None:
        """From now on, call `signalled` for each signal, with its name, on the thread of the signals. It returns
        whether the server is to end at once: then the process ends soon, whatever any other thread waits for."""
        self._signalled = signalled

    def _wait(self) -> None:
        while True:
            number = signal.sigwait(ENDING)
            if self._signalled is None:
                os._exit(128 + number)
            if self._signalled(signal.Signals(number).name):
                sleep(END_SECONDS)
                os._exit(STATUS)
