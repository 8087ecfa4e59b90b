"""One transport of a client: asyncio on this side, octets on the other."""

import asyncio
import os
import re
import socket
import ssl
from typing import Protocol, cast

from reference_client.tls import objection


class Owner(Protocol):
    """Who is told what a Transport hears."""

    def transport_up(self, transport: "Transport") -> None: ...

    def data_received(self, transport: "Transport", data: bytes) -> None: ...

    def transport_lost(self, transport: "Transport", text: str) -> None: ...


class Transport(asyncio.Protocol):
    """Passes octets through, and says when it begins and ends."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._inner: asyncio.Transport | None = None
        self._closed = False
        self.objection = ""
        """Why the connection is of no use though the transport is up; then nobody was told of it."""
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
        """Octets that the transport has not been able to write yet."""
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
        """Close when all is written, or after `patience` seconds."""
        if self._inner is not None and not self._closed:
            self._closed = True
            self._inner.close()
            asyncio.get_running_loop().call_later(patience, self._inner.abort)

    def abort(self) -> None:
        if self._inner is not None:
            self._inner.abort()


def reason(error: BaseException) -> str:
    """An error of the operating system in a few words, without numbers and addresses."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS 1.3 with it: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, UnicodeError):
        return "not a name that a host can have"
    if isinstance(error, socket.gaierror):
        return str(error.strerror).lower()
    # Where several addresses were tried, the error's text holds those of all attempts.
    number = re.search(r"\[Errno (\d+)\]", str(error))
    return os.strerror(int(number[1])).lower() if number else str(error) or type(error).__name__
