"""Logging in to an account, once on each connection (SPEC.md, section 13)."""

import base64
import random
from collections.abc import Callable

from protocol.scram import ClientExchange, ScramError, salted_password

_NONCE_SIZE = 24


class Login:
    """An account's name and password, and the SCRAM exchange of the present connection.

    Deriving the key is expensive, so it is cached for the last salt. `rng` makes nonces: random.SystemRandom(),
    except in tests. Raises UnicodeEncodeError if `password` is not valid Unicode.
    """

    def __init__(self, name: str, password: str, rng: random.Random) -> None:
        password.encode()  # raises here, and not in the middle of an exchange
        self._name = name
        self._password = password
        self._rng = rng
        self._salted: tuple[bytes, int, bytes] | None = None  # salt, iteration count, derived key
        self._exchange: ClientExchange | None = None
        self._unanswered = False  # whether a challenge waits for its answer

    def begin(self) -> bytes:
        """Begin an exchange on a new connection; returns the client's first message."""
        nonce = base64.b64encode(self._rng.randbytes(_NONCE_SIZE))
        self._exchange = ClientExchange(self._name, nonce)
        self._unanswered = False
        return self._exchange.first

    def challenged(self, data: bytes) -> None:
        """Take the server's first message. Raises ScramError."""
        assert self._exchange is not None
        self._exchange.challenged(data)
        self._unanswered = True

    @property
    def derivation(self) -> Callable[[], tuple[bytes, int, bytes]] | None:
        """The slow computation that the answer needs, or None. It may run on any thread; `derived` takes its result."""
        exchange, password = self._exchange, self._password
        if not self._unanswered or exchange is None or self._known(exchange) is not None:
            return None
        salt, iterations = exchange.salt, exchange.iterations
        return lambda: (salt, iterations, salted_password(password, salt, iterations))

    def derived(self, result: tuple[bytes, int, bytes]) -> None:
        """Take the result of `derivation`, which may belong to an earlier exchange."""
        self._salted = result

    def _known(self, exchange: ClientExchange) -> bytes | None:
        if self._salted is not None and self._salted[:2] == (exchange.salt, exchange.iterations):
            return self._salted[2]
        return None

    def answer(self) -> bytes | None:
        """The answer to the challenge, once; None while there is no challenge or its key is not derived yet."""
        if not self._unanswered or self._exchange is None or (salted := self._known(self._exchange)) is None:
            return None
        self._unanswered = False
        return self._exchange.answer(salted)

    def verify(self, data: bytes) -> None:
        """Check the server's last message (RW-SCRAM-4). Raises ScramError."""
        if self._exchange is None:
            raise ScramError("the server did not prove that it knows the account")
        self._exchange.verify(data)
