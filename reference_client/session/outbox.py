"""Pending publishes of one room: their order, refusals and repeats (SPEC.md, section 10)."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.frames import Field

_UNLIMITED = 1 << 16
_FIRST_WAIT = 0.1  # seconds
_LAST_WAIT = 10.0


class Pace:
    """How many requests of one kind may be under way, and when the next may be sent.

    After a refusal it is one, and only after the time that the server named (RW-ERROR-2). Each success doubles the
    number, so a burst that was too large is not repeated as a whole.
    """

    __slots__ = ("_limit", "_refusals", "not_before")

    def __init__(self) -> None:
        self._limit = _UNLIMITED
        self._refusals = 0
        self.not_before = 0.0

    def allows(self, under_way: int) -> bool:
        """Whether one more request may be sent while `under_way` have no reply."""
        return under_way < self._limit

    def accepted(self) -> None:
        """The server accepted a request."""
        self._refusals = 0
        self._limit = min(2 * self._limit, _UNLIMITED)

    def refused(self, retry_ms: int, now: float) -> float:
        """The server refused a request. Returns the seconds to wait, which grow if the server names no time."""
        wait = retry_ms / 1000 or min(_FIRST_WAIT * 2 ** min(self._refusals, 30), _LAST_WAIT)
        self._refusals += 1
        self._limit = 1
        self.not_before = max(self.not_before, now + wait)
        return wait


@dataclass(slots=True, eq=False)
class Pending:
    """A publish whose outcome is not yet known to the application."""

    ticket: int
    ctype: int
    payload: bytes
    fields: tuple[Field, ...]
    id: bytes = b""
    """Made at the first sending, since it holds the server's time; repeats keep it (RW-PROMISE-5)."""
    doubtful: bool = False
    """A copy was sent on an earlier connection and never answered: it may be in the log, or still get there."""
    blind: bool = False
    """A copy was sent to a server that remembers no ids."""
    refusal: tuple[int | None, str] | None = None
    """Code and text of a repeat that the server refused for good: it is not sent again."""
    settled: bool = False
    """The application knows the outcome."""

    @property
    def size(self) -> int:
        """Octets of the content, counted as in RW-PUBLISH-1."""
        return len(self.payload) + sum(4 + len(field.value) for field in self.fields)


class Outbox:
    """The pending publishes of a room, in the order of the application's calls.

    Those in `waiting` are still to be sent. Those in `sent`, by request number, wait for a reply. Those in
    `_refused` are sent again before `waiting`, once all replies have arrived (RW-ORDER-2).
    """

    __slots__ = ("_by_id", "_ordered", "_refused", "pace", "sent", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Pending] = deque()
        self.sent: dict[int, Pending] = {}
        self.pace = Pace()
        self._refused: list[Pending] = []
        self._by_id: dict[bytes, Pending] = {}
        self._ordered = True  # whether the next publish is sent with the flag ORDERED

    @property
    def idle(self) -> bool:
        """Whether nothing is left to send or to wait for."""
        return not self.sent and all(pending.settled for pending in (*self._refused, *self.waiting))

    def add(self, pending: Pending) -> None:
        """Take a new publish."""
        self.waiting.append(pending)

    def next(self) -> Pending | None:
        """The publish to send next, as far as order allows; time and window are not considered. `take` removes it."""
        if self._refused:
            if self.sent:
                return None  # RW-ORDER-2: wait for all replies, then start from the first refused one
            self.waiting.extendleft(reversed(self._refused))
            self._refused.clear()
        while self.waiting and self.waiting[0].settled:
            self.waiting.popleft()
        if not self.waiting or (self.sent and not (self._ordered and self.pace.allows(len(self.sent)))):
            return None
        return self.waiting[0]

    def drop(self) -> Pending:
        """Remove the next publish, which is not sent."""
        pending = self.waiting.popleft()
        self._by_id.pop(pending.id, None)
        return pending

    def take(self, request: int) -> None:
        """Move the next publish to `sent`, under its request number."""
        pending = self.waiting.popleft()
        self.sent[request] = pending
        self._by_id[pending.id] = pending
        self._ordered = True

    @property
    def ordered(self) -> bool:
        """Whether the next publish carries the flag ORDERED: all but the first after a refusal."""
        return self._ordered

    def acknowledged(self, request: int) -> Pending:
        """The server answered ACK."""
        self.pace.accepted()
        return self._answered(request)

    def refused(self, request: int, *, repeat: bool) -> Pending:
        """The server answered ERROR. With `repeat` the publish is sent again, in its place."""
        self._ordered = False
        pending = self.sent[request]
        if repeat and not pending.settled:
            del self.sent[request]
            self._refused.append(pending)
            return pending
        return self._answered(request)

    def _answered(self, request: int) -> Pending:
        pending = self.sent.pop(request)
        self._by_id.pop(pending.id, None)
        return pending

    def found(self, id: bytes) -> Pending | None:
        """The unsettled publish whose message has this id, or None; it is not sent again (RW-RECOVER-2)."""
        return self._by_id.pop(id, None)

    def disconnected(self) -> None:
        """The connection is lost: unanswered publishes wait again, in their order (RW-ORDER-3)."""
        for pending in self.sent.values():
            pending.doubtful = True
        again = [pending for pending in (*self._refused, *self.sent.values()) if not pending.settled]
        self.waiting.extendleft(sorted(again, key=lambda pending: -pending.ticket))
        self.sent.clear()
        self._refused.clear()
        self._ordered = True

    def give_up(self) -> Iterator[Pending]:
        """Remove all publishes that are not under way; yields the unsettled ones in order."""
        gone = sorted((*self._refused, *self.waiting), key=lambda pending: pending.ticket)
        self._refused.clear()
        self.waiting.clear()
        for pending in gone:
            if not pending.settled:
                self._by_id.pop(pending.id, None)
                yield pending
