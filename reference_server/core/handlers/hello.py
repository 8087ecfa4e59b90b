"""HELLO to WELCOME (SPEC.md, sections 7.1, 7.2 and 13)."""

from __future__ import annotations

import logging
from collections import Counter
from typing import NamedTuple

from protocol import scram
from protocol.errors import NameInvalid
from protocol.fields import agent, extension, extensions, mechanism, server_identity
from protocol.frames import Auth, Field, Hello, Welcome
from protocol.names import MAX_OCTETS, normalise
from protocol.names import key as key_of
from protocol.registry import Code, Flag, FrameType
from protocol.scram import ScramError, ServerExchange
from reference_server.accounts import Account
from reference_server.core.peer import NO_EXTENSIONS, Peer
from reference_server.core.state import Context

log = logging.getLogger("roomwire.server")

ANONYMOUS = "ANONYMOUS"
AGENT = "roomwire-server/0.1"
FULL_RETRY_MS = 5_000


class _Login(NamedTuple):
    """A client that was challenged; `account` is None where there is none of that name."""

    hello: Hello
    exchange: ServerExchange
    account: Account | None


class Handshake:
    """Lets clients in."""

    def __init__(self, hub: Context) -> None:
        self._hub = hub
        self._logins: dict[Peer, _Login] = {}
        self._connections: Counter[str] = Counter()  # by the keys of their accounts

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """What this server offers: SCRAM where it has accounts."""
        anonymous = (ANONYMOUS,) if self._hub.config.anonymous else ()
        return anonymous if self._hub.accounts is None else (*anonymous, scram.MECHANISM)

    def hello(self, peer: Peer, hello: Hello) -> None:
        """Answer HELLO, with the checks in the order of section 7.1."""
        try:
            name = normalise(hello.name)
        except NameInvalid as error:
            self._refuse(peer, Code.NAME_INVALID, str(error))
            return
        mechanisms = self.mechanisms
        if hello.mechanism not in mechanisms:  # RW-SASL-1
            fields = tuple(mechanism(offered) for offered in mechanisms)
            text = f"offered are {', '.join(mechanisms)}" if mechanisms else "nobody can come in at present"
            self._refuse(peer, Code.UNSUPPORTED_MECHANISM, text, fields=fields)
        elif peer.full:  # RW-CONN-3
            self._refuse(peer, Code.SERVER_FULL, "the server has as many connections as it may", FULL_RETRY_MS)
        elif hello.mechanism == ANONYMOUS:
            self._guest(peer, hello, name)
        else:
            self._challenge(peer, hello, name)

    def _guest(self, peer: Peer, hello: Hello, name: str) -> None:
        if self._hub.accounts is not None and not name.startswith("~"):  # RW-SASL-5
            name = f"~{name}"
            if len(name.encode()) > MAX_OCTETS:
                self._refuse(peer, Code.NAME_INVALID, "with the ~ of a guest the name is too long")
                return
        self._welcome(peer, hello, name)

    def _challenge(self, peer: Peer, hello: Hello, name: str) -> None:
        accounts = self._hub.accounts
        assert accounts is not None
        wait_ms = self._hub.addresses.login(peer.address, self._hub.now)
        if wait_ms:  # RW-SASL-9
            self._refuse(peer, Code.RATE_LIMITED, "too many logins have failed", wait_ms)
            return
        try:
            exchange = ServerExchange(hello.auth)
            key = key_of(exchange.name)
        except (ScramError, NameInvalid) as error:
            self._fail(peer, name, str(error))
            return
        if key != key_of(name):  # RW-SCRAM-5
            self._fail(peer, name, "HELLO has another name")
            return
        # RW-SCRAM-2: the same work and the same answers, whether there is such an account or not.
        nobody, account = accounts.nobodys_keys(key), accounts.find(key)
        peer.conn.challenge(exchange.challenge(account.keys if account else nobody, self._hub.nonce()))
        self._logins[peer] = _Login(hello, exchange, account)

    def auth(self, peer: Peer, auth: Auth) -> None:
        """Answer AUTH, the second step of SCRAM: there is no third, and no second attempt (RW-SASL-2)."""
        hello, exchange, account = self._logins.pop(peer)
        try:
            final = exchange.final(auth.data)
            if account is None:
                raise ScramError("there is no such account")
        except ScramError as error:
            self._fail(peer, exchange.name, str(error))
            return
        accounts = self._hub.accounts
        current = accounts.find(account.key) if accounts else None
        if current is None or current.keys != account.keys:
            self._fail(peer, exchange.name, "the account was changed meanwhile")
            return
        self._hub.addresses.logged_in(peer.address)
        if self._connections[account.key] >= self._hub.config.account_connections:  # RW-SASL-10, RW-SASL-11
            text = f"{account.name} has as many connections as an account may"
            self._refuse(peer, Code.SERVER_FULL, text, FULL_RETRY_MS)
            return
        self._welcome(peer, hello, account.name, account, final)

    def gone(self, peer: Peer) -> None:
        """The peer is gone, in whatever state."""
        self._logins.pop(peer, None)
        if peer.account:
            self._connections[peer.account] -= 1
            if not self._connections[peer.account]:
                del self._connections[peer.account]

    def _fail(self, peer: Peer, name: str, reason: str) -> None:
        """Refuse with the same words whatever was wrong (RW-SCRAM-2); the log says what."""
        log.warning("login failed", extra={"peer": peer.address, "account": name, "reason": reason})
        self._refuse(peer, Code.AUTH_FAILED, "the name or the password is wrong")

    def _welcome(self, peer: Peer, hello: Hello, name: str, account: Account | None = None, final: bytes = b"") -> None:
        hub = self._hub
        config = hub.config
        known = {"history"} if hub.accounts is None else {"history", "admin"}
        peer.extensions = frozenset(known.intersection(extensions(hello))) or NO_EXTENSIONS  # RW-WELCOME-2, RW-EXT-3
        peer.name = name  # RW-SCRAM-6: as the account spells it
        if account is not None:
            peer.account = account.key
            self._connections[account.key] += 1
        peer.member = hub.new_member()
        fields = tuple(extension(offered) for offered in sorted(peer.extensions))
        peer.conn.welcome(
            Welcome(
                peer.member,
                name,
                hub.clock_ms(hub.now),
                hub.max_body,
                config.heartbeat_ms,
                config.dedupe_ms,
                config.window,
                config.max_rooms,
                final,
                fields=(*fields, agent(AGENT), server_identity(hub.server_id, hub.address)),
                flags=(Flag.DURABLE if hub.store.durable else 0) | (Flag.VERIFIED if account else 0),  # RW-SASL-4
                request=hello.request,
            )
        )
        extra = {"peer": peer.address, "client": peer.name, "member": f"{peer.member:016x}"}
        log.info("client connected", extra=extra)

    def _refuse(self, peer: Peer, code: Code, text: str, retry_ms: int = 0, fields: tuple[Field, ...] = ()) -> None:
        self._hub.counters.error(FrameType.HELLO, code)
        peer.conn.refuse(code, self._hub.now, retry_ms=retry_ms, text=text, fields=fields)
        log.info("client refused", extra={"peer": peer.address, "code": code.name, "text": text})
