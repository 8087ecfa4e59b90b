"""Client mutants about SCRAM-SHA-256 and TLS (SPEC.md, 7.3, 13, 14)."""

import re
import ssl
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

from protocol import scram
from protocol.frames import (
    Auth,
    Hello,
)
from protocol.scram import ClientExchange
from reference_client import adapter, transport
from reference_client.session.login import Login
from reference_client.tls import client_context
from tests.mutants.client.changes import changes, each, receives, replaces, sends
from tests.mutants.clients import ClientMutant, Patch


def _scram_password_nfkc(patch: Patch) -> None:
    plain = scram.salted_password

    def salted(password: str, salt: bytes, iterations: int) -> bytes:
        return plain(unicodedata.normalize("NFKC", password), salt, iterations)

    patch.setattr("reference_client.session.login.salted_password", salted)


def _scram_constant_nonce(patch: Patch) -> None:
    plain = ClientExchange.__init__
    patch.setattr(ClientExchange, "__init__", lambda self, name, nonce: plain(self, name, b"always-the-same-nonce"))


def _scram_any_iteration_count(patch: Patch) -> None:
    patch.setattr(scram, "MIN_ITERATIONS", 1)
    patch.setattr(scram, "MAX_ITERATIONS", 2_000_001)


def _scram_any_challenge(patch: Patch) -> None:
    pattern = rb"(?:m=x,)?r=([^,]*),s=([^,]*),i=([0-9]+)"
    patch.setattr(scram, "_SERVER_FIRST", re.compile(pattern))


def _scram_malformed_challenge(patch: Patch) -> None:
    plain = ClientExchange.challenged

    def challenged(self: ClientExchange, data: bytes) -> None:
        try:
            plain(self, data)
        except scram.ScramError:
            plain(self, b"r=" + self._nonce + b"x,s=AAAA,i=4096")

    patch.setattr(ClientExchange, "challenged", challenged)


def _second_auth_ignored(patch: Patch) -> None:
    plain = ClientExchange.challenged

    def challenged(self: ClientExchange, data: bytes) -> None:
        if not self._server_first:
            plain(self, data)

    patch.setattr(ClientExchange, "challenged", challenged)
    patch.setattr(Login, "answer", _once(Login.answer))


def _once(plain: Any) -> Any:
    """`Login.answer` that answers only the first AUTH."""

    def answer(self: Any) -> Any:
        if self._exchange is not None and self._exchange._signature:
            return None
        return plain(self)

    return answer


def _context(change: Any) -> Any:
    """Changes the TLS context of the client."""

    def apply(patch: Patch) -> None:
        def made(ca: Path | None = None) -> ssl.SSLContext:
            context = client_context(ca)
            change(context)
            return context

        patch.setattr(adapter, "client_context", made)

    return apply


def _tls_1_2_accepted(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2


def _certificate_not_checked(context: ssl.SSLContext) -> None:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE


def _host_name_not_checked(context: ssl.SSLContext) -> None:
    context.check_hostname = False


def _tls_other_alpn(patch: Patch) -> None:
    _context(lambda context: context.set_alpn_protocols(["other/1"]))(patch)
    patch.setattr(transport, "objection", lambda tls: "")


MUTANTS: tuple[ClientMutant, ...] = (
    # 7.3 AUTH
    ClientMutant("auth-ignored", "Does not answer AUTH.", ("RW-AUTH-1",), receives(changes(Auth, lambda f: None))),
    ClientMutant(
        "second-auth-ignored",
        "Does not answer a second AUTH.",
        ("RW-AUTH-1",),
        _second_auth_ignored,
        only=("client/7.3/challenge-twice",),
    ),
    # 13 SCRAM-SHA-256
    ClientMutant(
        "scram-other-gs2-header",
        "Uses another GS2 header.",
        ("RW-SCRAM-1",),
        sends(each(Hello, lambda f: replace(f, auth=b"y" + f.auth[1:]) if f.auth else f)),
    ),
    ClientMutant(
        "scram-comma-badly-escaped",
        "Writes a comma in its name as %2C.",
        ("RW-SCRAM-1",),
        sends(each(Hello, lambda f: replace(f, auth=f.auth.replace(b"=2C", b"%2C")))),
    ),
    ClientMutant(
        "scram-password-nfkc",
        "Puts its password into NFKC.",
        ("RW-SCRAM-1",),
        _scram_password_nfkc,
        only=("client/13/scram-password-nfc",),
    ),
    ClientMutant(
        "scram-constant-nonce",
        "Uses the same nonce for all exchanges.",
        ("RW-SCRAM-1",),
        _scram_constant_nonce,
        only=("client/13/scram-fresh-nonce",),
    ),
    ClientMutant(
        "scram-any-iteration-count", "Accepts any iteration count.", ("RW-SCRAM-3",), _scram_any_iteration_count
    ),
    ClientMutant(
        "scram-any-challenge",
        "Accepts a challenge with a mandatory extension or ill-formed attributes.",
        ("RW-SCRAM-3",),
        _scram_any_challenge,
    ),
    ClientMutant(
        "scram-malformed-challenge", "Answers a malformed challenge.", ("RW-SCRAM-3",), _scram_malformed_challenge
    ),
    ClientMutant(
        "scram-any-signature",
        "Accepts any signature of the server.",
        ("RW-SCRAM-4",),
        replaces(ClientExchange, "verify", lambda self, data: None),
    ),
    ClientMutant(
        "scram-welcome-unverified",
        "Treats the connection as open before it has verified WELCOME.",
        ("RW-WELCOME-3",),
        replaces(ClientExchange, "verify", lambda self, data: None),
    ),
    # 14 Transport
    ClientMutant("tls-1-2-accepted", "Accepts TLS 1.2.", ("RW-TLS-1",), _context(_tls_1_2_accepted)),
    ClientMutant(
        "tls-other-alpn", "Offers another ALPN protocol.", ("RW-TLS-1",), _tls_other_alpn, only=("client/14/tls",)
    ),
    ClientMutant(
        "alpn-not-checked",
        "Uses TLS connections that did not agree on roomwire/1.",
        ("RW-TLS-4",),
        replaces(transport, "objection", lambda tls: ""),
    ),
    ClientMutant(
        "certificate-not-checked", "Accepts any certificate.", ("RW-TLS-5",), _context(_certificate_not_checked)
    ),
    ClientMutant(
        "host-name-not-checked", "Accepts a certificate for any host.", ("RW-TLS-5",), _context(_host_name_not_checked)
    ),
)
