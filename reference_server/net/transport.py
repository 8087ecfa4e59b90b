"""Sockets of clients on asyncio, in clear text or with TLS: each is the `peer.Link` of one peer."""

from __future__ import annotations

import asyncio
import logging
import ssl
import traceback
from typing import Protocol

from reference_server.core.hub import Hub
from reference_server.core.peer import Peer
from reference_server.net.tls import ALPN, agreed

log = logging.getLogger("roomwire.server")

HIGH_WATER = 256 * 1024
"""While more octets than this wait for one peer in user space, it is neither written to nor read."""


class Acceptor(Protocol):
    """The listener, as far as a socket that it accepted needs it."""

    hub: Hub
    open: int
    """Sockets of clients."""
    most: int
    """How many of these there may be."""
    closing: set[asyncio.Transport]
    """Transports of ended connections that still hold octets to be written."""
    tls: ssl.SSLContext | None

    def now(self) -> float:
        """Seconds of the loop's clock."""


class PeerProtocol(asyncio.Protocol):
    """One socket: a `peer.Link` whose other side is the transport."""

    __slots__ = ("_acceptor", "_peer", "_transport")

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._acceptor.open += 1
        if self._acceptor.open > self._acceptor.most:  # counts those that are closed and still hold octets
            transport.abort()
            return
        transport.set_write_buffer_limits(HIGH_WATER)
        address = transport.get_extra_info("peername")
        self._transport = transport
        self._peer = self._acceptor.hub.accept(self, address[0] if isinstance(address, tuple) else "")

    def data_received(self, data: bytes) -> None:
        if self._peer is not None:
            self._peer.receive(data, self._acceptor.now())

    def eof_received(self) -> bool:
        if self._peer is not None:
            self._peer.lost(self._acceptor.now())
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._acceptor.open -= 1
        transport, self._transport = self._transport, None  # a lost TLS transport cannot say how much it holds
        if self._peer is not None:
            self._peer.lost(self._acceptor.now())
            self._peer = None
        if transport is not None:
            self._acceptor.closing.discard(transport)
            _untie(transport)

    def pause_writing(self) -> None:
        if self._peer is not None:
            self._peer.blocked(self._acceptor.now())

    def resume_writing(self) -> None:
        if self._peer is not None:
            self._peer.unblocked(self._acceptor.now())

    # --- peer.Link

    def write(self, octets: bytes) -> None:
        if self._transport is not None:
            self._transport.write(octets)

    def pause_reading(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        transport = self._transport
        if transport is not None:
            transport.close()
            self._acceptor.closing.add(transport)
            if transport.get_write_buffer_size():
                # Otherwise the buffer of a peer that does not read would stay for ever.
                linger = self._acceptor.hub.state.times.linger
                asyncio.get_running_loop().call_later(linger, self._give_up, transport)

    def _give_up(self, transport: asyncio.Transport) -> None:
        if transport in self._acceptor.closing:  # a transport of asyncio that is lost cannot be aborted
            transport.abort()

    def waiting(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0


class TlsGate(asyncio.Protocol):
    """One socket during its TLS handshake. It counts like any other, and has as much time as the preface."""

    __slots__ = ("_acceptor", "_address", "_opening")

    def __init__(self, acceptor: Acceptor) -> None:
        self._acceptor = acceptor
        self._address = ""
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        acceptor = self._acceptor
        acceptor.open += 1
        address = transport.get_extra_info("peername")
        self._address = address[0] if isinstance(address, tuple) else ""
        if acceptor.open > acceptor.most or not acceptor.hub.state.addresses.begin_handshake(self._address):
            transport.abort()
            return
        self._opening = asyncio.get_running_loop().create_task(self._open(transport, acceptor.now()))

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is lost before its handshake has begun. Afterwards asyncio reports to the TlsProtocol instead."""
        self._acceptor.open -= 1
        if self._opening is not None:
            self._opening.cancel()
            self._acceptor.hub.state.addresses.end_handshake(self._address)

    async def _open(self, transport: asyncio.Transport, since: float) -> None:
        acceptor = self._acceptor
        times, context = acceptor.hub.state.times, acceptor.tls
        assert context is not None
        protocol = TlsProtocol(acceptor, transport)
        try:
            tls = await asyncio.get_running_loop().start_tls(
                transport, protocol, context, server_side=True,
                ssl_handshake_timeout=min(times.preface, times.handshake), ssl_shutdown_timeout=times.linger,
            )  # fmt: skip
        except OSError as error:  # includes ssl.SSLError and time-outs
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            log.info("no TLS", extra={"peer": self._address, "reason": reason})
            _forget(error)
            asyncio.get_running_loop().call_soon(_untie, transport)  # it is closed by now
            return
        finally:
            self._opening = None
            acceptor.open -= 1
            acceptor.hub.state.addresses.end_handshake(self._address)
        if tls is None or tls.is_closing():
            return
        if agreed(tls.get_extra_info("ssl_object")):
            protocol.begin(tls, since)
        else:  # RW-TLS-4
            log.info("no TLS", extra={"peer": self._address, "reason": f"{ALPN} was not agreed on"})
            tls.abort()


class TlsProtocol(PeerProtocol):
    """A socket with TLS. Octets, and the end of the stream, may arrive before `begin`, which follows the handshake."""

    __slots__ = ("_early", "_raw")

    def __init__(self, acceptor: Acceptor, raw: asyncio.Transport) -> None:
        super().__init__(acceptor)
        self._raw = raw  # the transport below TLS
        self._early: bytes | None = b""

    def begin(self, transport: asyncio.Transport, since: float) -> None:
        """The handshake is over; the socket was accepted at `since`."""
        early, self._early = self._early, None
        self.connection_made(transport)
        if self._peer is not None:
            self._peer.conn.accepted_at(since)
            if early:
                self.data_received(early)

    def data_received(self, data: bytes) -> None:
        if self._early is None:
            super().data_received(data)
        else:
            self._early += data

    def connection_lost(self, exc: Exception | None) -> None:
        _untie(self._raw)
        if self._early is None:
            super().connection_lost(exc)


def _forget(error: BaseException) -> None:
    """Let what a failed handshake holds, some 25 KiB, be freed at once. The frames of its traceback refer to the error,
    so all of it would stay until the garbage collector runs, which is seldom (`cli`)."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen.__traceback__, seen = None, seen.__context__


def _untie(transport: asyncio.Transport) -> None:
    """Let a closed transport be freed at once. CPython's refers to itself through the methods that read and write, so
    it would stay until the garbage collector runs, which is seldom (`cli`), and thousands of them would add up."""
    for name in ("_read_ready_cb", "_write_ready"):
        getattr(transport, "__dict__", {}).pop(name, None)
