"""One client at the server: its requests are executed in their order (SPEC.md, sections 6, 7 and 10).

PUBLISH is pipelined: its reply waits until the message is stable, while later publishes are proposed already. Every
other request is a barrier: it is executed once all earlier ones are answered, so a member is attached when JOINED is
written (RW-CURSOR-5), and replies keep their order (RW-REQUEST-3).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from protocol.connection import error_frame
from protocol.events import ConnectionTerminated, RequestRefused, ServerEvent
from protocol.frames import Auth, Hello, History, Join, Leave, Publish, Stop
from protocol.registry import Code, FrameType, PresenceKind
from protocol.scram import ServerExchange
from protocol.server import ServerConnection
from reference_server.accounts import Account
from reference_server.core.credit import FRAMES_PER_TICK, READS_AT_ONCE, REQUEST_COST, STREAM_OCTETS
from reference_server.core.limits import TokenBucket
from reference_server.core.room import Member, Room
from reference_server.core.state import ServerState

log = logging.getLogger("roomwire.server")

NO_EXTENSIONS: frozenset[str] = frozenset()
"""One empty set for all connections."""

Handler = Callable[["Peer", Any, float], None]
"""Answers a request of the peer, at once or in a callback (`Peer.run`). The arguments: peer, frame, now."""


class Link(Protocol):
    """The transport of one peer, as far as the server's logic needs it."""

    def write(self, octets: bytes) -> None:
        """Hand octets to the transport; it never blocks."""

    def pause_reading(self) -> None:
        """Read nothing until `resume_reading`."""

    def resume_reading(self) -> None:
        """Read again."""

    def close(self) -> None:
        """Close when all is written."""

    def waiting(self) -> int:
        """Octets that were handed over and that the network has not taken yet."""


class Login(NamedTuple):
    """A client that was challenged; `account` is None if there is none of that name."""

    hello: Hello
    exchange: ServerExchange
    account: Account | None


class Owed(Protocol):
    """The reply to a PUBLISH, which waits for its turn, and until it is known."""

    @property
    def ready(self) -> bool:
        """Whether it is known."""

    def answer(self) -> None:
        """Send it."""


class Peer:
    """A connection, its memberships by room ref, and the replies that it is still owed.

    `state` is the server's; the state of the connection itself is `conn.state`.
    """

    __slots__ = (
        "_backlog",
        "_blocked_since",
        "_blocked_size",
        "_executing",
        "_handlers",
        "_on_gone",
        "_parting",
        "_paused",
        "_pending",
        "_stream_octets",
        "_when_writable",
        "account",
        "address",
        "conn",
        "extensions",
        "full",
        "gone",
        "history_bucket",
        "join_bucket",
        "link",
        "login",
        "member",
        "memberships",
        "name",
        "output_full",
        "output_pending",
        "publish_bucket",
        "publish_cost",
        "reads",
        "state",
        "writable",
    )

    def __init__(
        self,
        state: ServerState,
        handlers: Mapping[type[ServerEvent], Handler],
        on_gone: Callable[[Peer], None],
        link: Link,
        address: str,
        full: bool,
    ) -> None:
        self.state = state
        self._handlers = handlers
        self._on_gone = on_gone
        self.link = link
        self.address = address
        self.conn = ServerConnection(state.now, state.times)
        self.conn.credit = FRAMES_PER_TICK
        self.full = full  # the server has no room for this connection (RW-CONN-3)
        self.login: Login | None = None  # between the challenge and AUTH
        self.name = ""
        self.account = ""  # the key of a verified name
        self.member = 0
        self.extensions = NO_EXTENSIONS
        self.memberships: dict[int, Member] = {}
        self.publish_bucket: TokenBucket | None = None
        self.publish_cost = 0  # credit, for its next publish: as if that ended as the last one
        self.join_bucket: TokenBucket | None = None
        self.history_bucket: TokenBucket | None = None
        self.writable = True
        self.reads = 0  # portions of rooms' streams that the store is reading for it
        self.output_full = False  # it is handed no more messages in this tick
        self.output_pending = False  # because of that some room has more for it
        self._stream_octets = 0  # handed to it in this tick
        self._executing = False  # a request other than PUBLISH goes on in a callback
        self.gone = self._paused = False
        self._pending: deque[Owed] | None = None
        self._backlog: deque[ServerEvent] | None = None
        self._blocked_since: float | None = None
        self._blocked_size = 0  # octets that would be waiting if the network had taken none since
        self._parting: PresenceKind | None = None  # how it leaves its rooms, once all that it asked is answered
        self._when_writable: Callable[[], None] | None = None

    # --- from the transport

    def receive(self, data: bytes, now: float) -> None:
        """Take octets of the client."""
        if not self.gone:
            self._handle(self.conn.receive_data(data, now), now)
            self.state.touched(self)

    def lost(self, now: float) -> None:
        """The stream has ended, or has failed."""
        if not self.gone:
            if self.conn.state in ("OPEN", "DRAINING"):
                self.state.counters.lost += 1
                log.info("client lost", extra={"peer": self.address, "client": self.name})
            self._leave_all(self._parting or PresenceKind.LOST)
            if self.conn.state != "CLOSED":
                self.conn.receive_eof(now)
            self._end()

    def blocked(self, now: float) -> None:
        """The transport holds as much as it may: stop writing and reading (RW-PING-4)."""
        self.writable = False
        self._blocked_since = now
        self._blocked_size = self.link.waiting()
        self._steer_reading(now)

    def unblocked(self, now: float) -> None:
        """The transport can take more."""
        self.writable = True
        self._blocked_since = None
        self._steer_reading(now)
        self._rooms_changed()
        if self.conn.unread:
            self.state.unsettled.add(self)
        self.state.touched(self)

    # --- to the transport: `room.Subscriber`

    def write_stream(self, octets: bytes) -> None:
        """Write frames of a room's stream."""
        self._stream_octets += len(octets)
        if self._stream_octets >= STREAM_OCTETS:
            self.output_full = True
        self.conn.send_encoded(octets)
        self.state.touched(self)

    def write_out(self, now: float) -> None:
        """End a tick: hand the transport all that the tick made for this client, in one write."""
        if self.gone:
            return
        octets = self.conn.data_to_send(now)
        if octets:
            if self._blocked_since is not None:
                self._blocked_size += len(octets)
            self.link.write(octets)
        self._steer_reading(now)
        if self.conn.should_close:
            self._leave_all(self._parting or PresenceKind.LOST)
            self._end()
            return
        self._stream_octets = 0
        self.output_full = self.reads >= READS_AT_ONCE
        if not self.writable:
            return
        if self.output_pending:
            self.output_pending = False
            self._rooms_changed()
        if self._when_writable is not None and self.conn.credit > 0:
            callback, self._when_writable = self._when_writable, None
            callback()
        if self.conn.credit > 0:
            self.conn.credit = FRAMES_PER_TICK
        else:
            self.state.ready_queue.add(self)

    def give_credit(self, frames: int) -> None:
        """Go on with what exceeded the credit of a tick, of what the client sent or of what it is sent."""
        self.conn.credit = frames
        self.state.unsettled.add(self)
        self.state.touched(self)

    def _rooms_changed(self) -> None:
        for member in self.memberships.values():
            self.state.room_changed(member.room)

    def read_done(self, room: Room) -> None:
        """The store has read for this client what it is behind in a room."""
        self.reads -= 1
        self.state.touched(self)
        self.state.room_changed(room)

    def when_writable(self, callback: Callable[[], None]) -> None:
        """Call `callback` at the end of a tick in which this client has credit and the transport can take more."""
        if not self.gone:  # else it would never be called, and it refers to this peer
            self._when_writable = callback
            self.state.touched(self)

    def _steer_reading(self, now: float) -> None:
        paused = not self.writable or not self.conn.wants_data
        if paused != self._paused:
            self._paused = paused
            if paused:
                self.conn.pause_reading()
                self.link.pause_reading()
            else:
                self.conn.resume_reading(now)
                self.link.resume_reading()

    def _end(self) -> None:
        self.gone = True
        self.login = None
        self._when_writable = None  # it refers to this peer
        self.link.close()
        self._on_gone(self)

    # --- requests

    def _handle(self, events: Iterable[ServerEvent], now: float) -> None:
        for event in events:
            if isinstance(event, Publish):
                if self._executing or self._backlog:
                    self._postpone(event)
                else:
                    self._handlers[Publish](self, event, now)
            elif isinstance(event, ConnectionTerminated):
                self._terminated(event)
            elif isinstance(event, Hello | Auth):
                self._handlers[type(event)](self, event, now)
            elif self._executing or self._backlog or self._pending:
                self._postpone(event)
            else:
                self._execute(event, now)

    def _postpone(self, event: ServerEvent) -> None:
        if self._backlog is None:
            self._backlog = deque()
        self._backlog.append(event)  # at most `window`: the connection reports no more

    def _execute(self, event: ServerEvent, now: float) -> None:
        self.conn.credit -= REQUEST_COST
        if isinstance(event, RequestRefused):
            self._refused(event)
        else:
            self._handlers[type(event)](self, event, now)

    def _refused(self, event: RequestRefused) -> None:
        member = self.memberships.get(event.room)
        if member is not None and event.type == FrameType.PUBLISH:
            member.refused = True  # RW-ORDER-1
        self.state.counters.error(event.type, event.code)
        self.conn.send(error_frame(event.code, event.request, event.room, text=event.text))

    def settle(self) -> None:
        """Send the replies that are due, in order, and go on with what waited behind them."""
        if self.gone:
            return
        pending = self._pending
        conn = self.conn
        answered = False
        while pending and pending[0].ready:
            pending.popleft().answer()
            answered = True
        if answered:
            self.state.touched(self)
        if pending:
            self.state.unsettled.add(self)
            if conn.unread and self.writable:
                self._handle(conn.events(), self.state.now)
                if conn.has_data_to_send:  # GOAWAY, at most: replies and PONGs wait for what is pending
                    self.state.touched(self)
        elif not self._executing:
            self.proceed()

    def proceed(self) -> None:
        """All earlier requests are answered: take up what waited, then what is still unread."""
        backlog, now = self._backlog, self.state.now
        if backlog and self.closing:
            backlog.clear()
        while backlog and not self._executing and not self.gone and self.conn.credit > 0:
            if isinstance(backlog[0], Publish):
                self._handlers[Publish](self, backlog.popleft(), now)
            elif self._pending:
                break
            else:
                self._execute(backlog.popleft(), now)
        if not self._executing and not self.gone and self.writable:
            self._handle(self.conn.events(), now)
        self.state.touched(self)

    # --- for the handlers

    def reply_in_turn(self, reply: Owed) -> None:
        """Send the reply to a PUBLISH when it is ready, and all earlier requests are answered."""
        pending = self._pending
        if not pending and reply.ready:
            reply.answer()
            return
        if pending is None:
            pending = self._pending = deque()
        pending.append(reply)
        self.state.unsettled.add(self)

    def refuse(
        self, request: Join | Leave | History | Stop, code: Code, text: str, retry_ms: int = 0, room: int | None = None
    ) -> None:
        """Answer a request with ERROR, about its own `room` (RW-ERROR-4) unless another is given."""
        self.state.counters.error(request.TYPE, code)
        about = request.room if room is None else room
        self.conn.send(error_frame(code, request.request, about, retry_ms=retry_ms, text=text))

    def run(self, start: Callable[[Callable[[], None]], None]) -> None:
        """Execute a request that may end in a callback: `start(done)` begins it, `done` says that it is answered."""
        self._executing = True
        at_once = True

        def done() -> None:
            self._executing = False
            if not at_once:
                self.proceed()

        start(done)
        at_once = False

    def evicted(self, member: Member, octets: bytes) -> None:
        """The room ended the membership."""
        del self.memberships[member.room.ref]
        self.state.counters.evictions += 1
        self.write_stream(octets)
        self.state.room_left(member.room)

    # --- the end

    def _terminated(self, event: ConnectionTerminated) -> None:
        orderly = event.by_peer and event.code == Code.NONE  # RW-PRESENCE-3
        self._parting = PresenceKind.LEFT if orderly else PresenceKind.LOST
        if self.closing:  # else write_out does it: RW-CLOSE-3
            self._leave_all(self._parting)
        extra = {"peer": self.address, "client": self.name, "by_peer": event.by_peer}
        if event.code is not None:
            self.state.counters.goaway("client" if event.by_peer else "server", event.code)
            extra["code"] = Code(event.code).name if event.code in set(Code) else str(event.code)
        if event.text:
            extra["text"] = event.text[:200]
        log.info("client disconnected", extra=extra)

    def goaway(self, code: Code, now: float, *, retry_ms: int = 0, text: str = "", event: str = "close") -> None:
        """End the connection by the server's will."""
        if self.conn.state in ("WAIT_HELLO", "AUTHENTICATING", "OPEN", "DRAINING"):
            jitter_ms = self.state.config.jitter_ms if code.retry else 0
            self.state.counters.goaway("server", code)
            self.conn.goaway(code, now, retry_ms=retry_ms, jitter_ms=jitter_ms, text=text, event=event)
            self._leave_all(PresenceKind.LOST)
            self.state.touched(self)
        elif self.conn.state == "WAIT_PREFACE":
            self.lost(now)  # before its preface a client is told nothing

    def sweep(self, now: float) -> None:
        """Do what is due at `now`: PING, time-outs, the end of lingering, GOAWAY to a peer that does not read."""
        ended = self.conn.handle_timeout(now)
        if ended is not None:
            self._terminated(ended)
        if self._blocked_since is not None:
            waiting = self.link.waiting()
            if waiting < self._blocked_size:
                self._blocked_since, self._blocked_size = now, waiting
            elif now - self._blocked_since >= self.state.config.stall_ms / 1000:  # RW-LAG-2
                self._blocked_since = now
                if self.conn.state in ("OPEN", "DRAINING"):
                    self.goaway(Code.SLOW, now, retry_ms=1000, text="you do not read", event="time-out")
        if self.conn.has_data_to_send or self.conn.should_close:
            self.state.touched(self)

    def _leave_all(self, kind: PresenceKind) -> None:
        """RW-CLOSE-6."""
        told = None if self.state.draining else kind  # RW-DRAIN-5
        for member in self.memberships.values():
            member.room.detach(member, told)
            self.state.room_left(member.room)
        self.memberships.clear()

    @property
    def closing(self) -> bool:
        """Whether this client gets no more answers."""
        return self.gone or not self.conn.answering
