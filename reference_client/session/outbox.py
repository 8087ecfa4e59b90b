"""Publishes of one room on their way to the log: order, refusals, repeats (SPEC.md, section 10)."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from protocol.frames import Field

_OPEN = 1 << 16
_FIRST_WAIT = 0.1
_LAST_WAIT = 10.0


class Pace:
    """How many requests of one kind may be under way, and from when on the next may be sent.

    After a refusal one, and not before the server's time is over (RW-ERROR-2); with each success twice as many.
    So a burst that was too much is not sent again and again only to be refused again.
    """

    __slots__ = ("_limit", "_refusals", "not_before")

    def __init__(self) -> None:
        self._limit = _OPEN
        self._refusals = 0
        self.not_before = 0.0

    def allows(self, under_way: int) -> bool:
        return under_way < self._limit

    def accepted(self) -> None:
        self._refusals = 0
        self._limit = min(2 * self._limit, _OPEN)

    def refused(self, retry_ms: int, now: float) -> float:
        """Seconds to wait. A server that names no time is asked less and less often."""
        wait = retry_ms / 1000 or min(_FIRST_WAIT * 2 ** min(self._refusals, 30), _LAST_WAIT)
        self._refusals += 1
        self._limit = 1
        self.not_before = max(self.not_before, now + wait)
        return wait


@dataclass(slots=True, eq=False)
class Pending:
    """A publish whose outcome the application has not been told."""

    ticket: int
    ctype: int
    payload: bytes
    fields: tuple[Field, ...]
    id: bytes = b""
    """Made when it is first sent, since it holds the server's time; the same from then on (RW-PROMISE-5)."""
    doubtful: bool = False
    """A copy was sent on an earlier connection and never answered: it may be in the log, or yet get there."""
    blind: bool = False
    """It was sent to a server that remembers no ids."""
    settled: bool = False
    """The application has been told."""

    @property
    def size(self) -> int:
        """Octets of the content as RW-PUBLISH-1 counts them."""
        return len(self.payload) + sum(4 + len(field.value) for field in self.fields)


class Outbox:
    """The pending publishes of a room, in the order in which the application made them.

    `waiting` are to be sent; `_refused` were, and are to be sent again before these, once all replies have come
    (RW-ORDER-2); `sent` are unanswered, by request.
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
        """Whether there is nothing to send and nothing to wait for."""
        return not self.sent and all(pending.settled for pending in (*self._refused, *self.waiting))

    def add(self, pending: Pending) -> None:
        self.waiting.append(pending)

    def next(self) -> Pending | None:
        """The publish that is to be sent now, were it not for time and window. It stays the next until `take`."""
        if self._refused:
            if self.sent:
                return None  # RW-ORDER-2: wait for all replies, then from the first refused one on
            self.waiting.extendleft(reversed(self._refused))
            self._refused.clear()
        while self.waiting and self.waiting[0].settled:
            self.waiting.popleft()
        if not self.waiting or (self.sent and not (self._ordered and self.pace.allows(len(self.sent)))):
            return None
        return self.waiting[0]

    def drop(self) -> Pending:
        """The next publish is not sent at all."""
        pending = self.waiting.popleft()
        self._by_id.pop(pending.id, None)
        return pending

    def take(self, request: int) -> None:
        """The next publish was sent as `request`."""
        pending = self.waiting.popleft()
        self.sent[request] = pending
        self._by_id[pending.id] = pending
        self._ordered = True

    @property
    def ordered(self) -> bool:
        """Whether the next publish bears the flag ORDERED: all but the first after a refusal."""
        return self._ordered

    def acknowledged(self, request: int) -> Pending:
        self.pace.accepted()
        return self._answered(request)

    def refused(self, request: int, *, repeat: bool) -> Pending:
        """The server answered ERROR; with `repeat` the publish is sent again, in its place."""
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
        """RW-RECOVER-2: the unsettled publish whose message has this id. It is not sent again."""
        return self._by_id.pop(id, None)

    def disconnected(self) -> None:
        """No reply will come any more: what was sent is to be repeated, in its order (RW-ORDER-3)."""
        for pending in self.sent.values():
            pending.doubtful = True
        again = [pending for pending in (*self._refused, *self.sent.values()) if not pending.settled]
        self.waiting.extendleft(sorted(again, key=lambda pending: -pending.ticket))
        self.sent.clear()
        self._refused.clear()
        self._ordered = True

    def give_up(self) -> Iterator[Pending]:
        """Take out all that are not under way, in order."""
        gone = sorted((*self._refused, *self.waiting), key=lambda pending: pending.ticket)
        self._refused.clear()
        self.waiting.clear()
        for pending in gone:
            if not pending.settled:
                self._by_id.pop(pending.id, None)
                yield pending
