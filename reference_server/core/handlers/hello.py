"""HELLO and AUTH, up to WELCOME (SPEC.md, sections 7.1 to 7.3 and 13)."""

from __future__ import annotations

import logging

from protocol import scram
from protocol.errors import NameInvalid
from protocol.fields import agent, extension, extensions, mechanism, server_identity
from protocol.frames import Auth, Field, Hello, Welcome
from protocol.names import MAX_OCTETS, normalise
from protocol.names import key as key_of
from protocol.registry import Code, Flag, FrameType
from protocol.scram import ScramError, ServerExchange
from reference_server.accounts import Account
from reference_server.core.peer import NO_EXTENSIONS, Login, Peer
from reference_server.core.state import ServerState

log = logging.getLogger("roomwire.server")

ANONYMOUS = "ANONYMOUS"
AGENT = "roomwire-server/0.1"
FULL_RETRY_MS = 5_000


def hello(peer: Peer, frame: Hello, now: float) -> None:
    """Answer HELLO, with the checks in the order of section 7.1."""
    try:
        name = normalise(frame.name)
    except NameInvalid as error:
        _refuse(peer, Code.NAME_INVALID, str(error))
        return
    mechanisms = _mechanisms(peer.state)
    if frame.mechanism not in mechanisms:  # RW-SASL-1
        fields = tuple(mechanism(offered) for offered in mechanisms)
        text = f"offered are {', '.join(mechanisms)}" if mechanisms else "this server lets in no clients at present"
        _refuse(peer, Code.UNSUPPORTED_MECHANISM, text, fields=fields)
    elif peer.full:  # RW-CONN-3
        _refuse(peer, Code.SERVER_FULL, "the server has as many connections as it may", FULL_RETRY_MS)
    elif frame.mechanism == ANONYMOUS:
        _guest(peer, frame, name)
    else:
        _challenge(peer, frame, name)


def auth(peer: Peer, frame: Auth, now: float) -> None:
    """Answer AUTH, the second step of SCRAM: there is no third, and no second attempt (RW-SASL-2)."""
    assert peer.login is not None
    (hello, exchange, account), peer.login = peer.login, None
    state = peer.state
    try:
        final = exchange.final(frame.data)
        if account is None:
            raise ScramError("there is no such account")
    except ScramError as error:
        _fail(peer, exchange.name, str(error))
        return
    current = state.accounts.find(account.key) if state.accounts else None
    if current is None or current.keys != account.keys:
        _fail(peer, exchange.name, "the account was changed meanwhile")
        return
    state.addresses.logged_in(peer.address)
    if state.account_connections[account.key] >= state.config.account_connections:  # RW-SASL-10, RW-SASL-11
        text = f"{account.name} has as many connections as an account may"
        _refuse(peer, Code.SERVER_FULL, text, FULL_RETRY_MS)
        return
    _welcome(peer, hello, account.name, account, final)


def _mechanisms(state: ServerState) -> tuple[str, ...]:
    """The mechanisms that this server offers: SCRAM if it has accounts."""
    anonymous = (ANONYMOUS,) if state.config.anonymous else ()
    return anonymous if state.accounts is None else (*anonymous, scram.MECHANISM)


def _guest(peer: Peer, hello: Hello, name: str) -> None:
    if peer.state.accounts is not None and not name.startswith("~"):  # RW-SASL-5
        name = f"~{name}"
        if len(name.encode()) > MAX_OCTETS:
            _refuse(peer, Code.NAME_INVALID, "with the ~ of a guest the name is too long")
            return
    _welcome(peer, hello, name)


def _challenge(peer: Peer, hello: Hello, name: str) -> None:
    state = peer.state
    assert state.accounts is not None
    wait_ms = state.addresses.login(peer.address, state.now)
    if wait_ms:  # RW-SASL-9
        _refuse(peer, Code.RATE_LIMITED, "too many logins have failed", wait_ms)
        return
    try:
        exchange = ServerExchange(hello.auth)
        key = key_of(exchange.name)
    except (ScramError, NameInvalid) as error:
        _fail(peer, name, str(error))
        return
    if key != key_of(name):  # RW-SCRAM-5
        _fail(peer, name, "HELLO has another name")
        return
    # RW-SCRAM-2: the same work and the same answers, whether the account exists or not.
    unknown, account = state.accounts.unknown_keys(key), state.accounts.find(key)
    peer.conn.challenge(exchange.challenge(account.keys if account else unknown, state.nonce()))
    peer.login = Login(hello, exchange, account)


def _fail(peer: Peer, name: str, reason: str) -> None:
    """Refuse, always with the same words (RW-SCRAM-2); only the log gives the reason."""
    log.warning("login failed", extra={"peer": peer.address, "account": name, "reason": reason})
    _refuse(peer, Code.AUTH_FAILED, "the name or the password is wrong")


def _welcome(peer: Peer, hello: Hello, name: str, account: Account | None = None, final: bytes = b"") -> None:
    state, config = peer.state, peer.state.config
    known = {"history"} if state.accounts is None else {"history", "admin"}
    peer.extensions = frozenset(known.intersection(extensions(hello))) or NO_EXTENSIONS  # RW-WELCOME-2, RW-EXT-3
    peer.name = name  # RW-SCRAM-6: as the account spells it
    if account is not None:
        peer.account = account.key
        state.account_connections[account.key] += 1
    peer.member = state.new_member()
    offered = tuple(extension(name) for name in sorted(peer.extensions))
    peer.conn.welcome(
        Welcome(
            peer.member,
            name,
            state.clock.ms(state.now),
            state.max_body,
            config.heartbeat_ms,
            config.dedupe_ms,
            config.window,
            config.max_rooms,
            final,
            fields=(*offered, agent(AGENT), server_identity(state.server_id, state.address)),
            flags=(Flag.DURABLE if state.store.durable else 0) | (Flag.VERIFIED if account else 0),  # RW-SASL-4
            request=hello.request,
        )
    )
    log.info("client connected", extra={"peer": peer.address, "client": name, "member": f"{peer.member:016x}"})


def _refuse(peer: Peer, code: Code, text: str, retry_ms: int = 0, fields: tuple[Field, ...] = ()) -> None:
    peer.state.counters.error(FrameType.HELLO, code)
    peer.conn.refuse(code, peer.state.now, retry_ms=retry_ms, text=text, fields=fields)
    log.info("client refused", extra={"peer": peer.address, "code": code.name, "text": text})
