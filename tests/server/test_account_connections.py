"""Connections of one account: how many there may be, and that strangers do not learn how many (SPEC.md, 13)."""

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from protocol.frames import Error, Goaway, Welcome
from protocol.registry import HEADER_SIZE, Code, Flag
from reference_client.client import Client
from tests.support.accounts import PASSWORDS, Login, accounts_file
from tests.support.raw_client import RawClient
from tests.support.server_in_process import Server, peer_of, serving


def serving_at_most(count: int) -> AbstractContextManager[Server]:
    """A server that allows an account `count` connections."""
    return serving(accounts=str(accounts_file()), account_connections=count, linger_ms=1)


def login(server: Server, name: str, password: str = "") -> Login:
    """A connection that has tried to log in, by default with the right password."""
    return Login(server.port, name, password or PASSWORDS[name])


def assert_full(server: Server) -> None:
    """Check that the server refuses a further connection of Ada."""
    with login(server, "Ada") as late:
        assert isinstance(late.answer, Error)
        goaway = late.goaway()
        assert late.answer.code == goaway.code == Code.SERVER_FULL
        assert late.answer.flags == goaway.flags == Flag.RETRY
        assert late.answer.retry_ms == goaway.retry_ms > 0


def counted(server: Server) -> dict[str, int]:
    """The number of connections that the server counts, by the keys of their accounts."""
    return server.run(lambda: dict(server.state.account_connections))


def test_connections_of_an_account_are_capped() -> None:
    """RW-SASL-10: counted by its key. Other accounts and guests come in, and existing connections stay."""
    with (
        serving_at_most(2) as server,
        login(server, "Ada") as ada,
        login(server, "aDA", PASSWORDS["Ada"]) as again,
    ):
        assert_full(server)
        with login(server, "a,b=c") as other, RawClient(server.port, name="Ada") as guest:
            assert isinstance(other.answer, Welcome)
            assert guest.welcome.name == "~Ada"
            assert counted(server) == {"ada": 2, "a,b=c": 1}
        for raw in (ada, again):
            raw.join("lobby")
        server.until(lambda: len(server.hub.peers) == 2)
        assert counted(server) == {"ada": 2}


def test_full_account_is_told_only_after_the_proof() -> None:
    """RW-SASL-11: whether Ada is connected or not, a wrong password gets the same answer, and takes no place."""
    with serving_at_most(1) as server:
        answers = []
        for name in ("Ada", "nobody"):
            with login(server, name, "wrong password") as wrong:
                answers.append(wrong.answer)
        with login(server, "Ada"):
            assert_full(server)
            with login(server, "Ada", "wrong password") as wrong:
                assert [wrong.answer] * 2 == answers


def says_goodbye(server: Server, raw: RawClient) -> None:
    raw.send(Goaway(Code.NONE))


def closes(server: Server, raw: RawClient) -> None:
    raw.socket.close()


def resets(server: Server, raw: RawClient) -> None:
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.socket.close()


def breaks_the_protocol(server: Server, raw: RawClient) -> None:
    raw.send(bytes(HEADER_SIZE))


def loses_its_account(server: Server, raw: RawClient) -> None:
    server.run(lambda: server.hub.use_accounts(None))


def falls_silent(server: Server, raw: RawClient) -> None:
    peer = peer_of(server, raw)
    for times in (1, 2):  # two heartbeats, then the linger time
        server.run(lambda times=times: peer.sweep(server.state.now + times * 10**6))  # type: ignore[misc]


@pytest.mark.parametrize(
    "end", [says_goodbye, closes, resets, breaks_the_protocol, loses_its_account, falls_silent],
    ids=lambda end: end.__name__,
)  # fmt: skip
def test_ended_connection_frees_its_place(end: Callable[[Server, RawClient], None]) -> None:
    """RW-SASL-10"""
    with serving_at_most(1) as server:
        accounts = server.state.accounts
        with login(server, "Ada") as ada:
            assert_full(server)
            end(server, ada)
            server.until(lambda: not server.hub.peers)
        assert counted(server) == {}
        server.run(lambda: server.hub.use_accounts(accounts))
        with login(server, "Ada") as later:
            assert isinstance(later.answer, Welcome)


def test_refused_client_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """RW-RECONNECT-2: also if the refusal comes after the proof."""
    monkeypatch.setattr("reference_server.core.handlers.hello.FULL_RETRY_MS", 1)

    async def test(server: Server, ada: RawClient) -> None:
        client = Client("127.0.0.1", server.port, name="Ada", password=PASSWORDS["Ada"], patient=True)
        coming_in = asyncio.create_task(client.__aenter__())
        await asyncio.to_thread(server.until, lambda: bool(server.state.counters.errors["HELLO", "SERVER_FULL"]))
        assert not coming_in.done()
        ada.socket.close()
        async with asyncio.timeout(60):  # ends a test that hangs
            await coming_in
        assert client.connected
        await client.__aexit__(None, None, None)

    with serving_at_most(1) as server, login(server, "Ada") as ada:
        asyncio.run(test(server, ada))
