"""Steps that come in: HELLO of a guest, and logins (SPEC.md, section 13), right and wrong, that join no room."""

import unicodedata
from functools import partial

from conformance.fuzz.failure import fail
from conformance.fuzz.server.broken_frames import Bench
from conformance.fuzz.server.broken_steps import after_goaway, expect_refusal
from conformance.fuzz.server.player import Player, step
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.steps import Step
from conformance.wire import scram
from conformance.wire.octets import CLIENT_PREFACE, frame
from conformance.wire.text import frame_line
from protocol.fields import agent, extension, extensions
from protocol.frames import Auth, Error, Field, Frame, Goaway, Hello, Stop, Unknown, Welcome
from protocol.registry import GREASE, MAGIC, Code, Flag, FrameType

NAMES = ("ada", "Grace H\u00f6pper", "e\u0301douard", "\u6797", "x" * 60, "a b c")
"""Names of people: one for each client, in turn."""

LOGINS = ("right", "wrong", "unknown", "other-name", "garbled", "goaway", "join", "close")
"""How a login goes on: with the password or another one, for an account that does not exist, or with something else
than an answer to the challenge."""

_AT_HELLO = (Code.SERVER_FULL, Code.RATE_LIMITED)
"""Codes that any HELLO may earn (RW-CONN-3, RW-SASL-9)."""


# --- guests


@step("connect")
def connect(player: Player, step: Step) -> None:
    """Connects as a guest. The client says noise before HELLO and in it if `what` is "grease"."""
    if step.client in player.clients:
        return
    client = player.dial()
    client.cursors = player.cursors.setdefault(step.client, {})
    player.clients[step.client] = client
    name = _name(player, step.number)
    grease = step.what == "grease"
    fields: tuple[Field, ...] = (extension("history"),)
    if grease:
        noise = Field(player.random.choice(GREASE), player.random.randbytes(7))
        more = (extension("grease-0a3f"), extension("org.example.x", b"\xde\xad"), agent("fuzz/1 \u2764"))
        fields = (*more, noise, *fields)
    client.write(MAGIC + bytes([0, 9, 7, 7]) if grease else CLIENT_PREFACE, step.cut)
    player.until_preface(client)
    if client.preface[4] != 1:
        fail("RW-PREFACE-3", "version 1", client.preface.hex())
    player.stats.visit("server", "WAIT_PREFACE", "preface")
    request = client.next_request()
    auth, flags = (b"ignored", 0x0FFF) if grease else (b"", 0)
    hello = Hello(name, "ANONYMOUS", auth, fields=fields, flags=flags, request=request)
    before = client.note(Unknown(GREASE[3], b"before HELLO")) if grease else b""
    client.ask(request, partial(_answered, player, client, name))
    client.write(before + client.note(hello), step.cut)
    player.until(lambda: client.welcome is not None or bool(client.errors), "WELCOME", "RW-HELLO-2", client)
    if client.welcome is None:
        _turned_away(player, client, step)


def _name(player: Player, number: int) -> str:
    names = [name for name in NAMES if name.isascii()] if player.model.ascii_only else NAMES
    return names[number % len(names)]


def _turned_away(player: Player, client: RawClient, step: Step) -> None:
    """Judges how the server ends a connection that it refused. Connects again if it takes ASCII alone (RW-NAME-6)."""
    del player.clients[step.client]
    player.others.append(client)
    code = Code(client.errors[0].code)
    player.until(lambda: client.goaway_ends or client.wire.ended, f"GOAWAY({code.name})", "RW-HELLO-3", client)
    expect_refusal(player, client, code, "RW-HELLO-3")
    after_goaway(player, client)
    client.wire.close()
    if code == Code.NAME_INVALID:
        connect(player, step)


def _answered(player: Player, client: RawClient, name: str, reply: Frame) -> None:
    """Judges the reply to a guest's HELLO. Raises Failed."""
    model = player.model
    if isinstance(reply, Error):
        named = reply.code == Code.NAME_INVALID and not name.isascii() and model.ascii_only is not False
        if named or reply.code in _AT_HELLO:
            if named:
                model.ascii_only = True
            else:
                model.tolerate(reply.code)
            client.errors.append(reply)
            client.expects_end = True
            return
    if not isinstance(reply, Welcome):
        fail("RW-HELLO-2", "WELCOME", frame_line(reply))
    if not name.isascii():
        model.ascii_only = False
    client.welcome = reply
    client.welcomed = player.network.now()
    client.extended = "history" in extensions(reply)
    _expect_guest(player, name, reply)
    model.welcomed(reply)
    player.stats.visit("server", "WAIT_HELLO", "HELLO, complete")


def _expect_guest(player: Player, name: str, welcome: Welcome) -> None:
    line, name = frame_line(welcome), unicodedata.normalize("NFC", name)
    if welcome.name not in (name, "~" + name):
        fail("RW-NAME-1", f"the name {name!r}", line)
    if player.network.accounts and not welcome.name.startswith("~"):
        fail("RW-SASL-5", f"~{name!r} for a guest", line)
    if welcome.flags & Flag.VERIFIED:
        fail("RW-SASL-4", "no VERIFIED for an anonymous client", line)


# --- accounts


@step("login")
def login(player: Player, step: Step) -> None:
    """Logs in as one of the accounts that the network knows, in the way that `what` names (LOGINS)."""
    accounts = player.network.accounts
    if step.what not in LOGINS or not accounts:
        return
    player.settle()
    account = sorted(accounts)[step.number % len(accounts)]
    client = say_hello(player, account, step)
    if step.what == "other-name":  # RW-SCRAM-5: refused at once
        _expect_failed(player, client, "WAIT_HELLO", *_AT_HELLO)
        return
    challenge = _challenge(player, client, step.what)
    if challenge:
        exchange = _Exchange(account, accounts[account], client.nonce)
        _go_on(player, client, step.what, exchange, challenge)
        client.wire.close()


def say_hello(player: Player, account: str, step: Step) -> RawClient:
    """Returns a new connection that has said HELLO with a client-first-message, whose nonce is `nonce`."""
    client = player.dial_aside()
    client.write(CLIENT_PREFACE, step.cut)
    player.until_preface(client)
    name = account
    if step.what == "unknown":
        account = name = f"nobody {player.fresh}"
    elif step.what == "other-name":
        name = f"nobody {player.fresh}"
    client.nonce = player.random.randbytes(18).hex().encode()
    fields = (extension("history"), extension("admin"))
    hello = Hello(name, scram.MECHANISM, scram.first_message(account, client.nonce), fields=fields, request=1)
    client.ask(1, partial(_login_answered, client))
    client.write(client.note(hello), step.cut)
    return client


def until_challenge(player: Player, client: RawClient) -> None:
    """Waits for AUTH, or for ERROR. Raises Failed."""
    player.until(lambda: bool(client.challenges or client.errors), "AUTH", "RW-HELLO-2", client)


def _login_answered(client: RawClient, reply: Frame) -> None:
    if isinstance(reply, Welcome):
        client.welcome = reply
    elif isinstance(reply, Error):
        client.errors.append(reply)


def _challenge(player: Player, client: RawClient, what: str) -> scram.Challenge | None:
    """Waits for the server's challenge, and judges it. Returns None if the server refuses all logins at the moment."""
    until_challenge(player, client)
    if not client.challenges:
        if client.errors[0].code in _AT_HELLO:
            _expect_failed(player, client, "WAIT_HELLO", *_AT_HELLO)
            return None
        fail("RW-SCRAM-2" if what == "unknown" else "RW-HELLO-2", "AUTH", frame_line(client.errors[0]))
    player.stats.visit("server", "WAIT_HELLO", "HELLO, needs more")
    try:
        challenge = scram.Challenge(client.challenges[0].data)
    except ValueError as error:
        fail("RW-SCRAM-7", "a server-first-message", f"{error}")
    if not challenge.nonce.startswith(client.nonce) or challenge.nonce == client.nonce:
        fail("RW-SCRAM-7", f"a nonce that goes on behind {client.nonce!r}", f"{challenge.nonce!r}")
    return challenge


def _go_on(player: Player, client: RawClient, what: str, exchange: "_Exchange", challenge: scram.Challenge) -> None:
    """Says what follows the challenge, and judges the answer."""
    match what:
        case "right":
            _come_in(player, client, exchange, challenge)
        case "goaway":
            client.write(client.note(Goaway(Code.NONE)))
            player.until_goaway(client, "RW-CLOSE-3", Code.NONE)
            player.stats.visit("server", "AUTHENTICATING", "GOAWAY")
        case "join":
            bench = Bench(player.random, 7, 0, bytes(16), 4096)
            client.write(frame(FrameType.JOIN, bench.join(), request=7))
            player.until_goaway(client, "RW-HELLO-5", Code.UNEXPECTED)
            player.stats.visit("server", "AUTHENTICATING", "fatal error")
            after_goaway(player, client)
        case "close":
            pass
        case _:
            message = exchange.answer(challenge, wrong=what != "unknown")
            if what == "garbled":
                at = player.random.randrange(len(message) - 4)  # not in the unused bits at the end of base64
                flipped = message[at] ^ 1 << player.random.randrange(7)
                message = message[:at] + bytes([flipped]) + message[at + 1 :]
            client.write(client.note(Auth(message, request=1)))
            _expect_failed(player, client, "AUTHENTICATING", Code.RATE_LIMITED)


def _expect_failed(player: Player, client: RawClient, state: str, *busy: Code) -> None:
    """Judges the end of a login that earns AUTH_FAILED, or one of the codes for which no client is to blame."""
    player.until(lambda: client.goaway_ends or client.wire.ended, "ERROR and GOAWAY", "RW-SCRAM-7", client)
    code = Code.AUTH_FAILED
    if client.errors and client.errors[0].code in busy:
        code = Code(client.errors[0].code)
        player.model.tolerate(code)
    elif not client.errors or client.errors[0].code != code:
        told = bool(client.errors) and client.errors[0].code == Code.SERVER_FULL
        fail("RW-SASL-11" if told else "RW-SCRAM-7", "ERROR(AUTH_FAILED)", client.last_words())
    if not client.goaway or client.goaway.code != code:
        fail("RW-HELLO-3", f"GOAWAY({code.name})", client.last_words())
    player.stats.visit("server", state, "refused")
    after_goaway(player, client)
    client.wire.close()


def _come_in(player: Player, client: RawClient, exchange: "_Exchange", challenge: scram.Challenge) -> None:
    """Answers the challenge with the right proof, and judges WELCOME."""
    client.write(client.note(Auth(exchange.answer(challenge), request=1)))
    player.until(lambda: bool(client.welcome or client.errors), "WELCOME", "RW-SCRAM-6", client)
    welcome = client.welcome
    if welcome is None:
        if client.errors[0].code != Code.SERVER_FULL:  # RW-SASL-10
            fail("RW-SCRAM-7", "WELCOME", frame_line(client.errors[0]))
        _expect_failed(player, client, "AUTHENTICATING", Code.SERVER_FULL)
        return
    if welcome.auth != exchange.signature(challenge):
        fail("RW-SCRAM-7", "the server's signature in WELCOME", welcome.auth.hex())
    if welcome.name != exchange.account:
        fail("RW-SCRAM-6", f"the account's name {exchange.account!r}", repr(welcome.name))
    if not welcome.flags & Flag.VERIFIED:
        fail("RW-SASL-4", "VERIFIED", frame_line(welcome))
    player.stats.visit("server", "AUTHENTICATING", "AUTH, complete")
    _use_rights(player, client, welcome)


def _use_rights(player: Player, client: RawClient, welcome: Welcome) -> None:
    """Asks for STOP, which the account has no right to, and lets the operator revoke the account."""
    if "admin" in extensions(welcome):
        client.ask(2, _expect_forbidden)
        client.write(client.note(Stop(request=2)))
        player.until(lambda: not client.due, "ERROR(FORBIDDEN)", "RW-STOP-1", client)
    if player.network.operate("revoke"):
        player.until_goaway(client, "RW-SASL-8", Code.ACCOUNT_REVOKED)
        player.stats.visit("server", "OPEN", "close")
        after_goaway(player, client)
        player.network.operate("restore")


def _expect_forbidden(reply: Frame) -> None:
    if not isinstance(reply, Error) or reply.code != Code.FORBIDDEN:
        fail("RW-STOP-1", "ERROR(FORBIDDEN) to an account that may not", frame_line(reply))


class _Exchange:
    """SCRAM-SHA-256 for one account."""

    def __init__(self, account: str, password: str, nonce: bytes) -> None:
        self.account = account
        self._password = password
        self._nonce = nonce

    def _message(self, challenge: scram.Challenge) -> tuple[bytes, bytes]:
        without_proof = b"c=biws,r=" + challenge.nonce
        bare = scram.bare(self.account, self._nonce)
        return without_proof, b",".join((bare, challenge.data, without_proof))

    def answer(self, challenge: scram.Challenge, *, wrong: bool = False) -> bytes:
        """The client-final-message; a `wrong` one has the proof of another password."""
        password = self._password + ("?" if wrong else "")
        without_proof, message = self._message(challenge)
        made = scram.proof(password, message, challenge.salt, challenge.iterations)
        return scram.final_message(without_proof, made)

    def signature(self, challenge: scram.Challenge) -> bytes:
        """The signature that WELCOME has to have."""
        return scram.signature(self._password, self._message(challenge)[1], challenge.salt, challenge.iterations)
