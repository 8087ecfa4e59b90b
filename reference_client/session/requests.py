"""The rooms of a session and the requests about them: what is sent, when, and what the replies mean.

SPEC.md, sections 6, 9, 10 and 11. `Session` calls `opened` and `disconnected`; without a connection, all requests
wait here.
"""

import random
from collections import OrderedDict, deque
from collections.abc import Callable

from protocol import frames
from protocol.client import ClientConnection
from protocol.fields import extensions
from protocol.registry import CONTENT_RESERVE, Code, Flag
from reference_client import events
from reference_client.session.history import HistoryRequest, HistoryRequests
from reference_client.session.membership import RoomState
from reference_client.session.outbox import Pace, Pending

_OUR_MEMBERS = 64
_MIN_WAIT_FULL = 1.0  # seconds, like the next two
_MAX_WAIT_EVICTED = 10.0
_MIN_WAIT_LEAVE = 1.0
_REFUSED_AT_ONCE = (Code.ROOM_FULL, Code.SERVER_FULL)


class Requests:
    """The application's requests, until they are answered.

    `emit` receives the events. `rng` makes the random part of ids. With `roster`, JOINs ask for a roster.
    """

    def __init__(self, rng: random.Random, emit: Callable[[events.Event], None], *, roster: bool) -> None:
        self._rng = rng
        self._emit = emit
        self._roster = roster
        self.rooms: dict[str, RoomState] = {}
        self.pending = 0
        """Publishes whose outcome the application does not know yet."""
        self.octets = 0
        """Octets of the content of those publishes."""
        self.wake: float | None = None
        """When a request that waits for time alone may be sent; None if there is none."""
        self._members: deque[int] = deque(maxlen=_OUR_MEMBERS)  # our own member ids on the last connections
        self._absent: dict[str, RoomState] = {}  # to be joined
        self._busy: OrderedDict[str, RoomState] = OrderedDict()  # may have something to publish; next in turn first
        self._leaving: dict[str, RoomState] = {}
        self.holding = False
        """Whether the streams of rooms are not shown."""
        self._behind: dict[str, RoomState] = {}  # to be left and joined again, since their streams were held
        self._history = HistoryRequests(emit, self._shown)
        self._joins = Pace()
        # The present connection:
        self._connection: ClientConnection | None = None
        self._welcome: frames.Welcome | None = None
        self._welcomed = 0.0
        self._by_ref: dict[int, RoomState] = {}
        self._asked: dict[int, RoomState] = {}  # by request number, except for HISTORY
        self._joining = 0

    # --- calls of the application

    def join(self, room: RoomState) -> None:
        """Take a room, to be joined when possible."""
        self.rooms[room.name] = self._absent[room.name] = room

    def leave(self, room: RoomState) -> None:
        """Leave the room once its publishes are answered."""
        room.leaving = True
        self._leaving[room.name] = room
        if room.state == "OUT" and room.outbox.idle:
            self._left(room)

    def publish(self, room: RoomState, pending: Pending) -> None:
        """Take a publish, to be sent when possible."""
        self.pending += 1
        self.octets += pending.size
        room.outbox.add(pending)
        self._busy[room.name] = room

    def ask(self, request: HistoryRequest) -> None:
        """Take a request for history. Raises TooManyPending."""
        self._history.add(request)

    def withdraw_history(self, ticket: int) -> None:
        """Forget a request for history."""
        self._history.withdraw(ticket)

    def hold(self) -> None:
        """Show nothing more of the streams, until `release`."""
        self.holding = True
        for room in self._by_ref.values():
            room.hold()

    def release(self) -> None:
        """Show the streams again, from where they were held."""
        self.holding = False
        for room in self._by_ref.values():
            if room.held is not None and not room.leaving:
                self._behind[room.name] = room

    def give_up(self, code: int | None, text: str) -> None:
        """The session ends: drop all rooms."""
        for room in list(self.rooms.values()):
            self._drop(room, code, text)

    # --- connections

    def opened(self, connection: ClientConnection, welcome: frames.Welcome, now: float) -> None:
        """The server accepted the session on a new connection."""
        self._connection = connection
        self._welcome = welcome
        self._welcomed = now
        self._members.append(welcome.member)
        self._history.offered = "history" in extensions(welcome)

    def disconnected(self) -> None:
        """The present connection is over."""
        self._connection = None
        gone = [room for room in self._asked.values() if room.gone]
        self._by_ref.clear()
        self._asked.clear()
        self._joining = 0
        self._history.disconnected()
        for room in gone:
            room.outbox.disconnected()
            self._fail_waiting(room, None, "the connection was lost after the room was left")
        for room in list(self.rooms.values()):
            left = room.state == "LEAVING" and room.leaving
            room.out()
            room.outbox.disconnected()
            self._absent[room.name] = room
            if left:
                self._left(room)

    # --- sending

    def pump(self, now: float) -> None:
        """Send what can be sent now."""
        self.wake = None
        connection = self._connection
        if connection is None or connection.state != "OPEN":
            return
        self._send_joins(connection, now)
        wake = self._history.send(connection, now)
        if wake is not None:
            self._wake_at(wake)
        self._send_publishes(connection, now)
        self._send_leaves(connection, now)

    def _wake_at(self, when: float) -> None:
        self.wake = when if self.wake is None else min(self.wake, when)

    def _send_joins(self, connection: ClientConnection, now: float) -> None:
        for room in list(self._absent.values()):
            if room.leaving and room.outbox.idle:
                self._left(room)
                continue
            if not (connection.can_request and self._joins.allows(self._joining)):
                return
            due = max(room.not_before, self._joins.not_before)
            if now < due:
                self._wake_at(due)
                continue
            epoch, since = room.where  # RW-RECOVER-1
            self._asked[connection.join(room.name, epoch, since, roster=self._roster)] = room
            self._joining += 1
            room.state = "JOINING"
            del self._absent[room.name]

    def _send_publishes(self, connection: ClientConnection, now: float) -> None:
        """Send one publish of each room in turn, so that a busy room does not delay the others."""
        turn = deque(self._busy.values())
        while turn and connection.can_request:
            room = turn.popleft()
            if self._publish_next(room, connection, now):
                self._busy.move_to_end(room.name)
                turn.append(room)

    def _publish_next(self, room: RoomState, connection: ClientConnection, now: float) -> bool:
        """Send the room's next publish. Returns False if it has none that may be sent now."""
        outbox = room.outbox
        assert self._welcome is not None
        if room.state != "IN" or room.name in self._behind:
            return False
        while (pending := outbox.next()) is not None:
            refusal = self._refusal(pending)
            if refusal is not None:
                if pending.doubtful and not room.caught_up:
                    return False  # RW-DEDUPE-8: a missed message may still show that it was published
                self._fail(room, outbox.drop(), *refusal)
                continue
            if now < outbox.pace.not_before:
                self._wake_at(outbox.pace.not_before)
                return False
            pending.id = pending.id or self._new_id(now)
            pending.blind = pending.blind or not self._welcome.dedupe_ms
            request = connection.publish(
                room.ref, pending.id, pending.ctype, pending.payload, ordered=outbox.ordered, fields=pending.fields
            )
            outbox.take(request)
            self._asked[request] = room
            return True
        if outbox.idle:
            self._busy.pop(room.name, None)
        return False

    def _refusal(self, pending: Pending) -> tuple[int | None, str] | None:
        """Why the publish must not be sent, as code and text; None if it may be."""
        assert self._welcome is not None
        if pending.refusal is not None:
            return pending.refusal
        if pending.doubtful and (pending.blind or not self._welcome.dedupe_ms):  # RW-DEDUPE-7
            return None, "the reply was lost, and the server does not remember ids"
        if pending.size > self._welcome.max_body - CONTENT_RESERVE:  # RW-FRAME-3
            return Code.PAYLOAD_TOO_LARGE, f"{pending.size} octets"
        return None

    def _new_id(self, now: float) -> bytes:
        """A new message id: 48 bits of the server's time, 80 random bits (RW-ID-1)."""
        assert self._welcome is not None
        server_ms = self._welcome.now_ms + int((now - self._welcomed) * 1000)
        return (server_ms & 0xFFFFFFFFFFFF).to_bytes(6, "big") + self._rng.getrandbits(80).to_bytes(10, "big")

    def _send_leaves(self, connection: ClientConnection, now: float) -> None:
        for room in (*self._leaving.values(), *self._behind.values()):
            answered = room.outbox.idle if room.leaving else not room.outbox.sent
            if room.state == "IN" and answered and connection.can_request:
                if now < room.not_before:
                    self._wake_at(room.not_before)
                    continue
                self._asked[connection.leave(room.ref)] = room
                room.state = "LEAVING"

    # --- replies

    def replied(self, request: frames.Frame, reply: frames.Frame, now: float) -> None:
        """Take the final reply to a request about a room."""
        if isinstance(request, frames.History):
            self._history.replied(request, reply, now)
            return
        room = self._asked.pop(request.request)
        if isinstance(request, frames.Publish):
            self._publish_replied(request, reply, room, now)
        elif isinstance(request, frames.Leave):
            if room.state != "LEAVING":
                return  # EVICTED came first
            if isinstance(reply, frames.Error) and reply.code != Code.NOT_JOINED:
                room.state = "IN"  # so that LEAVE is sent again
                room.not_before = now + max(reply.retry_ms / 1000, _MIN_WAIT_LEAVE)
                return
            del self._by_ref[room.ref]
            if room.leaving and room.outbox.idle:
                self._left(room)
            else:
                room.out()
                self._absent[room.name] = room
        elif isinstance(request, frames.Join):
            self._joining -= 1
            if isinstance(reply, frames.Joined):
                self._joined(room, reply)
            elif isinstance(reply, frames.Error):
                self._join_refused(room, reply, now)

    def _joined(self, room: RoomState, reply: frames.Joined) -> None:
        assert self._connection is not None
        self._joins.accepted()
        again = room.entered
        self._behind.pop(room.name, None)
        before = room.cursor
        gap = room.joined(reply, self._connection.memberships[reply.room])
        if self.holding:  # the gap is told of when the stream is shown again
            room.hold(before if before[0] else (reply.epoch, reply.start - 1))
            gap = None
        self._by_ref[room.ref] = room
        self._busy[room.name] = room
        self._emit(
            events.Joined(
                room.name,
                reply.name,
                reply.epoch,
                reply.head,
                reply.start,
                reply.oldest,
                reply.members,
                room.quiet,
                again,
            )
        )
        if gap is not None:
            self._emit(gap)

    def _join_refused(self, room: RoomState, error: frames.Error, now: float) -> None:
        room.state = "OUT"
        retry = error.flags & Flag.RETRY and (room.entered or error.code not in _REFUSED_AT_ONCE)
        if room.leaving and (room.outbox.idle or not retry):
            self._left(room)
            return
        if not retry:
            same = self._by_ref.get(error.room) if error.code == Code.ALREADY_JOINED else None
            self._emit(events.JoinFailed(room.name, error.code, error.text, None, same.name if same else None))
            self._drop(room, error.code, error.text)
            return
        if error.code == Code.ROOM_FULL:  # concerns this room alone
            wait = max(error.retry_ms / 1000, _MIN_WAIT_FULL)
            room.not_before = now + wait
        else:
            wait = self._joins.refused(error.retry_ms, now)
        self._absent[room.name] = room
        self._emit(events.JoinFailed(room.name, error.code, error.text, wait))

    def _publish_replied(self, request: frames.Publish, reply: frames.Frame, room: RoomState, now: float) -> None:
        outbox = room.outbox
        if isinstance(reply, frames.Ack):
            pending = outbox.acknowledged(request.request)
            self._settle(
                pending,
                events.Published(pending.ticket, room.name, pending.id, room.epoch, reply.seq, reply.time_ms),
            )
            return
        assert isinstance(reply, frames.Error)
        crossed = reply.code == Code.NOT_JOINED and room.ref != request.room  # PUBLISH and EVICTED crossed
        repeat = not room.gone and (crossed or bool(reply.flags & Flag.RETRY))
        pending = outbox.sent[request.request]
        if not repeat and pending.doubtful and not (room.gone or room.caught_up):
            pending.refusal = reply.code, reply.text
        outbox.refused(request.request, repeat=repeat or pending.refusal is not None)
        if pending.refusal is not None:
            return  # `_publish_next` reports it, once all messages that were in the log have arrived
        if not repeat:
            self._fail(room, pending, reply.code, reply.text)
        elif not crossed and (reply.retry_ms or reply.code != Code.PRECEDED or not request.flags & Flag.ORDERED):
            outbox.pace.refused(reply.retry_ms, now)

    # --- the stream

    def received(self, frame: frames.Frame, now: float) -> None:
        """Take a frame of a room's stream, EVICTED, or a message of a reply to HISTORY."""
        if isinstance(frame, frames.Message) and frame.request:
            room = self._history.received(frame)
            if room is not None:
                self._recognise(room, frame)
            return
        room = self._by_ref.get(frame.room)
        if room is None:
            return
        if isinstance(frame, frames.Message):
            self._recognise(room, frame)
            if room.held is None and room.shows(frame.seq):
                self._emit(self._shown(room, frame))
        elif isinstance(frame, frames.Evicted):
            self._evicted(room, frame, now)
        elif isinstance(frame, frames.Roster):
            self._show(room, room.roster_received(frame))
        elif isinstance(frame, frames.Presence):
            self._show(room, room.presence_received(frame))

    def _show(self, room: RoomState, change: events.Event | None) -> None:
        """Report a change of the roster, if it is one, and the stream is shown."""
        if change is not None and room.held is None:
            self._emit(change)

    def _recognise(self, room: RoomState, frame: frames.Message) -> None:
        """Settle the pending publish that this message turns out to be (RW-RECOVER-2)."""
        pending = room.outbox.found(frame.id)
        if pending is not None:
            epoch = room.epoch
            self._settle(
                pending, events.Published(pending.ticket, room.name, frame.id, epoch, frame.seq, frame.time_ms)
            )

    def _shown(self, room: RoomState, frame: frames.Message) -> events.MessageReceived:
        return events.MessageReceived(
            room.name,
            room.epoch,
            frame.seq,
            frame.time_ms,
            frame.sender,
            frame.name,
            bool(frame.flags & Flag.VERIFIED),
            frame.ctype,
            frame.payload,
            frame.sender in self._members,
            frame.id,
            frame.fields,
        )

    def _evicted(self, room: RoomState, frame: frames.Evicted, now: float) -> None:
        del self._by_ref[room.ref]
        if room.leaving and (room.state == "LEAVING" or room.outbox.idle):
            self._left(room)
            return
        room.out()
        room.evictions += 1
        room.lagged = room.lagged + 1 if frame.code == Code.LAGGED else 0
        if not frame.flags & Flag.RETRY:
            self._emit(events.Evicted(room.name, frame.code, frame.text, None))
            self._drop(room, frame.code, frame.text)
            return
        # The first eviction allows an immediate JOIN; repeated evictions make the wait grow.
        floor = 0.0 if room.evictions == 1 else min(0.05 * 2 ** min(room.evictions, 30), _MAX_WAIT_EVICTED)
        wait = max(frame.retry_ms / 1000, floor)
        room.not_before = now + wait
        self._absent[room.name] = room
        self._emit(events.Evicted(room.name, frame.code, frame.text, wait))

    # --- ends

    def _left(self, room: RoomState) -> None:
        self._emit(events.Left(room.name))
        self._drop(room, None, "the room was left")

    def _drop(self, room: RoomState, code: int | None, text: str) -> None:
        """Forget the room. Publishes under way may still be answered."""
        room.out()
        room.gone = True
        for rooms in (self.rooms, self._absent, self._busy, self._leaving, self._behind):
            rooms.pop(room.name, None)
        self._history.drop(room, code, text)
        self._fail_waiting(room, code, text)

    def _fail_waiting(self, room: RoomState, code: int | None, text: str) -> None:
        for pending in room.outbox.give_up():
            self._fail(room, pending, code, text)

    def _fail(self, room: RoomState, pending: Pending, code: int | None, text: str) -> None:
        """Report a failure. The outcome is unknown if a copy went out on an earlier connection (RW-PROMISE-6)."""
        self._settle(pending, events.PublishFailed(pending.ticket, room.name, code, text, pending.doubtful))

    def _settle(self, pending: Pending, event: events.Event) -> None:
        if not pending.settled:
            pending.settled = True
            self.pending -= 1
            self.octets -= pending.size
            self._emit(event)
