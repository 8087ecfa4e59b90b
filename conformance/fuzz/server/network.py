"""What carries the octets of a script: sockets, or anything else that has the interfaces `Network` and `Wire`."""

import asyncio
import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.verdicts import Crashed
from conformance.server.target import LaunchedServer, ServerTarget
from conformance.wire import clock

T = TypeVar("T")
_NO_ACCOUNTS: Mapping[str, str] = MappingProxyType({})
_SPARE = 1.5  # seconds
_START = 60.0  # seconds after which a start is given up
BUFFERS = 8 * 2**20
"""More octets than the transports between two processes of a host hold, where the receiver's buffer is small."""


class Wire(Protocol):
    """One connection to a server."""

    ended: bool
    """Whether the server has closed the connection, and all that it said has been read."""

    def write(self, octets: bytes) -> None:
        """Hands octets to the transport, which sends them in one segment if it can."""

    def read(self) -> bytes:
        """Returns what has come since the last call, without waiting."""

    def pause(self, paused: bool) -> None:
        """Stops reading from the transport, or goes on."""

    def eof(self) -> None:
        """Ends this side's stream."""

    def close(self, *, abort: bool = False) -> None:
        """Ends the connection. With `abort` octets that are under way may be lost."""


class Network(Protocol):
    """The way to a server. Steps that need what a network cannot do are passed over."""

    settled: bool
    """Whether `wait` returns False only after the server has done all that it does without being asked."""

    limits: Mapping[str, int]
    """Limits of SPEC.md, section 15, by name, that are known to be in force at the server."""

    accounts: Mapping[str, str]
    """Passwords of accounts that the server has, none of which may stop it."""

    waits: bool
    """Whether a script may wait for time-outs."""

    buffers: int
    """More octets than all transports on the way to a client hold together; 0 if that is not known."""

    def connect(self) -> Wire:
        """Makes a connection. Raises OSError."""

    def now(self) -> float:
        """Seconds of a steady clock."""

    def wait(self, seconds: float) -> bool:
        """Waits until something may have come, at most `seconds`. Returns False if nothing did."""

    def sleep(self, seconds: float) -> bool:
        """Lets time pass while nothing is read. Returns False where a run has no time for that."""

    def restart(self) -> bool:
        """Kills the server and starts it again. Returns False where that cannot be done."""

    def drain(self) -> bool:
        """Tells the server to drain (SPEC.md, section 8.6). Returns False where that cannot be done."""

    def operate(self, what: str) -> bool:
        """Does what only an operator or chance can do. Returns False where that cannot be done.

        "fail": the store fails. "revoke": all accounts are removed until "restore".
        """

    def fault(self) -> str:
        """Returns what went wrong inside the server, if that can be known, or ""."""


class Socket:
    """A wire over TCP."""

    def __init__(self, network: "Sockets", address: tuple[str, int]) -> None:
        self.ended = False
        self._network = network
        self._out = bytearray()
        self._eof = False
        self._paused = False
        self._socket = _connected(address, network.timeout, network.receive_buffer)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        network.open[self._socket.fileno()] = self

    def write(self, octets: bytes) -> None:
        self._out += octets
        self.flush()

    def flush(self) -> None:
        """Sends as much as possible of what waits to be sent."""
        try:
            while self._out:
                sent = self._socket.send(self._out)
                del self._out[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()
        if self._eof and not self._out:
            self._eof = False
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)

    def read(self) -> bytes:
        if self._paused or self.ended:
            return b""
        got = bytearray()
        try:
            while data := self._socket.recv(262_144):
                got += data
                if len(got) > 2**20:
                    return bytes(got)
            self.ended = True
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        return bytes(got)

    def pause(self, paused: bool) -> None:
        self._paused = paused

    def eof(self) -> None:
        self._eof = True
        self.flush()

    def close(self, *, abort: bool = False) -> None:
        self._network.open.pop(self._socket.fileno(), None)
        if abort:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
        self.ended = True

    @property
    def events(self) -> int:
        """The events to wait for, as in select.poll."""
        return (0 if self._paused or self.ended else select.POLLIN) | (select.POLLOUT if self._out else 0)


def _connected(address: tuple[str, int], timeout: float, receive_buffer: int) -> socket.socket:
    if not receive_buffer:
        return socket.create_connection(address, timeout=timeout)
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # has an effect only before connect
        made.settimeout(timeout)
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made


class Sockets:
    """The way to a server at an address. `restarts` and `drains` say whether they could be done.

    With `receive_buffer`, in octets, connections hold so little that a member that does not read can be left behind.
    """

    settled = False

    def __init__(
        self,
        address: Callable[[], tuple[str, int]],
        timeout: float,
        limits: Mapping[str, int],
        restarts: Callable[[], bool] = lambda: False,
        drains: Callable[[], bool] = lambda: False,
        died: Callable[[], str] = lambda: "",
        receive_buffer: int = 0,
        accounts: Mapping[str, str] = _NO_ACCOUNTS,
    ) -> None:
        self.timeout = timeout
        self.receive_buffer = receive_buffer
        self.accounts = accounts
        self.waits = False
        self.spare = _SPARE if receive_buffer else 0.0  # seconds that a script may let pass
        self.buffers = BUFFERS if receive_buffer else 0
        self.limits = limits
        self.open: dict[int, Socket] = {}
        self._address = address
        self._restarts = restarts
        self._drains = drains
        self._died = died

    def connect(self) -> Socket:
        return Socket(self, self._address())

    def now(self) -> float:
        return clock.now()

    def wait(self, seconds: float) -> bool:
        poll = select.poll()
        for number, wire in self.open.items():
            if events := wire.events:
                poll.register(number, events)
        ready = poll.poll(max(0, seconds) * 1000)
        for number, event in ready:
            if event & select.POLLOUT:
                self.open[number].flush()
        return bool(ready)

    def sleep(self, seconds: float) -> bool:
        slept = min(seconds, self.spare)
        self.spare -= slept
        time.sleep(slept)
        return slept > 0

    def restart(self) -> bool:
        return self._restarts()

    def drain(self) -> bool:
        return self._drains()

    def operate(self, what: str) -> bool:
        return False

    def fault(self) -> str:
        return self._died()

    def close(self) -> None:
        """Ends all connections."""
        for wire in list(self.open.values()):
            wire.close(abort=True)


class Hosted:
    """A target for code that does not run in an event loop: its loop runs in a thread of its own."""

    def __init__(self, target: ServerTarget) -> None:
        self.target = target
        self._stopped = asyncio.Event()
        hosting = Future[asyncio.AbstractEventLoop]()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._host(hosting)), daemon=True, name="target")
        self._thread.start()
        self._loop = hosting.result()

    async def _host(self, hosting: Future[asyncio.AbstractEventLoop]) -> None:
        hosting.set_result(asyncio.get_running_loop())
        await self._stopped.wait()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the target's loop and returns its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_START)

    def start(self) -> None:
        """Starts the target. Raises Unreachable or Unstartable."""
        self.run(self.target.start())

    def stop(self) -> None:
        """Stops the target and its loop."""
        try:
            self.run(self.target.stop())
        finally:
            self._loop.call_soon_threadsafe(self._stopped.set)
            self._thread.join(5)

    def restart(self) -> bool:
        """Kills the target and starts it again, if this program started it. Raises Crashed."""
        if not isinstance(self.target, LaunchedServer):
            return False
        self.run(self.target.crash())
        try:
            self.run(self.target.start())
        except (Unreachable, Unstartable) as error:
            raise Crashed(f"it did not start again: {error}") from None
        return True

    def drain(self) -> bool:
        """Tells the target to drain, if this program started it (SPEC.md, section 8.6)."""
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
        accounts: Mapping[str, str] = _NO_ACCOUNTS,
    ) -> Sockets:
        """Returns the way to the target."""

        def address() -> tuple[str, int]:
            return self.target.host, self.target.port

        died = lambda: self.target.died  # noqa: E731
        return Sockets(address, timeout, limits, self.restart, self.drain, died, receive_buffer, accounts)

    @property
    def pid(self) -> int:
        """The number of the target's process, or 0."""
        program = getattr(self.target, "_program", None)
        return program.pid if program is not None and not self.target.died else 0
