"""The hub on asyncio: sockets, the end of a tick, time, and signals."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import secrets
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator

from reference_server.accounts import AccountsError, AccountsFile, accounts_path
from reference_server.config import Config
from reference_server.core.hub import REFUSED_AT_ONCE, TURN_SECONDS, Hub
from reference_server.core.peer import Peer
from reference_server.net.tls import ALPN, TlsError, agreed, server_context
from reference_server.store.base import Store

log = logging.getLogger("roomwire.server")

HIGH_WATER = 256 * 1024
"""A peer with more octets than this waiting in user space is not written to, nor read."""

RESERVED_DESCRIPTORS = 128
"""Kept for the store, the listener, and connections that are accepted only to be refused."""

BACKLOG = 1024
"""How many connections may wait in the kernel to be accepted."""

ACCEPT_AT_ONCE = 8
"""How many are accepted before anything else is done, which counts for the reserve of descriptors."""


ACCOUNTS_SECONDS = 1.0
"""How often the file of accounts is looked at."""


class ListenError(Exception):
    """The address cannot be listened on. `str()` is one line."""


class PeerProtocol(asyncio.Protocol):
    """One socket: a `peer.Link` whose other side is the transport."""

    __slots__ = ("_hub", "_listener", "_peer", "_transport")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._hub = listener.hub
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._listener.open += 1
        if self._listener.open > self._listener.most:  # with those that are closed, but not yet taken by their peer
            transport.abort()
            return
        transport.set_write_buffer_limits(HIGH_WATER)
        address = transport.get_extra_info("peername")
        self._transport = transport
        self._peer = self._hub.accept(self, address[0] if isinstance(address, tuple) else "")

    def data_received(self, data: bytes) -> None:
        if self._peer is not None:
            self._peer.receive(data, self._hub.now)

    def eof_received(self) -> bool:
        if self._peer is not None:
            self._peer.lost(self._hub.now)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.open -= 1
        if self._peer is not None:
            self._peer.lost(self._hub.now)
        if self._transport is not None:
            self._listener.closing.discard(self._transport)
            _untie(self._transport)
        self._peer = self._transport = None

    def pause_writing(self) -> None:
        if self._peer is not None:
            self._peer.blocked(self._hub.now)

    def resume_writing(self) -> None:
        if self._peer is not None:
            self._peer.unblocked(self._hub.now)

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
            self._listener.closing.add(transport)
            if transport.get_write_buffer_size():
                # A peer that does not read would keep its buffer for ever.
                asyncio.get_running_loop().call_later(self._hub.times.linger, transport.abort)

    def waiting(self) -> int:
        return self._transport.get_write_buffer_size() if self._transport is not None else 0


class TlsGate(asyncio.Protocol):
    """One socket whose TLS handshake is under way. It counts like any other, and has as long as the preface has."""

    __slots__ = ("_address", "_listener", "_opening")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._address = ""
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        listener = self._listener
        listener.open += 1
        address = transport.get_extra_info("peername")
        self._address = address[0] if isinstance(address, tuple) else ""
        if listener.open > listener.most or not listener.hub.addresses.begin_handshake(self._address):
            transport.abort()
            return
        self._opening = asyncio.get_running_loop().create_task(self._open(transport, listener.now()))

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is lost before its handshake has begun: from then on the transport is no longer ours."""
        self._listener.open -= 1
        if self._opening is not None:
            self._opening.cancel()
            self._listener.hub.addresses.end_handshake(self._address)

    async def _open(self, transport: asyncio.Transport, since: float) -> None:
        listener = self._listener
        times, context = listener.hub.times, listener.tls
        assert context is not None
        protocol = TlsProtocol(listener)
        try:
            tls = await asyncio.get_running_loop().start_tls(
                transport, protocol, context, server_side=True,
                ssl_handshake_timeout=min(times.preface, times.handshake), ssl_shutdown_timeout=times.linger,
            )  # fmt: skip
        except OSError as error:  # ssl.SSLError and time-outs are such
            reason = getattr(error, "reason", None) or str(error) or type(error).__name__
            log.info("no TLS", extra={"peer": self._address, "reason": reason})
            return
        finally:
            self._opening = None
            listener.open -= 1
            listener.hub.addresses.end_handshake(self._address)
        if tls is None or tls.is_closing():
            return
        if agreed(tls.get_extra_info("ssl_object")):
            protocol.begin(tls, since)
        else:  # RW-TLS-4
            log.info("no TLS", extra={"peer": self._address, "reason": f"{ALPN} was not agreed on"})
            tls.abort()


class TlsProtocol(PeerProtocol):
    """A socket with TLS. The first octets, and the end, may come before anybody is told that the handshake is over."""

    __slots__ = ("_early",)

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener)
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
        if self._early is None:
            super().connection_lost(exc)


def _untie(transport: asyncio.Transport) -> None:
    """Let a closed transport be freed at once. CPython's refers to itself by the method that reads, so it would stay
    until the collector comes, which is seldom here (`cli`): thousands of connections that come and go would add up."""
    getattr(transport, "__dict__", {}).pop("_read_ready_cb", None)


class Listener:
    """A running server. `open_store` gets the function that runs a callback on the loop, and the failure handler."""

    def __init__(
        self, config: Config, open_store: Callable[[Callable[..., None], Callable[[Exception], None]], Store]
    ) -> None:
        self._config = config
        self.open = 0  # sockets of clients
        self.closing: set[asyncio.Transport] = set()  # of connections that are over, until what they hold is written
        self.most = config.max_connections + REFUSED_AT_ONCE
        self._sweeping = False  # the sweep before is not yet through all peers
        self._sweep_at = 0.0  # when time-outs are looked at next, in seconds of the loop
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._server: asyncio.Server | None = None
        self._store = open_store(self._post, self._failed)
        self.hub = Hub(
            config,
            self._store,
            self,
            time.time_ns() // 1_000_000,
            lambda: secrets.randbits(64),
            f"{config.host}:{config.port}",
        )
        path = accounts_path(config)
        self._accounts = AccountsFile(path) if path else None
        self._accounts_version: tuple[int, bytes] | None = None
        self.tls: ssl.SSLContext | None = None
        self._flush = self._timed_flush if config.metrics_port >= 0 else self.hub.flush

    # --- hub.Host

    def now(self) -> float:
        return self._loop.time()

    def schedule_flush(self) -> None:
        # Runs after the callbacks of all sockets that were readable in this turn of the loop.
        self._loop.call_soon(self._flush)

    def schedule_turns(self) -> None:
        self._loop.call_later(TURN_SECONDS, self.hub.give_turns)

    def _timed_flush(self) -> None:
        begun = time.perf_counter()
        self.hub.flush()
        self.hub.tally.tick_seconds.observe(time.perf_counter() - begun)

    def _post(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed: the process ends, and nobody waits for the answer
            if not self._loop.is_closed():
                raise

    # --- the server's life

    async def start(self) -> tuple[str, int]:
        """Listen; the address and port. Raises ListenError, AccountsError and TlsError."""
        config = self._config
        self._read_accounts()
        self.tls = server_context(config)
        protocol = PeerProtocol if self.tls is None else TlsGate
        try:
            self._server = await self._loop.create_server(
                lambda: protocol(self), config.host, config.port, backlog=ACCEPT_AT_ONCE, reuse_address=True
            )
        except (OSError, OverflowError, UnicodeError) as error:
            raise ListenError(f"cannot listen on {config.host}:{config.port}: {reason_not_to_listen(error)}") from None
        for listening in self._server.sockets:
            # asyncio's backlog is two things, this one and how many it accepts at once, whatever descriptors are left.
            with listening.dup() as same:
                same.listen(BACKLOG)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.hub.address = f"{host}:{port}"
        self._sweep_at = self._loop.time() + self._sweep_seconds
        self._loop.call_at(self._sweep_at, self._sweep)
        self._loop.call_later(ACCOUNTS_SECONDS, self._watch_accounts)
        return host, port

    def _read_accounts(self) -> None:
        if self._accounts is None or (version := self._accounts.version()) == self._accounts_version:
            return
        accounts = self._accounts.read()
        if self._accounts_version is not None or version is not None:
            log.info("accounts read", extra={"accounts": len(accounts.all()) if accounts else 0})
        self._accounts_version = version
        self.hub.use_accounts(accounts)

    def _watch_accounts(self) -> None:
        """Notice what `roomwire-server user` has changed. What cannot be read leaves everything as it was."""
        self._loop.call_later(ACCOUNTS_SECONDS, self._watch_accounts)
        try:
            self._read_accounts()
        except AccountsError as error:
            log.error("the accounts cannot be read", extra={"error": str(error)})

    @property
    def _sweep_seconds(self) -> float:
        config = self._config
        shortest = min(
            config.heartbeat_ms / 2, config.preface_ms, config.handshake_ms, config.frame_ms, config.linger_ms
        )
        return min(0.5, max(0.02, shortest / 4000))

    def _sweep(self) -> None:
        now, due = self._loop.time(), self._sweep_at
        self._sweep_at = now + self._sweep_seconds
        self._loop.call_at(self._sweep_at, self._sweep)  # first: there is no time-out without it
        self.hub.tally.late_seconds.observe(max(0.0, now - due))
        if not self._sweeping:
            self._go_on(self.hub.sweep())

    def _go_on(self, sweep: Iterator[None]) -> None:
        """Sweep a little, and let sockets have their turn before the rest."""
        self._sweeping = False  # unless there is more, and no fault
        for _ in sweep:
            self._sweeping = True
            self._loop.call_soon(self._go_on, sweep)
            return

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT drain; a second one ends at once. SIGHUP reads the certificate anew; where there is none,
        it means the end of the terminal, if the server was started from one, and otherwise nothing."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled, signal.Signals(number).name)
        if self.tls is not None or not os.isatty(0):
            self._loop.add_signal_handler(signal.SIGHUP, self.reload_certificate)

    def _signalled(self, name: str) -> None:
        if self.hub.draining:
            log.warning("ending at once", extra={"signal": name})
            self._end()
        else:
            log.info("draining", extra={"signal": name, "peers": len(self.hub.peers)})
            self.drain()

    def reload_certificate(self) -> None:
        """Use the certificate that is in the files now for connections from now on, or go on with the old one."""
        if not self._config.tls_cert:
            log.info("nothing to read anew: there is no certificate")
            return
        try:
            self.tls = server_context(self._config)
        except TlsError as error:
            log.error("the certificate was not read anew, the old one stays", extra={"error": str(error)})
        else:
            log.info("certificate read anew", extra={"certificate": self._config.tls_cert})

    def drain(self) -> None:
        """Begin to end (section 8.6); `run` returns when it is done."""
        if self._server is not None:
            self._server.close()  # RW-DRAIN-6
        self.hub.drain()
        deadline = self._loop.time() + self._config.drain_ms / 1000
        self._watch_drain(deadline, deadline + self._config.linger_ms / 1000 + 1)

    def _watch_drain(self, deadline: float, last: float) -> None:
        now = self._loop.time()
        if now >= deadline:
            self.hub.finish_drain()
        if not self.hub.peers or now >= last:
            self._end()
        else:
            self._loop.call_later(0.05, self._watch_drain, deadline, last)

    def _failed(self, error: Exception) -> None:
        log.error("the store failed; nothing more is acknowledged", extra={"error": str(error)})
        self.hub.fail(error)
        self._loop.call_later(self._config.linger_ms / 1000, self._end)

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    async def run(self) -> Exception | None:
        """Serve until drained; the error, if the store failed."""
        await self._ended
        self.cut()
        await asyncio.sleep(0)  # which closes the sockets
        self._store.close()
        return self.hub.failed

    def cut(self) -> None:
        """End every connection, whether its peer has read what was written or not, and accept no more."""
        if self._server is not None:
            self._server.close()
        for peer in tuple(self.hub.peers):
            peer.lost(self.hub.now)
        for transport in tuple(self.closing):
            transport.abort()


def allow_connections(wanted: int) -> int:
    """Raise the limit of open descriptors as far as is allowed; how many connections fit below it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else max(1, min(wanted, soft - RESERVED_DESCRIPTORS))


def reason_not_to_listen(error: Exception) -> str:
    """Why an address cannot be listened on, in a few words."""
    if isinstance(error, OSError):
        return "the port is in use" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return str(error)


def port_is_free(host: str, port: int) -> str:
    """ "" if the port can be listened on, else the reason why not."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return ""
