"""Servers that break one rule about accounts, SCRAM-SHA-256, STOP or TLS (SPEC.md, 7.3, 7.20, 13, 14)."""

import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol import scram
from protocol.frames import Auth, Error, Goaway, Hello, Message, Ok, Stop, Welcome
from protocol.names import key as key_of
from protocol.registry import Code, Flag
from protocol.scram import ScramError, ServerExchange, StoredKeys
from reference_server.accounts import Accounts
from reference_server.core.handlers.hello import Handshake
from reference_server.core.handlers.stop import Stopper
from reference_server.core.hub import Hub
from reference_server.core.peer import Peer
from reference_server.net import listener, tls, transport
from tests.mutants.server_changes import broken, of, recoded
from tests.mutants.servers import Alteration, Heard, Piece

Patch = pytest.MonkeyPatch


def _broken(name: str, *breaks: str, **how: Any) -> None:
    broken(name, *breaks, accounts=True, **how)


def _patches(owner: Any, name: str, value: Any) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(owner, name, value)


# --- names


_broken(
    "grants another name than the account's", "RW-SCRAM-6",
    says=of(Welcome, lambda f: replace(f, name=f.name.lower()) if f.flags & Flag.VERIFIED else f),
)  # fmt: skip
_broken("verifies no account", "RW-SASL-4", says=of(Welcome, lambda f: replace(f, flags=f.flags & ~Flag.VERIFIED)))
_broken(
    "verifies no account's messages", "RW-MESSAGE-2",
    says=of(Message, lambda f: replace(f, flags=f.flags & ~Flag.VERIFIED)),
)  # fmt: skip
_broken(
    "lets guests have any name", "RW-SASL-5",
    patch=_patches(Handshake, "_guest", lambda self, peer, hello, name: self._welcome(peer, hello, name)),
)  # fmt: skip


def _tilde_for_accounts(self: Handshake, peer: Peer, hello: Hello, name: str) -> None:
    accounts = self._hub.accounts
    taken = accounts is not None and accounts.find(key_of(name)) is not None
    self._welcome(peer, hello, f"~{name}" if taken else name)


_broken(
    "sets apart only guests with an account's name",
    "RW-SASL-5",
    patch=_patches(Handshake, "_guest", _tilde_for_accounts),
)


def _cuts_long_names(self: Handshake, peer: Peer, hello: Hello, name: str) -> None:
    self._welcome(peer, hello, name if name.startswith("~") else f"~{name}"[:64])


_broken("cuts long names of guests", "RW-SASL-5", patch=_patches(Handshake, "_guest", _cuts_long_names))


# --- the exchange


def _finds_exactly(patch: Patch) -> None:
    find = Accounts.find

    def exactly(self: Accounts, key: str) -> Any:
        return find(self, key)

    plain = ServerExchange.__init__

    def init(self: ServerExchange, data: bytes) -> None:
        plain(self, data)
        if self.name not in ("Ada", "a,b=c", "Zoë", "ops"):
            self.name += "?"

    patch.setattr(ServerExchange, "__init__", init)
    patch.setattr(Accounts, "find", exactly)
    patch.setattr(
        "reference_server.core.handlers.hello.key_of", lambda name: key_of(name.removesuffix("?")) + "?" * ("?" in name)
    )


_broken("finds accounts by their very spelling", "RW-SCRAM-5", patch=_finds_exactly)


def _no_escapes(patch: Patch) -> None:
    patch.setattr(scram, "_unescaped", lambda name: name.decode(errors="replace"))


_broken("does not know =2C and =3D", "RW-SCRAM-5", patch=_no_escapes)


def _two_names(self: Handshake, peer: Peer, hello: Hello, name: str) -> None:
    plain_challenge(self, peer, hello, ServerExchange(hello.auth).name)


plain_challenge = Handshake._challenge
_broken("does not mind another name in HELLO", "RW-SCRAM-5", patch=_patches(Handshake, "_challenge", _two_names))


def _random_salt(self: Accounts, key: str) -> StoredKeys:
    import os

    return StoredKeys(os.urandom(16), self.iterations, bytes(32), bytes(32))


_broken("makes up another salt each time", "RW-SCRAM-2", patch=_patches(Accounts, "nobodys_keys", _random_salt))
_broken(
    "has one salt for strangers", "RW-SCRAM-2",
    patch=_patches(Accounts, "nobodys_keys", lambda self, key: StoredKeys(b"x" * 16, 4096, bytes(32), bytes(32))),
)  # fmt: skip
_broken(
    "has another iteration count for strangers", "RW-SCRAM-2",
    patch=_patches(Accounts, "nobodys_keys", lambda self, key: StoredKeys(self.salt(key), 5000, bytes(32), bytes(32))),
)  # fmt: skip
_broken(
    "has longer salts for strangers", "RW-SCRAM-2",
    patch=_patches(
        Accounts, "nobodys_keys", lambda self, key: StoredKeys(self.salt(key) * 2, 4096, bytes(32), bytes(32))
    ),
)  # fmt: skip


def _tells_strangers(self: Handshake, peer: Peer, name: str, reason: str) -> None:
    accounts = self._hub.accounts
    known = accounts is not None and accounts.find(key_of(name)) is not None
    self._refuse(peer, Code.AUTH_FAILED, "wrong password" if known else "no such account")


_broken("says whether there is such an account", "RW-SCRAM-2", patch=_patches(Handshake, "_fail", _tells_strangers))


def _lets_in(patch: Patch) -> None:
    """Whatever the proof, and whatever the messages look like."""
    plain = ServerExchange.final

    def final(self: ServerExchange, data: bytes) -> bytes:
        try:
            return plain(self, data)
        except ScramError:
            return b"v=" + b"A" * 43 + b"="

    patch.setattr(ServerExchange, "final", final)


_broken("lets everybody in", "RW-SCRAM-7", patch=_lets_in)


def _first_is(pattern: bytes) -> Callable[[Patch], None]:
    import re

    return _patches(scram, "_CLIENT_FIRST", re.compile(pattern, re.DOTALL))


_broken("takes any header", "RW-SCRAM-7", patch=_first_is(rb"(?:.*?,,)?(n=([^,\0]+),r=([!-+\--~]+))"))
_broken(
    "takes what stands before the name", "RW-SCRAM-7", patch=_first_is(rb"n,,((?:m=x,)?n=([^,\0]+),r=([!-+\--~]+))")
)
_broken("needs no nonce of the client", "RW-SCRAM-7", patch=_first_is(rb"n,,(n=([^,\0]+)(?:,r=)?([!-+\--~]*))"))


def _challenges_anything(patch: Patch) -> None:
    plain = ServerExchange.__init__

    def init(self: ServerExchange, data: bytes) -> None:
        try:
            plain(self, data)
        except ScramError:
            plain(self, b"n,,n=Ada,r=abc")

    patch.setattr(ServerExchange, "__init__", init)


_broken("challenges whatever comes first", "RW-SCRAM-7", patch=_challenges_anything)


def _any_final(pattern: bytes) -> Callable[[Patch], None]:
    import re

    return _patches(scram, "_CLIENT_FINAL", re.compile(pattern, re.DOTALL))


_broken(
    "takes any c= and what follows the proof", "RW-SCRAM-7",
    patch=_any_final(rb"(c=[^,]+,r=([!-+\--~]+)),p=([A-Za-z0-9+/=]+)(?:,x=y)?"),
)  # fmt: skip
_broken(
    "has one nonce for all exchanges", "RW-SCRAM-7",
    patch=_patches(Hub, "nonce", lambda self: b"always-the-same"),
)  # fmt: skip
_broken(
    "signs with something else", "RW-SCRAM-7",
    says=of(Welcome, lambda f: replace(f, auth=b"v=" + b"A" * 43 + b"=") if f.auth else f),
)  # fmt: skip


def _no_refusal(a: Alteration, said: Piece) -> list[Piece]:
    """In the place of a refusal it asks once more."""
    failed = isinstance(said, Error | Goaway) and said.code == Code.AUTH_FAILED
    if not failed:
        return [said]
    return [Auth(b"once more", request=said.request)] if isinstance(said, Error) else []


_broken("asks again after a wrong answer", "RW-SASL-2", says=_no_refusal)


def _never_content(a: Alteration, heard: Heard) -> list[Piece]:
    if not isinstance(heard, Auth):
        return [heard]
    a.extra.append(Auth(b"and more", request=heard.request))
    return []


_broken("asks on and on", "RW-AUTH-3", hears=_never_content)


def _any_number(a: Alteration, heard: Heard) -> list[Piece]:
    return [replace(heard, request=1)] if isinstance(heard, Auth) else [heard]


_broken("does not look at the request of AUTH", "RW-AUTH-2", hears=_any_number)

# --- connections of an account


def _full(handshake: Handshake, key: str) -> bool:
    return handshake._connections[key] >= handshake._hub.config.account_connections


def _full_before_the_challenge(self: Handshake, peer: Peer, hello: Hello, name: str) -> None:
    if _full(self, key_of(name)):
        self._refuse(peer, Code.SERVER_FULL, "that account is busy", 100)
    else:
        plain_challenge(self, peer, hello, name)


_broken(
    "tells strangers that an account is busy", "RW-SASL-11",
    patch=_patches(Handshake, "_challenge", _full_before_the_challenge),
)  # fmt: skip
plain_auth = Handshake.auth


def _full_before_the_proof(self: Handshake, peer: Peer, auth: Auth) -> None:
    account = self._logins[peer].account
    if account is not None and _full(self, account.key):
        self._refuse(peer, Code.SERVER_FULL, "that account is busy", 100)
    else:
        plain_auth(self, peer, auth)


_broken(
    "counts an account's connections before the proof", "RW-SASL-11",
    patch=_patches(Handshake, "auth", _full_before_the_proof),
)  # fmt: skip
plain_welcome = Handshake._welcome


def _one_cap_for_all(self: Handshake, peer: Peer, hello: Hello, name: str, *account: Any) -> None:
    if account and self._connections.total() >= self._hub.config.account_connections:
        self._refuse(peer, Code.SERVER_FULL, "there are too many accounts", 100)
    else:
        plain_welcome(self, peer, hello, name, *account)


_broken(
    "caps all accounts together", "RW-SASL-10",
    patch=_patches(Handshake, "_welcome", _one_cap_for_all),
)  # fmt: skip
_broken(
    "never gives an account's place back", "RW-SASL-10",
    patch=_patches(Handshake, "gone", lambda self, peer: self._logins.pop(peer, None)),
)  # fmt: skip
_broken(
    "calls a busy account's refusal something else", "RW-CONN-3", only=("server/13/account-full",),
    says=recoded({Code.SERVER_FULL: Code.RATE_LIMITED}),
)  # fmt: skip

# --- STOP

_broken(
    "lets every account stop it", "RW-STOP-1",
    patch=_patches(Stopper, "stop", lambda self, peer, stop: peer.conn.send(Ok(request=stop.request))),
)  # fmt: skip
_broken(
    "says OK to STOP and goes on", "RW-STOP-2",
    patch=_patches(Stopper, "stop", lambda self, peer, stop: peer.conn.send(Ok(request=stop.request))),
)  # fmt: skip
_broken(
    "forbids STOP to everybody", "RW-STOP-2",
    patch=_patches(Stopper, "stop", lambda self, peer, stop: peer.refuse(stop, Code.FORBIDDEN, "no")),
)  # fmt: skip


def _drains_only(self: Stopper, peer: Peer, stop: Stop) -> None:
    self._context.host.drain()


_broken("drains at STOP without a word", "RW-STOP-2", patch=_patches(Stopper, "stop", _drains_only))

# --- TLS


def _older_too(patch: Patch) -> None:
    plain = tls.server_context

    def context(config: Any) -> ssl.SSLContext | None:
        made = plain(config)
        if made is not None:
            made.minimum_version = ssl.TLSVersion.TLSv1_2
        return made

    patch.setattr(listener, "server_context", context)


broken("speaks TLS 1.2 as well", "RW-TLS-1", tls=True, patch=_older_too)


def _no_protocol(patch: Patch) -> None:
    plain = tls.server_context
    silent = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def context(config: Any) -> ssl.SSLContext | None:
        if plain(config) is None:
            return None
        silent.load_cert_chain(config.tls_cert, config.tls_key)
        return silent

    patch.setattr(listener, "server_context", context)
    patch.setattr(transport, "agreed", lambda found: True)


broken("agrees on no protocol", "RW-TLS-1", tls=True, patch=_no_protocol, only=("server/14/tls",))
_broken(
    "calls an AUTH that comes too late malformed", "RW-AUTH-2", only=("server/7.3/auth-after-welcome",),
    says=recoded({Code.UNEXPECTED: Code.MALFORMED}),
)  # fmt: skip
broken("does not mind what ALPN says", "RW-TLS-4", tls=True, patch=_patches(transport, "agreed", lambda found: True))
broken(
    "waits for stalled handshakes", "RW-HELLO-4", tls=True, only=("server/14/tls-stalled",),
    patch=lambda patch: patch.setattr(transport, "min", lambda *values: 60.0, raising=False),
)  # fmt: skip
