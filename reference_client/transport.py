"""The client's transport: one TCP or TLS connection on asyncio."""

import asyncio
import os
import re
import socket
import ssl
from typing import Protocol, cast

from reference_client.tls import objection


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
        self.paused = False

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
            self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
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
