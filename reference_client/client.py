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
from protocol.registry import HEADER_SIZE
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
from reference_client.event_queue import EventQueue
from reference_client.room import Receipt, Room
from reference_client.session.session import Session
from reference_client.transport import Transport, opened, reason

DEFAULT_PORT = 7117

_LINGER = 2.0  # seconds
_MAX_UNWRITTEN = 1 << 26  # octets; a server that makes the client write more than it reads is cut off

T = TypeVar("T")

__all__ = ["DEFAULT_PORT", "Client", "Receipt", "Room"]


@dataclass(slots=True)
class _Calls:
    """The calls that wait for an event of the session."""

    entering: asyncio.Future[None] | None = None
    publishes: dict[int, asyncio.Future[Receipt]] = field(default_factory=dict)
    pages: dict[int, asyncio.Future[events.HistoryPage]] = field(default_factory=dict)
    joins: dict[str, list[asyncio.Future[Room]]] = field(default_factory=dict)
    leaves: dict[str, list[asyncio.Future[None]]] = field(default_factory=dict)
    stops: deque[asyncio.Future[None]] = field(default_factory=deque)

    @property
    def waiting(self) -> bool:
        return bool(self.stops or self.publishes or self.pages or self.joins or self.leaves)


class Client:
    """One user at one server.

    Entering the context connects. It raises Unreachable or Refused if that fails; with `patient`, it keeps trying.
    Later the client reconnects by itself.

    Iterating yields all events and ends with Closed. An iteration that was cancelled may go on. At most `max_events`
    events are held: before the first iteration the newest, and from then on, when so many wait, the client reads
    nothing more from the server. While a call waits for its reply the client reads on, drops what it reads of the
    rooms, and joins them again where it stopped once the application has taken events. Events that are no messages
    or gaps are dropped if they do not fit.

    Any call may be cancelled, and made again at once. That does not take back what was asked of the server: a message
    may be published, a room is left. A room that no other call has joined is left again.

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
        self._unread = b""  # octets that have arrived, and for whose events there is no space yet
        self._reading = False
        self._paused = False
        self._closed = asyncio.Event()
        self._events = EventQueue(max_events, self._regulate)
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
        return aiter(self._events)

    async def join(self, name: str, *, history: int = 0, cursor: tuple[int, int] | None = None) -> Room:
        """Join a room, with its newest `history` messages, or with those after `cursor`, (epoch, seq).

        Returns the same Room if the client is in it already, even by another spelling of its name. Raises JoinError
        if the server refuses for good; otherwise the client asks again when the server says.
        """
        while True:
            await self._until_left(name)
            room = self.rooms.get(name) or await self._enter(name, history, cursor)
            if self.rooms.get(room.name) is room and room.name not in self._calls.leaves:
                room.claimed = True
                return room
            await self._until_left(room.name)  # left meanwhile, or joined by another spelling of a name that is left

    async def _until_left(self, name: str) -> None:
        """Wait for the end of a `leave` of the room, if there is one."""
        while (leaves := self._calls.leaves.get(name)) is not None:
            left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            leaves.append(left)
            await left

    async def _enter(self, name: str, history: int, cursor: tuple[int, int] | None) -> Room:
        """Ask for the room, unless another call has asked already, and wait for it."""
        joins = self._calls.joins
        if name not in joins:
            try:
                self.session.join(name, _now(), history=history, cursor=cursor)
            except LocalProtocolError as error:
                raise JoinError(str(error)) from error
            joins[name] = []
        waiting = joins[name]
        joined: asyncio.Future[Room] = asyncio.get_running_loop().create_future()
        waiting.append(joined)
        self._pump()
        try:
            return await joined
        except asyncio.CancelledError:
            if joined.done() and not joined.cancelled():
                joined.exception()  # asyncio reports errors that nobody has looked at
            waiting.remove(joined)
            if not waiting:
                self._abandon(name, joined)
            raise

    async def stop(self) -> None:
        """Ask the server to stop. Raises StopError if it refuses, OutcomeUnknown if the connection ends first."""
        try:
            self.session.stop()
        except LocalProtocolError as error:
            raise StopError(str(error)) from error
        stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.stops.append(stopped)
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
        try:
            return await page
        finally:
            if self._calls.pages.pop(ticket, None) is not None:  # cancelled
                self.session.withdraw_history(ticket)

    async def leave(self, room: str) -> None:
        """Leave `room` once its publishes are answered."""
        left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._begin_leave(room, left):
            await left

    def _abandon(self, name: str, joined: asyncio.Future[Room]) -> None:
        """Leave a room whose last waiting `join` was cancelled, perhaps just after its reply had come."""
        joins = self._calls.joins
        if name in joins:
            del joins[name]
        elif joined.cancelled() or joined.exception() is not None or joined.result().claimed:
            return
        else:
            name = joined.result().name
        self._begin_leave(name)

    def _begin_leave(self, room: str, *waiting: asyncio.Future[None]) -> bool:
        """Leave a room, for calls that wait for it. Returns False if there is nothing to leave."""
        if room not in self.session.rooms() or self._closing:
            return False
        self._calls.leaves.setdefault(room, []).extend(waiting)
        self.session.leave(room, _now())
        self._pump()
        return True

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
            self._unread = self._unread + data if self._unread else data
            self._read()

    def transport_lost(self, transport: Transport, text: str) -> None:
        """The transport ended."""
        if transport is self._transport:
            if self._unread:
                self.session.hold()
                self.session.receive_data(self._unread, _now())
            self._transport = None
            self._unread, self._paused = b"", False
            self.session.connection_lost(_now(), text)
            self._pump()

    def _read(self) -> None:
        """Take up what has arrived, as far as there is space for its events, or all of it while a call waits."""
        if self._reading:
            return
        self._reading = True
        try:
            while self._unread:
                free = self._events.free
                if not free and not self.session.holding:
                    if not self._wanted:
                        return
                    self.session.hold()
                fits = HEADER_SIZE * max(free - 2, 1)  # a frame may begin in an earlier portion, and make two events
                size = fits if self._events.iterated and not self.session.holding else len(self._unread)
                portion, self._unread = self._unread[:size], self._unread[size:]
                self.session.receive_data(portion, _now())
                self._pump()
        finally:
            self._reading = False

    @property
    def _wanted(self) -> bool:
        """Whether to read on although the application takes no events."""
        return self._calls.waiting or self._closing

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        failure = ""
        try:
            async with asyncio.timeout(self._connect_timeout):
                socket = await opened(self.host, self.port)
                try:
                    _, transport = await loop.create_connection(
                        lambda: Transport(self),
                        sock=socket,
                        ssl=self._tls,
                        server_hostname=self.host if self._tls else None,
                    )
                except BaseException:
                    socket.close()
                    raise
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
        session, transport = self.session, self._transport
        if session.holding and self._events.half_empty:
            session.release(_now())
            self._pump()
        elif transport is None:
            return
        elif not self._paused and not self._events.free and not self._wanted:
            self._paused = True
            transport.pause_reading()
            session.pause_reading()
        elif self._paused and (self._wanted or self._events.half_empty):
            self._paused = False
            session.resume_reading(_now())
            self._read()
            if not self._paused:
                transport.resume_reading()

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
                _resolve(calls.stops.popleft(), None)
            case events.StopAnswered():
                _fail(calls.stops.popleft(), StopError(event.text, event.code))

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
        while calls.stops:
            _fail(calls.stops.popleft(), OutcomeUnknown(event.text, event.code))

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
