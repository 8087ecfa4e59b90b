"""A session and a scripted server, in memory and with a virtual clock."""

import random
from collections import deque
from typing import Any, TypeVar

from protocol import frames
from protocol.connection import error_frame
from protocol.events import ServerEvent
from protocol.fields import extension
from protocol.registry import Code, Flag
from protocol.server import ServerConnection, ServerTimes
from reference_client import events
from reference_client.session.session import Session

T = TypeVar("T")
NOW_MS = 1_700_000_000_000
EPOCH = 7
REF = 5


class Bench:
    """A session, and a server that sends what the test wants."""

    def __init__(self, *, seed: int = 1, **options: Any) -> None:
        self.now = 1000.0
        self.session = Session("ada", random.Random(seed), self.now, **options)
        self.server: ServerConnection | None = None
        self.requests: deque[ServerEvent] = deque()
        self.seen: deque[events.Event] = deque()

    @property
    def wire(self) -> ServerConnection:
        assert self.server is not None
        return self.server

    def dial(self) -> None:
        """Open the transport, and take the HELLO at the server."""
        assert self.session.reconnect_at is not None
        self.now = max(self.now, self.session.reconnect_at)
        self.session.connect(self.now)
        self.server = ServerConnection(self.now, ServerTimes())
        self.requests.clear()
        self.exchange()
        assert isinstance(self.requests.popleft(), frames.Hello)

    def connect(self, *, member: int = 11, history: bool = True, limits: dict[str, int] | None = None) -> None:
        values = {"max_body": 65536, "heartbeat_ms": 30000, "dedupe_ms": 600000, "window": 32, "max_rooms": 256}
        values |= limits or {}
        self.dial()
        fields = (extension("history"),) if history else ()
        self.wire.welcome(frames.Welcome(member, "ada", NOW_MS, **values, auth=b"", fields=fields, request=1))
        self.exchange()

    def exchange(self) -> None:
        """Carry octets back and forth until neither end has more to send."""
        moved = True
        while moved:
            moved = False
            if data := self.session.data_to_send(self.now):
                moved = True
                if self.server is not None:
                    self.requests.extend(self.server.receive_data(data, self.now))
            if self.server is not None:
                self.requests.extend(self.server.events())
                if answer := self.server.data_to_send(self.now):
                    moved = True
                    self.session.receive_data(answer, self.now)
            while (event := self.session.next_event()) is not None:
                self.seen.append(event)
        if self.session.should_close:
            self.cut()

    def cut(self) -> None:
        self.server = None
        self.session.connection_lost(self.now)
        self.exchange()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.session.handle_timeout(self.now)
        self.exchange()

    def wait_until_due(self) -> None:
        due = self.session.next_timeout()
        assert due is not None
        self.wait(due - self.now)

    def send(self, *said: frames.Frame) -> None:
        for frame in said:
            self.wire.send(frame)
        self.exchange()

    def asked(self, kind: type[T]) -> T:
        """The next request, which must be of this kind."""
        request = self.requests.popleft()
        assert isinstance(request, kind), request
        return request

    def saw(self, kind: type[T]) -> T:
        """The next event, which must be of this kind."""
        event = self.seen.popleft()
        assert isinstance(event, kind), event
        return event

    def enter(self, room: str = "lobby", *, history: int = 0, **at: int) -> frames.Join:
        """Join for the first time."""
        self.session.join(room, self.now, history=history)
        self.exchange()
        return self.admit(**at)

    def admit(
        self, *, epoch: int = EPOCH, head: int = 0, start: int | None = None, flags: int = 0, ref: int = REF
    ) -> frames.Join:
        """Answer the JOIN that was sent."""
        join = self.asked(frames.Join)
        start = head + 1 if start is None else start
        self.send(
            frames.Joined(epoch, head, start, 1, 1, join.name.title(), flags=flags, request=join.request, room=ref)
        )
        return join

    def publish(self, *texts: str, room: str = "lobby") -> list[int]:
        tickets = [self.session.publish(room, text.encode(), self.now) for text in texts]
        self.exchange()
        return tickets

    def refuse(self, request: Any, code: Code, retry_ms: int = 0) -> None:
        self.send(error_frame(code, request.request, request.room, retry_ms=retry_ms, text="no"))

    def ack(self, publish: frames.Publish, seq: int) -> None:
        self.send(frames.Ack(seq, NOW_MS, request=publish.request, room=publish.room))


def message(seq: int, text: str = "", *, id: bytes = bytes(16), sender: int = 99, request: int = 0) -> frames.Message:
    return frames.Message(seq, NOW_MS, sender, id, 0, "bob", text.encode(), request=request, room=REF)


def evicted(code: Code, retry_ms: int = 0) -> frames.Evicted:
    return frames.Evicted(code, retry_ms, "out", flags=Flag.RETRY if code.retry else 0, room=REF)


def in_the_lobby() -> Bench:
    """A Bench that is connected and in the room lobby."""
    bench = Bench()
    bench.connect()
    bench.enter()
    bench.seen.clear()
    return bench
