"""protocol.scram: the example of RFC 7677, both ends against each other, and what each of them refuses."""

import base64
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.files import document
from protocol import scram
from protocol.scram import ClientExchange, ScramError, ServerExchange, StoredKeys, salted_password, stored_keys

ITERATIONS = 4096
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
CLIENT_FINAL = (
    b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
)
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
PENCIL = stored_keys("pencil", SALT, ITERATIONS)


def _client() -> ClientExchange:
    return ClientExchange("user", b"rOprNGfwEbeRWgbNEkqO")


def _answered() -> ClientExchange:
    client = _client()
    client.challenged(SERVER_FIRST)
    client.answer(salted_password("pencil", client.salt, client.iterations))
    return client


def _challenged(keys: StoredKeys = PENCIL) -> ServerExchange:
    server = ServerExchange(CLIENT_FIRST)
    assert server.challenge(keys, SERVER_NONCE) == SERVER_FIRST
    return server


def test_example_of_rfc_7677() -> None:
    """RW-SCRAM-4, RW-SCRAM-7: both ends send the messages of the document."""
    client = _client()
    assert client.first == CLIENT_FIRST
    server = _challenged()
    assert server.name == "user"
    client.challenged(SERVER_FIRST)
    assert client.answer(salted_password("pencil", client.salt, client.iterations)) == CLIENT_FINAL
    assert server.final(CLIENT_FINAL) == SERVER_FINAL
    client.verify(SERVER_FINAL)


def test_example_is_in_the_document() -> None:
    text = document().read_text(encoding="utf-8")
    for message in (CLIENT_FIRST, SERVER_FIRST, CLIENT_FINAL, SERVER_FINAL):
        assert f"\n    {message.decode()}\n" in text


@settings(max_examples=25, deadline=None)
@given(
    name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    password=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_both_ends_agree(name: str, password: str) -> None:
    """RW-SCRAM-1: any name and password; the form NFC of a password counts."""
    client = ClientExchange(name, b"abc")
    server = ServerExchange(client.first)
    assert server.name == name
    keys = stored_keys(unicodedata.normalize("NFD", password), b"salt", ITERATIONS)
    client.challenged(server.challenge(keys, b"xyz"))
    client.verify(server.final(client.answer(salted_password(password, client.salt, client.iterations))))


def test_wrong_password() -> None:
    server = _challenged(stored_keys("pen", SALT, ITERATIONS))
    with pytest.raises(ScramError, match="wrong password"):
        server.final(CLIENT_FINAL)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"n,,n=user",
        b"n,,n=,r=abc",
        b"n,,n=user,r=",
        b"n,,r=abc,n=user",
        b"n=user,r=abc",
        b"y,,n=user,r=abc",
        b"p=tls-exporter,,n=user,r=abc",
        b"n,a=user,n=user,r=abc",
        b"n,,m=x,n=user,r=abc",
        b"n,,n=user,r=abc,x=y",
        b"n,,n=us=er,r=abc",
        b"n,,n=us=2cer,r=abc",
        b"n,,n=us\0er,r=abc",
        b"n,,n=\xff,r=abc",
        b"n,,n=user,r=a c",
        b"n,,n=user,r=\xc3\xa9",
    ],
)
def test_malformed_first_message(first: bytes) -> None:
    """RW-SCRAM-7."""
    with pytest.raises(ScramError):
        ServerExchange(first)


@pytest.mark.parametrize(
    "final",
    [
        b"",
        CLIENT_FINAL[:-1],
        CLIENT_FINAL + b",x=y",
        CLIENT_FINAL.replace(b"biws", b"eSws"),
        CLIENT_FINAL.replace(b"Nqk0", b"Nqk1").replace(b"hNlF$k0", b"hNlF$k1"),
        CLIENT_FINAL.replace(SERVER_NONCE, b""),
        CLIENT_FINAL[: CLIENT_FINAL.index(b"p=") + 2] + b"AAAA",
        CLIENT_FINAL[: CLIENT_FINAL.index(b",p=")],
        CLIENT_FINAL.replace(b"p=dH", b"p=eH"),
        CLIENT_FINAL.replace(b"p=dHzb", b"p=dHz"),
    ],
)
def test_wrong_final_message(final: bytes) -> None:
    """RW-SCRAM-7."""
    assert final != CLIENT_FINAL
    with pytest.raises(ScramError):
        _challenged().final(final)


@pytest.mark.parametrize(
    "challenge",
    [
        b"",
        SERVER_FIRST + b",m=x",
        SERVER_FIRST.replace(b"rOpr", b"rOpR"),
        SERVER_FIRST.replace(SERVER_NONCE, b""),
        SERVER_FIRST.replace(b"i=4096", b"i=4095"),
        SERVER_FIRST.replace(b"i=4096", b"i=2000001"),
        SERVER_FIRST.replace(b"i=4096", b"i=04096"),
        SERVER_FIRST.replace(b"i=4096", b"i=-4096"),
        SERVER_FIRST.replace(b"i=4096", b"i="),
        SERVER_FIRST.replace(b"i=4096", b"i=" + b"9" * 5000),
        SERVER_FIRST.replace(b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s="),
        SERVER_FIRST.replace(b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s=W22ZaJ0SNY7soEsUEjb6g"),
        SERVER_FIRST.replace(b",i=4096", b""),
        SERVER_FIRST.replace(b"r=", b"e=", 1),
    ],
)
def test_wrong_challenge(challenge: bytes) -> None:
    """RW-SCRAM-3."""
    with pytest.raises(ScramError):
        _client().challenged(challenge)


@pytest.mark.parametrize("iterations", [4096, 2_000_000])
def test_iterations_at_the_bounds(iterations: int) -> None:
    client = _client()
    client.challenged(SERVER_FIRST.replace(b"i=4096", b"i=%d" % iterations))
    assert client.iterations == iterations


def test_second_challenge() -> None:
    client = _answered()
    with pytest.raises(ScramError):
        client.challenged(SERVER_FIRST)


@pytest.mark.parametrize(
    "final",
    [b"", b"v=", b"e=other-error", SERVER_FINAL[:-2], SERVER_FINAL.replace(b"v=6", b"v=7"), SERVER_FINAL + b","],
)
def test_wrong_signature(final: bytes) -> None:
    """RW-SCRAM-4."""
    with pytest.raises(ScramError):
        _answered().verify(final)


def test_signature_without_challenge() -> None:
    with pytest.raises(ScramError):
        _client().verify(b"v=")


def test_keys_are_not_in_repr() -> None:
    assert PENCIL.stored_key.hex() not in repr(PENCIL)
    assert repr(PENCIL.server_key) not in repr(PENCIL)
    assert scram.MECHANISM == "SCRAM-SHA-256"
