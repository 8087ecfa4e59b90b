"""A proxy before a server that resets connections as planned."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from types import TracebackType
from typing import Literal, NamedTuple


class Plan(NamedTuple):
    """The fault of one connection: after `octets` in one direction it is reset, or swallows the rest."""

    direction: Literal["up", "down"]
    octets: int
    swallow_seconds: float = 0.0
    """0: reset at once. Otherwise the rest in that direction is swallowed, and the reset comes this much later."""


class Proxy:
    """A proxy before a server. Each connection gets the next plan; with None it is passed on without a fault."""

    def __init__(self, port: Callable[[], int], plan: Callable[[], Plan | None]) -> None:
        self.target = port
        self.plan = plan
        self._server: asyncio.Server | None = None
        self.cuts = 0
        self.halves: set[_Half] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.get_running_loop().create_server(lambda: _Half(self), "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for half in tuple(self.halves):
            half.reset()
        while self.halves:
            await asyncio.sleep(0)

    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])


class _Half(asyncio.Protocol):
    """One side of a connection; `other` is the side towards the server, or back towards the client."""

    def __init__(self, proxy: Proxy, other: _Half | None = None) -> None:
        self.proxy = proxy
        self.other = other
        self.transport: asyncio.Transport | None = None
        self.direction: Literal["up", "down"] = "up" if other is None else "down"
        self.plan: Plan | None = proxy.plan() if other is None else other.plan
        self._passed = 0
        self._done = False
        self._waiting: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.proxy.halves.add(self)
        linger = struct.pack("ii", 1, 0)  # closing resets the connection
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if self.other is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        else:
            for data in self.other._waiting:
                self.other._pass(data)
            self.other._waiting.clear()

    async def _connect(self) -> None:
        other = self.other = _Half(self.proxy, self)
        try:
            await asyncio.get_running_loop().create_connection(lambda: other, "127.0.0.1", self.proxy.target())
        except OSError:
            self.reset()

    def data_received(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self._waiting.append(data)
        else:
            self._pass(data)

    def _pass(self, data: bytes) -> None:
        assert self.other is not None
        plan = self.plan
        if plan is not None and plan.direction == self.direction:
            if self._done:
                return
            allowed = plan.octets - self._passed
            self._passed += len(data)
            if len(data) >= allowed:
                self._done = True
                self._write(data[:allowed])
                if plan.swallow_seconds:
                    asyncio.get_running_loop().call_later(plan.swallow_seconds, self._cut)
                else:
                    self._cut()
                return
        self._write(data)

    def _write(self, data: bytes) -> None:
        assert self.other is not None
        if data and self.other.transport is not None:
            self.other.transport.write(data)

    def _cut(self) -> None:
        self.proxy.cuts += 1
        # The octets passed on must arrive first: resetting a socket discards the octets in its send buffer.
        asyncio.get_running_loop().call_later(0.001, self.reset)

    def reset(self) -> None:
        """Reset the connection on both sides."""
        for half in (self, self.other):
            if half is not None and half.transport is not None:
                half.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.proxy.halves.discard(self)
        if self.other is not None and self.other.transport is not None:
            self.other.transport.abort()
