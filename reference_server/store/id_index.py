"""The index of message ids of one room, in memory, for every store.

The ids that a room has when it is opened stay in the sorted rows in which they were stored, and are searched there:
this takes 52 octets for each, and no work. An id that is added takes about 200 octets: the id, one packed value, a slot
in a dict and one in a heap. The heap orders the ids by their own time, which is their first six octets, as the rows
are, so that forgetting takes time for the forgotten ids only.
"""

from __future__ import annotations

import heapq
import struct
from bisect import bisect_left
from collections.abc import Iterable

from reference_server.store.base import ID_SIZE, Known

KNOWN = struct.Struct(">QQ16s")
"""How a `Known` is packed."""

ROW_SIZE = ID_SIZE + KNOWN.size + 4
"""A row is an id, its `Known`, and a checksum, which only the store uses."""

_TIME_SIZE = 6


def time_prefix(before_ms: int) -> bytes:
    """The octets that sort, bytewise, above exactly the ids whose own time is less than `before_ms`."""
    if before_ms >= 1 << (8 * _TIME_SIZE):
        return b"\xff" * (ID_SIZE + 1)  # an id has 48 bits of time: all ids are older
    return max(before_ms, 0).to_bytes(_TIME_SIZE, "big")


class IdIndex:
    """ids -> `Known`. `blocks` are rows in ascending order, one or more in each block."""

    __slots__ = ("_blocks", "_by_time", "_last", "_stored", "_values")

    def __init__(self, blocks: Iterable[bytes] = ()) -> None:
        self._blocks = list(blocks)
        self._stored = sum(map(len, self._blocks)) // ROW_SIZE
        self._last = _last_id(self._blocks[-1]) if self._blocks else b""  # no id is less
        self._values: dict[bytes, bytes] = {}
        self._by_time: list[bytes] = []

    def __len__(self) -> int:
        return self._stored + len(self._values)

    def get(self, id: bytes) -> Known | None:
        value = self._values.get(id)
        if value is None and id <= self._last:  # seldom: their time is before the room was opened
            value = self._find(id)
        return None if value is None else Known(*KNOWN.unpack(value))

    def _find(self, id: bytes) -> bytes | None:
        block = self._blocks[bisect_left(self._blocks, id, key=_last_id)]
        start = _first_from(block, id)
        end = start + ID_SIZE
        return block[end : end + KNOWN.size] if block[start:end] == id else None

    def add(self, id: bytes, known: Known) -> None:
        """Remember `id`. Raises ValueError if it is already known."""
        if id in self._values or (id <= self._last and self._find(id)):
            raise ValueError(f"the id {id.hex()} is already known")
        self._values[id] = KNOWN.pack(*known)
        heapq.heappush(self._by_time, id)

    def forget(self, before_ms: int) -> int:
        """Drop the ids whose own time is less than `before_ms`; return how many."""
        bound, heap, values, blocks = time_prefix(before_ms), self._by_time, self._values, self._blocks
        count = len(self)
        while heap and heap[0] < bound:
            del values[heapq.heappop(heap)]
        if blocks and blocks[0] < bound:
            del blocks[: bisect_left(blocks, bound, key=_last_id)]
            if blocks:
                blocks[0] = blocks[0][_first_from(blocks[0], bound) :]
            else:
                self._last = b""
            self._stored = sum(map(len, blocks)) // ROW_SIZE
        return count - len(self)


def _last_id(block: bytes) -> bytes:
    return block[-ROW_SIZE : ID_SIZE - ROW_SIZE]


def _first_from(block: bytes, id: bytes) -> int:
    """Where the first row starts whose id is not less than `id`; the length of the block if there is none."""
    starts = range(0, len(block), ROW_SIZE)
    index = bisect_left(starts, id, key=lambda start: block[start : start + ID_SIZE])
    return index * ROW_SIZE
