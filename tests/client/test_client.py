"""reference_client.client over real sockets, against a small scripted server and against the reference server."""

import asyncio
import random
import socket
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from protocol import frames
from protocol.registry import Code
from reference_client import events
from reference_client.client import Client
from reference_client.errors import HistoryError, JoinError, OutcomeUnknown, PublishError, Refused, Unreachable
from reference_client.room import Receipt
from tests.support.server_in_process import in_this_loop
from tests.support.tiny_server import EPOCH, NOW_MS, Peer, TinyServer

T = TypeVar("T")


class Impatient(random.Random):
    """A random number generator that never makes the client wait."""

    def uniform(self, a: float, b: float) -> float:
        return 0.0


def run(test: Coroutine[Any, Any, T]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(60):  # measures nothing, but ends a hanging test
            return await test

    return asyncio.run(limited())


def client_of(server: TinyServer, **options: Any) -> Client:
    return Client("127.0.0.1", server.port, name="ada", rng=Impatient(1), **options)


async def first(client: Client, kind: type[T]) -> T:
    """The next event of this kind."""
    async for event in client:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"no {kind}")


# --- normal use


def test_publish_and_receive() -> None:
    async def test() -> None:
        async with TinyServer() as server:
            async with client_of(server) as client:
                room = await client.join("lobby")
                assert client.connected
                seq, time_ms = receipt = await room.publish("hi")
                assert (seq, time_ms) == (1, NOW_MS)
                assert (receipt.epoch, receipt.id) == (EPOCH, server.log[0].id)
                message = await first(client, events.MessageReceived)
                assert (message.text, message.own, message.ctype) == ("hi", True, 0)
                await room.publish(b"\xff", ctype=9)
                assert server.log[1].ctype == 9
                await room.leave()
                await room.leave()
                assert client.rooms == {}
                with pytest.raises(PublishError):
                    await room.publish("late")
            assert [(end.code, end.by_peer) for end in server.farewells] == [(Code.NONE, True)]
            assert [type(event) async for event in client][-1] is events.Closed

    run(test())


def test_order_of_submissions() -> None:
    async def test() -> None:
        async with TinyServer() as server, client_of(server) as client:
            client.session._max_pending = 10
            room = await client.join("lobby")
            receipts = await asyncio.gather(*(room.publish(str(number)) for number in range(200)))
            assert [seq for seq, _ in receipts] == list(range(1, 201))
            assert [message.payload for message in server.log] == [b"%d" % number for number in range(200)]

    run(test())


def test_join_twice_gives_the_same_room() -> None:
    async def test() -> None:
        async with TinyServer() as server, client_of(server) as client:
            first_room, second_room = await asyncio.gather(client.join("lobby"), client.join("lobby"))
            assert first_room is second_room is await client.join("lobby")

    run(test())


# --- failures


def test_unreachable_server() -> None:
    async def test() -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with pytest.raises(Unreachable, match="refused"):
                async with Client("127.0.0.1", bound.getsockname()[1], name="ada"):
                    pass

    run(test())


def test_silent_server_at_connect() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            client = Client("127.0.0.1", silent.getsockname()[1], name="ada", connect_timeout=0.1)
            with pytest.raises(Unreachable, match="did not answer in time"):
                await client.__aenter__()

    run(test())


def test_lookup_that_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DNS server that does not answer holds neither the time limit nor the end of the program."""
    look_up, answered, ended = socket.getaddrinfo, threading.Event(), threading.Event()

    def silent(host: str, *arguments: Any, **options: Any) -> Any:
        if options.get("flags") or host != "silent.example":
            return look_up(host, *arguments, **options)
        answered.wait(60)
        ended.set()
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    async def test() -> None:
        async with asyncio.timeout(0.05), Client("silent.example", 1, name="ada"):
            pass

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    try:
        with pytest.raises(TimeoutError):
            run(test())
        assert not ended.is_set()
    finally:
        answered.set()


def test_patient_connect_retries() -> None:
    async def test() -> None:
        async with TinyServer() as server:
            attempts = 0

            def full(peer: Peer, frame: frames.Frame) -> bool:
                nonlocal attempts
                attempts += 1
                if attempts < 3:
                    peer.wire.refuse(Code.SERVER_FULL, server.now(), retry_ms=1)
                return attempts < 3

            server.hook = full
            async with client_of(server, patient=True):
                assert attempts == 3

    run(test())


def test_connect_refused() -> None:
    async def test() -> None:
        async with TinyServer() as server:

            def refuse(peer: Peer, frame: frames.Frame) -> bool:
                peer.wire.refuse(Code.NAME_INVALID, server.now(), text="not you")
                return True

            server.hook = refuse
            with pytest.raises(Refused, match="NAME_INVALID: not you"):
                async with client_of(server):
                    pass

    run(test())


def test_publish_across_a_lost_connection() -> None:
    """The server appends the first copy, and its ACK is lost with the connection."""

    async def test() -> None:
        async with TinyServer() as server:

            def lose(peer: Peer, frame: frames.Frame) -> bool:
                if isinstance(frame, frames.Publish):
                    server.hook = None
                    server.append(peer, frame)
                    peer.cut()
                    return True
                return False

            server.hook = lose
            async with client_of(server) as client:
                room = await client.join("lobby")
                assert await room.publish("once") == (1, NOW_MS)
                assert await room.publish("twice") == (2, NOW_MS)
                shown: list[int] = []
                async for event in client:
                    if isinstance(event, events.MessageReceived):
                        shown.append(event.seq)
                        if event.seq == 2:
                            break
                assert shown == [1, 2]
                assert len(server.peers) == 2

    run(test())


def test_outcome_unknown() -> None:
    async def test() -> None:
        async with TinyServer() as server:
            asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def ignore(peer: Peer, frame: frames.Frame) -> bool:
                if isinstance(frame, frames.Publish):
                    asked.set_result(None)
                    return True
                return False

            server.hook = ignore
            async with client_of(server) as client:
                room = await client.join("lobby")
                publishing = asyncio.create_task(room.publish("hi"))
                await asked
            with pytest.raises(OutcomeUnknown):
                await publishing

    run(test())


def test_publish_refused() -> None:
    async def test() -> None:
        async with TinyServer() as server:

            def forbid(peer: Peer, frame: frames.Frame) -> bool:
                if isinstance(frame, frames.Publish):
                    peer.refuse(frame, Code.FORBIDDEN)
                return isinstance(frame, frames.Publish)

            server.hook = forbid
            async with client_of(server) as client:
                room = await client.join("lobby")
                with pytest.raises(PublishError, match="FORBIDDEN") as refused:
                    await room.publish("hi")
                assert refused.value.code == Code.FORBIDDEN
                with pytest.raises(UnicodeEncodeError):
                    await room.publish("\ud800")

    run(test())


def test_join_refused() -> None:
    async def test() -> None:
        async with TinyServer() as server:

            def ban(peer: Peer, frame: frames.Frame) -> bool:
                if isinstance(frame, frames.Join):
                    peer.refuse(frame, Code.BANNED)
                return isinstance(frame, frames.Join)

            server.hook = ban
            async with client_of(server) as client:
                with pytest.raises(JoinError, match="BANNED"):
                    await client.join("lobby")
                with pytest.raises(JoinError):
                    await client.join("x" * 300)
                assert client.rooms == {}

    run(test())


def test_cancelled_calls_leave_nothing_behind() -> None:
    async def test() -> None:
        async with TinyServer() as server:
            asked: asyncio.Queue[frames.Frame] = asyncio.Queue()

            def hold(peer: Peer, frame: frames.Frame) -> bool:
                if isinstance(frame, frames.Join | frames.Publish):
                    asked.put_nowait(frame)
                    return True
                return False

            server.hook = hold
            async with client_of(server) as client:
                joining = asyncio.create_task(client.join("lobby"))
                join = await asked.get()
                joining.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await joining
                server.peers[0].answer(join)
                server.peers[0].write()
                await first(client, events.Left)
                joining = asyncio.create_task(client.join("lobby"))
                server.peers[0].answer(await asked.get())
                server.peers[0].write()
                room = await joining
                publishing = asyncio.create_task(room.publish("a"))
                publish = await asked.get()
                publishing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await publishing
                server.peers[0].answer(publish)
                server.peers[0].write()
                assert (await first(client, events.Published)).seq == 1  # cancelling did not take it back

    run(test())


def test_unread_events_pause_reading() -> None:
    async def test() -> None:
        async with TinyServer() as server, client_of(server, max_events=10) as client:
            room = await client.join("lobby")
            shown: list[int] = []
            async for event in client:
                if isinstance(event, events.Joined):
                    peer = server.peers[0]
                    for number in range(1, 2001):  # in more than one segment
                        server.append(peer, frames.Publish(number.to_bytes(16, "big"), 0, b"x" * 1000))
                        server.deliver()
                if isinstance(event, events.MessageReceived):
                    shown.append(event.seq)
                    if event.seq == 1000:
                        # A call gets its reply although the application takes no events meanwhile.
                        assert isinstance(await room.publish("y"), Receipt)
                    if event.seq == 2000:
                        break
            assert shown == list(range(1, 2001))
            assert client._transport is not None

    run(test())


def test_close_with_silent_server() -> None:
    """close() returns although the server does not react."""

    async def test() -> None:
        async with TinyServer() as server:
            client = client_of(server)
            async with client:
                server.peers[0].data_received = lambda data: None  # type: ignore[method-assign]
            assert client.session.closed

    run(test())


# --- against the reference server


def test_two_clients_at_reference_server() -> None:
    async def test() -> None:
        async with (
            in_this_loop() as port,
            Client("127.0.0.1", port, name="ada") as ada,
            Client("127.0.0.1", port, name="bob") as bob,
        ):
            await ada.join("lobby")
            room = await bob.join("LOBBY")
            assert room.title == "lobby"
            assert (await first(ada, events.MemberJoined)).name == "bob"
            await first(bob, events.RosterChanged)
            assert sorted(member.name for member in room.roster) == ["ada", "bob"]
            for number in range(30):
                await room.publish(f"{number}")
            received = [await first(ada, events.MessageReceived) for _ in range(30)]
            assert [message.text for message in received] == [str(number) for number in range(30)]
            assert not received[0].own

            same = await bob.join("Lobby")  # RW-NAME-7
            assert same is room
            everything = [message.seq async for message in room.history(page=7)]
            assert everything == list(range(1, 31))
            assert [message.seq async for message in room.history(5, 10, page=2)] == [5, 6, 7, 8, 9]
            assert [message.seq async for message in room.history(newest=10, page=4)] == list(range(21, 31))
            assert [message.seq async for message in room.history(3, 6, newest=99)] == [3, 4, 5]
            with pytest.raises(HistoryError, match="RANGE_INVALID"):
                _ = [message async for message in room.history(9, 3)]

            await room.leave()
            await first(bob, events.Left)
            left = await first(ada, events.MemberLeft)
            assert (left.name, left.lost) == ("bob", False)
            again = await bob.join("lobby", history=3)
            assert [(await first(bob, events.MessageReceived)).seq for _ in range(3)] == [28, 29, 30]
            assert again.cursor[1] == 30

    run(test())


def test_rate_limited_requests_are_retried() -> None:
    async def test() -> None:
        async with (
            in_this_loop(publish_rate=200, publish_burst=5, join_rate=50, join_burst=2, room_rate=60000) as port,
            Client("127.0.0.1", port, name="ada") as client,
        ):
            rooms = await asyncio.gather(*(client.join(f"room {number}") for number in range(6)))
            receipts = await asyncio.gather(*(rooms[0].publish(str(number)) for number in range(40)))
            assert [seq for seq, _ in receipts] == list(range(1, 41))
            texts = [message.text async for message in rooms[0].history()]
            assert texts == [str(number) for number in range(40)]

    run(test())
