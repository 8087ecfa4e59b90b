"""What the garbage collector finds: objects that nothing frees at once, though nothing uses them."""

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def garbage() -> Iterator[Callable[[], Counter[str]]]:
    """Yields a function that counts, by type, what the collector finds of the block so far. It collects nothing by
    itself until the end."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)

    def found() -> Counter[str]:
        gc.collect()
        left = Counter(type(each).__name__ for each in gc.garbage)
        forget()
        gc.collect()
        return left

    def forget() -> None:
        gc.set_debug(0)
        gc.garbage.clear()

    try:
        yield found
    finally:
        forget()
        gc.enable()
