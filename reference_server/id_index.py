"""The index of message ids of one room, in memory, for every store.

Each id costs about 200 octets: itself, one packed value, a slot in a dict and one in a heap. The heap orders
the ids by their own time, which is their first six octets, so that forgetting costs what is forgotten and
nothing else.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Iterable

from reference_server.store import ID_SIZE, Known

_VALUE = struct.Struct(">QQ16s")  # seq, time_ms, digest
_TIME_SIZE = 6


def time_prefix(before_ms: int) -> bytes:
    """The octets below which are, bytewise, exactly the ids whose own time is less than `before_ms`."""
    if before_ms >= 1 << (8 * _TIME_SIZE):
        return b"\xff" * (ID_SIZE + 1)  # an id has 48 bits of time: all of them are older
    return max(before_ms, 0).to_bytes(_TIME_SIZE, "big")


class IdIndex:
    """ids -> `Known`. `rows` are (id, seq, time_ms, digest) in ascending order of id."""

    __slots__ = ("_by_time", "_values")

    def __init__(self, rows: Iterable[tuple[bytes, int, int, bytes]] = ()) -> None:
        self._values = {id: _VALUE.pack(seq, time_ms, digest) for id, seq, time_ms, digest in rows}
        self._by_time = list(self._values)  # ascending, which is a heap

    def __len__(self) -> int:
        return len(self._values)

    def get(self, id: bytes) -> Known | None:
        value = self._values.get(id)
        return None if value is None else Known(*_VALUE.unpack(value))

    def add(self, id: bytes, known: Known) -> None:
        """Remember `id`. Raises ValueError if it is known."""
        if id in self._values:
            raise ValueError(f"the id {id.hex()} is already known")
        self._values[id] = _VALUE.pack(*known)
        heapq.heappush(self._by_time, id)

    def forget(self, before_ms: int) -> int:
        """Drop the ids whose own time is less than `before_ms`; returns how many."""
        bound, heap, values = time_prefix(before_ms), self._by_time, self._values
        count = len(values)
        while heap and heap[0] < bound:
            del values[heapq.heappop(heap)]
        return count - len(values)
