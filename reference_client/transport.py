"""The client's transport: one TCP or TLS connection on asyncio."""

import asyncio
import contextlib
import os
import re
import socket
import ssl
import threading
from typing import Any, Protocol, cast

from aiohappyeyeballs import start_connection

from reference_client.tls import objection

Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]
"""What socket.getaddrinfo returns for each address."""


class Owner(Protocol):
    """The object that a Transport reports to."""

    def transport_up(self, transport: "Transport") -> None:
        """The connection is open."""

    def data_received(self, transport: "Transport", data: bytes) -> None:
        """Octets arrived."""

    def transport_lost(self, transport: "Transport", text: str) -> None:
        """The connection ended; `text` says how."""


class Transport(asyncio.Protocol):
    """Carries octets between asyncio and its owner."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._inner: asyncio.Transport | None = None
        self._closed = False
        self.objection = ""
        """Why the open connection cannot be used, or "". The owner never hears of such a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner = cast(asyncio.Transport, transport)
        connected: socket.socket | None = transport.get_extra_info("socket")
        if connected is not None and connected.family in (socket.AF_INET, socket.AF_INET6):
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.objection = objection(transport.get_extra_info("ssl_object"))
        if self.objection:
            self._inner.abort()
        else:
            self._owner.transport_up(self)

    def data_received(self, data: bytes) -> None:
        self._owner.data_received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        text = "the connection was lost"
        self._owner.transport_lost(self, f"{text}: {reason(exc)}" if isinstance(exc, OSError) else text)

    def write(self, data: bytes) -> None:
        if data and self._inner is not None and not self._inner.is_closing():
            self._inner.write(data)

    @property
    def unwritten(self) -> int:
        """Octets in the write buffer, which the peer has not taken yet."""
        return self._inner.get_write_buffer_size() if self._inner is not None else 0

    def pause_reading(self) -> None:
        if self._inner is not None and not self._inner.is_closing():
            self._inner.pause_reading()

    def resume_reading(self) -> None:
        if self._inner is not None and not self._inner.is_closing():
            self._inner.resume_reading()

    def close(self, patience: float) -> None:
        """Close once everything is written, or after `patience` seconds at most."""
        if self._inner is not None and not self._closed:
            self._closed = True
            self._inner.close()
            asyncio.get_running_loop().call_later(patience, self._inner.abort)

    def abort(self) -> None:
        if self._inner is not None:
            self._inner.abort()


async def opened(host: str, port: int) -> socket.socket:
    """A socket that is connected to the first address of the host that answers. Raises OSError, UnicodeError."""
    try:
        addresses = _look_up(host, port, socket.AI_NUMERICHOST)
    except OSError:
        addresses = await _addresses(host, port)
    return await start_connection(addresses, happy_eyeballs_delay=0.25)


def _look_up(host: str, port: int, flags: int = 0) -> list[Address]:
    return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)]


async def _addresses(host: str, port: int) -> list[Address]:
    """Look up a host's addresses. A lookup that was cancelled goes on, but nothing waits for it.

    The loop's own lookups run in its executor, and the program would not end before a DNS server has answered.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Address]] = loop.create_future()

    def look_up() -> None:
        answer: list[Address] | Exception
        try:
            answer = _look_up(host, port)
        except Exception as error:
            answer = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, answer)

    def settle(answer: list[Address] | Exception) -> None:
        if not found.done():
            found.set_exception(answer) if isinstance(answer, Exception) else found.set_result(answer)

    threading.Thread(target=look_up, name="lookup", daemon=True).start()
    return await found


def reason(error: BaseException) -> str:
    """A connection error in a few words, without error numbers and addresses."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"TLS 1.3 failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, UnicodeError):
        return "not a valid host name"
    if isinstance(error, socket.gaierror):
        return str(error.strerror).lower()
    # After attempts at several addresses, the error's text holds the errors of all of them: take the first.
    number = re.search(r"\[Errno (\d+)\]", str(error))
    return os.strerror(int(number[1])).lower() if number else str(error) or type(error).__name__
