"""TLS for the client (SPEC.md, section 14)."""

import codecs
import ssl
from pathlib import Path

from reference_client.errors import ClientError

ALPN = "roomwire/1"


class TlsError(ClientError):
    """The file of trusted authorities cannot be used."""


def client_context(ca: Path | None = None) -> ssl.SSLContext:
    """A context for TLS 1.3 (RW-TLS-1) that checks the server's certificate and host name (RW-TLS-5).

    `ca` is a PEM file with the authorities to trust; without it, the context trusts those of this machine.
    Raises TlsError.
    """
    try:
        text = ca.read_bytes() if ca else b""
        if text.startswith(codecs.BOM_UTF8):  # which hides the first certificate from OpenSSL
            plain = text.removeprefix(codecs.BOM_UTF8).decode("ascii", "replace").encode("ascii", "replace").decode()
            context = ssl.create_default_context(cadata=plain)
        else:
            context = ssl.create_default_context(cafile=str(ca) if ca else None)
    except (OSError, ssl.SSLError) as error:
        reason = "no certificates in PEM" if isinstance(error, ssl.SSLError) else (error.strerror or str(error)).lower()
        raise TlsError(f"{ca}: expected certificates of authorities, found: {reason}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([ALPN])
    return context


def objection(tls: ssl.SSLObject | None) -> str:
    """Why a connection cannot be used after its TLS handshake, or "" if it can (RW-TLS-4)."""
    if tls is None or tls.selected_alpn_protocol() == ALPN:
        return ""
    return f"the other end speaks TLS, but did not agree on {ALPN}"
