"""Makes a failing script shorter and simpler, as long as it fails in the same way."""

from collections.abc import Callable, Sequence

from conformance.fuzz.server.steps import Step

Fails = Callable[[Sequence[Step]], bool]


def shrunk(steps: Sequence[Step], fails: Fails, enough: Callable[[], bool] = lambda: False) -> list[Step]:
    """The steps, which fail, without those that can be left out, and each as simple as it can be.

    None of what is left can be left out by itself, unless `enough` became true before.
    """
    left = list(steps)
    while not enough():
        before = list(left)
        left = _fewer(left, fails, enough)
        left = _simpler(left, fails, enough)
        if left == before:
            break
    return left


def _fewer(steps: list[Step], fails: Fails, enough: Callable[[], bool]) -> list[Step]:
    size = max(1, len(steps) // 2)
    while True:
        at, before = 0, len(steps)
        while at < len(steps) and not enough():
            rest = steps[:at] + steps[at + size :]
            if fails(rest):
                steps = rest
            else:
                at += size
        if enough() or (size == 1 and len(steps) == before):
            return steps
        size = max(1, size // 2)


def _simpler(steps: list[Step], fails: Fails, enough: Callable[[], bool]) -> list[Step]:
    at = 0
    while at < len(steps):
        for step in steps[at].simpler():
            if enough():
                return steps
            if fails(other := [*steps[:at], step, *steps[at + 1 :]]):
                steps = other
                break
        else:
            at += 1
    return steps
