"""Odd servers whose octets come late or in small pieces."""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from reference_server.net.transport import PeerProtocol
from tests.mutants.odd.servers import OddServer

Pace = Callable[[int, bytes], Iterator[tuple[float, bytes]]]
"""The pieces of the n-th write on a connection, each with the seconds by which it is late."""

_random = random.Random(7)
_CUT = 400  # octets of a write that are cut into small pieces: more would only take time


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


ODD: tuple[OddServer, ...] = (
    OddServer("small-segments", "Writes in segments of 1 to 7 octets.", patch=_paced(_in_small_pieces)),
    OddServer("everything-late", "Writes everything 300 to 450 ms late.", patch=_paced(_late)),
)
