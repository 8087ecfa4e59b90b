"""Everything of a client that outlives a connection (SPEC.md, sections 8.7, 10 and 11), without I/O.

A Session holds the rooms that the application wants to be in, with their cursors, and the publishes that wait
for an answer. It joins, repeats, waits and connects again as SPEC.md says, and tells the application by events.
It reads no clock: `now` is seconds of any clock that does not step back, the same one in all calls.

Whoever drives it, over a network or a simulated one:

- when `reconnect_at` is not None, opens a transport at that time, and calls `connect(now)` once it is up, or
  `connect_failed(now, text)` where that cannot be done;
- gives what arrives to `receive_data(data, now)`, and calls `connection_lost(now)` once for each `connect`, when
  the transport has ended, whoever ended it;
- calls `handle_timeout(now)` at `next_timeout()`, and at any other time it likes;
- after each of these, and after each call of the application, writes `data_to_send(now)`, then closes the
  transport if `should_close` (and calls `connection_lost`), and takes all events from `next_event()`.

The application calls `join`, `leave`, `publish`, `history` and `close` at any time; what cannot be sent now is
sent when it can. A message of a room's stream is shown once and in order (RW-RECOVER-3), whatever happens; but
whoever leaves a room and joins it anew, or asks for history, is shown what was asked for.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from protocol import frames
from protocol.client import ClientConnection
from protocol.codec import encode
from protocol.errors import LocalProtocolError
from protocol.events import Challenged, ClientEvent, Connected, ConnectionTerminated, DrainStarted, Received, Replied
from protocol.fields import agent, agent_of, extension, extensions, identity_of
from protocol.registry import LIMITS, MAX_SAFE, Code, Flag, is_ignorable
from protocol.scram import MECHANISM, ScramError
from reference_client import events
from reference_client.errors import TooManyPending
from reference_client.session.backoff import Backoff
from reference_client.session.history import HistoryRequest
from reference_client.session.login import Login
from reference_client.session.membership import Member, RoomState
from reference_client.session.outbox import Pending
from reference_client.session.requests import Requests

SOFTWARE = "roomwire-chat/0.1.0"

_HELLO = 1
_ORDERLY = (Code.NONE, Code.DRAINING, Code.SHUTDOWN)


class Session:
    """One user's rooms and publishes, over as many connections as it takes.

    With `password` the session logs in to the account `name`; without, it is anonymous.
    `rng` makes the ids of messages: random.SystemRandom() wherever somebody could gain by guessing (RW-ID-1).
    At most `max_pending` publishes, with `max_pending_octets` of content, wait for an answer.
    `handshake` is how many seconds the server has for its WELCOME.
    Raises LocalProtocolError if `name` cannot be sent at all.
    """

    def __init__(
        self,
        name: str,
        rng: random.Random,
        now: float,
        *,
        password: str | None = None,
        software: str = SOFTWARE,
        roster: bool = True,
        handshake: float = LIMITS["handshake_ms"].default / 1000,
        max_pending: int = 1024,
        max_pending_octets: int = 1 << 24,
    ) -> None:
        fields = (extension("history"), agent(software))
        self._hello = frames.Hello(name, "ANONYMOUS", b"", fields=fields, request=_HELLO)
        _require_encodable(self._hello)
        self._login: Login | None = None
        if password is not None:
            self._login = Login(name, password, rng)
            self._hello = replace(self._hello, mechanism=MECHANISM, fields=(extension("admin"), *fields))
        self._handshake = handshake
        self._max_pending = max_pending
        self._max_octets = max_pending_octets
        self._tickets = 0
        self._events: deque[events.Event] = deque()
        self._requests = Requests(rng, self._events.append, roster=roster)
        self._backoff = Backoff(rng)
        self._reconnect_at = now
        self._ending: tuple[int | None, str] | None = None  # code and text of Closed
        self._been_connected = False
        self.closed = False
        """Whether Closed was reported, or is about to be."""
        self.name = name
        """Our name, as the server granted it last (RW-WELCOME-6)."""
        self.welcome: frames.Welcome | None = None
        """The WELCOME of the present connection; None while there is none that is of use."""
        # Of the present connection:
        self._connection: ClientConnection | None = None
        self._opened_at = now
        self._ended = True  # whether its end was seen to
        self._farewell: frames.Goaway | frames.Error | None = None  # what may say when to come back

    # --- the application

    @property
    def pending(self) -> int:
        """How many publishes wait for an answer."""
        return self._requests.pending

    def rooms(self) -> list[str]:
        """The rooms that the application is in, or is to be in again."""
        return list(self._requests.rooms)

    def in_room(self, room: str) -> bool:
        """Whether the membership exists at present."""
        return room in self._requests.rooms and self._room(room).state == "IN"

    def roster(self, room: str) -> list[Member]:
        """Who is in the room, as far as is known; nobody while it is quiet."""
        return list(self._room(room).roster.values())

    def members(self, room: str) -> int:
        """How many members the room had when the server last said so."""
        return self._room(room).members

    def cursor(self, room: str) -> tuple[int, int]:
        """(epoch, seq) of the last message received; epoch 0 if there never was one."""
        return self._room(room).cursor

    def join(self, room: str, now: float, *, history: int = 0, cursor: tuple[int, int] | None = None) -> None:
        """Be in the room from now on: with its newest `history` messages, or from `cursor` (epoch, seq) on.

        Joined or JoinFailed follow. Raises LocalProtocolError if the session is in the room, or the name cannot
        be sent.
        """
        self._require_open()
        _require(room not in self._requests.rooms, f"already in the room {room!r}, or about to be")
        epoch, since = cursor or (0, history)
        _require(0 <= since <= MAX_SAFE, "a seq, or a number of messages, is 0 to 2^53 - 1")
        _require_encodable(frames.Join(room, epoch, since, request=1))
        self._requests.join(RoomState(room, history, cursor))
        self._requests.pump(now)

    def leave(self, room: str, now: float) -> None:
        """Leave the room, once all that was published to it is answered. Left follows."""
        self._require_open()
        self._requests.leave(self._room(room))
        self._requests.pump(now)

    def publish(
        self, room: str, payload: bytes, now: float, *, ctype: int = 0, fields: tuple[frames.Field, ...] = ()
    ) -> int:
        """Publish a message; the ticket that Published or PublishFailed will carry.

        Raises TooManyPending; LocalProtocolError if the room is none to publish to, or a field is critical.
        """
        self._require_open()
        target = self._room(room)
        _require(not target.leaving, f"the room {room!r} is being left")
        _require(all(is_ignorable(field.type) for field in fields), "fields of a message are ignorable")
        _require_encodable(frames.Publish(bytes(16), ctype, payload, fields=fields))
        pending = Pending(self._tickets + 1, ctype, payload, fields)
        waiting, octets = self._requests.pending, self._requests.octets
        if waiting >= self._max_pending or (waiting and octets + pending.size > self._max_octets):
            raise TooManyPending(f"{waiting} messages wait for an answer")
        self._tickets += 1
        self._requests.publish(target, pending)
        self._requests.pump(now)
        return pending.ticket

    def history(
        self, room: str, now: float, *, start: int = 1, end: int = 0, limit: int = 0, newest: bool = False
    ) -> int:
        """Ask for messages of [start, end); the ticket that HistoryPage or HistoryFailed will carry.

        `end` 0 is what is there, `limit` 0 as many as the server gives, `newest` the last ones of the range.
        Raises TooManyPending; LocalProtocolError if the session is not in the room, or a number cannot be sent.
        """
        self._require_open()
        _require(0 <= start <= MAX_SAFE and 0 <= end <= MAX_SAFE, "a seq is 0 to 2^53 - 1")
        _require(0 <= limit <= 0xFFFF, "the limit is 0 to 65535")
        self._requests.ask(HistoryRequest(self._tickets + 1, self._room(room), start, end, limit, newest))
        self._tickets += 1
        self._requests.pump(now)
        return self._tickets

    def stop(self) -> None:
        """Ask the server to end (STOP), now or not at all. StopAnswered follows, unless the connection ends first.

        Raises LocalProtocolError if there is no connection, or its server does not offer that.
        """
        connection, welcome = self._connection, self.welcome
        if connection is None or welcome is None or not connection.can_request:
            raise LocalProtocolError("not connected, or too busy")
        _require("admin" in extensions(welcome), "the server cannot be stopped like this")
        connection.stop()

    def close(self, now: float) -> None:
        """End the session. What is not answered is given up; Closed follows when the transport has ended."""
        if self._ending is None:
            self._end(None, "closed by the application", now)

    def next_event(self) -> events.Event | None:
        """The next thing that happened, or None."""
        return self._events.popleft() if self._events else None

    def _room(self, name: str) -> RoomState:
        room = self._requests.rooms.get(name)
        if room is None:
            raise LocalProtocolError(f"not in the room {name!r}")
        return room

    def _require_open(self) -> None:
        _require(self._ending is None, "the session is closed")

    # --- logging in

    @property
    def derivation(self) -> Callable[[], tuple[bytes, int, bytes]] | None:
        """What has to be worked out before the server's challenge can be answered: it may take a second of one core.

        Whoever drives the session calls it, best on another thread, and gives the result to `derived`.
        """
        return None if self._login is None else self._login.derivation

    def derived(self, result: tuple[bytes, int, bytes]) -> None:
        """What `derivation` gave."""
        if self._login is not None:
            self._login.derived(result)
            self._answer()

    # --- the transport

    @property
    def reconnect_at(self) -> float | None:
        """When to open a transport; None while there is one, and when no further one is wanted."""
        return self._reconnect_at if self._connection is None and self._ending is None else None

    @property
    def should_close(self) -> bool:
        """Whether the transport is to be closed, when all is written."""
        return self._connection is not None and self._connection.should_close

    def connect(self, now: float) -> None:
        """The transport is up. Raises LocalProtocolError if there is one already, or none is wanted."""
        _require(self.reconnect_at is not None, "no connection is wanted")
        hello = self._hello if self._login is None else replace(self._hello, auth=self._login.begin())
        self._connection = ClientConnection(hello, now, handshake=self._handshake)
        self._ended = False
        self._farewell = None
        self._connection.transport_up(now)

    def connect_failed(self, now: float, text: str) -> None:
        """The transport could not be opened."""
        if self._ending is None:
            delay = self._backoff.failed()
            self._reconnect_at = now + delay
            self._events.append(events.Disconnected(None, text, delay))

    def receive_data(self, data: bytes, now: float) -> None:
        """Octets arrived."""
        connection = self._connection
        if connection is None:
            return
        for event in connection.receive_data(data, now):
            self._handle(event, now)
        # After DRAINING our own GOAWAY ends the connection, and no event says so. An ERROR to HELLO is followed
        # by a GOAWAY, which says more.
        if connection.state in ("CLOSING", "CLOSED") and not isinstance(self._farewell, frames.Error):
            self._disconnected(Code.DRAINING, "the server is about to end", now)
        self._requests.pump(now)

    def connection_lost(self, now: float, text: str = "the connection was lost") -> None:
        """The transport has ended; `text` says how."""
        if self._connection is None:
            return
        self._connection.receive_eof(now)
        refusal = self._farewell if isinstance(self._farewell, frames.Error) else None
        self._disconnected(refusal.code if refusal else None, refusal.text if refusal else text, now)
        self._connection = None
        self._close_if_ending()

    def pause_reading(self) -> None:
        """The transport is not read from now on: the server's silence does not count (RW-HEARTBEAT-3)."""
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_reading(self, now: float) -> None:
        """The transport is read again."""
        if self._connection is not None:
            self._connection.resume_reading(now)

    def data_to_send(self, now: float) -> bytes:
        """All octets that are to be written now. Each is handed out once."""
        return b"" if self._connection is None else self._connection.data_to_send(now)

    def next_timeout(self) -> float | None:
        """When `handle_timeout` has something to do next, unless something else happens first."""
        if self._connection is None:
            return None
        times = (self._connection.next_timeout(), self._requests.wake)
        return min((time for time in times if time is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        """Do what is due at `now`."""
        if self._connection is None:
            return
        event = self._connection.handle_timeout(now)
        if event is not None:
            self._handle(event, now)
        self._requests.pump(now)

    # --- what the server says

    def _handle(self, event: ClientEvent, now: float) -> None:
        match event:
            case Received(frame):
                self._requests.received(frame, now)
            case Replied(frames.Hello(), frames.Error() as error):
                self._farewell = error
            case Replied(frames.Stop(), reply):
                refusal = (reply.code, reply.text) if isinstance(reply, frames.Error) else (None, "")
                self._events.append(events.StopAnswered(*refusal))
            case Replied(request, reply):
                self._requests.replied(request, reply, now)
            case Connected(welcome):
                self._opened(welcome, now)
            case Challenged(data):
                self._challenged(data, now)
            case DrainStarted(goaway):
                self._farewell = goaway
                self._events.append(events.Draining(goaway.text, goaway.retry_ms / 1000))
            case ConnectionTerminated():
                if event.goaway is not None:
                    self._farewell = event.goaway
                self._disconnected(event.code, event.text, now)

    def _challenged(self, data: bytes, now: float) -> None:
        """RW-AUTH-1: an answer, perhaps somewhat later, or the end."""
        if self._login is None:
            self._end(Code.AUTH_FAILED, "the server asks for more than ANONYMOUS has", now)
            return
        try:
            self._login.challenged(data)
        except ScramError as error:  # RW-SCRAM-3
            self._end(Code.AUTH_FAILED, str(error), now)
        else:
            self._answer()

    def _answer(self) -> None:
        """Answer a challenge, if there is one, and the answer is known."""
        connection = self._connection
        if self._login is None or connection is None or connection.state != "HELLO_SENT":
            return
        answer = self._login.answer()
        if answer is not None:
            connection.authenticate(answer)

    def _opened(self, welcome: frames.Welcome, now: float) -> None:
        assert self._connection is not None
        if self._login is not None:
            try:
                self._login.verify(welcome.auth)  # RW-WELCOME-3
            except ScramError as error:  # RW-SCRAM-4
                self._end(Code.AUTH_FAILED, str(error), now)
                return
        self.welcome = welcome
        self._opened_at = now
        self.name = welcome.name
        self._requests.opened(self._connection, welcome, now)
        self._events.append(
            events.Connected(
                welcome.member,
                welcome.name,
                bool(welcome.flags & Flag.VERIFIED),
                bool(welcome.flags & Flag.DURABLE),
                identity_of(welcome),
                agent_of(welcome),
                self._been_connected,
            )
        )
        self._been_connected = True

    def _disconnected(self, code: int | None, text: str, now: float) -> None:
        """Nothing will come of the connection any more, though its transport may live on for a while."""
        if self._ended:
            return
        self._ended = True
        open_for = 0.0 if self.welcome is None else now - self._opened_at
        self.welcome = None
        orderly = self._farewell is not None and self._farewell.code in _ORDERLY
        delay = self._backoff.ended(self._farewell, open_for=open_for, orderly=orderly)
        self._reconnect_at = now + delay
        assert self._connection is not None
        if self._ending is None and (self._connection.version == 0 or _is_final(self._farewell)):
            self._ending = code, text
        self._requests.disconnected()
        self._events.append(events.Disconnected(code, text, delay if self._ending is None else None))
        if self._ending is not None:
            self._requests.give_up(*self._ending)

    def _end(self, code: int | None, text: str, now: float) -> None:
        """No further connection is wanted."""
        self._ending = code, text
        if self._connection is None:
            self._requests.give_up(code, text)
            self._close_if_ending()
        else:
            self._connection.close(now, Code.NONE if code is None else Code(code))
            self._disconnected(code, text, now)

    def _close_if_ending(self) -> None:
        if self._ending is not None and not self.closed:
            self.closed = True
            self._events.append(events.Closed(*self._ending))


def _is_final(farewell: frames.Goaway | frames.Error | None) -> bool:
    """Whether connecting again is of no use (RW-RECONNECT-4)."""
    if farewell is None or farewell.flags & Flag.RETRY:
        return False
    return farewell.code == Code.ABUSE or farewell.code // 100 in (2, 3)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise LocalProtocolError(what)


def _require_encodable(frame: frames.Frame) -> None:
    """Raises LocalProtocolError if the frame has a value that does not fit its field."""
    encode(frame)
