"""Clients that break one requirement about accounts or TLS each (SPEC.md, 7.2, 13 and 14)."""

import re
import ssl
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

from protocol import scram
from protocol.frames import Hello
from protocol.scram import ClientExchange
from reference_client import adapter, transport
from reference_client.session import login as login_module
from reference_client.tls import client_context
from tests.mutants.clients import Patch, add, breaks, each, replaces, sends

add(
    "other_header",
    "RW-SCRAM-1",
    sends(each(Hello, lambda f: replace(f, auth=b"y" + f.auth[1:]) if f.auth else f)),
)
add("no_escapes", "RW-SCRAM-1", sends(each(Hello, lambda f: replace(f, auth=f.auth.replace(b"=2C", b"%2C")))))


@breaks("RW-SCRAM-1", "client/13/scram-password-nfc")
def password_as_typed(patch: Patch) -> None:
    plain = scram.salted_password

    def salted(password: str, salt: bytes, iterations: int) -> bytes:
        return plain(unicodedata.normalize("NFKC", password), salt, iterations)

    patch.setattr(login_module, "salted_password", salted)


@breaks("RW-SCRAM-1", "client/13/scram-fresh-nonce")
def same_nonce(patch: Patch) -> None:
    plain = ClientExchange.__init__
    patch.setattr(ClientExchange, "__init__", lambda self, name, nonce: plain(self, name, b"always-the-same-nonce"))


@breaks("RW-SCRAM-3")
def any_iterations(patch: Patch) -> None:
    patch.setattr(scram, "MIN_ITERATIONS", 1)
    patch.setattr(scram, "MAX_ITERATIONS", 2_000_001)


@breaks("RW-SCRAM-3")
def any_challenge(patch: Patch) -> None:
    pattern = rb"(?:m=x,)?r=([^,]*),s=([^,]*),i=([0-9]+)"
    patch.setattr(scram, "_SERVER_FIRST", re.compile(pattern))


@breaks("RW-SCRAM-3")
def answers_anything(patch: Patch) -> None:
    plain = ClientExchange.challenged

    def challenged(self: ClientExchange, data: bytes) -> None:
        try:
            plain(self, data)
        except scram.ScramError:
            plain(self, b"r=" + self._nonce + b"x,s=AAAA,i=4096")

    patch.setattr(ClientExchange, "challenged", challenged)


@breaks("RW-AUTH-1", "client/7.3/challenge-twice")
def overlooks_the_second(patch: Patch) -> None:
    plain = ClientExchange.challenged

    def challenged(self: ClientExchange, data: bytes) -> None:
        if not self._server_first:
            plain(self, data)

    patch.setattr(ClientExchange, "challenged", challenged)
    patch.setattr(login_module.Login, "answer", _once(login_module.Login.answer))


def _once(plain: Any) -> Any:
    def answer(self: Any) -> Any:
        if self._exchange is not None and self._exchange._signature:
            return None
        return plain(self)

    return answer


add("any_signature", "RW-SCRAM-4", replaces(ClientExchange, "verify", lambda self, data: None))
add("any_welcome", "RW-WELCOME-3", replaces(ClientExchange, "verify", lambda self, data: None))


def _context(change: Any) -> Any:
    def apply(patch: Patch) -> None:
        def made(ca: Path | None = None) -> ssl.SSLContext:
            context = client_context(ca)
            change(context)
            return context

        patch.setattr(adapter, "client_context", made)

    return apply


def _older(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2


def _trusting(context: ssl.SSLContext) -> None:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE


def _any_host(context: ssl.SSLContext) -> None:
    context.check_hostname = False


add("older", "RW-TLS-1", _context(_older))
add("no_agreement", "RW-TLS-4", replaces(transport, "objection", lambda tls: ""))
add("trusting", "RW-TLS-5", _context(_trusting))
add("any_host", "RW-TLS-5", _context(_any_host))


@breaks("RW-TLS-1", "client/14/tls")
def no_protocol(patch: Patch) -> None:
    _context(lambda context: context.set_alpn_protocols(["other/1"]))(patch)
    patch.setattr(transport, "objection", lambda tls: "")
