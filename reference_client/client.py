"""The asyncio client: rooms to join, publish to and read, over connections that come and go.

    async with Client("localhost", 7117, name="ada") as client:
        room = await client.join("lobby", history=20)
        seq, time_ms = await room.publish("good morning")
        async for event in client:
            if isinstance(event, MessageReceived):
                print(event.name, event.text)

The logic is in `session`; this module gives it a socket, a clock and randomness.
"""

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Self, TypeVar

from protocol.errors import LocalProtocolError
from protocol.frames import Field
from reference_client import events
from reference_client.errors import (
    ClientError,
    HistoryError,
    JoinError,
    OutcomeUnknown,
    PublishError,
    Refused,
    StopError,
    TooManyPending,
    Unreachable,
)
from reference_client.room import Receipt, Room
from reference_client.session.session import Session
from reference_client.transport import Transport, reason

DEFAULT_PORT = 7117

_LINGER = 2.0  # seconds
_MAX_UNWRITTEN = 1 << 26  # octets; a server that makes the client write more than it reads is cut off

T = TypeVar("T")

__all__ = ["DEFAULT_PORT", "Client", "Receipt", "Room"]


class _EventQueue:
    """The events that the application has not taken yet.

    Until the application iterates, only the newest `limit` are kept. From then on `full` tells when to stop reading.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.iterated = False
        self._events: deque[events.Event] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def full(self) -> bool:
        return self.iterated and len(self) >= self.limit

    def put(self, event: events.Event) -> None:
        self._events.append(event)
        if not self.iterated and len(self) > self.limit:
            self._events.popleft()
        self._arrived.set()

    def take(self) -> events.Event:
        return self._events.popleft()

    async def wait(self) -> None:
        """Wait for the next `put`."""
        self._arrived.clear()
        await self._arrived.wait()


@dataclass(slots=True)
class _Calls:
    """The calls that wait for an event of the session."""

    entering: asyncio.Future[None] | None = None
    publishes: dict[int, asyncio.Future[Receipt]] = field(default_factory=dict)
    pages: dict[int, asyncio.Future[events.HistoryPage]] = field(default_factory=dict)
    joins: dict[str, list[asyncio.Future[Room]]] = field(default_factory=dict)
    leaves: dict[str, list[asyncio.Future[None]]] = field(default_factory=dict)
    stop: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        return bool(self.stop or self.publishes or self.pages or self.joins or self.leaves)


class Client:
    """One user at one server.

    Entering the context connects. It raises Unreachable or Refused if that fails; with `patient`, it keeps trying.
    Later the client reconnects by itself.

    Iterating yields all events and ends with Closed. Before the first iteration only the newest `max_events` events
    are kept. From then on, when so many wait, the client reads nothing more from the server, except while a call
    waits for a reply.

    With `password` the client logs in to the account `name`. With `tls` (see `tls.client_context`) it speaks TLS.
    `connect_timeout` is in seconds, for opening the transport (with TLS), and again for the handshake.
    `rng` is for tests: its output must be impossible to guess (RW-ID-1).
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = DEFAULT_PORT,
        *,
        name: str,
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        patient: bool = False,
        roster: bool = True,
        max_events: int = 1000,
        connect_timeout: float = 10.0,
        rng: random.Random | None = None,
    ) -> None:
        self.host = host
        self.port = port
        self.rooms: dict[str, Room] = {}
        """The joined rooms, by the names that `join` was called with."""
        rng = rng or random.SystemRandom()
        self.session = Session(name, rng, _now(), password=password, roster=roster, handshake=connect_timeout)
        self._tls = tls
        self._patient = patient
        self._connect_timeout = connect_timeout
        self._started = False
        self._closing = False
        self._transport: Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._deriving: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = asyncio.Event()
        self._events = _EventQueue(max_events)
        self._calls = _Calls()
        self._submitting = asyncio.Lock()
        self._space = asyncio.Event()  # set when a publish is settled

    # --- called by applications

    @property
    def name(self) -> str:
        """The user's name, as the server granted it."""
        return self.session.name

    @property
    def connected(self) -> bool:
        """Whether there is a connection on which the server accepted the client."""
        return self.session.welcome is not None

    async def __aenter__(self) -> Self:
        self._started = True
        entering = self._calls.entering = asyncio.get_running_loop().create_future()
        self._pump()
        try:
            await entering
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[events.Event]:
        self._events.iterated = True
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[events.Event]:
        while True:
            while self._events:
                event = self._events.take()
                self._regulate()
                yield event
                if isinstance(event, events.Closed):
                    return
            if self._closed.is_set():
                return
            await self._events.wait()

    async def join(self, name: str, *, history: int = 0, cursor: tuple[int, int] | None = None) -> Room:
        """Join a room, with its newest `history` messages, or with those after `cursor`, (epoch, seq).

        Returns the same Room if the client is in it already, even by another spelling of its name. Raises JoinError
        if the server refuses for good; otherwise the client asks again when the server says.
        """
        if name in self.rooms:
            return self.rooms[name]
        joins = self._calls.joins
        if name not in joins:
            try:
                self.session.join(name, _now(), history=history, cursor=cursor)
            except LocalProtocolError as error:
                raise JoinError(str(error)) from error
            joins[name] = []
        joined: asyncio.Future[Room] = asyncio.get_running_loop().create_future()
        joins[name].append(joined)
        self._pump()
        try:
            return await joined
        except asyncio.CancelledError:
            waiting = joins.get(name, [])
            if waiting == [joined]:
                del joins[name]
                self._abandon(name)
            elif joined in waiting:
                waiting.remove(joined)
            raise

    async def stop(self) -> None:
        """Ask the server to stop. Raises StopError if it refuses, OutcomeUnknown if the connection ends first."""
        try:
            self.session.stop()
        except LocalProtocolError as error:
            raise StopError(str(error)) from error
        stopped = self._calls.stop = asyncio.get_running_loop().create_future()
        self._pump()
        await stopped

    async def close(self) -> None:
        """Say GOAWAY, and wait briefly for the server to close. Unanswered requests are dropped."""
        self._closing = True
        self.session.close(_now())
        if self._connecting is not None:
            self._connecting.cancel()
        if self._deriving is not None:
            self._deriving.cancel()
        self._pump()
        try:
            async with asyncio.timeout(_LINGER + 1):
                await self._closed.wait()
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()
            await self._closed.wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            if self._transport is not None:
                self._transport.abort()

    # --- called by rooms

    async def submit(self, room: str, payload: bytes, ctype: int, fields: tuple[Field, ...]) -> asyncio.Future[Receipt]:
        """Publish to `room`; wait only while too many publishes are pending. Raises PublishError."""
        async with self._submitting:  # in the order of the calls
            while True:
                self._space.clear()
                try:
                    ticket = self.session.publish(room, payload, _now(), ctype=ctype, fields=fields)
                    break
                except TooManyPending:
                    await self._space.wait()
                except LocalProtocolError as error:
                    raise PublishError(str(error)) from error
        published = self._calls.publishes[ticket] = asyncio.get_running_loop().create_future()
        self._pump()
        return published

    async def ask_history(self, room: str, start: int, end: int, limit: int, *, newest: bool) -> events.HistoryPage:
        """Fetch one page of the log of `room`. Raises HistoryError, TooManyPending."""
        try:
            ticket = self.session.history(room, _now(), start=start, end=end, limit=limit, newest=newest)
        except LocalProtocolError as error:
            raise HistoryError(str(error)) from error
        page: asyncio.Future[events.HistoryPage] = asyncio.get_running_loop().create_future()
        self._calls.pages[ticket] = page
        self._pump()
        return await page

    async def leave(self, room: str) -> None:
        """Leave `room` once its publishes are answered."""
        if room in self.session.rooms() and not self._closing:
            self.session.leave(room, _now())
            left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._calls.leaves.setdefault(room, []).append(left)
            self._pump()
            await left

    def _abandon(self, room: str) -> None:
        """Leave a room whose last waiting `join` was cancelled."""
        if room in self.session.rooms() and not self._closing:
            self.session.leave(room, _now())
            self._pump()

    # --- the connection

    def transport_up(self, transport: Transport) -> None:
        """The transport is connected."""
        if self.session.reconnect_at is None:
            transport.abort()
            return
        self._transport = transport
        self.session.connect(_now())
        self._pump()

    def data_received(self, transport: Transport, data: bytes) -> None:
        """Octets arrived."""
        if transport is self._transport:
            self.session.receive_data(data, _now())
            self._pump()

    def transport_lost(self, transport: Transport, text: str) -> None:
        """The transport ended."""
        if transport is self._transport:
            self._transport = None
            self.session.connection_lost(_now(), text)
            self._pump()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        failure = ""
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, transport = await loop.create_connection(
                    lambda: Transport(self),
                    self.host,
                    self.port,
                    ssl=self._tls,
                    server_hostname=self.host if self._tls else None,
                    happy_eyeballs_delay=0.25,
                )
            failure = transport.objection
        except (OSError, UnicodeError) as error:
            failure = reason(error)
        if failure and self._transport is None:  # otherwise it came up just after the time-out, and is being closed
            self.session.connect_failed(_now(), failure)
        self._connecting = None
        self._pump()

    async def _derive(self, derivation: Callable[[], tuple[bytes, int, bytes]]) -> None:
        result = await asyncio.to_thread(derivation)
        self._deriving = None
        self.session.derived(result)
        self._pump()

    def _pump(self) -> None:
        """Write octets, take events, and schedule what is due later."""
        session, transport = self.session, self._transport
        if self._deriving is None and (derivation := session.derivation) is not None and not self._closing:
            self._deriving = asyncio.get_running_loop().create_task(self._derive(derivation))
        if transport is not None:
            transport.write(session.data_to_send(_now()))
            if session.should_close:
                transport.close(_LINGER)
            elif transport.unwritten > _MAX_UNWRITTEN:
                transport.abort()
        while (event := session.next_event()) is not None:
            self._take(event)
        self._regulate()
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        session = self.session
        due = session.reconnect_at if self._transport is None else session.next_timeout()
        if due is None or not self._started or self._connecting is not None:
            return
        delay = due - _now()
        if self._transport is None and delay <= 0:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())
        else:
            self._timer = asyncio.get_running_loop().call_later(max(delay, 0), self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        self.session.handle_timeout(_now())
        self._pump()

    def _regulate(self) -> None:
        """Read no faster than the application takes events, but read on while a call waits for its reply."""
        if self._transport is None:
            return
        waiting = self._calls.waiting or self._closing
        if self._events.full and not waiting and not self._transport.paused:
            self._transport.pause_reading()
            self.session.pause_reading()
        elif self._transport.paused and (waiting or len(self._events) <= self._events.limit // 2):
            self._transport.resume_reading()
            self.session.resume_reading(_now())

    # --- events

    def _take(self, event: events.Event) -> None:
        """Resolve the calls that wait for the event, and pass it on to the application unless only a call needs it."""
        match event:
            case events.HistoryPage() | events.HistoryFailed() | events.StopAnswered():
                self._answer(event)
                return
            case events.Published() | events.PublishFailed():
                self._settle(event)
            case events.Joined() | events.JoinFailed() | events.Evicted() | events.Left():
                self._update_room(event)
            case events.Connected() | events.Disconnected() | events.Closed():
                self._update_connection(event)
        self._events.put(event)

    def _answer(self, event: events.HistoryPage | events.HistoryFailed | events.StopAnswered) -> None:
        calls = self._calls
        match event:
            case events.HistoryPage():
                _resolve(calls.pages.pop(event.ticket, None), event)
            case events.HistoryFailed():
                _fail(calls.pages.pop(event.ticket, None), HistoryError(event.text, event.code))
            case events.StopAnswered(code=None):
                _resolve(calls.stop, None)
                calls.stop = None
            case events.StopAnswered():
                _fail(calls.stop, StopError(event.text, event.code))
                calls.stop = None

    def _settle(self, event: events.Published | events.PublishFailed) -> None:
        published = self._calls.publishes.pop(event.ticket, None)
        if isinstance(event, events.Published):
            _resolve(published, Receipt.of(event))
        else:
            failure = OutcomeUnknown if event.unknown else PublishError
            _fail(published, failure(event.text, event.code))
        self._space.set()

    def _update_room(self, event: events.Joined | events.JoinFailed | events.Evicted | events.Left) -> None:
        match event:
            case events.Joined():
                room = self.rooms.setdefault(event.room, Room(self, event.room))
                room.joined = event
                for joined in self._calls.joins.pop(event.room, []):
                    _resolve(joined, room)
            case events.JoinFailed(retry_in=None):
                if (same := self.rooms.get(event.same_as or "")) is not None:
                    for joined in self._calls.joins.pop(event.room, []):
                        _resolve(joined, same)
                self._forget(event.room, JoinError(event.text, event.code))
            case events.Evicted(retry_in=None):
                self._forget(event.room, JoinError(event.text, event.code))
            case events.Left():
                self._forget(event.room, JoinError("the room was left"))

    def _update_connection(self, event: events.Connected | events.Disconnected | events.Closed) -> None:
        calls = self._calls
        if isinstance(event, events.Connected):
            _resolve(calls.entering, None)
            return
        if isinstance(event, events.Closed):
            self._finish(Refused(event.text, event.code))
        elif not self._patient:
            error = Unreachable(event.text) if event.code is None else Refused(event.text, event.code)
            _fail(calls.entering, error)
        _fail(calls.stop, OutcomeUnknown(event.text, event.code))
        calls.stop = None

    def _forget(self, room: str, error: ClientError) -> None:
        """The client is no longer in the room: calls that wait to join it fail with `error`."""
        self.rooms.pop(room, None)
        for joined in self._calls.joins.pop(room, []):
            _fail(joined, error)
        for left in self._calls.leaves.pop(room, []):
            _resolve(left, None)

    def _finish(self, error: ClientError) -> None:
        """The session is over: all calls that still wait end."""
        for room in (*self.rooms, *self._calls.joins, *self._calls.leaves):
            self._forget(room, error)
        _fail(self._calls.entering, error)
        self._space.set()
        self._closed.set()


def _now() -> float:
    """Seconds of the running loop's clock, or of the process's: a Client may be made before a loop runs."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()


def _resolve(future: asyncio.Future[T] | None, result: T) -> None:
    if future is not None and not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T] | None, error: ClientError) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
