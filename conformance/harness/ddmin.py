"""Delta debugging: the smallest variant of a list that still fails.

A search is a generator without I/O: it yields a list to try, is sent whether that list fails, and returns the smallest
one. `smallest` runs a search with a function, `smallest_async` with a coroutine function.
"""

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Search: TypeAlias = Generator[list[T], bool, list[T]]


def fewest(items: Sequence[T]) -> Search[T]:
    """Searches for the items that the failure needs: no single item of the result can be left out."""
    if not items or (yield []):
        return []
    left, size = list(items), max(1, len(items) // 2)
    while True:
        at, before = 0, len(left)
        while at < len(left):
            fewer = left[:at] + left[at + size :]
            if fewer and (yield fewer):
                left = fewer
            else:
                at += size
        if size > 1:
            size //= 2
        elif len(left) == before:
            return left


def smallest(
    items: Sequence[T],
    search: Callable[[Sequence[T]], Search[T]],
    fails: Callable[[list[T]], bool],
    enough: Callable[[], bool] = lambda: False,
) -> list[T]:
    """Runs a search over items that fail. Returns the last list that failed, also if `enough` ended the search."""
    tries, best = search(items), list(items)
    try:
        tried = next(tries)
        while not enough():
            if failed := fails(tried):
                best = tried
            tried = tries.send(failed)
    except StopIteration:
        pass
    return best


async def smallest_async(
    items: Sequence[T],
    search: Callable[[Sequence[T]], Search[T]],
    fails: Callable[[list[T]], Awaitable[bool]],
    enough: Callable[[], bool] = lambda: False,
) -> list[T]:
    """Runs a search as `smallest` does, with a coroutine function."""
    tries, best = search(items), list(items)
    try:
        tried = next(tries)
        while not enough():
            if failed := await fails(tried):
                best = tried
            tried = tries.send(failed)
    except StopIteration:
        pass
    return best
