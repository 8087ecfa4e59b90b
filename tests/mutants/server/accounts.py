"""Server mutants about accounts, SCRAM-SHA-256, STOP and TLS (SPEC.md, 7.3, 7.20, 13, 14)."""

import os
import re
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol import scram
from protocol.frames import (
    Auth,
    Error,
    Goaway,
    Hello,
    Message,
    Ok,
    Stop,
    Welcome,
)
from protocol.names import key as key_of
from protocol.registry import Code, Flag, FrameType
from protocol.scram import ScramError, ServerExchange, StoredKeys
from reference_server.accounts import Accounts
from reference_server.core.handlers import HANDLERS, hello
from reference_server.core.peer import Peer
from reference_server.core.state import ServerState
from reference_server.net import listener, tls, transport
from tests.mutants.server.changes import changes, recoded
from tests.mutants.servers import Invalid, MutantConnection, Received, Sent, ServerMutant
from tests.support.accounts import ADMINS, PASSWORDS

Patch = pytest.MonkeyPatch


def _replaces(owner: Any, name: str, value: Any) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(owner, name, value)


def _handles(frame: type, handler: Any) -> Callable[[Patch], None]:
    return lambda patch: patch.setitem(HANDLERS, frame, handler)


def _guest_tilde_only_if_taken(peer: Peer, frame: Hello, name: str) -> None:
    accounts = peer.state.accounts
    taken = accounts is not None and accounts.find(key_of(name)) is not None
    hello._welcome(peer, frame, f"~{name}" if taken else name)


def _guest_name_truncated(peer: Peer, frame: Hello, name: str) -> None:
    hello._welcome(peer, frame, name if name.startswith("~") else f"~{name}"[:64])


def _account_exact_spelling(patch: Patch) -> None:
    """Adds a question mark to each name that is not spelt as its account, so that no account is found."""
    plain = ServerExchange.__init__

    def init(self: ServerExchange, data: bytes) -> None:
        plain(self, data)
        if self.name not in {*PASSWORDS, *ADMINS}:
            self.name += "?"

    patch.setattr(ServerExchange, "__init__", init)
    patch.setattr(hello, "key_of", lambda name: key_of(name.removesuffix("?")) + "?" * ("?" in name))


def _scram_name_still_escaped(patch: Patch) -> None:
    patch.setattr(scram, "_unescaped", lambda name: name.decode(errors="replace"))


def _scram_other_hello_name(peer: Peer, frame: Hello, name: str) -> None:
    _plain_challenge(peer, frame, ServerExchange(frame.auth).name)


_plain_challenge = hello._challenge


def _unknown_account_random_salt(self: Accounts, key: str) -> StoredKeys:
    return StoredKeys(os.urandom(16), self.iterations, bytes(32), bytes(32))


def _unknown_account_revealed(peer: Peer, name: str, reason: str) -> None:
    accounts = peer.state.accounts
    known = accounts is not None and accounts.find(key_of(name)) is not None
    hello._refuse(peer, Code.AUTH_FAILED, "wrong password" if known else "no such account")


def _scram_any_proof(patch: Patch) -> None:
    """Also if the message is ill-formed."""
    plain = ServerExchange.final

    def final(self: ServerExchange, data: bytes) -> bytes:
        try:
            return plain(self, data)
        except ScramError:
            return b"v=" + b"A" * 43 + b"="

    patch.setattr(ServerExchange, "final", final)


def _first_message(pattern: bytes) -> Callable[[Patch], None]:
    return _replaces(scram, "_CLIENT_FIRST", re.compile(pattern, re.DOTALL))


def _scram_any_first_message(patch: Patch) -> None:
    plain = ServerExchange.__init__

    def init(self: ServerExchange, data: bytes) -> None:
        try:
            plain(self, data)
        except ScramError:
            plain(self, b"n,,n=Ada,r=abc")

    patch.setattr(ServerExchange, "__init__", init)


def _scram_any_binding(pattern: bytes) -> Callable[[Patch], None]:
    return _replaces(scram, "_CLIENT_FINAL", re.compile(pattern, re.DOTALL))


def _auth_second_attempt(c: MutantConnection, sent: Sent) -> list[Sent]:
    """Sends AUTH in place of the refusal."""
    failed = isinstance(sent, Error | Goaway) and sent.code == Code.AUTH_FAILED
    if not failed:
        return [sent]
    return [Auth(b"once more", request=sent.request)] if isinstance(sent, Error) else []


def _auth_endless(c: MutantConnection, received: Received) -> list[Sent]:
    if not isinstance(received, Auth):
        return [received]
    c.extra.append(Auth(b"and more", request=received.request))
    return []


def _auth_any_request(c: MutantConnection, received: Received) -> list[Sent]:
    return [replace(received, request=1)] if isinstance(received, Auth) else [received]


def _auth_structure_first(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Invalid) and received.header.type == FrameType.AUTH:
        octets = received.octets
        return [octets[:8] + (1).to_bytes(4) + octets[12:]]
    return [received]


def _full(peer: Peer, key: str) -> bool:
    return peer.state.account_connections[key] >= peer.state.config.account_connections


def _account_full_before_challenge(peer: Peer, frame: Hello, name: str) -> None:
    if _full(peer, key_of(name)):
        hello._refuse(peer, Code.SERVER_FULL, "that account is busy", 100)
    else:
        _plain_challenge(peer, frame, name)


def _account_full_before_proof(peer: Peer, frame: Auth, now: float) -> None:
    assert peer.login is not None
    account = peer.login.account
    if account is not None and _full(peer, account.key):
        hello._refuse(peer, Code.SERVER_FULL, "that account is busy", 100)
    else:
        hello.auth(peer, frame, now)


_plain_welcome = hello._welcome


def _account_limit_shared(peer: Peer, frame: Hello, name: str, *account: Any) -> None:
    if account and peer.state.account_connections.total() >= peer.state.config.account_connections:
        hello._refuse(peer, Code.SERVER_FULL, "there are too many accounts", 100)
    else:
        _plain_welcome(peer, frame, name, *account)


def _stop_without_ok(peer: Peer, frame: Stop, now: float) -> None:
    peer.state.host.drain()


def _tls_1_2_accepted(patch: Patch) -> None:
    plain = tls.server_context

    def context(config: Any) -> ssl.SSLContext | None:
        made = plain(config)
        if made is not None:
            made.minimum_version = ssl.TLSVersion.TLSv1_2
        return made

    patch.setattr(listener, "server_context", context)


def _tls_without_alpn(patch: Patch) -> None:
    plain = tls.server_context
    silent = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def context(config: Any) -> ssl.SSLContext | None:
        if plain(config) is None:
            return None
        silent.load_cert_chain(config.tls_cert, config.tls_key)
        return silent

    patch.setattr(listener, "server_context", context)
    patch.setattr(transport, "agreed", lambda found: True)


MUTANTS: tuple[ServerMutant, ...] = (
    # 7.3 AUTH
    ServerMutant(
        "auth-endless",
        "Answers each AUTH with another AUTH, without end.",
        ("RW-AUTH-3",),
        receives=_auth_endless,
        accounts=True,
    ),
    ServerMutant(
        "auth-any-request",
        "Accepts an AUTH with any request number.",
        ("RW-AUTH-2",),
        receives=_auth_any_request,
        accounts=True,
    ),
    ServerMutant(
        "auth-structure-before-request",
        "Looks at the body of an AUTH before its request number.",
        ("RW-AUTH-2",),
        receives=_auth_structure_first,
        accounts=True,
    ),
    ServerMutant(
        "auth-late-other-code",
        "Answers MALFORMED where an AUTH after WELCOME earns UNEXPECTED.",
        ("RW-AUTH-2",),
        only=("server/7.3/auth-after-welcome",),
        sends=recoded({Code.UNEXPECTED: Code.MALFORMED}),
        accounts=True,
    ),
    # 13 Names of accounts and guests
    ServerMutant(
        "account-name-lower-case",
        "Grants the name of the account in lower case.",
        ("RW-SCRAM-6",),
        sends=changes(Welcome, lambda f: replace(f, name=f.name.lower()) if f.flags & Flag.VERIFIED else f),
        accounts=True,
    ),
    ServerMutant(
        "welcome-never-verified",
        "Leaves VERIFIED out of WELCOME.",
        ("RW-SASL-4",),
        sends=changes(Welcome, lambda f: replace(f, flags=f.flags & ~Flag.VERIFIED)),
        accounts=True,
    ),
    ServerMutant(
        "message-never-verified",
        "Leaves VERIFIED out of MESSAGE.",
        ("RW-MESSAGE-2",),
        sends=changes(Message, lambda f: replace(f, flags=f.flags & ~Flag.VERIFIED)),
        accounts=True,
    ),
    ServerMutant(
        "guest-name-without-tilde",
        "Grants guests their name without a tilde.",
        ("RW-SASL-5",),
        patch=_replaces(hello, "_guest", lambda peer, frame, name: hello._welcome(peer, frame, name)),
        accounts=True,
    ),
    ServerMutant(
        "guest-tilde-only-if-taken",
        "Puts a tilde before a guest's name only if an account has that name.",
        ("RW-SASL-5",),
        patch=_replaces(hello, "_guest", _guest_tilde_only_if_taken),
        accounts=True,
    ),
    ServerMutant(
        "guest-name-truncated",
        "Truncates the name of a guest that is too long for its tilde.",
        ("RW-SASL-5",),
        patch=_replaces(hello, "_guest", _guest_name_truncated),
        accounts=True,
    ),
    # 13 SCRAM-SHA-256
    ServerMutant(
        "account-exact-spelling",
        "Finds an account only by its exact spelling.",
        ("RW-SCRAM-5",),
        patch=_account_exact_spelling,
        accounts=True,
    ),
    ServerMutant(
        "scram-name-still-escaped",
        "Does not decode =2C and =3D in the name of a SCRAM message.",
        ("RW-SCRAM-5",),
        patch=_scram_name_still_escaped,
        accounts=True,
    ),
    ServerMutant(
        "scram-other-hello-name",
        "Accepts a HELLO whose name is not that of the SCRAM message.",
        ("RW-SCRAM-5",),
        patch=_replaces(hello, "_challenge", _scram_other_hello_name),
        accounts=True,
    ),
    ServerMutant(
        "unknown-account-random-salt",
        "Sends a new salt each time for an unknown account.",
        ("RW-SCRAM-2",),
        patch=_replaces(Accounts, "unknown_keys", _unknown_account_random_salt),
        accounts=True,
    ),
    ServerMutant(
        "unknown-account-same-salt",
        "Sends the same salt for all unknown accounts.",
        ("RW-SCRAM-2",),
        patch=_replaces(Accounts, "unknown_keys", lambda self, key: StoredKeys(b"x" * 16, 4096, bytes(32), bytes(32))),
        accounts=True,
    ),
    ServerMutant(
        "unknown-account-iterations",
        "Sends another iteration count for unknown accounts.",
        ("RW-SCRAM-2",),
        patch=_replaces(
            Accounts, "unknown_keys", lambda self, key: StoredKeys(self.salt(key), 5000, bytes(32), bytes(32))
        ),
        accounts=True,
    ),
    ServerMutant(
        "unknown-account-longer-salt",
        "Sends longer salts for unknown accounts.",
        ("RW-SCRAM-2",),
        patch=_replaces(
            Accounts, "unknown_keys", lambda self, key: StoredKeys(self.salt(key) * 2, 4096, bytes(32), bytes(32))
        ),
        accounts=True,
    ),
    ServerMutant(
        "unknown-account-revealed",
        "Sends in the text of ERROR whether the account exists.",
        ("RW-SCRAM-2",),
        patch=_replaces(hello, "_fail", _unknown_account_revealed),
        accounts=True,
    ),
    ServerMutant(
        "scram-any-proof",
        "Accepts any final message of the client.",
        ("RW-SCRAM-7",),
        patch=_scram_any_proof,
        accounts=True,
    ),
    ServerMutant(
        "scram-any-gs2-header",
        "Accepts any GS2 header.",
        ("RW-SCRAM-7",),
        patch=_first_message(rb"(?:.*?,,)?(n=([^,\0]+),r=([!-+\--~]+))"),
        accounts=True,
    ),
    ServerMutant(
        "scram-mandatory-extension",
        "Accepts a mandatory extension before the name.",
        ("RW-SCRAM-7",),
        patch=_first_message(rb"n,,((?:m=x,)?n=([^,\0]+),r=([!-+\--~]+))"),
        accounts=True,
    ),
    ServerMutant(
        "scram-no-client-nonce",
        "Accepts a first message without a nonce.",
        ("RW-SCRAM-7",),
        patch=_first_message(rb"n,,(n=([^,\0]+)(?:,r=)?([!-+\--~]*))"),
        accounts=True,
    ),
    ServerMutant(
        "scram-any-first-message",
        "Sends a challenge after any first message.",
        ("RW-SCRAM-7",),
        patch=_scram_any_first_message,
        accounts=True,
    ),
    ServerMutant(
        "scram-any-binding",
        "Accepts any channel binding, and an attribute behind the proof.",
        ("RW-SCRAM-7",),
        patch=_scram_any_binding(rb"(c=[^,]+,r=([!-+\--~]+)),p=([A-Za-z0-9+/=]+)(?:,x=y)?"),
        accounts=True,
    ),
    ServerMutant(
        "scram-constant-nonce",
        "Uses the same nonce for all exchanges.",
        ("RW-SCRAM-7",),
        patch=_replaces(ServerState, "nonce", lambda self: b"always-the-same"),
        accounts=True,
    ),
    ServerMutant(
        "scram-wrong-signature",
        "Sends a wrong server signature.",
        ("RW-SCRAM-7",),
        sends=changes(Welcome, lambda f: replace(f, auth=b"v=" + b"A" * 43 + b"=") if f.auth else f),
        accounts=True,
    ),
    ServerMutant(
        "auth-second-attempt",
        "Asks again after a wrong answer.",
        ("RW-SASL-2",),
        sends=_auth_second_attempt,
        accounts=True,
    ),
    # 13 Connections of one account
    ServerMutant(
        "account-full-before-challenge",
        "Refuses a connection beyond the account's limit before the challenge.",
        ("RW-SASL-11",),
        patch=_replaces(hello, "_challenge", _account_full_before_challenge),
        accounts=True,
    ),
    ServerMutant(
        "account-full-before-proof",
        "Refuses a connection beyond the account's limit before it checks the proof.",
        ("RW-SASL-11",),
        patch=_handles(Auth, _account_full_before_proof),
        accounts=True,
    ),
    ServerMutant(
        "account-limit-shared",
        "Applies the limit of one account to all accounts together.",
        ("RW-SASL-10",),
        patch=_replaces(hello, "_welcome", _account_limit_shared),
        accounts=True,
    ),
    ServerMutant(
        "account-place-kept",
        "Still counts the connections of an account that have ended.",
        ("RW-SASL-10",),
        patch=_replaces(ServerState, "account_disconnected", lambda state, key: None),
        accounts=True,
    ),
    ServerMutant(
        "account-full-other-code",
        "Answers RATE_LIMITED where SERVER_FULL is due.",
        ("RW-CONN-3",),
        only=("server/13/account-full",),
        sends=recoded({Code.SERVER_FULL: Code.RATE_LIMITED}),
        accounts=True,
    ),
    # 7.20 STOP
    ServerMutant(
        "stop-any-account",
        "Answers STOP of any account with OK.",
        ("RW-STOP-1",),
        patch=_handles(Stop, lambda peer, frame, now: peer.conn.send(Ok(request=frame.request))),
        accounts=True,
    ),
    ServerMutant(
        "stop-without-drain",
        "Answers STOP with OK, and does not drain.",
        ("RW-STOP-2",),
        patch=_handles(Stop, lambda peer, frame, now: peer.conn.send(Ok(request=frame.request))),
        accounts=True,
    ),
    ServerMutant(
        "stop-forbidden-to-admin",
        "Answers STOP of every account with ERROR(FORBIDDEN).",
        ("RW-STOP-2",),
        patch=_handles(Stop, lambda peer, frame, now: peer.refuse(frame, Code.FORBIDDEN, "no")),
        accounts=True,
    ),
    ServerMutant(
        "stop-without-ok",
        "Drains at STOP without OK.",
        ("RW-STOP-2",),
        patch=_handles(Stop, _stop_without_ok),
        accounts=True,
    ),
    # 14 Transport
    ServerMutant("tls-1-2-accepted", "Accepts TLS 1.2.", ("RW-TLS-1",), tls=True, patch=_tls_1_2_accepted),
    ServerMutant(
        "tls-without-alpn",
        "Agrees on no ALPN protocol.",
        ("RW-TLS-1",),
        tls=True,
        patch=_tls_without_alpn,
        only=("server/14/tls",),
    ),
    ServerMutant(
        "alpn-not-checked",
        "Serves TLS connections that did not agree on roomwire/1.",
        ("RW-TLS-4",),
        tls=True,
        patch=_replaces(transport, "agreed", lambda found: True),
    ),
    ServerMutant(
        "tls-handshake-timeout-none",
        "Waits a minute for a stalled TLS handshake.",
        ("RW-HELLO-4",),
        tls=True,
        only=("server/14/tls-stalled",),
        patch=lambda patch: patch.setattr(transport, "min", lambda *values: 60.0, raising=False),
    ),
)
