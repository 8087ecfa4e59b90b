"""An event loop in virtual time: it jumps to the next timer when nothing else can happen.

Code that waits for time-outs within one process does not wait here, and a busy machine changes nothing. All code that
runs in it must read the loop's clock. While a socket is ready or a thread of an executor works, an iteration takes
about as long as on an idle machine, so that an endless loop still meets its deadline.

Connections to a server of the same loop are pairs of Unix sockets, which look like TCP to both ends. The kernel keeps
the octets of TCP in flight for a while, even within one machine; a pair hands them over at once. So a loop without a
ready socket knows that none is on its way.
"""

import asyncio
import contextlib
import contextvars
import selectors
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, NamedTuple, TypeVar, TypeVarTuple

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
Address = tuple[str, int]

ITERATION = 2e-5
"""Seconds of virtual time that one iteration of the loop takes."""

_BUFFER = 104 * 1024  # octets that a connection holds on their way; every system allows these


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
        self.now += timeout
        return []

    def close(self) -> None:
        self._real.close()

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()


class _End(socket.socket):
    """One end of a pair, which tells the addresses of TCP."""

    def __init__(self, end: socket.socket, own: Address, other: Address, buffer: int) -> None:
        super().__init__(fileno=end.detach())
        self._own = own
        self._other = other
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        self.setblocking(False)

    def getsockname(self) -> Address:
        return self._own

    def getpeername(self) -> Address:
        return self._other


class _Listening(NamedTuple):
    """Who serves an address of the loop."""

    factory: Callable[[], asyncio.BaseProtocol]
    options: dict[str, Any]
    server: asyncio.Server
    context: contextvars.Context


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with the clock of its selector."""

    def __init__(self, iteration: float) -> None:
        self._virtual = _Selector(iteration)
        self._listening: dict[Address, _Listening] = {}
        self._connected: dict[socket.socket, _End] = {}  # by the sockets that `sock_connect` was given
        self._next_port = 49152
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

    # Connections. The arguments are those of asyncio.

    async def create_server(self, protocol_factory: Any, *where: Any, **options: Any) -> asyncio.Server:
        server = await super().create_server(protocol_factory, *where, **options)
        tls = {name: value for name, value in options.items() if name.startswith("ssl")}
        for listening in server.sockets:
            address = listening.getsockname()[:2]
            self._listening[address] = _Listening(protocol_factory, tls, server, contextvars.copy_context())
        return server

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, *, sock: Any = None, **options: Any
    ) -> Any:
        if sock is None:
            sock = self._connect((host, port), _BUFFER)
            if options.get("ssl"):
                options["server_hostname"] = options.get("server_hostname") or host
        elif sock in self._connected:
            with sock:
                sock = self._connected.pop(sock)
        return await super().create_connection(protocol_factory, sock=sock, **options)

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        twice = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)  # Linux doubles what is set
        self._connected[sock] = self._connect(address[:2], twice // 2)

    def _connect(self, address: Address, buffer: int) -> _End:
        """The end of the client, with at most `buffer` octets on the way to it."""
        listening = self._listening.get(address)
        if listening is None or not listening.server.is_serving():
            raise ConnectionRefusedError(f"nothing listens on {address[0]}:{address[1]} in this event loop")
        self._next_port += 1
        own = "127.0.0.1", self._next_port
        client, server = socket.socketpair()
        accepted = self._accept(listening, _End(server, address, own, buffer))
        self.create_task(accepted, context=listening.context)
        return _End(client, own, address, _BUFFER)

    async def _accept(self, listening: _Listening, end: _End) -> None:
        if not listening.server.is_serving():
            end.close()
            return
        with contextlib.suppress(OSError):  # the client learns of it; TLS may fail
            await self.connect_accepted_socket(listening.factory, end, **listening.options)


def run(main: Coroutine[Any, Any, T], iteration: float = ITERATION) -> T:
    """Run a coroutine as `asyncio.run` does, in virtual time. A flood that costs much wants a longer `iteration`."""
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(iteration)) as runner:
        return runner.run(main)
