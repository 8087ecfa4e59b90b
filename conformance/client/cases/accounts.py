"""Sections 7.2, 7.3, 8.7 and 13: logging in to an account with SCRAM-SHA-256."""

import re
import unicodedata
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from conformance.client.cases.steps import add, case
from conformance.client.context import Context
from conformance.client.raw_server import RawServer
from conformance.harness.verdicts import Failed
from conformance.wire import scram
from protocol.frames import Auth, Error, Goaway, Hello
from protocol.registry import Code

PASSWORD = "correct horse"
SALT = b"0123456789abcdef"
SERVER_NONCE = b"3rfcNHYJY1ZVvWVs7j"


@dataclass
class Exchange:
    """A SCRAM exchange at the suite's end, after the client's HELLO."""

    server: RawServer
    hello: Hello
    name: bytes
    nonce: bytes
    password: str

    @property
    def both(self) -> bytes:
        return self.nonce + SERVER_NONCE

    def first(self, iterations: int | bytes = scram.LEAST) -> bytes:
        return scram.server_first(self.both, SALT, iterations)

    def message(self) -> bytes:
        return b",".join((self.hello.auth[3:], self.first(), b"c=biws,r=" + self.both))

    def final(self) -> bytes:
        """The answer of a client that knows the password."""
        made = scram.proof(self.password, self.message(), SALT, scram.LEAST)
        return scram.final_message(b"c=biws,r=" + self.both, made)

    def signature(self) -> bytes:
        return scram.signature(self.password, self.message(), SALT, scram.LEAST)

    def challenge(self, data: bytes, *, breaks: str = "") -> None:
        self.server.send(Auth(data, request=self.hello.request), breaks=breaks)


def _read(server: RawServer, hello: Hello, password: str) -> Exchange:
    if hello.mechanism != scram.MECHANISM:
        raise Failed(scram.MECHANISM, hello.mechanism, "RW-SCRAM-1")
    found = re.fullmatch(rb"n,,n=([^,]+),r=([!-+\--~]+)", hello.auth)
    if found is None:
        raise Failed("n,,n=..,r=..", repr(hello.auth), "RW-SCRAM-1")
    return Exchange(server, hello, found[1], found[2], password)


async def _asked(t: Context, name: str = "ada", password: str = PASSWORD) -> Exchange:
    """A client that was told to log in, and has sent HELLO."""
    t.needs("accounts")
    server, hello = await t.greeted(name, password=password)
    return _read(server, hello, password)


async def _answered(t: Context, name: str = "ada", password: str = PASSWORD) -> Exchange:
    """A client that has answered the challenge with the right proof."""
    exchange = await _asked(t, name, password)
    exchange.challenge(exchange.first())
    answer = await exchange.server.expect(Auth, "RW-AUTH-1")
    wanted = exchange.final()
    t.require(answer.data == wanted, repr(wanted), repr(answer.data), "RW-SCRAM-1")
    t.require(answer.request == exchange.hello.request, "HELLO's request", answer.request, "RW-AUTH-1")
    return exchange


async def _given_up(t: Context, exchange: Exchange, requirement: str) -> None:
    """GOAWAY(AUTH_FAILED), no report of a connection, and no second attempt."""
    await exchange.server.expect_goaway(Code.AUTH_FAILED, requirement=requirement)
    await exchange.server.close()
    await t.report("closed", requirement="RW-RECONNECT-4")
    t.require(not t.client.of("connected"), "not connected", t.client.of("connected"), requirement)
    await t.alive()


@case("13/scram", "RW-SCRAM-1", "RW-AUTH-1", "RW-WELCOME-3")
async def login(t: Context) -> None:
    """The client logs in with `n,,`, its name and the proof, and accepts WELCOME with the right signature."""
    exchange = await _answered(t)
    t.require(exchange.hello.name == "ada", "the name of the account in HELLO", exchange.hello.name)
    exchange.server.send(t.welcome(exchange.hello, name="Ada", auth=exchange.signature(), flags=2))
    report = await t.report("connected")
    t.require(report.get("name") == "Ada", "the name that WELCOME grants", report, "RW-WELCOME-6")
    await exchange.server.fence()


@case("13/scram-names", "RW-SCRAM-1")
async def names(t: Context) -> None:
    """The client escapes comma and equals sign in its name, and does not put it through SASLprep."""
    name = "a,b=c \u00aa"
    exchange = await _answered(t, name)
    wanted = scram.escaped(name)
    t.require(exchange.name == wanted, repr(wanted), repr(exchange.name), "RW-SCRAM-1")


@case("13/scram-password-nfc", "RW-SCRAM-1")
async def password_nfc(t: Context) -> None:
    """The client puts its password into NFC, and changes nothing else in it."""
    password = unicodedata.normalize("NFD", "pässwörd \u00aa\u00a0\u2168")
    await _answered(t, password=password)


@case("13/scram-fresh-nonce", "RW-SCRAM-1")
async def fresh_nonce(t: Context) -> None:
    """The client uses another nonce on another connection."""
    t.needs("reconnect")
    first = await _asked(t)
    await first.server.close(abort=True)
    server = await t.accept(within=t.options.timeout + 2.0)
    second = _read(server, await t.hello(server), PASSWORD)
    t.require(first.nonce != second.nonce, "another nonce", first.nonce)
    t.require(len(first.nonce) >= 16, "a nonce of some length", first.nonce)


_CHALLENGES: dict[str, tuple[str, Callable[[Exchange], bytes]]] = {
    "iterations-4095": ("RW-SCRAM-3", lambda e: e.first(scram.LEAST - 1)),
    "iterations-2000001": ("RW-SCRAM-3", lambda e: e.first(scram.MOST + 1)),
    "iterations-1": ("RW-SCRAM-3", lambda e: e.first(1)),
    "iterations-huge": ("RW-SCRAM-3", lambda e: e.first(b"9" * 30)),
    "iterations-negative": ("RW-SCRAM-3", lambda e: e.first(b"-4096")),
    "iterations-none": ("RW-SCRAM-3", lambda e: e.first(b"")),
    "iterations-no-number": ("RW-SCRAM-3", lambda e: e.first(b"many")),
    "nonce-of-another": ("RW-SCRAM-3", lambda e: scram.server_first(SERVER_NONCE + e.nonce, SALT, scram.LEAST)),
    "salt-none": ("RW-SCRAM-3", lambda e: scram.server_first(e.both, b"", scram.LEAST)),
    "salt-no-base64": ("RW-SCRAM-3", lambda e: b"r=" + e.both + b",s=(..),i=4096"),
    "empty": ("RW-SCRAM-3", lambda e: b""),
    "mandatory": ("RW-SCRAM-3", lambda e: b"m=x," + e.first()),
    "error": ("RW-SCRAM-3", lambda e: b"e=unknown-user"),
}


def _challenged(requirement: str, make: Callable[[Exchange], bytes]) -> Callable[[Context], Awaitable[None]]:
    async def run(t: Context) -> None:
        exchange = await _asked(t)
        exchange.challenge(make(exchange), breaks=requirement)
        await _given_up(t, exchange, requirement)
        t.require(not exchange.server.left_over(Auth), "no proof", exchange.server.left_over(Auth), requirement)

    return run


for _path, (_requirement, _make) in _CHALLENGES.items():
    _text = f"The client answers a wrong challenge ({_path}) with GOAWAY(AUTH_FAILED)."
    add(f"13/scram-{_path}", [_requirement], _text, _challenged(_requirement, _make))


_SIGNATURES: dict[str, Callable[[Exchange], bytes]] = {
    "wrong": lambda e: scram.signature("not the password", e.message(), SALT, scram.LEAST),
    "of-another": lambda e: scram.signature(PASSWORD, b"n=ada,r=x", SALT, scram.LEAST),
    "none": lambda e: b"",
    "empty": lambda e: b"v=",
    "short": lambda e: e.signature()[:-8],
    "error": lambda e: b"e=other-error",
}


def _signed(make: Callable[[Exchange], bytes]) -> Callable[[Context], Awaitable[None]]:
    async def run(t: Context) -> None:
        exchange = await _answered(t)
        exchange.server.send(t.welcome(exchange.hello, auth=make(exchange)), breaks="RW-SCRAM-7")
        await _given_up(t, exchange, "RW-SCRAM-4")

    return run


for _path, _sign in _SIGNATURES.items():
    _text = f"The client answers a wrong signature in WELCOME ({_path}) with GOAWAY(AUTH_FAILED)."
    add(f"13/signature-{_path}", ["RW-SCRAM-4", "RW-WELCOME-3"], _text, _signed(_sign))


@case("7.2/welcome-without-challenge", "RW-WELCOME-3")
async def welcome_without_challenge(t: Context) -> None:
    """The client leaves a server that welcomes an account without a proof that it knows it."""
    exchange = await _asked(t)
    exchange.server.send(t.welcome(exchange.hello), breaks="RW-SCRAM-7")
    await _given_up(t, exchange, "RW-WELCOME-3")


@case("7.2/welcome-before-answer", "RW-WELCOME-3")
async def welcome_before_answer(t: Context) -> None:
    """The client leaves a server that welcomes an account together with the challenge."""
    exchange = await _asked(t)
    octets = t.welcome(exchange.hello, auth=b"v=" + b"A" * 43 + b"=")
    exchange.server.send(Auth(exchange.first(), request=exchange.hello.request), octets, breaks="RW-SCRAM-7")
    await _given_up(t, exchange, "RW-WELCOME-3")


@case("7.3/challenge-twice", "RW-AUTH-1")
async def challenge_twice(t: Context) -> None:
    """The client answers a challenge after the last answer with AUTH, or with GOAWAY(AUTH_FAILED)."""
    exchange = await _answered(t)
    exchange.challenge(exchange.first())
    server = exchange.server
    end = await server.wait(lambda: server.find(Auth) or server.find(Goaway), "AUTH or GOAWAY", "RW-AUTH-1")
    if isinstance(end, Goaway):
        t.require(end.code == Code.AUTH_FAILED, "AUTH_FAILED", end.code)


@case("8.7/wrong-password", "RW-RECONNECT-4")
async def wrong_password(t: Context) -> None:
    """The client does not try again after ERROR(AUTH_FAILED), with or without the account."""
    exchange = await _answered(t)
    refusal = Error(Code.AUTH_FAILED, 0, "no", request=exchange.hello.request)
    exchange.server.send(refusal, Goaway(Code.AUTH_FAILED))
    await exchange.server.close()
    await t.report("closed", requirement="RW-RECONNECT-4")
    await t.quiet(1.5, "RW-RECONNECT-4", "no further connection")
