"""reference_client.client: calls that are given up at any moment leave a client that works; events are bounded."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol import frames
from reference_client import events
from reference_client.client import Client
from reference_client.errors import ClientError, JoinError
from reference_client.room import Room
from reference_server.config import Config
from tests.client.test_client import Impatient, client_of, first
from tests.support import virtual_time
from tests.support.server_in_process import in_this_loop
from tests.support.tiny_server import Peer, TinyServer

LIMIT = 600  # seconds of virtual time, which only a hanging test meets
UNLIMITED = {f"{what}_{limit}": 10**6 for what in ("publish", "join", "history", "room") for limit in ("rate", "burst")}
UNLIMITED |= {f"address_{limit}": 10**6 for limit in ("rate", "burst")}


def run(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT):
            await test

    virtual_time.run(limited())


def in_virtual_time() -> contextlib.AbstractAsyncContextManager[int]:
    """The port of a reference server in this loop."""
    return in_this_loop(**{name: value for name, value in UNLIMITED.items() if name in Config.__dataclass_fields__})


def holding(server: TinyServer, *kinds: type[frames.Frame]) -> "asyncio.Queue[frames.Frame]":
    """The requests of these kinds, which the server leaves to the test."""
    asked: asyncio.Queue[frames.Frame] = asyncio.Queue()

    def hold(peer: Peer, frame: frames.Frame) -> bool:
        if isinstance(frame, kinds):
            asked.put_nowait(frame)
        return isinstance(frame, kinds)

    server.hook = hold
    return asked


def answer(server: TinyServer, frame: frames.Frame) -> None:
    server.peers[0].answer(frame)
    server.peers[0].write()


async def given_up(call: "asyncio.Task[Any]") -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


# --- one call after another


def test_join_again_at_once_after_giving_up() -> None:
    async def test() -> None:
        async with TinyServer() as server:
            asked = holding(server, frames.Join)
            async with client_of(server) as client:
                joining = asyncio.create_task(client.join("lobby"))
                join = await asked.get()
                await given_up(joining)
                again = asyncio.create_task(client.join("lobby", history=3))
                answer(server, join)
                answer(server, await asked.get())
                room = await again
                assert client.rooms == {"lobby": room}
                assert (await room.publish("hi")).epoch

    run(test())


def test_given_up_just_after_the_reply() -> None:
    """The reply to JOIN has come, but the call is cancelled before it returns: nobody holds the room."""

    async def test() -> None:
        async with TinyServer() as server, client_of(server) as client:
            joining = asyncio.create_task(client.join("lobby"))
            while "lobby" not in client.rooms:
                await asyncio.sleep(0)
            await given_up(joining)
            await first(client, events.Left)
            assert client.rooms == {}

    run(test())


def test_given_up_while_another_call_joins_too() -> None:
    async def test() -> None:
        async with TinyServer() as server, client_of(server) as client:
            joining = [asyncio.create_task(client.join("lobby")) for _ in range(3)]
            while "lobby" not in client.rooms:
                await asyncio.sleep(0)
            await given_up(joining[0])
            room = await joining[1]
            await given_up(joining[2]) if not joining[2].done() else None
            assert (await room.publish("hi"))[0] == 1
            assert client.rooms == {"lobby": room}

    run(test())


@pytest.mark.parametrize("spelling", ["lobby", "LOBBY"])
@pytest.mark.parametrize("unanswered", [False, True])
def test_leave_and_join_at_the_same_time(spelling: str, unanswered: bool) -> None:
    """The room that `join` returns after a `leave` has begun is one that can be used."""

    async def test() -> None:
        async with in_virtual_time() as port, Client("127.0.0.1", port, name="ada") as client:
            room = await client.join("lobby")
            if unanswered:  # LEAVE waits for the ACK, and the JOIN overtakes it
                await room.submit("before")
            _, joined = await asyncio.gather(room.leave(), client.join(spelling))
            assert client.rooms == {spelling: joined}
            assert (await joined.publish("after"))[0] == (2 if unanswered else 1)
            await joined.leave()
            assert client.rooms == {}

    run(test())


@contextlib.asynccontextmanager
async def half_left(server: TinyServer) -> AsyncIterator[tuple[Client, Room, "asyncio.Task[None]", frames.Frame]]:
    """A client, with a room that it leaves, its call, and its LEAVE, which waits for the reply of the test."""
    asked = holding(server, frames.Leave)
    async with client_of(server) as client:
        room = await client.join("lobby")
        leaving = asyncio.create_task(room.leave())
        yield client, room, leaving, await asked.get()


def test_leave_given_up_is_a_leave() -> None:
    async def test() -> None:
        async with TinyServer() as server, half_left(server) as (client, room, leaving, leave):
            await given_up(leaving)
            both = asyncio.gather(client.join("lobby"), client.join("lobby"))
            answer(server, leave)
            one, other = await both
            assert one is other is not room
            assert (await one.publish("hi"))[0] == 1

    run(test())


def test_join_during_the_end() -> None:
    """A call that waits for a room to be left ends with the session."""

    async def test() -> None:
        async with TinyServer() as server:
            async with half_left(server) as (client, _, leaving, _):
                joining = asyncio.create_task(client.join("lobby"))
                await asyncio.sleep(1)
            await leaving
            with pytest.raises(JoinError):
                await joining

    run(test())


def test_iteration_goes_on_after_a_time_out() -> None:
    async def test() -> None:
        async with in_virtual_time() as port, Client("127.0.0.1", port, name="ada") as client:
            room = await client.join("lobby")
            for number in range(3):
                await room.publish(str(number))
            await asyncio.sleep(1)
            stream = aiter(client)
            seen: list[events.Event] = []
            with contextlib.suppress(TimeoutError):
                while True:
                    seen.append(await asyncio.wait_for(anext(stream), 5))
            await room.publish("late")
            while not isinstance(seen[-1], events.MessageReceived) or seen[-1].seq != 4:
                seen.append(await asyncio.wait_for(anext(stream), 5))
            assert [event.text for event in seen if isinstance(event, events.MessageReceived)] == [
                "0",
                "1",
                "2",
                "late",
            ]
            await client.close()
            rest = [event async for event in stream]
            assert isinstance(rest[-1], events.Closed)
            assert [event async for event in stream] == []

    run(test())


@pytest.mark.parametrize("newest", [None, 7])
def test_history_goes_on_after_a_time_out(newest: int | None) -> None:
    async def test() -> None:
        async with in_virtual_time() as port, Client("127.0.0.1", port, name="ada") as client:
            room = await client.join("lobby")
            for number in range(9):
                await room.publish(str(number))
            history = room.history(newest=newest, page=2)
            seen: list[str] = []
            for turns in range(1000):
                asking = asyncio.ensure_future(anext(history))
                for _ in range(turns % 40):
                    await asyncio.sleep(0)
                asking.cancel()
                try:
                    seen.append((await asking).text)
                except asyncio.CancelledError:
                    continue
                except StopAsyncIteration:
                    break
            assert seen == [str(number) for number in range(9)][-(newest or 9) :]

    run(test())


# --- cancelled at every await of every call

ROOMS = ("one", "ONE", "two")
Call = Callable[[Client, str], Coroutine[Any, Any, Any]]


async def _publish(client: Client, name: str) -> None:
    await (await client.join(name)).publish("x")


async def _history(client: Client, name: str) -> None:
    async for _ in (await client.join(name)).history(newest=3, page=1):
        pass


async def _leave(client: Client, name: str) -> None:
    await client.leave(name)


async def _next(client: Client, name: str) -> None:
    await anext(aiter(client))


async def _stop(client: Client, name: str) -> None:
    await client.stop()


async def _cut(client: Client, name: str) -> None:
    if client._transport is not None:
        client._transport.abort()


CALLS: dict[str, Call] = {
    "join": lambda client, name: client.join(name, history=2),
    "leave": _leave,
    "publish": _publish,
    "history": _history,
    "next": _next,
    "stop": _stop,
    "cut": _cut,
}


async def begun_and_cancelled(call: Coroutine[Any, Any, Any], turns: int) -> bool:
    """Cancel a call after some turns of the loop. Returns whether it was still under way."""
    task = asyncio.ensure_future(call)
    for _ in range(turns):
        await asyncio.sleep(0)
    under_way = task.cancel()
    with contextlib.suppress(asyncio.CancelledError, ClientError, StopAsyncIteration):
        await task
    return under_way


async def use(client: Client) -> None:
    """Do with the client all that one can do; each call gives what it should."""
    for name in ("one", "two"):
        room = await client.join(name)
        seq, _ = await room.publish("proof")
        assert [message.seq async for message in room.history(newest=1)] == [seq]
        async for event in client:
            if isinstance(event, events.MessageReceived) and (event.room, event.seq) == (room.name, seq):
                break
        await room.leave()
        assert room.name not in client.rooms
    for name in list(client.rooms):
        await client.leave(name)
    await asyncio.sleep(1)
    calls = client._calls
    assert (client.rooms, client.session.rooms(), client.session.pending) == ({}, [], 0)
    assert not calls.waiting


@pytest.mark.parametrize("call", CALLS)
def test_cancelled_at_every_await(call: str) -> None:
    async def test() -> None:
        async with in_virtual_time() as port, Client("127.0.0.1", port, name="ada", rng=Impatient(1)) as client:
            turns, under_way = 0, True
            while under_way:
                under_way = await begun_and_cancelled(CALLS[call](client, "one"), turns)
                turns += 1
                if turns % 4 == 0 or not under_way:
                    await use(client)
                if call == "next" and turns == 50:
                    break  # there may be no event for ever

    run(test())


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(CALLS)), st.sampled_from(ROOMS), st.integers(0, 25), st.booleans()),
        min_size=1, max_size=10,
    ),
    st.sampled_from([1000, 3]),
)  # fmt: skip
@example([("join", "one", 5, False), ("join", "one", 50, False)], 1000)
@example([("history", "ONE", 1, False)], 1000)  # "one" is the room that is being left
@example([("publish", "one", 30, False), ("leave", "one", 1, True), ("join", "ONE", 30, True)], 1000)
def test_cancelled_calls_at_the_same_time(steps: list[tuple[str, str, int, bool]], most: int) -> None:
    """Calls that are cancelled one after another, or while others are under way."""

    async def test() -> None:
        async with (
            in_virtual_time() as port,
            Client("127.0.0.1", port, name="ada", rng=Impatient(1), max_events=most) as client,
        ):
            aiter(client)  # from here on no message is dropped
            beside: list[asyncio.Future[bool]] = []
            for call, name, turns, at_once in steps:
                cancelling = begun_and_cancelled(CALLS[call](client, name), turns)
                if at_once:
                    beside.append(asyncio.ensure_future(cancelling))
                    await asyncio.sleep(0)
                else:
                    await cancelling
            await asyncio.gather(*beside)
            await use(client)

    run(test())


def test_entering_and_closing_cancelled_at_every_await() -> None:
    async def test() -> None:
        async with in_virtual_time() as port:
            for what in ("enter", "close"):
                turns, under_way = 0, True
                while under_way:
                    client = Client("127.0.0.1", port, name="ada")
                    if what == "close":
                        await client.__aenter__()
                        await (await client.join("lobby")).submit("hi")
                    call = client.__aenter__() if what == "enter" else client.close()
                    under_way = await begun_and_cancelled(call, turns)
                    await client.close()
                    assert client.session.closed
                    assert isinstance([event async for event in client][-1], events.Closed)
                    turns += 1

    run(test())


# --- the bound of events


def test_events_are_bounded_while_calls_wait() -> None:
    """An application that has begun to iterate, and then only publishes: nothing of it grows, and nothing is lost."""

    async def test() -> None:
        async with in_virtual_time() as port, Client("127.0.0.1", port, name="ada", max_events=50) as client:
            room = await client.join("lobby")
            await first(client, events.Joined)
            for number in range(300):
                await room.publish(str(number))
                assert len(client._events) <= 50
            seen: list[int] = []
            async for event in client:
                assert not isinstance(event, events.Gap)
                if isinstance(event, events.MessageReceived):
                    seen.append(event.seq)
                    if event.seq == 300:
                        break
            assert seen == list(range(1, 301))
            assert room.cursor[1] == 300

    run(test())


@pytest.mark.parametrize("most", [1, 2, 10])
def test_events_are_bounded_whatever_arrives_at_once(most: int) -> None:
    async def test() -> None:
        async with (
            in_virtual_time() as port,
            Client("127.0.0.1", port, name="bob") as bob,
            Client("127.0.0.1", port, name="ada", max_events=most) as ada,
        ):
            stream = aiter(ada)
            joining = asyncio.ensure_future(ada.join("lobby"))
            await anext(stream)
            room = await bob.join("lobby")
            await joining
            for number in range(400):
                await room.submit(str(number))
            await asyncio.sleep(5)
            assert len(ada._events) <= most
            seen = [event.seq for event in [await anext(stream)] if isinstance(event, events.MessageReceived)]
            while seen[-1:] != [400]:
                event = await anext(stream)
                assert len(ada._events) <= most
                assert not isinstance(event, events.Gap)
                if isinstance(event, events.MessageReceived):
                    seen.append(event.seq)
            assert seen == list(range(1, 401))

    run(test())


def test_octets_not_yet_taken_up_survive_the_connection() -> None:
    """The connection ends while octets wait for space: the messages in them are read again."""

    async def test() -> None:
        async with TinyServer() as server, client_of(server, max_events=10) as client:
            await client.join("lobby")
            await first(client, events.Joined)
            for number in range(1, 101):
                server.append(server.peers[0], frames.Publish(number.to_bytes(16, "big"), 0, b"x"))
            server.deliver()
            await asyncio.sleep(1)
            server.peers[0].cut()
            await asyncio.sleep(1)
            assert len(client._events) <= 10
            seen: list[int] = []
            async for event in client:
                assert not isinstance(event, events.Gap)
                if isinstance(event, events.MessageReceived):
                    seen.append(event.seq)
                    if event.seq == 100:
                        break
            assert seen == list(range(1, 101))

    run(test())
