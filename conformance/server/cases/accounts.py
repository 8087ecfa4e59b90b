"""Sections 7.3 and 13: accounts and SCRAM-SHA-256, tried with the accounts that the run declares."""

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from conformance.harness.verdicts import Failed, Informative, Unsupported
from conformance.server.cases.steps import SERVER, case, unreserved
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire import scram
from conformance.wire.octets import b16, frame
from conformance.wire.scram import Challenge
from conformance.wire.text import frame_line
from protocol.fields import extension
from protocol.frames import Auth, Error, Frame, Goaway, Hello, Welcome
from protocol.registry import Code, Flag, FrameType

_STEPS = 4  # RW-AUTH-3


def _accounts(t: Context) -> dict[str, str]:
    """The declared accounts, passwords by name. Raises Unsupported if there are none."""
    if not t.options.accounts:
        raise Unsupported("the run declares no accounts ([accounts] in the file of --config)")
    return dict(t.options.accounts)


def declared_account(t: Context) -> tuple[str, str]:
    """The first declared account and its password. Raises Unsupported if there is none."""
    return next(iter(_accounts(t).items()))


@dataclass
class Exchange:
    """A SCRAM exchange after the server's challenge. `bare` is the client's first message without its GS2 header."""

    client: RawClient
    request: int
    bare: bytes
    challenge: Challenge

    def without_proof(self) -> bytes:
        return b"c=biws,r=" + self.challenge.nonce

    def message(self) -> bytes:
        return b",".join((self.bare, self.challenge.data, self.without_proof()))

    def final(self, password: str) -> bytes:
        """The client's final message for a password."""
        made = scram.proof(password, self.message(), self.challenge.salt, self.challenge.iterations)
        return scram.final_message(self.without_proof(), made)

    def signature(self, password: str) -> bytes:
        return scram.signature(password, self.message(), self.challenge.salt, self.challenge.iterations)

    def answer(self, data: bytes) -> None:
        self.client.send(Auth(data, request=self.request))


def _nonce() -> bytes:
    return os.urandom(15).hex().encode()


async def _sent_hello(t: Context, name: str, first: bytes, *names: str) -> tuple[RawClient, int]:
    """A connection that has sent HELLO with this first message and got its answer, and the number of that request.

    Where the server limits logins that fail, the message is sent again on other connections. Raises TooLong.
    """
    fields = tuple(map(extension, names))
    said: list[tuple[RawClient, int]] = []

    async def ask() -> tuple[Frame | None, int]:
        client = await t.greet()
        said.append((client, client.ask(Hello(name, scram.MECHANISM, first, fields=fields))))
        return None, await _refused_for(client)

    if retry_ms := (await ask())[1]:
        await t.in_turn(t.target.rates.logins, ask, retry_ms)
    return said[-1]


async def _refused_for(client: RawClient) -> int:
    """The retry_ms of a login that the server refuses because too many have failed, and otherwise 0."""
    with contextlib.suppress(Failed):
        await client.wait(lambda: bool(client.seen(Auth, Error, Welcome, Goaway)) or None, "an answer to HELLO")
    refusals = [frame for frame in client.seen(Error) if frame.code == Code.RATE_LIMITED]
    if not refusals:
        return 0
    await client.expect_closed("RW-HELLO-3")
    return max(refusals[0].retry_ms, 1)


async def _challenged(
    t: Context, name: str, *names: str, hello_name: str = "", requirement: str = "RW-HELLO-2"
) -> Exchange:
    """An exchange up to the server's challenge, which must be well-formed and go on with the client's nonce."""
    bare = scram.bare(name, _nonce())
    client, request = await _sent_hello(t, hello_name or name, b"n,," + bare, *names)
    auth = await client.expect_frame(
        Auth, lambda frame: frame.request == request, "AUTH with the challenge", requirement
    )
    try:
        challenge = Challenge(auth.data)
    except ValueError as error:
        raise Failed("a server-first-message", str(error), "RW-SCRAM-2") from None
    mine = bare.rpartition(b"r=")[2]
    if not challenge.nonce.startswith(mine) or challenge.nonce == mine:
        raise Failed(f"a nonce that goes on after {mine!r}", repr(challenge.nonce), "RW-SCRAM-7")
    return Exchange(client, request, bare, challenge)


async def _welcomed(
    t: Context, name: str, password: str, *names: str, hello_name: str = ""
) -> tuple[Exchange, Welcome]:
    """An exchange that leads to WELCOME; waits while the account has all the connections that it may have."""
    while True:
        exchange = await _challenged(t, name, *names, hello_name=hello_name)
        exchange.answer(exchange.final(password))
        reply = await exchange.client.reply(exchange.request, "RW-SCRAM-5")
        if isinstance(reply, Welcome):
            return exchange, reply
        full = isinstance(reply, Error) and reply.code == Code.SERVER_FULL  # RW-SASL-10: cases run side by side
        t.require(full, f"WELCOME for request {exchange.request}", frame_line(reply), "RW-SCRAM-5")
        await t.wait_ms(cast(Error, reply).retry_ms)


async def logged_in(t: Context, name: str, password: str, *names: str) -> RawClient:
    """An open connection of an account."""
    async with t.control(f"logging in as {name}"):
        exchange, _ = await _welcomed(t, name, password, *names)
    return exchange.client


def _next_step(client: RawClient) -> Auth | Error | None:
    return client.find(Auth) or client.find(Error)


async def _expect_auth_failed(client: RawClient, request: int, requirement: str) -> Error:
    """Expects ERROR(AUTH_FAILED), then GOAWAY with the same code, and the end."""
    error = await client.expect_error(request, Code.AUTH_FAILED, requirement)
    await client.expect_goaway(Code.AUTH_FAILED, "RW-HELLO-3")
    return error


@case("13/scram", "RW-SCRAM-6", "RW-SCRAM-5", "RW-SCRAM-7", "RW-SASL-4", "RW-HELLO-2")
async def login(t: Context) -> None:
    """The server lets each account log in: WELCOME has the account's name, VERIFIED, and the server's signature."""
    for name, password in _accounts(t).items():
        exchange, welcome = await _welcomed(t, name, password)
        t.require(welcome.name == name, f"the name {name!r}", welcome.name, "RW-SCRAM-6")
        t.require(bool(welcome.flags & Flag.VERIFIED), "VERIFIED", hex(welcome.flags), "RW-SASL-4")
        wanted = exchange.signature(password)
        t.require(welcome.auth == wanted, f"the signature {wanted!r}", welcome.auth, "RW-SCRAM-7")
        await exchange.client.fence()


@case("13/scram-messages-verified", "RW-SASL-4", "RW-MESSAGE-2")
async def messages_verified(t: Context) -> None:
    """The server sets VERIFIED in an account's messages, with the account's name, and not in a guest's."""
    name, password = declared_account(t)
    client = await logged_in(t, name, password)
    joined = await t.join(client, t.room())
    guest, _ = await t.member(joined.name)
    for publisher, verified in ((client, True), (guest, False)):
        for seen in await t.marker(publisher, client, guest, room=joined.room):
            flag = bool(seen[-1].flags & Flag.VERIFIED)
            t.require(flag == verified, f"VERIFIED {verified}", flag, "RW-MESSAGE-2")
            t.require(seen[-1].name == publisher.welcome.name, publisher.welcome.name, seen[-1].name)


@case("13/scram-other-spelling", "RW-SCRAM-5", "RW-SCRAM-6")
async def other_spelling(t: Context) -> None:
    """The server finds an account by the key of its name, in any case, and grants the account's spelling."""
    name, password = declared_account(t)
    for spelling in (name.upper(), name.lower(), name.title()):
        _, welcome = await _welcomed(t, spelling, password, hello_name=name)
        t.require(welcome.name == name, f"the name {name!r}", welcome.name, "RW-SCRAM-6")


@case("13/scram-escapes", "RW-SCRAM-5")
async def escapes(t: Context) -> None:
    """The server finds an account whose name has a comma or an equals sign, sent as =2C and =3D."""
    odd = [(name, password) for name, password in _accounts(t).items() if "," in name or "=" in name]
    if not odd:
        raise Informative("the run declares no account with a comma or an equals sign in its name")
    for name, password in odd:
        await _welcomed(t, name, password)


@case("13/scram-other-name", "RW-SCRAM-5")
async def other_name(t: Context) -> None:
    """The server refuses a HELLO whose name has another key than `n=`, despite the right password."""
    name, password = declared_account(t)
    await logged_in(t, name, password)
    first = scram.first_message(name, _nonce())
    client, request = await _sent_hello(t, t.name(), first)
    answer: Auth | Error = await client.wait(lambda: _next_step(client), "AUTH or ERROR", "RW-SCRAM-5")
    if isinstance(answer, Auth):  # the server may compare the names only at the end
        exchange = Exchange(client, request, first[3:], Challenge(answer.data))
        exchange.answer(exchange.final(password))
        answer = await client.expect_error(request, Code.AUTH_FAILED, "RW-SCRAM-5")
    t.require(answer.code == Code.AUTH_FAILED, "AUTH_FAILED", frame_line(answer))
    await client.expect_goaway(Code.AUTH_FAILED, "RW-HELLO-3")


@case("13/scram-wrong-password", "RW-SCRAM-7", "RW-HELLO-3")
async def wrong_password(t: Context) -> None:
    """The server answers a wrong password with ERROR(AUTH_FAILED), then GOAWAY(AUTH_FAILED)."""
    name, password = declared_account(t)
    await logged_in(t, name, password)
    exchange = await _challenged(t, name)
    exchange.answer(exchange.final(password + "x"))
    await _expect_auth_failed(exchange.client, exchange.request, "RW-SCRAM-7")
    await t.alive()


@case("13/scram-unknown-account", "RW-SCRAM-2")
async def unknown_account(t: Context) -> None:
    """The server's salt, iteration count and refusal do not tell an unknown account from a wrong password."""
    known = [await _challenged(t, name) for name in _accounts(t)]
    stranger, other = t.name(), t.name()
    strangers = [await _challenged(t, name) for name in (stranger, stranger.upper(), other)]
    one, again, another = (exchange.challenge for exchange in strangers)
    counts = {exchange.challenge.iterations for exchange in (*known, *strangers)}
    t.require(len(counts) == 1, "one iteration count for all", counts)
    sizes = {len(exchange.challenge.salt) for exchange in (*known, *strangers)}
    t.require(len(sizes) == 1, "salts of one length", sizes)
    t.require(one.salt == again.salt, "the same salt for a name in another spelling", (one.salt, again.salt))
    t.require(one.salt != another.salt, "another salt for another name", one.salt)
    said = set()
    for name in (declared_account(t)[0], stranger):  # begun again: a handshake has only so much time
        exchange = await _challenged(t, name)
        exchange.answer(exchange.final("not the password"))
        error = await _expect_auth_failed(exchange.client, exchange.request, "RW-SCRAM-2")
        said.add((error.code, error.retry_ms, error.text, unreserved(error.fields), error.flags))
    t.require(len(said) == 1, "the same refusal for both", said)


@case("13/scram-one-attempt", "RW-SASL-2")
async def one_attempt(t: Context) -> None:
    """The server does not accept a right answer that follows a wrong one on the same connection."""
    name, password = declared_account(t)
    await logged_in(t, name, password)
    exchange = await _challenged(t, name)
    exchange.answer(exchange.final("not the password"))
    exchange.answer(exchange.final(password))
    await _expect_auth_failed(exchange.client, exchange.request, "RW-SASL-2")
    t.require(not exchange.client.left_over(Welcome, Auth), "nothing else", exchange.client.left_over(Welcome, Auth))


@case("13/scram-replayed", "RW-SCRAM-7")
async def replayed(t: Context) -> None:
    """The server refuses the answer of an earlier exchange, though the client's nonce is the same."""
    name, password = declared_account(t)
    async with t.control("logging in"):
        first, _ = await _welcomed(t, name, password)
    client, request = await _sent_hello(t, name, b"n,," + first.bare)
    async with t.control("the challenge"):
        await client.expect_frame(Auth)
    client.send(Auth(first.final(password), request=request))
    await _expect_auth_failed(client, request, "RW-SCRAM-7")


@case("13/account-full", "RW-SASL-10", "RW-CONN-3", tags=["process"])
async def account_full(t: Context) -> None:
    """The server refuses an account's connections beyond a limit with SERVER_FULL and a retry_ms; others get in."""
    (name, password), *others = _accounts(t).items()
    clients, exchange, refusal = await _fill_account(t, name, password)
    full = refusal.code == Code.SERVER_FULL and refusal.retry_ms > 0
    t.require(full, "SERVER_FULL with a retry_ms", frame_line(refusal), "RW-CONN-3")
    await exchange.client.expect_goaway(Code.SERVER_FULL, "RW-HELLO-3")
    for other, its_password in others[:1]:
        _, reply = await _log_in(t, other, its_password)
        t.require(isinstance(reply, Welcome), "WELCOME for another account", frame_line(reply), "RW-SASL-10")
    await (await t.greet()).hello(name)
    for client in clients:
        await client.fence("RW-CLOSE-7")
    await clients.pop().close()
    for _ in range(50):
        if isinstance((await _log_in(t, name, password))[1], Welcome):
            return
        await t.wait_ms(100)
    raise Failed("WELCOME for the account after one of its connections has ended", "none within 5 s", "RW-SASL-10")


@case("13/account-full-untold", "RW-SASL-11", tags=["process"])
async def account_full_untold(t: Context) -> None:
    """The server challenges a client of a full account, and answers a wrong password with AUTH_FAILED."""
    name, password = declared_account(t)
    await _fill_account(t, name, password)
    exchange = await _challenged(t, name, requirement="RW-SASL-11")
    exchange.answer(exchange.final("not the password"))
    await _expect_auth_failed(exchange.client, exchange.request, "RW-SASL-11")


async def _fill_account(t: Context, name: str, password: str) -> tuple[list[RawClient], Exchange, Error]:
    """Fills an account on the case's own server: its connections, and the first exchange that is refused."""
    await t.with_limits(account_connections=2)
    most = min(t.options.limits.get("account_connections", 2), 40)
    clients = [await logged_in(t, name, password)]
    while len(clients) <= most:
        exchange, reply = await _log_in(t, name, password)
        if isinstance(reply, Error):
            return clients, exchange, reply
        clients.append(exchange.client)
    raise Informative(f"not tried: the server let in {len(clients)} connections of one account")


async def _log_in(t: Context, name: str, password: str) -> tuple[Exchange, Frame]:
    """A login and its reply. Where no challenge comes, a guest must get in: the server as a whole has room."""
    try:
        exchange = await _challenged(t, name, requirement="RW-SASL-11")
    except Failed:
        await t.open()
        raise
    exchange.answer(exchange.final(password))
    return exchange, await exchange.client.reply(exchange.request, "RW-HELLO-2")


_FIRST: dict[str, Callable[[bytes, bytes], bytes]] = {
    "empty": lambda name, nonce: b"",
    "header-y": lambda name, nonce: b"y,,n=" + name + b",r=" + nonce,
    "header-p": lambda name, nonce: b"p=tls-exporter,,n=" + name + b",r=" + nonce,
    "header-none": lambda name, nonce: b"n=" + name + b",r=" + nonce,
    "authzid": lambda name, nonce: b"n,a=" + name + b",n=" + name + b",r=" + nonce,
    "mandatory": lambda name, nonce: b"n,,m=x,n=" + name + b",r=" + nonce,
    "no-nonce": lambda name, nonce: b"n,,n=" + name,
    "empty-nonce": lambda name, nonce: b"n,,n=" + name + b",r=",
    "no-name": lambda name, nonce: b"n,,r=" + nonce,
    "empty-name": lambda name, nonce: b"n,,n=,r=" + nonce,
    "bad-escape": lambda name, nonce: b"n,,n=" + name + b"=2E,r=" + nonce,
    "not-utf-8": lambda name, nonce: b"n,,n=" + name + b"\xff,r=" + nonce,
}


def _define_first(path: str, change: Callable[[bytes, bytes], bytes]) -> None:
    async def run(t: Context) -> None:
        name, password = declared_account(t)
        await logged_in(t, name, password)
        client, request = await _sent_hello(t, name, change(scram.escaped(name), _nonce()))
        await _expect_auth_failed(client, request, "RW-SCRAM-7")

    text = f"The server answers a wrong client-first-message ({path}) with AUTH_FAILED."
    SERVER.add(f"13/scram-first-{path}", ["RW-SCRAM-7"], text, run)


_FINAL: dict[str, Callable[[Exchange, bytes], bytes]] = {
    "empty": lambda exchange, final: b"",
    "no-proof": lambda exchange, final: exchange.without_proof(),
    "header-y": lambda exchange, final: final.replace(b"c=biws", b"c=eSws", 1),
    "short-nonce": lambda exchange, final: final.replace(exchange.challenge.nonce, exchange.challenge.nonce[:-1], 1),
    "own-nonce": lambda exchange, final: final.replace(exchange.challenge.nonce, exchange.bare.rpartition(b"r=")[2], 1),
    "short-proof": lambda exchange, final: exchange.without_proof() + b",p=AAAA",
    "not-base64": lambda exchange, final: final[:-4] + b"(..)",
    "more": lambda exchange, final: final + b",x=y",
}


def _define_final(path: str, change: Callable[[Exchange, bytes], bytes]) -> None:
    async def run(t: Context) -> None:
        name, password = declared_account(t)
        await logged_in(t, name, password)
        exchange = await _challenged(t, name)
        exchange.answer(change(exchange, exchange.final(password)))
        await _expect_auth_failed(exchange.client, exchange.request, "RW-SCRAM-7")

    text = f"The server answers a wrong client-final-message ({path}) with AUTH_FAILED."
    SERVER.add(f"13/scram-final-{path}", ["RW-SCRAM-7"], text, run)


for _path, _first in _FIRST.items():
    _define_first(_path, _first)
for _path, _final in _FINAL.items():
    _define_final(_path, _final)


@case("7.3/other-request", "RW-AUTH-2")
async def other_request(t: Context) -> None:
    """The server sends GOAWAY(BAD_HEADER) for AUTH with another request number than HELLO's."""
    name, password = declared_account(t)
    await logged_in(t, name, password)
    exchange = await _challenged(t, name)
    exchange.client.send(Auth(exchange.final(password), request=exchange.request + 1), breaks="RW-AUTH-2")
    await exchange.client.expect_goaway(Code.BAD_HEADER, "RW-AUTH-2")
    await t.alive()


@case("7.3/other-request-cut", "RW-AUTH-2")
async def other_request_cut(t: Context) -> None:
    """The server sends GOAWAY(BAD_HEADER) for AUTH with another request number, also when its body is cut."""
    name, password = declared_account(t)
    await logged_in(t, name, password)
    exchange = await _challenged(t, name)
    body = b16(exchange.final(password))[:-1]
    exchange.client.send_octets(frame(FrameType.AUTH, body, request=exchange.request + 1), breaks="RW-AUTH-2")
    await exchange.client.expect_goaway(Code.BAD_HEADER, "RW-AUTH-2")
    await t.alive()


@case("7.3/auth-after-welcome", "RW-AUTH-2")
async def auth_after_welcome(t: Context) -> None:
    """The server sends GOAWAY(UNEXPECTED) for AUTH on an open connection, even with HELLO's request."""
    name, password = declared_account(t)
    client = await logged_in(t, name, password)
    client.send(Auth(b"c=biws", request=1), breaks="RW-AUTH-2")
    await client.expect_goaway(Code.UNEXPECTED, "RW-AUTH-2")
    await t.alive()


@case("7.3/steps", "RW-AUTH-3")
async def steps(t: Context) -> None:
    """The server sends at most four AUTH frames in an exchange, then refuses it with AUTH_FAILED."""
    name, _ = declared_account(t)
    exchange = await _challenged(t, name)
    client, asked = exchange.client, 1
    while asked <= _STEPS:
        exchange.answer(b"and on")
        answer: Auth | Error = await client.wait(lambda: _next_step(client), "AUTH or ERROR", "RW-AUTH-3")
        if isinstance(answer, Error):
            t.require(answer.code == Code.AUTH_FAILED, "AUTH_FAILED", frame_line(answer))
            await client.expect_goaway(Code.AUTH_FAILED, "RW-HELLO-3")
            return
        asked += 1
    raise Failed(f"at most {_STEPS} AUTH", f"{asked}", "RW-AUTH-3")


@case("13/guest", "RW-SASL-5", "RW-SASL-4")
async def guest(t: Context) -> None:
    """The server puts a ~ before a guest's name, whether or not an account has that name, and clears VERIFIED."""
    account, _ = declared_account(t)
    for asked in (t.name(), account, f"~{t.name()}", "x" * 63):
        client = await t.greet()
        welcome = await client.hello(asked)
        wanted = asked if asked.startswith("~") else f"~{asked}"
        t.require(welcome.name == wanted, f"the name {wanted!r}", welcome.name, "RW-SASL-5")
        t.require(not welcome.flags & Flag.VERIFIED, "VERIFIED clear", hex(welcome.flags), "RW-SASL-4")


@case("13/guest-too-long", "RW-SASL-5")
async def guest_too_long(t: Context) -> None:
    """The server answers a guest's name that has no room for the ~ with NAME_INVALID."""
    _accounts(t)
    control = await t.greet()
    async with t.control("a name with room for the ~"):
        await control.hello("x" * 63)
    client = await t.greet()
    request = client.ask(Hello("x" * 64, "ANONYMOUS", b""))
    await client.expect_error(request, Code.NAME_INVALID, "RW-SASL-5")
    await client.expect_goaway(Code.NAME_INVALID, "RW-HELLO-3")
