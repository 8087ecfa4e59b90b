"""A light client that keeps its own record: it publishes, receives, reconnects with its cursor and repeats.

It shares no code with reference_client, or it would share its bugs; only frames and numbers come from protocol.
A payload is 16 octets: a number that is unique among all messages, and a check of it.
"""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections import deque
from collections.abc import Callable
from struct import Struct
from typing import NamedTuple

from benchmarks.faults.stage.results import Outcome
from protocol.codec import RawFrame, decode, encode
from protocol.frames import Error, Evicted, Goaway, Hello, Join, Joined, Ping, Pong, Welcome
from protocol.registry import HEADER_SIZE, MAGIC, Code, Flag, FrameType

_HEADER = Struct(">IHHII").unpack_from
_ACK = Struct(">QQ").unpack_from
_SEQ = Struct(">Q").unpack_from
_PAYLOAD = Struct(">QQ")
_PUBLISH = Struct(">IHHII16sBIQQ").pack
_ID_TAIL = Struct(">QH").pack

PAYLOAD = _PAYLOAD.size
_MULTIPLIER = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def check(number: int) -> int:
    """The second half of the payload of this number."""
    return (number + 1) * _MULTIPLIER & _MASK


class Acknowledged(NamedTuple):
    """The place of a message, from its ACK."""

    epoch: int
    seq: int


class Segment:
    """Messages received without a gap: their numbers, from seq `start` on."""

    __slots__ = ("numbers", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.numbers = array("Q")


class Member(asyncio.Protocol):
    """A client in one room, from `start` to `stop`. `port` returns the port of the server, or of a proxy before it."""

    def __init__(self, name: str, index: int, room: str, port: Callable[[], int], window: int, seed: int) -> None:
        self.name = name
        self.room = room
        self.port = port
        self.window = window
        self._random = random.Random(seed)
        self._base = index << 40
        self.target = 0  # how many publishes are wanted, in total
        self.sent = 0  # how many numbers are in use
        self.acked: dict[int, Acknowledged] = {}
        self.unknown: set[int] = set()  # dropped: refused with ID_EXPIRED
        self.refused: list[str] = []  # unexpected errors
        self.faults: list[str] = []  # breaches that the member saw itself
        self.segments: list[Segment] = []
        self.repeated = 0
        self.duplicates = 0
        self.connects = 0
        self.goaways: list[Code | int] = []
        self.open = asyncio.Event()  # set while the member is in the room
        self.closed = False  # the server has closed the room
        self.ordered = False  # it publishes with ORDERED, so that a refusal changes no order
        self.on_ack: Callable[[int], None] | None = None
        self.on_message: Callable[[int], None] | None = None
        self.cursor: tuple[int, int] = (0, 0)
        self.head = 0  # of the last JOINED
        self.newest = 0  # how many old messages the first JOIN asks for
        self.last_time_ms = 0
        self._transport: asyncio.Transport | None = None
        self._stopped = False
        self._again: deque[int] = deque()
        self._waiting: list[int] = []  # refused; to be repeated when the others are answered
        self._pending: deque[tuple[int, int]] = deque()  # request, number
        self._ids: dict[int, bytes] = {}
        self._rest = b""
        self._greeted = False
        self._request = self._ref = 0
        self._clock = (0, 0.0)
        self._task: asyncio.Task[None] | None = None
        self._gone: asyncio.Future[None] | None = None
        self.paused = False

    # --- start and stop

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._live())

    async def stop(self) -> None:
        self._stopped = True
        if self._transport is not None:
            self._transport.abort()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _live(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopped:
            self._gone = loop.create_future()
            try:
                await loop.create_connection(lambda: self, "127.0.0.1", self.port())
                await self._gone
            except OSError:
                pass
            await asyncio.sleep(self._random.uniform(0.005, 0.03))

    def cut(self) -> None:
        """Break the connection from this side."""
        if self._transport is not None:
            self._transport.abort()

    def hold(self, held: bool) -> None:
        """Stop reading, or read again."""
        self.paused = held
        if self._transport is not None and not self._transport.is_closing():
            if held:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    @property
    def next_number(self) -> int:
        """The number of the next new message."""
        return self._base + self.sent

    @property
    def settled(self) -> bool:
        """Whether all wanted publishes are answered."""
        return self.sent >= self.target and not self._pending and not self._again and not self._waiting

    def report(self, outcome: Outcome) -> None:
        """Report the breaches that the member saw itself, once each."""
        for fault in self.faults:
            outcome.breach(fault.partition(":")[0], fault)
        for refusal in self.refused:
            outcome.breach("lost", refusal)
        self.faults.clear()
        self.refused.clear()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._rest = b""
        self._greeted = False
        self._request = 0
        self.connects += 1
        transport.write(MAGIC + bytes((1, 1, 0, 0)))
        if self.paused:
            transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._ref = 0
        self.open.clear()
        # RW-ORDER-3: unanswered publishes are repeated first, in the order of their first sending.
        again = [number for _, number in self._pending] + list(self._again) + self._waiting
        self._waiting.clear()
        self._again = deque(sorted(again))
        self._pending.clear()
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        if not self._greeted:
            if end < 8:
                self._rest = data
                return
            self._greeted, at = True, 8
            self._write(encode(Hello(self.name, "ANONYMOUS", b"", request=self._next_request())))
        while end - at >= HEADER_SIZE:
            length, kind, flags, request, room = _HEADER(data, at)
            behind = at + HEADER_SIZE + length
            if behind > end:
                break
            if kind == FrameType.MESSAGE:
                self._message(data, at + HEADER_SIZE, behind)
            elif kind == FrameType.ACK:
                self._ack(data, at + HEADER_SIZE, flags, request)
            else:
                self._other(RawFrame(kind, flags, request, room, data[at + HEADER_SIZE : behind]))
            at = behind
        self._rest = data[at:]
        self.pump()

    # --- frames

    def _message(self, data: bytes, at: int, behind: int) -> None:
        (seq,) = _SEQ(data, at)
        number, proof = _PAYLOAD.unpack_from(data, behind - PAYLOAD)
        epoch, cursor = self.cursor
        if seq != cursor + 1:
            self.faults.append(f"order: {self.name} got seq {seq} after {cursor}")
        if proof != check(number):
            self.faults.append(f"order: {self.name} got a payload at {seq} that no member published")
        self.cursor = (epoch, seq)
        self.segments[-1].numbers.append(number)
        if self.on_message is not None:
            self.on_message(number)

    def _ack(self, data: bytes, at: int, flags: int, request: int) -> None:
        seq, time_ms = _ACK(data, at)
        expected, number = self._pending.popleft()
        if request != expected:
            self.faults.append(f"order: {self.name} got the reply to {request}, not to {expected}")
        if flags & Flag.DUPLICATE:
            self.duplicates += 1
        else:
            if time_ms < self.last_time_ms:
                self.faults.append(f"order: {self.name} was told {time_ms} ms after {self.last_time_ms} ms")
            self.last_time_ms = time_ms
        self.acked[number] = Acknowledged(self.cursor[0], seq)
        self._ids.pop(number, None)
        if self.on_ack is not None:
            self.on_ack(number)

    def _other(self, raw: RawFrame) -> None:
        frame = decode(raw, "S")
        match frame:
            case Welcome():
                self._clock = (frame.now_ms, time.monotonic())
                self.window = min(self.window, frame.window)
                self._join()
            case Joined():
                self._joined(frame)
            case Ping():
                self._write(encode(Pong(frame.opaque)))
            case Evicted():
                self._ref = 0
                self.open.clear()
                self.closed = frame.code == Code.ROOM_CLOSED
                if not self.closed:
                    self._join()
            case Goaway():
                self.goaways.append(frame.code)
                if frame.code != Code.DRAINING and self._transport is not None:
                    self._transport.close()
            case Error():
                self._refused(frame)
            case _:
                pass

    def _join(self) -> None:
        self._write(
            encode(Join(self.room, self.cursor[0], self.cursor[1] or self.newest, request=self._next_request()))
        )

    def _joined(self, frame: Joined) -> None:
        epoch, cursor = self.cursor
        self._ref = frame.room
        self.head = frame.head
        hole = frame.epoch != epoch or frame.start != cursor + 1
        if hole or not self.segments:
            self.segments.append(Segment(frame.start))
        if epoch and (hole or frame.flags & Flag.GAP):
            self.faults.append(f"gap: {self.name} was told of a gap after {cursor}, but nothing may be missing")
        self.cursor = (frame.epoch, frame.start - 1)
        self.open.set()

    def _refused(self, frame: Error) -> None:
        if not self._pending or self._pending[0][0] != frame.request:
            if frame.code == Code.UNAVAILABLE and not self._ref:
                self.closed = True
                return
            self.refused.append(f"{self.name}: ERROR({frame.code}) to request {frame.request}: {frame.text}")
            return
        _, number = self._pending.popleft()
        if frame.code == Code.ID_EXPIRED:
            self.unknown.add(number)
        elif frame.code == Code.NOT_JOINED:
            self._again.appendleft(number)
        elif self.ordered and frame.code in (Code.UNAVAILABLE, Code.PRECEDED):
            self._waiting.append(number)
            if not self._pending:  # all are answered: once more, in their order
                self._again.extendleft(reversed(self._waiting))
                self._waiting.clear()
                asyncio.get_running_loop().call_later(0.1, self.pump)
        else:
            self.refused.append(f"{self.name}: ERROR({frame.code}) to a publish: {frame.text}")

    # --- publishing

    def _next_request(self) -> int:
        self._request += 1
        return self._request

    def _write(self, octets: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(octets)

    def pump(self) -> None:
        """Send as many publishes as the window allows, repeats first."""
        if not self._ref or self._waiting:
            return
        out = []
        room, pending, again, ids = self._ref, self._pending, self._again, self._ids
        while len(pending) < self.window:
            if again:
                number = again.popleft()
                self.repeated += 1
            elif self.sent < self.target:
                number = self.next_number
                self.sent += 1
            else:
                break
            self._request += 1
            flags = Flag.ORDERED if self.ordered and pending else 0
            pending.append((self._request, number))
            id = ids.get(number) or self._id(number)
            out.append(
                _PUBLISH(
                    21 + PAYLOAD, FrameType.PUBLISH, flags, self._request, room, id, 1, PAYLOAD, number, check(number)
                )
            )
        if out:
            self._write(b"".join(out))

    def _id(self, number: int) -> bytes:
        base, at = self._clock
        now_ms = base + int((time.monotonic() - at) * 1000)
        id = self._ids[number] = now_ms.to_bytes(6, "big") + _ID_TAIL(number, self._random.getrandbits(16))
        return id
