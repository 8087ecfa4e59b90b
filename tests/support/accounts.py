"""Accounts for tests, and logging in with them."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from protocol.fields import extension
from protocol.frames import Auth, Error, Hello, Welcome
from protocol.registry import PREFACE_SIZE
from protocol.scram import MECHANISM, MIN_ITERATIONS, ClientExchange, salted_password
from reference_server.accounts import AccountsFile
from tests.support.raw_client import PREFACE, RawClient

PASSWORDS = {"Ada": "correct horse", "a,b=c": "comma equals", "Zoë": "pässword"}
"""Names of accounts, as they spell them, with their passwords."""

ADMINS = {"ops": "battery staple"}
"""The accounts that may stop the server."""


def make_accounts(path: Path) -> AccountsFile:
    """An accounts file with PASSWORDS and ADMINS, and as few iterations as allowed."""
    file = AccountsFile(path)
    for name, password in {**PASSWORDS, **ADMINS}.items():
        file.add(name, password, created_ms=0, admin=name in ADMINS, iterations=MIN_ITERATIONS)
    return file


@cache
def accounts_file() -> Path:
    """The same file for all tests of this process."""
    directory = Path(tempfile.mkdtemp(prefix="roomwire-accounts-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return make_accounts(directory / "accounts").path


class Login(RawClient):
    """A connection that says HELLO with SCRAM-SHA-256. `answer` is WELCOME or ERROR."""

    def __init__(self, port: int, name: str, password: str, *, hello_name: str = "") -> None:
        super().__init__(port, hello=False)
        self.send(PREFACE)
        assert self.octets(PREFACE_SIZE)[4] == 1
        self.exchange = exchange = ClientExchange(name, b"0123456789abcdefghijklmn")
        fields = (extension("history"), extension("admin"))
        self.send(Hello(hello_name or name, MECHANISM, exchange.first, fields=fields, request=1))
        first = self.frame()
        if isinstance(first, Auth):
            self.challenge = first.data
            exchange.challenged(first.data)
            salted = salted_password(password, exchange.salt, exchange.iterations)
            self.send(Auth(exchange.answer(salted), request=1))
            first = self.frame()
        assert isinstance(first, Welcome | Error), first
        self.answer = first
        if isinstance(first, Welcome):
            exchange.verify(first.auth)
            self.welcome = first
