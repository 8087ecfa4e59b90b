"""A `ServerTarget` for code that does not run in an event loop: its loop turns in a thread of its own."""

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from conformance.fuzz.server.network import Sockets
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.verdicts import Crashed
from conformance.server.target import LaunchedServer, ServerTarget

T = TypeVar("T")
_START = 60.0  # seconds after which a start is given up


class Hosted:
    """A target that is started, crashed and drained from another thread."""

    def __init__(self, target: ServerTarget) -> None:
        self.target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="target")
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What a coroutine gives back that runs in the target's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_START)

    def start(self) -> None:
        """Starts the target. Raises Unreachable or Unstartable."""
        self.run(self.target.start())

    def stop(self) -> None:
        """Ends the target, and its loop."""
        try:
            self.run(self.target.stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
            if not self._loop.is_running():
                self._loop.close()

    def restart(self) -> bool:
        """Kills the target and starts it again, where it is one that can be."""
        if not isinstance(self.target, LaunchedServer):
            return False
        self.run(self.target.crash())
        try:
            self.run(self.target.start())
        except (Unreachable, Unstartable) as error:
            raise Crashed(f"it did not start again: {error}") from None
        return True

    def drain(self) -> bool:
        """Tells the target to end (8.6)."""
        if not isinstance(self.target, LaunchedServer):
            return False

        async def now() -> None:
            assert isinstance(self.target, LaunchedServer)
            self.target.drain()

        self.run(now())
        return True

    def network(
        self,
        timeout: float,
        limits: Mapping[str, int],
        receive_buffer: int = 0,
        accounts: Mapping[str, str] = MappingProxyType({}),
    ) -> Sockets:
        """Sockets to the target."""

        def address() -> tuple[str, int]:
            return self.target.host, self.target.port

        died = lambda: self.target.died  # noqa: E731
        return Sockets(address, timeout, limits, self.restart, self.drain, died, receive_buffer, accounts)

    @property
    def pid(self) -> int:
        """The number of the target's process, or 0."""
        program = getattr(self.target, "_program", None)
        return program.pid if program is not None and not self.target.died else 0
