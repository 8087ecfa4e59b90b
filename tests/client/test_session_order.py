"""Publishes arrive once and in order, with refusals, lost replies and lost connections of a correct server."""

from hypothesis import given
from hypothesis import strategies as st

from protocol import frames
from protocol.connection import error_frame
from protocol.registry import Code, Flag
from reference_client import events
from tests.support.session_bench import EPOCH, NOW_MS, REF, Bench

STEPS = ("publish", "accept", "refuse", "cut", "append and cut", "evict", "reset", "wait")


class Log:
    """One room of a server, with the checks of SPEC.md that concern order."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.epoch = EPOCH
        self.messages: list[frames.Message] = []
        self.sent = 0  # messages sent in the stream, on the present connection
        self.inside = False
        self.refused = False  # whether the previous publish of this membership was refused

    def append(self, publish: frames.Publish) -> tuple[int, bool]:
        for known in self.messages:
            if known.id == publish.id:
                assert known.payload == publish.payload  # RW-PROMISE-5
                return known.seq, True
        seq = len(self.messages) + 1
        self.messages.append(frames.Message(seq, NOW_MS, 99, publish.id, 0, "ada", publish.payload, room=REF))
        return seq, False

    def known(self, publish: frames.Publish) -> bool:
        return any(message.id == publish.id for message in self.messages)

    def answer(self, *, refuse: bool) -> None:
        """Answer the next request."""
        bench = self.bench
        request = bench.requests.popleft()
        if isinstance(request, frames.Join):
            self.admit(request)
            return
        assert isinstance(request, frames.Publish)
        code = None
        if not self.inside:
            code = Code.NOT_JOINED
        elif self.known(request):
            pass
        elif request.flags & Flag.ORDERED and self.refused:
            code = Code.PRECEDED
        elif refuse:
            code = Code.RATE_LIMITED
        if code is not None:
            self.refused = True
            retry_ms = 50 if code == Code.RATE_LIMITED else 0
            bench.send(error_frame(code, request.request, request.room, retry_ms=retry_ms))
            return
        self.refused = False
        seq, again = self.append(request)
        flags = Flag.DUPLICATE if again else 0
        bench.send(frames.Ack(seq, NOW_MS, flags=flags, request=request.request, room=REF))
        self.stream()

    def append_unanswered(self) -> None:
        """Append the publishes under way without answering them."""
        for request in self.bench.requests:
            if isinstance(request, frames.Publish) and self.inside:
                self.refused = self.refused and bool(request.flags & Flag.ORDERED) and not self.known(request)
                if not self.refused:
                    self.append(request)

    def admit(self, join: frames.Join) -> None:
        head = len(self.messages)
        start = min(join.since if join.epoch == self.epoch else 0, head) + 1
        flags = Flag.GAP if join.epoch and (join.epoch != self.epoch or start != join.since + 1) else 0
        self.inside, self.refused, self.sent = True, False, start - 1
        self.bench.send(
            frames.Joined(self.epoch, head, start, 1, 1, "lobby", flags=flags, request=join.request, room=REF)
        )
        self.stream()

    def stream(self) -> None:
        self.bench.send(*self.messages[self.sent :])
        self.sent = len(self.messages)

    def evict(self, code: Code) -> None:
        self.inside = False
        self.bench.send(frames.Evicted(code, 0, flags=Flag.RETRY, room=REF))

    def cut(self) -> None:
        self.inside = False
        self.bench.cut()
        self.bench.connect()


@given(st.lists(st.sampled_from(STEPS), max_size=60))
def test_publishes_arrive_once_and_in_order(steps: list[str]) -> None:
    bench = Bench()
    log = Log(bench)
    bench.session.join("lobby", bench.now)
    bench.connect()
    texts: list[str] = []
    resets = 0
    for step in [*steps, *["accept", "wait"] * 4 * (len(steps) + 1)]:
        match step:
            case "publish":
                texts.append(str(len(texts)))
                bench.publish(texts[-1])
            case "accept" | "refuse" if bench.requests:
                log.answer(refuse=step == "refuse")
            case "append and cut" if bench.requests:
                log.append_unanswered()
                log.cut()
            case "cut":
                log.cut()
            case "evict" if log.inside:
                log.evict(Code.LAGGED)
            case "reset" if log.inside and not bench.session.pending:
                log.evict(Code.LOG_RESET)
                log.epoch, log.messages, resets = log.epoch + 1, [], resets + 1
                texts.clear()
            case "wait" if (due := bench.session.next_timeout()) is not None and due < bench.now + 20:
                bench.wait(due - bench.now)
    while bench.requests:
        log.answer(refuse=False)

    assert bench.session.pending == 0
    assert [message.payload.decode() for message in log.messages] == texts
    published = [event for event in bench.seen if isinstance(event, events.Published)]
    assert [event.ticket for event in published] == sorted({event.ticket for event in published})
    shown = [event for event in bench.seen if isinstance(event, events.MessageReceived)]
    places = [(event.epoch, event.seq) for event in shown]
    assert places == sorted(set(places))
    gaps = sum(isinstance(event, events.Gap) for event in bench.seen)
    assert gaps == resets
    assert [event.text for event in shown if event.epoch == log.epoch] == texts
