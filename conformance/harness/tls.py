"""TLS of the suite: certificates that it makes for targets, and servers that it trusts (SPEC.md, section 14)."""

import atexit
import datetime
import shutil
import ssl
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from conformance.harness.exit_status import UsageError

ALPN = "roomwire/1"
LOCAL = ("localhost", "127.0.0.1", "::1")


class TlsError(UsageError):
    """A file of certificates is missing or malformed."""


@dataclass(frozen=True)
class Trust:
    """The servers that the suite trusts: those with a certificate of `ca`, a file in PEM, or all without `verify`."""

    ca: Path | None = None
    verify: bool = True

    def context(self, *, alpn: tuple[str, ...] = (ALPN,), most: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """The settings for a connection that offers the protocols `alpn` and TLS up to `most`. Raises TlsError."""
        try:
            context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        except OSError as error:  # ssl.SSLError is one
            raise TlsError(f"{self.ca}: expected certificates in PEM, found {error.strerror or error}") from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if most is None:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        else:
            context.maximum_version = most
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


class Authority:
    """A certificate authority of this run. Its files last as long as the process."""

    def __init__(self) -> None:
        self._ca = trustme.CA(organization_name="roomwire-check")
        here = Path(tempfile.mkdtemp(prefix="roomwire-check-tls-"))
        atexit.register(shutil.rmtree, here, ignore_errors=True)
        self.ca, self.cert, self.key = here / "ca.pem", here / "cert.pem", here / "key.pem"
        leaf = self._ca.issue_cert(*LOCAL)
        self._ca.cert_pem.write_to_path(self.ca)
        self.cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        self.key.write_bytes(_pkcs8(leaf.private_key_pem.bytes()))

    @property
    def trust(self) -> Trust:
        """Trust in this authority alone."""
        return Trust(self.ca)

    def server(
        self, *names: str, alpn: bool = True, expired: bool = False, most: ssl.TLSVersion | None = None
    ) -> ssl.SSLContext:
        """The settings for a server with a certificate for these names, by default those of this host."""
        now = datetime.datetime.now(datetime.UTC)
        end = now - datetime.timedelta(days=1) if expired else now + datetime.timedelta(days=1)
        leaf = self._ca.issue_cert(*(names or LOCAL), not_before=now - datetime.timedelta(days=2), not_after=end)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if most is None:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        else:
            context.maximum_version = most
        if alpn:
            context.set_alpn_protocols([ALPN])
        leaf.configure_cert(context)
        return context


def _pkcs8(pem: bytes) -> bytes:
    """A private key in PKCS#8, the one form that TLS libraries of all languages read."""
    key = serialization.load_pem_private_key(pem, None)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@cache
def authority(name: str = "") -> Authority:
    """The authority of this process, or another one by name."""
    return Authority()
