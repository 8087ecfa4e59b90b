"""The session: the state of a client that outlives its connections, without I/O (SPEC.md, 8.7, 10 and 11).

A Session holds the rooms that the application wants to be in, with their cursors, and the publishes that wait for
a reply. It joins, repeats, waits and reconnects as SPEC.md says, and reports to the application by events. It reads
no clock: `now` is in seconds of any clock that never steps back, the same one in all calls.

The driver of a session, over a real or a simulated network:

- opens a transport at `reconnect_at` if that is not None, and calls `connect(now)` once it is up, or
  `connect_failed(now, text)` if it cannot be opened;
- passes received octets to `receive_data(data, now)`, and calls `connection_lost(now)` once for each `connect`,
  when the transport has ended, on either side;
- calls `handle_timeout(now)` at `next_timeout()`, or earlier;
- after each of these, and after each call of the application, writes `data_to_send(now)`, then closes the
  transport if `should_close` (and calls `connection_lost`), and takes all events from `next_event()`.

The application calls `join`, `leave`, `publish`, `history` and `close` at any time; requests that cannot be sent now
are sent later. Each message of a room's stream is shown once and in order (RW-RECOVER-3). Only after leaving and
joining a room again, or in history, may the application see it again.
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

    With `password` the session logs in to the account `name`; without one it is anonymous.
    `rng` makes the ids of messages, which must be impossible to guess: use random.SystemRandom() (RW-ID-1).
    At most `max_pending` publishes, with `max_pending_octets` of content, wait for a reply.
    `handshake` is the time for the server's WELCOME, in seconds.
    Raises LocalProtocolError if `name` does not fit into a HELLO.
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
        self._hello = _hello(name, software, account=password is not None)
        self._login = None if password is None else Login(name, password, rng)
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
        """Whether the session is over: Closed is the last event."""
        self.name = name
        """The user's name, as the server granted it last (RW-WELCOME-6)."""
        self.welcome: frames.Welcome | None = None
        """The WELCOME of the present connection; None while there is no usable connection."""
        # The present connection:
        self._connection: ClientConnection | None = None
        self._opened_at = now
        self._ended = True  # whether its end was handled
        self._farewell: frames.Goaway | frames.Error | None = None  # may name the time to come back

    # --- the application

    @property
    def pending(self) -> int:
        """How many publishes wait for a reply."""
        return self._requests.pending

    def rooms(self) -> list[str]:
        """The rooms that the application wants to be in."""
        return list(self._requests.rooms)

    def in_room(self, room: str) -> bool:
        """Whether the session is a member of the room at present."""
        return room in self._requests.rooms and self._room(room).state == "IN"

    def roster(self, room: str) -> list[Member]:
        """The members of the room that are known; empty while the room is quiet."""
        return list(self._room(room).roster.values())

    def members(self, room: str) -> int:
        """The number of members, as the server said last."""
        return self._room(room).members

    def cursor(self, room: str) -> tuple[int, int]:
        """(epoch, seq) of the last message received; epoch 0 if there was none."""
        return self._room(room).cursor

    def join(self, room: str, now: float, *, history: int = 0, cursor: tuple[int, int] | None = None) -> None:
        """Join the room, with its newest `history` messages, or with those after `cursor`, (epoch, seq).

        Joined or JoinFailed follows. Raises LocalProtocolError if the session has the room already, or the name does
        not fit into a JOIN.
        """
        self._require_open()
        _require(room not in self._requests.rooms, f"already in the room {room!r}, or joining it")
        epoch, since = cursor or (0, history)
        _require(0 <= since <= MAX_SAFE, "expected a seq, or a number of messages, from 0 to 2^53 - 1")
        _require_encodable(frames.Join(room, epoch, since, request=1))
        self._requests.join(RoomState(room, history, cursor))
        self._requests.pump(now)

    def leave(self, room: str, now: float) -> None:
        """Leave the room once all its publishes are answered. Left follows."""
        self._require_open()
        self._requests.leave(self._room(room))
        self._requests.pump(now)

    def publish(
        self, room: str, payload: bytes, now: float, *, ctype: int = 0, fields: tuple[frames.Field, ...] = ()
    ) -> int:
        """Publish a message. Returns the ticket that Published or PublishFailed will carry.

        Raises TooManyPending, or LocalProtocolError if the session is not in the room or leaves it, if a field is
        critical, or if a value does not fit into a PUBLISH.
        """
        self._require_open()
        target = self._room(room)
        _require(not target.leaving, f"the room {room!r} is being left")
        _require(all(is_ignorable(field.type) for field in fields), "the fields of a message must be ignorable")
        _require_encodable(frames.Publish(bytes(16), ctype, payload, fields=fields))
        pending = Pending(self._tickets + 1, ctype, payload, fields)
        waiting, octets = self._requests.pending, self._requests.octets
        if waiting >= self._max_pending or (waiting and octets + pending.size > self._max_octets):
            raise TooManyPending(f"{waiting} messages wait for a reply")
        self._tickets += 1
        self._requests.publish(target, pending)
        self._requests.pump(now)
        return pending.ticket

    def history(
        self, room: str, now: float, *, start: int = 1, end: int = 0, limit: int = 0, newest: bool = False
    ) -> int:
        """Ask for messages of [start, end). Returns the ticket that HistoryPage or HistoryFailed will carry.

        `end` 0 is the end of the log, `limit` 0 as many messages as the server sends at once; `newest` asks for the
        last ones of the range. Raises TooManyPending, or LocalProtocolError if the session is not in the room, or a
        number is out of range.
        """
        self._require_open()
        _require(0 <= start <= MAX_SAFE and 0 <= end <= MAX_SAFE, "expected a seq from 0 to 2^53 - 1")
        _require(0 <= limit <= 0xFFFF, "expected a limit from 0 to 65535")
        self._requests.ask(HistoryRequest(self._tickets + 1, self._room(room), start, end, limit, newest))
        self._tickets += 1
        self._requests.pump(now)
        return self._tickets

    def withdraw_history(self, ticket: int) -> None:
        """Forget a request for history. Its event still follows if the request was sent."""
        self._requests.withdraw_history(ticket)

    def stop(self) -> None:
        """Ask the server to stop (STOP); this is never repeated. StopAnswered follows, unless the connection ends.

        Raises LocalProtocolError if STOP cannot be sent now, or the server does not offer it.
        """
        connection, welcome = self._connection, self.welcome
        if connection is None or welcome is None or not connection.can_request:
            raise LocalProtocolError("not connected, or too many requests under way")
        _require("admin" in extensions(welcome), "the server does not offer STOP to this session")
        connection.stop()

    def close(self, now: float) -> None:
        """End the session and drop all unanswered requests. Closed follows when the transport has ended."""
        if self._ending is None:
            self._end(None, "closed by the application", now)

    def next_event(self) -> events.Event | None:
        """The next event, or None."""
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
        """The computation that the answer to the server's challenge needs, or None. It may take a second.

        The driver calls it, preferably on another thread, and passes its result to `derived`.
        """
        return None if self._login is None else self._login.derivation

    def derived(self, result: tuple[bytes, int, bytes]) -> None:
        """Take the result of `derivation`."""
        if self._login is not None:
            self._login.derived(result)
            self._answer()

    # --- the transport

    @property
    def reconnect_at(self) -> float | None:
        """When to open a transport; None while there is one, or if the session is over."""
        return self._reconnect_at if self._connection is None and self._ending is None else None

    @property
    def should_close(self) -> bool:
        """Whether to close the transport once everything is written."""
        return self._connection is not None and self._connection.should_close

    def connect(self, now: float) -> None:
        """The transport is up. Raises LocalProtocolError if `reconnect_at` is None."""
        _require(self.reconnect_at is not None, "the session does not want a connection now")
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
        # After DRAINING our own GOAWAY ends the connection, which no event reports. An ERROR that answers HELLO is
        # followed by a GOAWAY, which says more.
        if connection.state in ("CLOSING", "CLOSED") and not isinstance(self._farewell, frames.Error):
            self._disconnected(Code.DRAINING, "the server is about to end", now)
        self._requests.pump(now)

    def connection_lost(self, now: float, text: str = "the connection was lost") -> None:
        """The transport ended; `text` says how."""
        if self._connection is None:
            return
        self._connection.receive_eof(now)
        refusal = self._farewell if isinstance(self._farewell, frames.Error) else None
        self._disconnected(refusal.code if refusal else None, refusal.text if refusal else text, now)
        self._connection = None
        self._close_if_ending()

    def pause_reading(self) -> None:
        """The driver stops reading, so the server's silence does not count (RW-HEARTBEAT-3)."""
        if self._connection is not None:
            self._connection.pause_reading()

    def resume_reading(self, now: float) -> None:
        """The driver reads again."""
        if self._connection is not None:
            self._connection.resume_reading(now)

    @property
    def holding(self) -> bool:
        """Whether the streams of rooms are not shown; see `hold`."""
        return self._requests.holding

    def hold(self) -> None:
        """Show nothing more of the streams of rooms, until `release`: the application cannot take any more.

        Replies to requests are reported as ever.
        """
        self._requests.hold()

    def release(self, now: float) -> None:
        """Show the streams again, from where they were held: the session leaves the rooms and joins them again."""
        self._requests.release()
        self._requests.pump(now)

    def data_to_send(self, now: float) -> bytes:
        """The octets to write now. Each octet is returned once."""
        return b"" if self._connection is None else self._connection.data_to_send(now)

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout` next, or None; any other call may change it."""
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

    # --- events of the connection

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
        """Answer a challenge, perhaps later, or end the session (RW-AUTH-1)."""
        if self._login is None:
            self._end(Code.AUTH_FAILED, "the server sent a challenge to an anonymous client", now)
            return
        try:
            self._login.challenged(data)
        except ScramError as error:  # RW-SCRAM-3
            self._end(Code.AUTH_FAILED, str(error), now)
        else:
            self._answer()

    def _answer(self) -> None:
        """Answer a challenge if one is open and its key is derived."""
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
        """The connection is of no more use, though its transport may stay open for a while."""
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
        """End the session: no further connection is wanted."""
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


def _hello(name: str, software: str, *, account: bool) -> frames.Hello:
    """The HELLO of each connection, without `auth`. Raises LocalProtocolError."""
    names = ("admin", "history") if account else ("history",)
    fields = (*map(extension, names), agent(software))
    hello = frames.Hello(name, MECHANISM if account else "ANONYMOUS", b"", fields=fields, request=_HELLO)
    _require_encodable(hello)
    return hello


def _is_final(farewell: frames.Goaway | frames.Error | None) -> bool:
    """Whether connecting again would not help (RW-RECONNECT-4)."""
    if farewell is None or farewell.flags & Flag.RETRY:
        return False
    return farewell.code == Code.ABUSE or farewell.code // 100 in (2, 3)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise LocalProtocolError(what)


def _require_encodable(frame: frames.Frame) -> None:
    """Raise LocalProtocolError if a value of the frame does not fit its field."""
    encode(frame)
