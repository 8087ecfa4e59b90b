"""SCRAM-SHA-256 for accounts: the arithmetic of both ends, without I/O (SPEC.md, section 13).

The four messages of an exchange are octets, as HELLO.auth, AUTH and WELCOME.auth carry them. The caller brings nonces
and salts, since this package has no source of randomness.
"""

import base64
import binascii
import hmac
import re
import unicodedata
from dataclasses import dataclass, field
from hashlib import pbkdf2_hmac, sha256

from protocol.errors import RoomwireError

MECHANISM = "SCRAM-SHA-256"
MIN_ITERATIONS = 4_096
MAX_ITERATIONS = 2_000_000

KEY_SIZE = 32
"""The size of a StoredKey, a ServerKey, a proof and a signature, in octets."""

_HEADER = b"n,,"
_BINDING = b"c=biws"  # the header in base64
_NONCE = rb"[!-+\--~]+"  # printable ASCII without the comma
_BASE64 = rb"[A-Za-z0-9+/]+={0,2}"
_CLIENT_FIRST = re.compile(rb"n,,(n=([^,\0]+),r=(" + _NONCE + rb"))")
_SERVER_FIRST = re.compile(rb"r=(" + _NONCE + rb"),s=(" + _BASE64 + rb"),i=([1-9][0-9]{0,9})")
_CLIENT_FINAL = re.compile(rb"(c=biws,r=(" + _NONCE + rb")),p=(" + _BASE64 + rb")")
_SERVER_FINAL = re.compile(rb"v=(" + _BASE64 + rb")")


class ScramError(RoomwireError):
    """The exchange failed, which earns AUTH_FAILED. `str()` says why, for the user or the log of this end only."""


@dataclass(frozen=True, slots=True)
class StoredKeys:
    """What a server keeps of a password: enough to recognise it, and to prove that the server knows the account."""

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


def salted_password(password: str, salt: bytes, iterations: int) -> bytes:
    """Return the SaltedPassword of a password in form NFC, without SASLprep (RW-SCRAM-1).

    It is slow on purpose: a million iterations take a core about 0.3 s. Other threads run meanwhile.
    """
    return pbkdf2_hmac("sha256", unicodedata.normalize("NFC", password).encode(), salt, iterations)


def stored_keys(password: str, salt: bytes, iterations: int) -> StoredKeys:
    """Return what a server keeps of a new password."""
    salted = salted_password(password, salt, iterations)
    return StoredKeys(salt, iterations, sha256(_client_key(salted)).digest(), _server_key(salted))


def _client_key(salted: bytes) -> bytes:
    return hmac.digest(salted, b"Client Key", "sha256")


def _server_key(salted: bytes) -> bytes:
    return hmac.digest(salted, b"Server Key", "sha256")


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))


class ClientExchange:
    """The client's end of one exchange: `first`, then `challenged` and `answer`, then `verify`.

    `nonce` is random, in printable ASCII without a comma: at least 18 octets in base64.
    """

    def __init__(self, name: str, nonce: bytes) -> None:
        escaped = name.encode().replace(b"=", b"=3D").replace(b",", b"=2C")  # RW-SCRAM-5
        self._nonce = nonce
        self._first = b"n=" + escaped + b",r=" + nonce
        self._server_first = b""
        self._both = b""
        self._signature = b""
        self.salt = b""
        """The server's salt, after `challenged`."""
        self.iterations = 0
        """The server's iteration count, after `challenged`; it is within the bounds."""

    @property
    def first(self) -> bytes:
        """The client-first-message."""
        return _HEADER + self._first

    def challenged(self, data: bytes) -> None:
        """Take the server-first-message. Raises ScramError (RW-SCRAM-3)."""
        if self._server_first:
            raise ScramError("the server asks for more than the exchange has")
        matched = _SERVER_FIRST.fullmatch(data)
        if matched is None:
            raise ScramError("the server's challenge is not one of SCRAM-SHA-256")
        self._both = matched[1]
        if not self._both.startswith(self._nonce) or self._both == self._nonce:
            raise ScramError("the server's challenge does not belong to this exchange")
        self.salt, self.iterations = _decode(matched[2]), int(matched[3])
        if not MIN_ITERATIONS <= self.iterations <= MAX_ITERATIONS:
            wanted = f"{MIN_ITERATIONS} to {MAX_ITERATIONS} iterations"
            raise ScramError(f"expected {wanted}, the server asks for {self.iterations}")
        self._server_first = data

    def answer(self, salted: bytes) -> bytes:
        """Return the client-final-message. `salted` is the result of `salted_password` with the server's salt."""
        without_proof = _BINDING + b",r=" + self._both
        message = b",".join((self._first, self._server_first, without_proof))
        client_key = _client_key(salted)
        proof = _xor(client_key, hmac.digest(sha256(client_key).digest(), message, "sha256"))
        self._signature = hmac.digest(_server_key(salted), message, "sha256")
        return without_proof + b",p=" + base64.b64encode(proof)

    def verify(self, data: bytes) -> None:
        """Take the server-final-message. Raises ScramError if the server does not know the account (RW-SCRAM-4)."""
        matched = _SERVER_FINAL.fullmatch(data)
        if not self._signature or matched is None or not hmac.compare_digest(_decode(matched[1]), self._signature):
            raise ScramError("the server did not prove that it knows the account")


class ServerExchange:
    """The server's end of one exchange: `challenge`, then `final`. `name` is the value of `n=`.

    Raises ScramError if `data` is no client-first-message (RW-SCRAM-7).
    """

    __slots__ = ("_both", "_client_nonce", "_first", "_keys", "_server_first", "name")

    def __init__(self, data: bytes) -> None:
        matched = _CLIENT_FIRST.fullmatch(data)
        if matched is None:
            raise ScramError("not a client-first-message with n,,")
        self._first, self._client_nonce = matched[1], matched[3]
        self.name = _unescaped(matched[2])
        self._both = self._server_first = b""
        self._keys: StoredKeys | None = None

    def challenge(self, keys: StoredKeys, nonce: bytes) -> bytes:
        """Return the server-first-message. `nonce` is like that of ClientExchange."""
        self._keys = keys
        self._both = self._client_nonce + nonce
        salt = base64.b64encode(keys.salt)
        self._server_first = b"r=%b,s=%b,i=%d" % (self._both, salt, keys.iterations)
        return self._server_first

    def final(self, data: bytes) -> bytes:
        """Take the client-final-message and return the server-final-message. A wrong password raises ScramError too."""
        keys, matched = self._keys, _CLIENT_FINAL.fullmatch(data)
        if keys is None or matched is None or not hmac.compare_digest(matched[2], self._both):
            raise ScramError("not a client-final-message of this exchange")
        message = b",".join((self._first, self._server_first, matched[1]))
        proof = _decode(matched[3])
        if len(proof) != KEY_SIZE:
            raise ScramError(f"a proof of {len(proof)} octets")
        client_key = _xor(proof, hmac.digest(keys.stored_key, message, "sha256"))
        signature = hmac.digest(keys.server_key, message, "sha256")
        if not hmac.compare_digest(sha256(client_key).digest(), keys.stored_key):
            raise ScramError("wrong password")
        return b"v=" + base64.b64encode(signature)


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ScramError("not base64") from None


def _unescaped(name: bytes) -> str:
    if re.search(rb"=(?!2C|3D)", name):
        raise ScramError("a name with = that is neither =2C nor =3D")
    try:
        return name.replace(b"=2C", b",").replace(b"=3D", b"=").decode()
    except UnicodeDecodeError:
        raise ScramError("a name that is not UTF-8") from None
