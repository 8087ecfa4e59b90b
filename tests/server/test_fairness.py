"""Credit: how much of one client the server takes up in a tick, and what becomes of the rest."""

from collections import deque

import pytest

from protocol.codec import encode
from protocol.frames import (
    Ack,
    Frame,
    Hello,
    History,
    HistoryEnd,
    Leave,
    Message,
    Ping,
    Pong,
    Publish,
    Unknown,
    Welcome,
)
from protocol.framing import FrameReader
from protocol.registry import Code
from protocol.server import DROPPED
from reference_server.core.credit import FRAMES_PER_ROUND, FRAMES_PER_TICK, MESSAGE_COST, REQUEST_COST, ReadyQueue
from reference_server.core.handlers.history import READ_AT_ONCE, _Reading
from reference_server.store.base import Log, Record, Retention
from reference_server.store.memory import MemoryStore
from tests.support.raw_client import PREFACE, RawClient
from tests.support.server_in_process import UNLIMITED, fill, peer_of, serving
from tests.support.stores import entry, propose


@pytest.mark.parametrize(
    "frame",
    [
        Ping(bytes(8)),
        Leave(request=7, room=5),
        History(1, 0, 0, request=7, room=5),
        Publish(bytes(16), 1, b"hi", request=7, room=5),
        Unknown(0x0070, b"", request=7, room=0),
        Unknown(0x8070, b""),
        Pong(bytes(8)),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_flood_delays_another_client_by_a_few_frames(frame: Frame | Unknown) -> None:
    """RW-CLOSE-7: of all that one client sends at once, another client waits for a few frames only."""
    count = 5_000
    with serving() as server, RawClient(server.port) as flooder, RawClient(server.port) as other:
        peers = [peer_of(server, flooder), peer_of(server, other)]

        def at_once() -> list[int]:
            # As if both were readable in one turn of the loop: first a flood, then one PING.
            for peer, octets in zip(peers, (encode(frame) * count, encode(Ping(bytes(8)))), strict=True):
                peer.receive(octets, server.state.now)
            return [peer.conn._reader.buffered for peer in peers]

        at_most = FRAMES_PER_TICK // (REQUEST_COST if frame.request else 1)
        assert server.run(at_once) == [(count - at_most) * len(encode(frame)), 0]
        other.expect(Pong)
        flooder.send(Ping(b"the last"))
        flooder.expect(Pong, lambda pong: pong.opaque == b"the last")


class Client:
    """A peer that notes the credit it is given, and waits for more until it has had `rounds` of it."""

    def __init__(self, queue: ReadyQueue, rounds: int) -> None:
        self.queue, self.rounds, self.given = queue, rounds, list[int]()

    def give_credit(self, frames: int) -> None:
        self.given.append(frames)
        if len(self.given) < self.rounds:
            self.queue.add(self)


def test_ready_queue_schedules_one_round_at_a_time() -> None:
    """Otherwise clients that flood, leave and come back would make time go faster."""
    due: list[int] = []
    queue = ReadyQueue(lambda: due.append(1))
    client = Client(queue, 1)
    for _ in range(3):
        queue.add(client)
        queue.discard(client)
    queue.add(client)
    assert len(due) == 1
    queue.give_credit()
    assert client.given == [FRAMES_PER_ROUND]
    queue.add(client)
    assert len(due) == 2


def test_round_serves_the_longest_waiting_peers() -> None:
    due: list[int] = []
    queue = ReadyQueue(lambda: due.append(1))
    share = FRAMES_PER_ROUND // FRAMES_PER_TICK
    clients = [Client(queue, 2) for _ in range(share + 1)]
    for client in clients:
        queue.add(client)
    queue.give_credit()
    assert [client.given for client in clients] == [[FRAMES_PER_TICK]] * share + [[]]
    queue.give_credit()
    assert [len(client.given) for client in clients] == [2] * (share - 1) + [1, 1]
    queue.give_credit()
    assert [len(client.given) for client in clients] == [2] * (share + 1)
    assert len(due) == 3  # one when the first peer came, one after each round that left peers waiting


def test_gone_peer_gets_no_credit() -> None:
    with serving() as server, RawClient(server.port) as raw:
        peer = peer_of(server, raw)

        def leaves_while_it_waits() -> int:
            server.state.ready_queue.add(peer)
            peer.lost(server.state.now)
            before = peer.conn.credit = 0
            server.hub.give_credit()
            return peer.conn.credit - before

        assert server.run(leaves_while_it_waits) == 0


def test_long_history_is_sent_within_the_credit() -> None:
    """RW-LAG-1, RW-REQUEST-4: a client that asks for many messages gets a few of them in each tick."""
    count = 5 * FRAMES_PER_TICK
    with serving(**UNLIMITED) as server, RawClient(server.port) as reader, RawClient(server.port) as other:
        fill(server, "hall", count, 100)
        ref = reader.join("hall").room
        peer, history = peer_of(server, reader), reader.history(ref)

        def at_once() -> int:
            peer.receive(encode(history), server.state.now)
            made = FrameReader(2**24)
            made.feed(b"".join(peer.conn._out))
            return sum(1 for _ in iter(made.next_frame, None))

        assert server.run(at_once) == (FRAMES_PER_TICK - REQUEST_COST) // MESSAGE_COST
        other.send(Ping(bytes(8)))
        other.expect(Pong)
        seqs = [reader.expect(Message, lambda message: message.request == history.request).seq for _ in range(count)]
        assert seqs == list(range(1, count + 1))
        end = reader.expect(HistoryEnd)
        assert (end.request, end.start, end.end, end.flags) == (history.request, 1, count + 1, 0)


IGNORED = encode(Unknown(0x8070, b""))


def test_flood_before_hello_is_read_within_the_credit() -> None:
    with serving() as server, RawClient(server.port, hello=False) as raw:
        server.until(lambda: bool(server.hub.peers))
        (peer,) = server.hub.peers

        def at_once() -> int:
            peer.receive(PREFACE + IGNORED * 1_000, server.state.now)
            return peer.conn._reader.buffered

        assert server.run(at_once) == (1_000 - FRAMES_PER_TICK) * len(IGNORED)
        raw.octets(8)
        raw.send(Hello("ada", "ANONYMOUS", b"", request=1))
        raw.expect(Welcome)


def test_frames_after_goaway_are_dropped_within_the_credit() -> None:
    """RW-CLOSE-5: all of it is read, so that the GOAWAY arrives, but not all at once."""
    with serving() as server, RawClient(server.port) as raw:
        peer = peer_of(server, raw)

        def at_once() -> int:
            peer.receive(b"\xff\xff\xff\xff" + bytes(12), server.state.now)
            return peer.conn.credit

        def then() -> int:
            peer.conn._reader = FrameReader(2**16)  # as if the failure had left the reader at a frame's beginning
            peer.conn._deaf = False
            left = peer.conn.credit
            peer.receive(IGNORED * 1_000, server.state.now)
            return 1_000 - peer.conn._reader.buffered // len(IGNORED) - DROPPED * left

        assert server.run(lambda: (at_once(), then())[1]) == 0
        assert raw.goaway().code == Code.FRAME_TOO_LARGE


def test_repeats_are_read_within_the_credit() -> None:
    """No rate limits them. Each costs what the last publish did, so the first one costs nothing."""
    with serving(window=512, **UNLIMITED) as server, RawClient(server.port) as raw:
        publish = raw.publish(raw.join("hall").room)
        for _ in range(2):
            raw.send(publish)
            raw.expect(Ack)
        peer, octets = peer_of(server, raw), encode(publish)

        def at_once() -> int:
            peer.receive(octets * 100, server.state.now)
            return peer.conn._reader.buffered

        assert server.run(at_once) == (100 - FRAMES_PER_TICK) * len(octets)
        for _ in range(100):
            raw.expect(Ack)


class Slow:
    """A log that answers a read when `answer` is called."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.asked: deque[tuple[int, int, int]] = deque()

    def read(self, after: int, limit: int, octets: int, done: object) -> None:
        self.asked.append((after, limit, octets))
        self.done = done

    def answer(self) -> tuple[int, int, int]:
        asked = self.asked.popleft()
        self.log.read(*asked, self.done)  # type: ignore[arg-type]
        return asked


def slow(count: int, size: int) -> Slow:
    """A slow log with `count` messages of `size` octets."""
    logs: list[Log] = []
    store = MemoryStore(Retention())
    store.open("hall", "hall", lambda log, created: logs.append(log))
    propose(logs[0], *[entry(number + 1, payload=bytes(size)) for number in range(count)])
    store.commit()
    return Slow(logs[0])


@pytest.mark.parametrize("below", [READ_AT_ONCE + 50, 2 * READ_AT_ONCE + 20])
def test_history_ends_before_messages_trimmed_meanwhile(below: int) -> None:
    """Section 7.18"""
    log, told = slow(2 * READ_AT_ONCE + 50, 1), list[deque[Record]]()
    _Reading(log, 2 * READ_AT_ONCE + 1, 2**20, False, told.append).start(1)  # type: ignore[arg-type]
    log.answer()
    log.log.trim(below)
    log.answer()
    assert [record.seq for record in told[0]] == list(range(1, READ_AT_ONCE + 1))


def test_history_reads_no_more_than_it_sends() -> None:
    log, told = slow(2 * READ_AT_ONCE, 100), list[deque[Record]]()
    _Reading(log, 2 * READ_AT_ONCE + 1, 150 * 100, False, told.append).start(1)  # type: ignore[arg-type]
    assert log.answer() == (0, READ_AT_ONCE, 150 * 100)
    assert log.answer() == (READ_AT_ONCE, READ_AT_ONCE, (150 - READ_AT_ONCE) * 100)
    while log.asked:
        log.answer()
    assert len(told[0]) == 150
