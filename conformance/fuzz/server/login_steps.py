"""Logins (SPEC.md, section 13), on connections that join no room: what a server may answer, right or wrong."""

from conformance.fuzz.failure import fail
from conformance.fuzz.server.broken_frames import Bench
from conformance.fuzz.server.broken_steps import Endings
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.steps import Step
from conformance.wire import scram
from conformance.wire.octets import CLIENT_PREFACE, frame
from conformance.wire.text import frame_line
from protocol.fields import extension, extensions
from protocol.frames import Auth, Error, Frame, Goaway, Hello, Stop, Welcome
from protocol.registry import Code, Flag, FrameType

LOGINS = ("right", "wrong", "unknown", "other-name", "garbled", "goaway", "join", "close")
"""How one goes on: with the password, with another one, for nobody's account, and what is no answer to a challenge."""

_AT_HELLO = (Code.SERVER_FULL, Code.RATE_LIMITED)
"""What any HELLO may earn (RW-CONN-3, RW-SASL-9)."""


class Logins(Endings):
    """The step "login"."""

    def _login(self, step: Step) -> None:
        accounts = self.network.accounts
        if step.what not in LOGINS or not accounts:
            return
        self.settle()
        account = sorted(accounts)[step.number % len(accounts)]
        end = self.hello(account, step)
        end.aside = False
        exchange = _Exchange(account, accounts[account], end.nonce)
        nobody = step.what in ("unknown", "other-name")
        if step.what == "other-name":  # RW-SCRAM-5: refused at once
            self._refused_login(end, "WAIT_HELLO", *_AT_HELLO)
            return
        self.until(lambda: bool(end.challenges) or bool(end.errors), "AUTH", "RW-HELLO-2", end)
        if not end.challenges:
            if end.errors[0].code in _AT_HELLO:
                self._refused_login(end, "WAIT_HELLO", *_AT_HELLO)
                return
            fail("RW-SCRAM-2" if nobody else "RW-HELLO-2", "AUTH", frame_line(end.errors[0]))
        self.stats.visit("server", "WAIT_HELLO", "HELLO, needs more")
        try:
            challenge = scram.Challenge(end.challenges[0].data)
        except ValueError as error:
            fail("RW-SCRAM-7", "a server-first-message", f"{error}")
        if not challenge.nonce.startswith(end.nonce) or challenge.nonce == end.nonce:
            fail("RW-SCRAM-7", f"a nonce that goes on behind {end.nonce!r}", f"{challenge.nonce!r}")
        match step.what:
            case "right":
                self._come_in(end, exchange, challenge)
            case "goaway":
                end.write(end.note(Goaway(Code.NONE)))
                self.until(lambda: end.goaway_ends or end.wire.ended, "GOAWAY(NONE)", "RW-CLOSE-3", end)
                if not end.goaway or end.goaway.code != Code.NONE:
                    fail("RW-CLOSE-3", "GOAWAY(NONE)", end.last_words())
                self.stats.visit("server", "AUTHENTICATING", "GOAWAY")
            case "join":
                bench = Bench(self.random, 7, 0, bytes(16), 4096)
                end.write(frame(FrameType.JOIN, bench.join(), request=7))
                self.until(lambda: end.goaway_ends or end.wire.ended, "GOAWAY(UNEXPECTED)", "RW-HELLO-5", end)
                if not end.goaway or end.goaway.code != Code.UNEXPECTED:
                    fail("RW-HELLO-5", "GOAWAY(UNEXPECTED)", end.last_words())
                self.stats.visit("server", "AUTHENTICATING", "fatal error")
                self._after_goaway(end)
            case "close":
                pass
            case _:
                message = exchange.answer(challenge, wrong=step.what != "unknown")
                if step.what == "garbled":
                    at = self.random.randrange(len(message) - 4)  # not in the unused bits at the end of base64
                    message = message[:at] + bytes([message[at] ^ 1 << self.random.randrange(7)]) + message[at + 1 :]
                end.write(end.note(Auth(message, request=1)))
                self._refused_login(end, "AUTHENTICATING", Code.RATE_LIMITED)
        end.wire.close()

    def hello(self, account: str, step: Step) -> RawClient:
        """A connection that has said HELLO. `nonce` of it is the client's."""
        end = self.dial()
        self.others.append(end)
        end.expects_end = True
        end.write(CLIENT_PREFACE, step.cut)
        self.until(lambda: bool(end.preface), "the server's preface", "RW-PREFACE-2", end)
        name = account
        if step.what == "unknown":
            account = name = f"nobody {self.fresh}"
        elif step.what == "other-name":
            name = f"nobody {self.fresh}"
        end.nonce = self.random.randbytes(18).hex().encode()
        fields = (extension("history"), extension("admin"))
        hello = Hello(name, scram.MECHANISM, scram.first_message(account, end.nonce), fields=fields, request=1)
        end.ask(1, lambda reply: self._welcomed(end, reply))
        end.write(end.note(hello), step.cut)
        return end

    def _welcomed(self, end: RawClient, reply: Frame) -> None:
        if isinstance(reply, Welcome):
            end.welcome = reply
        elif isinstance(reply, Error):
            end.errors.append(reply)

    def _refused_login(self, end: RawClient, state: str, *busy: Code) -> None:
        """It has earned AUTH_FAILED, or one of those codes for which a client may not be to blame."""
        self.until(lambda: end.goaway_ends or end.wire.ended, "ERROR and GOAWAY", "RW-SCRAM-7", end)
        code = Code.AUTH_FAILED
        if end.errors and end.errors[0].code in busy:
            code = Code(end.errors[0].code)
            self.model.tolerate(code)
        elif not end.errors or end.errors[0].code != code:
            told = bool(end.errors) and end.errors[0].code == Code.SERVER_FULL
            fail("RW-SASL-11" if told else "RW-SCRAM-7", "ERROR(AUTH_FAILED)", end.last_words())
        if not end.goaway or end.goaway.code != code:
            fail("RW-HELLO-3", f"GOAWAY({code.name})", end.last_words())
        self.stats.visit("server", state, "refused")
        self._after_goaway(end)
        end.wire.close()

    def _come_in(self, end: RawClient, exchange: "_Exchange", challenge: scram.Challenge) -> None:
        message = exchange.answer(challenge)
        end.write(end.note(Auth(message, request=1)))
        self.until(lambda: bool(end.welcome) or bool(end.errors), "WELCOME", "RW-SCRAM-6", end)
        welcome = end.welcome
        if welcome is None:
            if end.errors[0].code != Code.SERVER_FULL:  # RW-SASL-10
                fail("RW-SCRAM-7", "WELCOME", frame_line(end.errors[0]))
            self._refused_login(end, "AUTHENTICATING", Code.SERVER_FULL)
            return
        if welcome.auth != exchange.signature(challenge):
            fail("RW-SCRAM-7", "the server's signature in WELCOME", welcome.auth.hex())
        if welcome.name != exchange.account:
            fail("RW-SCRAM-6", f"the account's name {exchange.account!r}", repr(welcome.name))
        if not welcome.flags & Flag.VERIFIED:
            fail("RW-SASL-4", "VERIFIED", frame_line(welcome))
        self.stats.visit("server", "AUTHENTICATING", "AUTH, complete")
        if "admin" in extensions(welcome):
            stop = Stop(request=2)
            end.ask(2, lambda reply: self._may_not_stop(reply))
            end.write(end.note(stop))
            self.until(lambda: not end.due, "ERROR(FORBIDDEN)", "RW-STOP-1", end)
        if self.network.operate("revoke"):
            self.until(lambda: end.goaway_ends or end.wire.ended, "GOAWAY(ACCOUNT_REVOKED)", "RW-SASL-8", end)
            if not end.goaway or end.goaway.code != Code.ACCOUNT_REVOKED:
                fail("RW-SASL-8", "GOAWAY(ACCOUNT_REVOKED)", end.last_words())
            self.stats.visit("server", "OPEN", "close")
            self._after_goaway(end)
            self.network.operate("restore")

    def _may_not_stop(self, reply: Frame) -> None:
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
        """The client-final-message, with the proof of another password if it is to be wrong."""
        password = self._password + ("?" if wrong else "")
        without_proof, message = self._message(challenge)
        made = scram.proof(password, message, challenge.salt, challenge.iterations)
        return scram.final_message(without_proof, made)

    def signature(self, challenge: scram.Challenge) -> bytes:
        """What WELCOME has to say."""
        return scram.signature(self._password, self._message(challenge)[1], challenge.salt, challenge.iterations)
