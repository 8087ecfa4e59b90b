"""Odd servers whose octets come late, in small pieces, or unasked."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from protocol.codec import encode
from protocol.frames import Ping, Pong
from reference_server.net.transport import PeerProtocol
from tests.mutants.odd.servers import OddServer

Pace = Callable[[int, bytes], Iterator[tuple[float, bytes]]]
"""The pieces of the n-th write on a connection, each with the seconds by which it is late."""

_random = random.Random(7)
_CUT = 160  # octets of a write that are cut into small pieces: more would only take time
_HELLO_SECONDS = 1.5
_PING_SECONDS = 0.05


class _Piece(NamedTuple):
    due: float
    octets: bytes


class _Line:
    """The octets of one connection that wait to be written, in their order."""

    def __init__(self, write: Callable[[bytes], None], close: Callable[[], None], pace: Pace) -> None:
        self._write = write
        self._close = close
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[_Piece] = deque()
        self._writes = 0
        self._closing = False

    @property
    def waiting(self) -> int:
        return sum(len(piece.octets) for piece in self._pieces)

    def put(self, octets: bytes) -> None:
        idle, now = not self._pieces, self._loop.time()
        for late, piece in self._pace(self._writes, octets):
            before = self._pieces[-1].due if self._pieces else now
            self._pieces.append(_Piece(max(before, now + late), piece))
        self._writes += 1
        if idle and self._pieces:
            self._loop.call_at(self._pieces[0].due, self._go_on)

    def close(self) -> None:
        self._closing = True
        if not self._pieces:
            self._close()

    def _go_on(self) -> None:
        self._write(self._pieces.popleft().octets)
        if self._pieces:
            self._loop.call_at(self._pieces[0].due, self._go_on)
        elif self._closing:
            self._close()


def _paced(pace: Pace) -> Callable[[pytest.MonkeyPatch], None]:
    """Writes all octets of a server as `pace` says."""

    def patch_links(patch: pytest.MonkeyPatch) -> None:
        lines: dict[PeerProtocol, _Line] = {}
        write, close, waiting = PeerProtocol.write, PeerProtocol.close, PeerProtocol.waiting

        def of(protocol: PeerProtocol) -> _Line:
            if protocol not in lines:
                lines[protocol] = _Line(
                    lambda octets: write(protocol, octets), lambda: close(protocol), pace
                )  # fmt: skip
            return lines[protocol]

        patch.setattr(PeerProtocol, "write", lambda protocol, octets: of(protocol).put(octets))
        patch.setattr(PeerProtocol, "close", lambda protocol: of(protocol).close())
        patch.setattr(PeerProtocol, "waiting", lambda protocol: waiting(protocol) + of(protocol).waiting)

    return patch_links


def _in_small_pieces(number: int, octets: bytes) -> Iterator[tuple[float, bytes]]:
    at = 0
    while at < min(len(octets), _CUT):
        size = _random.randint(1, 7)
        yield 0.0, octets[at : at + size]
        at += size
    if octets[at:]:
        yield 0.0, octets[at:]


def _late(number: int, octets: bytes) -> Iterator[tuple[float, bytes]]:
    yield _random.uniform(0.3, 0.45), octets


def _hello_late(number: int, octets: bytes) -> Iterator[tuple[float, bytes]]:
    """The first write is the preface, unless HELLO came with that of the client."""
    if not number:
        yield 0.0, octets[:8]
        octets = octets[8:]
    if octets:
        yield _HELLO_SECONDS if number < 2 else 0.0, octets


def _pings_and_pongs(patch: pytest.MonkeyPatch) -> None:
    made = PeerProtocol.connection_made

    def connection_made(protocol: PeerProtocol, transport: asyncio.BaseTransport) -> None:
        made(protocol, transport)
        loop = asyncio.get_running_loop()

        def tick() -> None:
            peer = protocol._peer
            if peer is None or peer.gone:
                return
            if peer.conn.state in ("OPEN", "DRAINING") and peer.writable:
                protocol.write(encode(Ping(b"and you?")) + encode(Pong(b"unasked!")))
            loop.call_later(_PING_SECONDS, tick)

        loop.call_later(_PING_SECONDS, tick)

    patch.setattr(PeerProtocol, "connection_made", connection_made)


ODD: tuple[OddServer, ...] = (
    OddServer("small-segments", "Writes in segments of 1 to 7 octets.", patch=_paced(_in_small_pieces)),
    OddServer("everything-late", "Writes everything 300 to 450 ms late.", patch=_paced(_late)),
    OddServer("hello-late", "Answers HELLO after 1.5 s.", patch=_paced(_hello_late)),
    OddServer("pings-and-pongs", "Sends a PING and an unasked PONG every 50 ms.", patch=_pings_and_pongs),
)
