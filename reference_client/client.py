"""A client for asyncio: rooms to join, publish to and read, over connections that come and go.

    async with Client("localhost", 7117, name="ada") as client:
        room = await client.join("lobby", history=20)
        seq, time_ms = await room.publish("good morning")
        async for event in client:
            if isinstance(event, MessageReceived):
                print(event.name, event.text)

All that matters is in `session`; this module gives it a socket, a clock and chance.
"""

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
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

_LINGER = 2.0
_MAX_UNWRITTEN = 1 << 26  # a server that asks on and on, and does not read the answers, is left

T = TypeVar("T")

__all__ = ["DEFAULT_PORT", "Client", "Receipt", "Room"]


class Client:
    """One user at one server.

    Entering connects: Unreachable or Refused is raised if that fails, unless `patient`, which goes on trying. From
    then on it connects again by itself.

    Iterating gives all events, and ends with Closed. Those that nobody has taken are kept, up to `max_events`; then
    nothing more is read from the server, except while a call waits for a reply. Who has not begun to iterate misses
    the older ones instead.

    With `password` it logs in to the account `name`. With `tls` (see `tls.client_context`) it speaks TLS.
    `connect_timeout` is in seconds, once for the transport, with TLS, and once for the handshake.
    `rng` is for tests: nobody else may be able to guess what it gives (RW-ID-1).
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
        """The rooms that were joined, by the names by which they were."""
        self.session = Session(
            name,
            rng or random.SystemRandom(),
            _now(),
            password=password,
            roster=roster,
            handshake=connect_timeout,
        )
        self._tls = tls
        self._patient = patient
        self._connect_timeout = connect_timeout
        # The connection:
        self._started = False
        self._closing = False
        self._transport: Transport | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._deriving: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = asyncio.Event()
        # Events for who iterates:
        self._max_events = max_events
        self._events: deque[events.Event] = deque()
        self._iterated = False
        self._news = asyncio.Event()
        # Calls that wait:
        self._first: asyncio.Future[None] | None = None
        self._published: dict[int, asyncio.Future[Receipt]] = {}
        self._pages: dict[int, asyncio.Future[events.HistoryPage]] = {}
        self._joins: dict[str, list[asyncio.Future[Room]]] = {}
        self._leaves: dict[str, list[asyncio.Future[None]]] = {}
        self._stop: asyncio.Future[None] | None = None
        self._turn = asyncio.Lock()
        self._space = asyncio.Event()

    # --- what applications call

    @property
    def name(self) -> str:
        """Our name, as the server granted it."""
        return self.session.name

    @property
    def connected(self) -> bool:
        """Whether there is a connection on which the server has accepted us."""
        return self.session.welcome is not None

    async def __aenter__(self) -> Self:
        self._started = True
        self._first = asyncio.get_running_loop().create_future()
        self._pump()
        try:
            await self._first
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncIterator[events.Event]:
        self._iterated = True
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[events.Event]:
        while True:
            while self._events:
                event = self._events.popleft()
                self._regulate()
                yield event
                if isinstance(event, events.Closed):
                    return
            if self._closed.is_set():
                return
            self._news.clear()
            await self._news.wait()

    async def join(self, name: str, *, history: int = 0, cursor: tuple[int, int] | None = None) -> Room:
        """Be in a room: with its newest `history` messages, or from the place `cursor` (epoch, seq) on.

        A room that the client is in already, perhaps by another spelling of its name, is given back as it is.
        Raises JoinError if the server refuses for good; it is asked again as long as it says that this may help.
        """
        if name in self.rooms:
            return self.rooms[name]
        if name not in self._joins:
            try:
                self.session.join(name, _now(), history=history, cursor=cursor)
            except LocalProtocolError as error:
                raise JoinError(str(error)) from error
            self._joins[name] = []
        joined: asyncio.Future[Room] = asyncio.get_running_loop().create_future()
        self._joins[name].append(joined)
        self._pump()
        try:
            return await joined
        except asyncio.CancelledError:
            waiting = self._joins.get(name, [])
            if waiting == [joined]:
                del self._joins[name]
                self._forget(name)
            elif joined in waiting:
                waiting.remove(joined)
            raise

    async def stop(self) -> None:
        """Ask the server to end. Raises StopError if it does not, OutcomeUnknown if the connection ended first."""
        try:
            self.session.stop()
        except LocalProtocolError as error:
            raise StopError(str(error)) from error
        self._stop = asyncio.get_running_loop().create_future()
        self._pump()
        await self._stop

    async def close(self) -> None:
        """Say goodbye, and wait briefly for the server to close. What is not answered is given up."""
        self._closing = True
        self.session.close(_now())
        if self._dialling is not None:
            self._dialling.cancel()
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

    # --- what rooms call

    async def submit(self, room: str, payload: bytes, ctype: int, fields: tuple[Field, ...]) -> asyncio.Future[Receipt]:
        async with self._turn:  # first come, first served
            while True:
                self._space.clear()
                try:
                    ticket = self.session.publish(room, payload, _now(), ctype=ctype, fields=fields)
                    break
                except TooManyPending:
                    await self._space.wait()
                except LocalProtocolError as error:
                    raise PublishError(str(error)) from error
        published = self._published[ticket] = asyncio.get_running_loop().create_future()
        self._pump()
        return published

    async def ask_history(self, room: str, start: int, end: int, limit: int, *, newest: bool) -> events.HistoryPage:
        try:
            ticket = self.session.history(room, _now(), start=start, end=end, limit=limit, newest=newest)
        except LocalProtocolError as error:
            raise HistoryError(str(error)) from error
        page: asyncio.Future[events.HistoryPage] = asyncio.get_running_loop().create_future()
        self._pages[ticket] = page
        self._pump()
        return await page

    async def leave(self, room: str) -> None:
        if room in self.session.rooms() and not self._closing:
            self.session.leave(room, _now())
            left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._leaves.setdefault(room, []).append(left)
            self._pump()
            await left

    def _forget(self, room: str) -> None:
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
        """The transport has ended."""
        if transport is self._transport:
            self._transport = None
            self.session.connection_lost(_now(), text)
            self._pump()

    async def _dial(self) -> None:
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
        if failure and self._transport is None:  # else it was connected a moment too late, and is being closed
            self.session.connect_failed(_now(), failure)
        self._dialling = None
        self._pump()

    async def _derive(self, derivation: Callable[[], tuple[bytes, int, bytes]]) -> None:
        result = await asyncio.to_thread(derivation)
        self._deriving = None
        self.session.derived(result)
        self._pump()

    def _pump(self) -> None:
        """Write, take events, and see to what is to be done later."""
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
        self._plan()

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        session = self.session
        due = session.reconnect_at if self._transport is None else session.next_timeout()
        if due is None or not self._started or self._dialling is not None:
            return
        delay = due - _now()
        if self._transport is None and delay <= 0:
            self._dialling = asyncio.get_running_loop().create_task(self._dial())
        else:
            self._timer = asyncio.get_running_loop().call_later(max(delay, 0), self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        self.session.handle_timeout(_now())
        self._pump()

    def _regulate(self) -> None:
        """Read no more than somebody takes; but whoever waits for a reply has to get it."""
        if self._transport is None:
            return
        full = self._iterated and len(self._events) >= self._max_events
        waits = self._stop or self._published or self._pages or self._joins or self._leaves or self._closing
        if full and not waits and not self._transport.paused:
            self._transport.pause_reading()
            self.session.pause_reading()
        elif self._transport.paused and (waits or len(self._events) <= self._max_events // 2):
            self._transport.resume_reading()
            self.session.resume_reading(_now())

    # --- events

    def _take(self, event: events.Event) -> None:
        match event:
            case events.HistoryPage():
                _resolve(self._pages.pop(event.ticket, None), event)
                return
            case events.HistoryFailed():
                _fail(self._pages.pop(event.ticket, None), HistoryError(event.text, event.code))
                return
            case events.Published():
                _resolve(self._published.pop(event.ticket, None), Receipt.of(event))
                self._space.set()
            case events.PublishFailed():
                failure = OutcomeUnknown if event.unknown else PublishError
                _fail(self._published.pop(event.ticket, None), failure(event.text, event.code))
                self._space.set()
            case events.StopAnswered():
                if event.code is None:
                    _resolve(self._stop, None)
                else:
                    _fail(self._stop, StopError(event.text, event.code))
                self._stop = None
                return
            case events.Joined():
                room = self.rooms.setdefault(event.room, Room(self, event.room))
                room.joined = event
                for joined in self._joins.pop(event.room, []):
                    _resolve(joined, room)
            case events.JoinFailed(retry_in=None):
                same = self.rooms.get(event.same_as or "")
                for joined in self._joins.pop(event.room, []):
                    if same is not None:
                        _resolve(joined, same)
                    else:
                        _fail(joined, JoinError(event.text, event.code))
                self._gone(event.room, JoinError(event.text, event.code))
            case events.Evicted(retry_in=None):
                self._gone(event.room, JoinError(event.text, event.code))
            case events.Left():
                self._gone(event.room, JoinError("the room was left"))
            case events.Connected() if self._first is not None:
                _resolve(self._first, None)
            case events.Disconnected() if not self._patient:
                error = Unreachable(event.text) if event.code is None else Refused(event.text, event.code)
                _fail(self._first, error)
            case events.Closed():
                self._end(Refused(event.text, event.code))
        if self._stop is not None and isinstance(event, events.Disconnected | events.Closed):
            _fail(self._stop, OutcomeUnknown(event.text, event.code))
            self._stop = None
        self._events.append(event)
        if not self._iterated and len(self._events) > self._max_events:
            self._events.popleft()
        self._news.set()

    def _gone(self, room: str, error: ClientError) -> None:
        self.rooms.pop(room, None)
        for joined in self._joins.pop(room, []):
            _fail(joined, error)
        for left in self._leaves.pop(room, []):
            _resolve(left, None)

    def _end(self, error: ClientError) -> None:
        for room in (*self.rooms, *self._joins, *self._leaves):
            self._gone(room, error)
        _fail(self._first, error)
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
