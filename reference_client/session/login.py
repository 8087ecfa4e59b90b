"""Logging in to an account, over as many connections as it takes (SPEC.md, section 13)."""

import base64
import random
from collections.abc import Callable

from protocol.scram import ClientExchange, ScramError, salted_password

_NONCE_SIZE = 24


class Login:
    """Name and password. What the password makes with a salt is dear, and remembered: a server has one salt for it.

    `rng` makes nonces: random.SystemRandom(), but in tests.
    """

    def __init__(self, name: str, password: str, rng: random.Random) -> None:
        password.encode()  # UnicodeEncodeError here, and not in the midst of an exchange
        self._name = name
        self._password = password
        self._rng = rng
        self._salted: tuple[bytes, int, bytes] | None = None  # with the salt and the iteration count
        self._exchange: ClientExchange | None = None
        self._owed = False  # a challenge is not answered yet

    def begin(self) -> bytes:
        """A new exchange on a new connection: the client's first message."""
        nonce = base64.b64encode(self._rng.randbytes(_NONCE_SIZE))
        self._exchange = ClientExchange(self._name, nonce)
        self._owed = False
        return self._exchange.first

    def challenged(self, data: bytes) -> None:
        """The server's first message. Raises ScramError."""
        assert self._exchange is not None
        self._exchange.challenged(data)
        self._owed = True

    @property
    def derivation(self) -> Callable[[], tuple[bytes, int, bytes]] | None:
        """What takes long and has to be done before there is an answer; its result is for `derived`. On any thread."""
        exchange, password = self._exchange, self._password
        if not self._owed or exchange is None or self._known(exchange) is not None:
            return None
        salt, iterations = exchange.salt, exchange.iterations
        return lambda: (salt, iterations, salted_password(password, salt, iterations))

    def derived(self, result: tuple[bytes, int, bytes]) -> None:
        """What `derivation` gave, perhaps for an exchange that is over."""
        self._salted = result

    def _known(self, exchange: ClientExchange) -> bytes | None:
        if self._salted is not None and self._salted[:2] == (exchange.salt, exchange.iterations):
            return self._salted[2]
        return None

    def answer(self) -> bytes | None:
        """The answer to a challenge, once: None if there is none to give yet."""
        if not self._owed or self._exchange is None or (salted := self._known(self._exchange)) is None:
            return None
        self._owed = False
        return self._exchange.answer(salted)

    def verify(self, data: bytes) -> None:
        """The server's last message (RW-SCRAM-4). Raises ScramError."""
        if self._exchange is None:
            raise ScramError("the server did not prove that it knows the account")
        self._exchange.verify(data)
