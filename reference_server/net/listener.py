"""The hub on asyncio: the listening socket, the end of a tick, time, and signals."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator

from reference_server.accounts import accounts_path
from reference_server.config import Config, data_directory
from reference_server.core.credit import ROUND_SECONDS
from reference_server.core.hub import REFUSED_AT_ONCE, Hub
from reference_server.net.accounts_watch import AccountsWatch
from reference_server.net.sockets import ListenError, address_text, reason_not_to_listen
from reference_server.net.tls import TlsError, server_context
from reference_server.net.transport import PeerProtocol, TlsGate
from reference_server.store.base import Store

log = logging.getLogger("roomwire.server")

BACKLOG = 1024
"""How many connections may wait in the kernel to be accepted."""

ACCEPT_AT_ONCE = 8
"""How many are accepted before anything else is done; RESERVED_DESCRIPTORS must be greater."""

CLOSE_SECONDS = 10.0
"""How long the end of the server waits for the store, whose last commit a disk may keep waiting for ever."""

DISK_SECONDS = 1.0
"""How often the disk is asked whether it answers."""


class StoreHung(Exception):
    """The store did not close in time. `str()` is one line."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path}: expected the last commit to end within {CLOSE_SECONDS:.0f} s, found a disk that does not answer; "
            "what was acknowledged is stored"
        )


class Listener:
    """A running server. `open_store` gets the function that runs a callback on the loop, and the failure handler."""

    def __init__(
        self, config: Config, open_store: Callable[[Callable[..., None], Callable[[Exception], None]], Store]
    ) -> None:
        self._config = config
        self.open = 0  # sockets of clients
        self.closing: set[asyncio.Transport] = set()  # of ended connections, until what they hold is written
        self.most = config.max_connections + REFUSED_AT_ONCE
        self._signals = False  # a signal has come
        self._sweeping = False  # the previous sweep has not reached all peers yet
        self._sweep_at = 0.0  # when the next sweep is due, in seconds of the loop
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._server: asyncio.Server | None = None
        self._store = open_store(self._post, self._failed)
        self.hub = Hub(
            config,
            self._store,
            self,
            lambda: secrets.randbits(64),
            address_text(config.host, config.port),
        )
        path = accounts_path(config)
        self.accounts: AccountsWatch | None = None
        if path is not None:
            self.accounts = AccountsWatch(path, self.hub, self._post, named=bool(config.accounts))
        self.tls: ssl.SSLContext | None = None
        self._flush = self._timed_flush if config.metrics_port >= 0 else self.hub.flush

    # --- hub.Host

    def now(self) -> float:
        return self._loop.time()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def schedule_flush(self) -> None:
        # Runs after the callbacks of all sockets that were readable in this turn of the loop.
        self._loop.call_soon(self._flush)

    def schedule_credit(self) -> None:
        self._loop.call_later(ROUND_SECONDS, self.hub.give_credit)

    def _timed_flush(self) -> None:
        begun = time.perf_counter()
        self.hub.flush()
        self.hub.state.counters.tick_seconds.observe(time.perf_counter() - begun)

    def _post(self, callback: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed: the process ends, and nothing waits for the callback
            if not self._loop.is_closed():
                raise

    # --- the server's life

    async def start(self) -> tuple[str, int]:
        """Listen; the address and port. Raises ListenError, AccountsError and TlsError."""
        config = self._config
        if self.accounts is not None:
            self.accounts.start()
        self.tls = server_context(config)
        protocol = PeerProtocol if self.tls is None else TlsGate
        try:
            self._server = await self._loop.create_server(
                lambda: protocol(self), config.host, config.port, backlog=ACCEPT_AT_ONCE, reuse_address=True
            )
        except (OSError, OverflowError, UnicodeError) as error:
            where = address_text(config.host, config.port)
            raise ListenError(f"cannot listen on {where}: {reason_not_to_listen(error)}") from None
        for listening in self._server.sockets:
            # asyncio uses `backlog` for two things: for this, and for how many connections it accepts at once.
            with listening.dup() as same:
                same.listen(BACKLOG)
        host, port = self._server.sockets[0].getsockname()[:2]
        self.hub.state.address = address_text(host, port)
        self._sweep_at = self._loop.time() + self._sweep_seconds
        self._loop.call_at(self._sweep_at, self._sweep)
        self._loop.call_later(DISK_SECONDS, self._watch_disk)
        return host, port

    def _watch_disk(self) -> None:
        self._loop.call_later(DISK_SECONDS, self._watch_disk)
        self.hub.disk.watch(self.now())

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
        self._loop.call_at(self._sweep_at, self._sweep)  # before anything can fail: time-outs depend on it
        self.hub.state.counters.late_seconds.observe(max(0.0, now - due))
        if not self._sweeping:
            self._go_on(self.hub.sweep())

    def _go_on(self, sweep: Iterator[None]) -> None:
        """Sweep a little, and serve sockets before the rest."""
        self._sweeping = False  # stays false if the sweep is complete or raises
        for _ in sweep:
            self._sweeping = True
            self._loop.call_soon(self._go_on, sweep)
            return

    def handle_hangup(self) -> None:
        """SIGHUP reloads the certificate. Without one, it ends a server that was started from a terminal, and is
        ignored otherwise."""
        if self.tls is not None or not os.isatty(0):
            self._loop.add_signal_handler(signal.SIGHUP, self.reload_certificate)

    def signalled(self, name: str) -> bool:
        """A signal is to end the server: the first one drains it, a second one ends it at once. May be called on any
        thread. Returns whether it is to end at once."""
        again, self._signals = self._signals or self.hub.state.draining, True
        log.log(
            logging.WARNING if again else logging.INFO,
            "ending at once" if again else "draining",
            extra={"signal": name, "peers": len(self.hub.peers)},
        )
        self._post(self._end if again else self.drain)
        return again

    def reload_certificate(self) -> None:
        """Use the certificate that is in the files now for new connections; keep the old one if that fails."""
        if not self._config.tls_cert:
            log.info("there is no certificate to reload")
            return
        try:
            self.tls = server_context(self._config)
        except TlsError as error:
            log.error("the certificate was not reloaded, the old one stays", extra={"error": str(error)})
        else:
            log.info("certificate reloaded", extra={"certificate": self._config.tls_cert})

    def drain(self) -> None:
        """Begin to drain (section 8.6); `run` returns when the drain is over."""
        if self._server is not None:
            for listening in self._server.sockets:  # RW-DRAIN-6
                self._loop.remove_reader(listening.fileno())
            # asyncio would forget, and leave open, what it accepted in this iteration.
            self._loop.call_soon(self._server.close)
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
        """Serve until drained. Returns the error if the store failed, or does not answer; otherwise None."""
        await self._ended
        self.cut()
        await asyncio.sleep(0)  # closes the sockets
        if self.hub.failed is None:
            self.hub.state.note_clock()
        closing = threading.Thread(target=self._store.close, name="store-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        if closing.is_alive():
            return self.hub.failed or StoreHung(str(data_directory(self._config)))
        return self.hub.failed

    def cut(self) -> None:
        """Close every connection, also if its peer has not read all that was written, and accept no more."""
        if self.accounts is not None:
            self.accounts.stop()
        if self._server is not None:
            self._server.close()
        for peer in tuple(self.hub.peers):
            peer.lost(self.hub.state.now)
        for transport in tuple(self.closing):
            transport.abort()
