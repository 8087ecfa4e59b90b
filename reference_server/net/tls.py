"""TLS at the server (SPEC.md, section 14): its certificate, and when clear text is allowed."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from asyncio import sslproto
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from reference_server.config import Config, ConfigError

ALPN = "roomwire/1"

BUFFER = 16 * 1024
"""Octets of asyncio's buffer for decryption, for each connection: one record. By default it is 16 times as much."""


class TlsError(Exception):
    """The certificate or its key cannot be used. `str()` is one line."""


def server_context(config: Config) -> ssl.SSLContext | None:
    """The context with the certificate that is in the files now, or None for clear text. Raises TlsError."""
    if not config.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # RW-TLS-1
    context.set_alpn_protocols([ALPN])
    context.num_tickets = 0  # sessions are resumed by their cursors: no client uses tickets
    try:
        with _without_mark(config.tls_cert) as cert, _without_mark(config.tls_key or config.tls_cert) as key:
            context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None)
        expected = "a certificate and its private key in PEM"
        found = {"KEY_VALUES_MISMATCH": "the key of another certificate", None: "neither, or not both"}.get(
            reason, str(error) if reason is None else reason.replace("_", " ").lower()
        )
        if isinstance(error, ValueError) and not isinstance(error, ssl.SSLError):
            found = str(error)
        where = f"{config.tls_cert} and {config.tls_key}" if config.tls_key else config.tls_cert
        raise TlsError(f"{where}: expected {expected}, found {found}") from None
    sslproto.SSLProtocol.max_size = BUFFER
    return context


@contextmanager
def _without_mark(path: str) -> Iterator[str]:
    """A path to what is in the file, without the byte order mark that some editors put first: OpenSSL does not see the
    first block of such a file. Raises TlsError."""
    try:
        octets = Path(path).read_bytes()
    except OSError as error:
        raise TlsError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None
    if not octets.startswith(BOM_UTF8):
        yield path
        return
    with NamedTemporaryFile() as copy:  # only this user can read it
        copy.write(octets.removeprefix(BOM_UTF8))
        copy.flush()
        yield copy.name


def _no_password() -> str:
    raise ValueError("a key with a password")


def agreed(tls: ssl.SSLObject | None) -> bool:
    """Whether the handshake agreed on ALPN, or there was none: OpenSSL also goes on without a protocol (RW-TLS-4)."""
    return tls is None or tls.selected_alpn_protocol() == ALPN


def require_secrecy(config: Config) -> None:
    """RW-TLS-2: refuse clear text on addresses that other hosts reach, unless `insecure` is set. Raises ConfigError."""
    if config.tls_key and not config.tls_cert:
        raise ConfigError("tls_key: expected tls_cert with it, found none")
    if config.tls_cert or config.insecure:
        return
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, OverflowError):
        return  # listening will fail as well, and will say why
    addresses = [str(address[4][0]) for address in found]
    if not all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses):
        raise ConfigError(
            f"host: expected an address of this host alone, found {config.host}: for others to connect give --tls-cert "
            "and --tls-key, or --insecure to let passwords and messages go in clear text"
        )
