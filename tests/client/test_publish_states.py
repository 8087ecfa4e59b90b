"""The life of a publish in the reference client, row for row as SPEC.md, section 10.5, has it."""

from collections.abc import Callable

import pytest

from protocol import frames
from protocol.registry import Code
from protocol.state import PUBLISH, Transition
from reference_client import events
from reference_client.session.outbox import Pending
from tests.support.session_bench import evicted, in_the_lobby, message

HEAD = 5
"""Of the JOINED after a lost connection; the cursor is at 0 then."""


class Life:
    """One publish of a client, in a room where nothing else happens."""

    def __init__(self) -> None:
        self.bench = in_the_lobby()
        self.room = self.bench.session._requests.rooms["lobby"]
        self.bench.cut()
        self.bench.session.publish("lobby", b"a", self.bench.now)
        self.pending: Pending = self.room.outbox.waiting[0]
        self.request: frames.Publish | None = None
        self.remembers = True

    @property
    def state(self) -> str:
        pending, outbox = self.pending, self.room.outbox
        if pending.settled:
            return "DONE"
        if pending in outbox.sent.values():
            return "REPEATED" if pending.doubtful else "SENT"
        if not pending.id:
            return "QUEUED"
        if not pending.doubtful:
            return "REFUSED"
        final = pending.refusal is not None or not self.remembers
        return "WAITING" if final and self.room.state == "IN" else "UNKNOWN"

    def report(self) -> str:
        """The action that the events so far amount to."""
        for event in self.bench.seen:
            if isinstance(event, events.Published):
                return "report success"
            if isinstance(event, events.PublishFailed):
                return "report unknown" if event.unknown else "report failure"
        return "send PUBLISH" if any(isinstance(r, frames.Publish) for r in self.bench.requests) else ""

    # --- events of the table

    def turn(self) -> None:
        """The client is in the room, and has waited long enough."""
        bench = self.bench
        if bench.server is None:
            bench.connect(limits={"dedupe_ms": 600000 if self.remembers else 0})
        if bench.requests and isinstance(bench.requests[0], frames.Join):
            bench.admit(head=HEAD, start=1)
        bench.wait(60.0 if bench.server is None else 1.0)

    def no_repeat(self) -> None:
        self.remembers = False
        self.turn()

    def sent(self) -> frames.Publish:
        self.request = self.request or self.bench.asked(frames.Publish)
        return self.request

    def ack(self) -> None:
        self.bench.ack(self.sent(), 1)

    def echo(self) -> None:
        if self.room.state != "IN":
            self.bench.connect()
            self.bench.admit(head=HEAD, start=1)
        self.bench.send(message(1, "a", id=self.pending.id))

    def error(self, code: Code, retry_ms: int = 0) -> None:
        self.bench.refuse(self.sent(), code, retry_ms)

    def error_after_evicted(self) -> None:
        request = self.sent()
        self.bench.send(evicted(Code.ROOM_CLOSED, 60_000))
        self.bench.refuse(request, Code.NOT_JOINED)

    def cut(self) -> None:
        self.bench.cut()

    def head(self) -> None:
        self.bench.send(*(message(seq, "of another") for seq in range(1, HEAD + 1)))

    def give_up(self) -> None:
        self.bench.session.close(self.bench.now)
        self.bench.exchange()


TO: dict[str, list[Callable[[Life], None]]] = {
    "QUEUED": [],
    "SENT": [Life.turn],
    "REFUSED": [Life.turn, lambda life: life.error(Code.RATE_LIMITED, 500)],
    "UNKNOWN": [Life.turn, Life.cut],
    "REPEATED": [Life.turn, Life.cut, Life.turn],
    "WAITING": [Life.turn, Life.cut, Life.no_repeat],
}
"""How a publish comes into a state."""

EVENTS: dict[str, Callable[[Life], None]] = {
    "turn": Life.turn,
    "ACK": Life.ack,
    "MESSAGE with its id": Life.echo,
    "ERROR with RETRY": lambda life: life.error(Code.RATE_LIMITED, 500),
    "ERROR after EVICTED": Life.error_after_evicted,
    "ERROR": lambda life: life.error(Code.ID_EXPIRED),
    "end of connection": Life.cut,
    "no repeat": Life.no_repeat,
    "head reached": Life.head,
    "give up": Life.give_up,
}


@pytest.mark.parametrize("row", PUBLISH, ids=lambda row: f"{row.state}-{row.event}")
def test_transition(row: Transition) -> None:
    life = Life()
    for step in TO[row.state]:
        step(life)
    assert life.state == row.state
    if row.event != "turn":
        life.request = next((r for r in reversed(life.bench.requests) if isinstance(r, frames.Publish)), None)
    life.bench.requests = type(life.bench.requests)(r for r in life.bench.requests if not isinstance(r, frames.Publish))
    life.bench.seen.clear()
    EVENTS[row.event](life)
    assert life.state == row.next
    assert life.report() == row.action


@pytest.mark.parametrize("code", [Code.ID_EXPIRED, Code.FORBIDDEN])
def test_refused_repeat_waits_for_the_head(code: Code) -> None:
    """RW-DEDUPE-8: the message may be in the log, so the client looks for it before it gives up."""
    life = Life()
    for step in TO["REPEATED"]:
        step(life)
    life.request = life.bench.requests.pop()  # type: ignore[assignment]
    life.error(code)
    assert life.state == "WAITING"
    life.head()
    (failed,) = (event for event in life.bench.seen if isinstance(event, events.PublishFailed))
    assert (failed.code, failed.unknown) == (code, True)


def test_repeat_that_no_longer_fits_waits_for_the_head() -> None:
    """RW-DEDUPE-8 where max_body is lower on the next connection."""
    life = Life()
    life.pending.payload = bytes(5000)
    for step in TO["UNKNOWN"]:
        step(life)
    life.bench.connect(limits={"max_body": 4096})
    life.bench.admit(head=HEAD, start=1)
    assert life.bench.session.pending == 1
    life.bench.send(message(1, "a", id=life.pending.id))
    assert life.report() == "report success"
