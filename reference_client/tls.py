"""TLS at the client (SPEC.md, section 14)."""

import ssl
from pathlib import Path

from reference_client.errors import ClientError

ALPN = "roomwire/1"


class TlsError(ClientError):
    """TLS cannot be used as was asked."""


def client_context(ca: Path | None = None) -> ssl.SSLContext:
    """TLS 1.3 (RW-TLS-1) with servers whose certificates are signed by the authorities in the file `ca`, or else by
    those that this machine trusts, and are for the host that is connected to (RW-TLS-5). Raises TlsError."""
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ssl.SSLError) as error:
        reason = "no certificates in PEM" if isinstance(error, ssl.SSLError) else (error.strerror or str(error)).lower()
        raise TlsError(f"{ca}: expected certificates of authorities, found: {reason}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    return context


def objection(tls: ssl.SSLObject | None) -> str:
    """Why a connection cannot be used whose handshake is over, or "" (RW-TLS-4)."""
    if tls is None or tls.selected_alpn_protocol() == ALPN:
        return ""
    return f"the other end speaks TLS, but did not agree on {ALPN}"
