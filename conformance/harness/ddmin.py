"""Delta debugging: the smallest part of a list that still fails."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


async def fewest(items: Sequence[T], fails: Callable[[list[T]], Awaitable[bool]]) -> list[T]:
    """The items, which fail, without those that are not needed: no single item of the result can be left out."""
    left, size = list(items), max(1, len(items) // 2)
    while True:
        at, before = 0, len(left)
        while at < len(left):
            fewer = left[:at] + left[at + size :]
            if fewer and await fails(fewer):
                left = fewer
            else:
                at += size
        if size > 1:
            size //= 2
        elif len(left) == before:
            return left
