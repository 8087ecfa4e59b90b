"""Requests for history: sent once their room is joined, repeated after a lost connection (SPEC.md, 7.18)."""

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol import frames
from protocol.client import ClientConnection
from protocol.registry import Code, Flag
from reference_client import events
from reference_client.errors import TooManyPending
from reference_client.session.membership import RoomState
from reference_client.session.outbox import Pace

_MAX_REQUESTS = 64
_AT_ONCE = 2  # parts of the replies to these are in memory


@dataclass(slots=True, eq=False)
class HistoryRequest:
    """One HISTORY, and the part of its reply that has arrived."""

    ticket: int
    room: RoomState
    start: int
    end: int
    limit: int
    newest: bool
    messages: list[events.MessageReceived] = field(default_factory=list)
    withdrawn: bool = False


class HistoryRequests:
    """The requests for history that wait for a reply. HISTORY changes nothing, so repeating it is always safe.

    `shown` makes the event for a message.
    """

    def __init__(
        self,
        emit: Callable[[events.Event], None],
        shown: Callable[[RoomState, frames.Message], events.MessageReceived],
    ) -> None:
        self._emit = emit
        self._shown = shown
        self._waiting: list[HistoryRequest] = []
        self._sent: dict[int, HistoryRequest] = {}
        self._pace = Pace()
        self.offered = False
        """Whether the server offers the extension `history`."""

    def add(self, request: HistoryRequest) -> None:
        """Take a request, to be sent by `send`. Raises TooManyPending."""
        if len(self._waiting) + len(self._sent) >= _MAX_REQUESTS:
            raise TooManyPending(f"{_MAX_REQUESTS} requests for history wait for a reply")
        self._waiting.append(request)

    def withdraw(self, ticket: int) -> None:
        """Forget a request: it is not sent, and not sent again."""
        self._waiting = [request for request in self._waiting if request.ticket != ticket]
        for request in self._sent.values():
            request.withdrawn = request.withdrawn or request.ticket == ticket

    def send(self, connection: ClientConnection, now: float) -> float | None:
        """Send what can be sent now. Returns when to try again if only time is missing, otherwise None."""
        for request in list(self._waiting):
            room = request.room
            if not self.offered:
                self._fail(request, Code.UNKNOWN_REQUEST, "the server does not offer history")
                self._waiting.remove(request)
            elif room.state == "IN":
                under_way = len(self._sent)
                if not (connection.can_request and under_way < _AT_ONCE and self._pace.allows(under_way)):
                    return None
                if now < self._pace.not_before:
                    return self._pace.not_before
                number = connection.history(room.ref, request.start, request.end, request.limit, newest=request.newest)
                self._sent[number] = request
                self._waiting.remove(request)
        return None

    def received(self, message: frames.Message) -> RoomState | None:
        """Take one message of a reply; returns its room."""
        request = self._sent[message.request]
        request.messages.append(self._shown(request.room, message))
        return request.room

    def replied(self, sent: frames.History, reply: frames.Frame, now: float) -> None:
        """Take the final reply: HISTORY_END, or an ERROR after which the request may be repeated."""
        request = self._sent.pop(sent.request)
        room = request.room
        if isinstance(reply, frames.HistoryEnd):
            self._pace.accepted()
            more = bool(reply.flags & Flag.MORE)
            page = tuple(request.messages)
            self._emit(
                events.HistoryPage(
                    request.ticket, room.name, room.epoch, page, reply.start, reply.end, reply.oldest, more
                )
            )
            return
        assert isinstance(reply, frames.Error)
        crossed = reply.code == Code.NOT_JOINED and room.ref != sent.room
        if room.gone or request.withdrawn or not (crossed or reply.flags & Flag.RETRY):
            self._fail(request, reply.code, reply.text)
            return
        if not crossed:
            self._pace.refused(reply.retry_ms, now)
        request.messages.clear()
        self._waiting.insert(0, request)

    def drop(self, room: RoomState, code: int | None, text: str) -> None:
        """Fail the waiting requests of a room that the session drops."""
        for request in [request for request in self._waiting if request.room is room]:
            self._waiting.remove(request)
            self._fail(request, code, text)

    def disconnected(self) -> None:
        """The connection is lost: requests without a reply wait again, in their order."""
        again = list(self._sent.values())
        self._sent.clear()
        for request in again:
            request.messages.clear()
            if request.room.gone:
                self._fail(request, None, "the connection was lost")
        self._waiting[:0] = [request for request in again if not (request.room.gone or request.withdrawn)]

    def _fail(self, request: HistoryRequest, code: int | None, text: str) -> None:
        self._emit(events.HistoryFailed(request.ticket, request.room.name, code, text))
