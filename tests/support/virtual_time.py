"""An event loop in virtual time: it jumps to the next timer when nothing else can happen.

Code that waits for time-outs within one process does not wait here, and a busy machine changes nothing. Sockets are
real. While a socket is ready or a thread of an executor works, an iteration takes about as long as on an idle machine,
so that an endless loop still meets its deadline. All code that runs in it must read the loop's clock.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

ITERATION = 2e-5
"""Seconds of virtual time that one iteration of the loop takes."""

_GRACE = 0.001  # real seconds in which the kernel delivers octets between two sockets of this process


class _Selector(selectors.BaseSelector):
    """A selector that moves its loop's time instead of sleeping."""

    def __init__(self, iteration: float) -> None:
        self._iteration = iteration
        self._real = selectors.DefaultSelector()
        self.now = time.monotonic()
        self.at_work = 0  # calls that other threads execute

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += self._iteration
        ready = self._real.select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or self.at_work:
            return self._real.select(None)  # a thread that has finished wakes the loop
        ready = self._real.select(_GRACE)
        if not ready:
            self.now += timeout
        return ready

    def close(self) -> None:
        self._real.close()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with the clock of its selector."""

    def __init__(self, iteration: float) -> None:
        self._virtual = _Selector(iteration)
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Arguments], T], *args: *Arguments
    ) -> "asyncio.Future[T]":
        def done(_: "asyncio.Future[T]") -> None:
            self._virtual.at_work -= 1

        self._virtual.at_work += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(done)
        return future


def run(main: Coroutine[Any, Any, T], iteration: float = ITERATION) -> T:
    """Run a coroutine as `asyncio.run` does, in virtual time. A flood that costs much wants a longer `iteration`."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(iteration)) as runner:
        return runner.run(main)
