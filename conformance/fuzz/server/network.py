"""What carries the octets of a script: sockets, or anything else that has these two interfaces."""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from conformance.wire import clock

_NONE: Mapping[str, str] = MappingProxyType({})
_SPARE = 1.5
BUFFERS = 8 * 2**20
"""Octets that the transports between two processes of one host do not hold, where the receiver's buffer is small."""


class Wire(Protocol):
    """One connection to a server."""

    ended: bool
    """The server has closed it, and all that it said has been read."""

    def write(self, octets: bytes) -> None:
        """Hands octets to the transport, which sends them as one segment if it can."""

    def read(self) -> bytes:
        """What has come since the last call; it never waits."""

    def pause(self, paused: bool) -> None:
        """Takes nothing from the transport, or goes on."""

    def eof(self) -> None:
        """Ends this side's stream."""

    def close(self, *, abort: bool = False) -> None:
        """Ends the connection; with `abort` what is under way may be lost."""


class Network(Protocol):
    """Where a server is. A script that needs what a network cannot do is run without that step."""

    settled: bool
    """Whether `wait` returns False only when the server has done all that it will ever do without being asked."""

    limits: Mapping[str, int]
    """Limits of SPEC.md, section 15, by name, that are known to be in force at the server."""

    accounts: Mapping[str, str]
    """Passwords of accounts that the server has, none of which may stop it."""

    waits: bool
    """Whether a script may wait for time-outs."""

    buffers: int
    """Octets that are more than all transports on the way to one client hold together; 0: nobody knows."""

    def connect(self) -> Wire:
        """A new connection. Raises OSError."""

    def now(self) -> float:
        """Seconds of a steady clock."""

    def wait(self, seconds: float) -> bool:
        """Waits until something may have come, at most so long; False if nothing did."""

    def sleep(self, seconds: float) -> bool:
        """Lets time pass, while nothing is read; False where that would be a waste of somebody's time."""

    def restart(self) -> bool:
        """Kills the server and starts it again; False where that cannot be done."""

    def drain(self) -> bool:
        """Tells the server to end as section 8.6 has it; False where that cannot be done."""

    def operate(self, what: str) -> bool:
        """Has the server's operator, or its fate, do something; False where nobody can.

        "fail": the store fails. "revoke": all accounts are gone, until "restore".
        """

    def fault(self) -> str:
        """What went wrong inside of the server, if that can be known, or ""."""


class Socket:
    """A wire of TCP."""

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
        """Writes what it can of what waits."""
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
        """What to wait for, as select.poll has it."""
        return (0 if self._paused or self.ended else select.POLLIN) | (select.POLLOUT if self._out else 0)


def _connected(address: tuple[str, int], timeout: float, receive_buffer: int) -> socket.socket:
    if not receive_buffer:
        return socket.create_connection(address, timeout=timeout)
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # only heeded before it is connected
        made.settimeout(timeout)
        made.connect(address)
    except OSError:
        made.close()
        raise
    return made


class Sockets:
    """A server at an address. `restarts` and `drains` are called where somebody can do that.

    With `receive_buffer`, in octets, connections hold so little that a member which does not read can be left behind.
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
        accounts: Mapping[str, str] = _NONE,
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
