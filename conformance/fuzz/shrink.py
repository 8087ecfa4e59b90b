"""Searches for the shortest script that still fails: fewer steps, and each of them as simple as it can be."""

from collections.abc import Iterable, Sequence
from typing import Protocol, Self, TypeVar

from conformance.harness.ddmin import Search, fewest


class Simplifiable(Protocol):
    """A step of a script."""

    def simpler(self) -> Iterable[Self]:
        """Steps that do less, the simplest first."""


S = TypeVar("S", bound=Simplifiable)


def shortest(steps: Sequence[S]) -> Search[S]:
    """Searches for the steps that a failure needs: no step of the result can be left out or be simpler."""
    left = list(steps)
    while True:
        left = yield from fewest(left)
        simpler = yield from _simplest(left)
        if simpler == left:
            return left
        left = simpler


def _simplest(steps: Sequence[S]) -> Search[S]:
    left, at = list(steps), 0
    while at < len(left):
        for step in left[at].simpler():
            other = [*left[:at], step, *left[at + 1 :]]
            if (yield other):
                left = other
                break
        else:
            at += 1
    return left
