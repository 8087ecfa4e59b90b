"""The suite's own SCRAM-SHA-256 (SPEC.md, section 13), in which a case chooses every octet of an exchange.

It imports nothing from the packages that implement the protocol, so it shares none of their mistakes.
"""

import base64
import hashlib
import hmac
import re
import unicodedata
from functools import lru_cache

MECHANISM = "SCRAM-SHA-256"
LEAST, MOST = 4_096, 2_000_000
"""The range of iteration counts that a client accepts."""


@lru_cache(maxsize=256)
def salted(password: str, salt: bytes, iterations: int) -> bytes:
    """The salted password. Deriving it is expensive, so it is cached."""
    return hashlib.pbkdf2_hmac("sha256", unicodedata.normalize("NFC", password).encode(), salt, iterations)


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def escaped(name: str) -> bytes:
    """A name with the escapes of `n=`."""
    return name.replace("=", "=3D").replace(",", "=2C").encode()


def first_message(name: str, nonce: bytes) -> bytes:
    """The client-first-message."""
    return b"n,," + bare(name, nonce)


def bare(name: str, nonce: bytes) -> bytes:
    """The client-first-message without its header."""
    return b"n=" + escaped(name) + b",r=" + nonce


def server_first(nonce: bytes, salt: bytes, iterations: int | bytes) -> bytes:
    """The server-first-message; octets for `iterations` stand in place of the number."""
    count = b"%d" % iterations if isinstance(iterations, int) else iterations
    return b"r=" + nonce + b",s=" + base64.b64encode(salt) + b",i=" + count


class Challenge:
    """A server-first-message. Raises ValueError for octets that are not one."""

    def __init__(self, data: bytes) -> None:
        found = re.fullmatch(rb"r=([!-+\--~]+),s=([A-Za-z0-9+/=]+),i=([1-9][0-9]*)", data)
        if found is None:
            raise ValueError(f"not r=..,s=..,i=..: {data!r}")
        self.data = data
        self.nonce = found[1]
        self.salt = base64.b64decode(found[2], validate=True)
        self.iterations = int(found[3])


def proof(password: str, message: bytes, salt: bytes, iterations: int) -> bytes:
    """The client's proof for an AuthMessage."""
    client_key = _hmac(salted(password, salt, iterations), b"Client Key")
    signature = _hmac(hashlib.sha256(client_key).digest(), message)
    return bytes(a ^ b for a, b in zip(client_key, signature, strict=True))


def signature(password: str, message: bytes, salt: bytes, iterations: int) -> bytes:
    """The server-final-message for an AuthMessage."""
    server_key = _hmac(salted(password, salt, iterations), b"Server Key")
    return b"v=" + base64.b64encode(_hmac(server_key, message))


def final_message(without_proof: bytes, made: bytes) -> bytes:
    """The client-final-message."""
    return without_proof + b",p=" + base64.b64encode(made)
