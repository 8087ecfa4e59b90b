"""Comparison of two runs: what became better, and what worse."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.figures import Quantity, Results, Series

SAME = 0.05
"""A smaller relative change of a median counts as none."""


@dataclass(frozen=True, slots=True)
class Change:
    """One series in both runs.

    `verdict` is "better" or "worse". It is "" if the ranges of values overlap, the medians hardly differ, or the
    quantity has no better.
    """

    group: str
    workload: str
    subject: str
    quantity: Quantity
    old: Series
    new: Series

    @property
    def ratio(self) -> float:
        """The new median over the old one; infinite if the old one is 0."""
        if self.old.median:
            return self.new.median / self.old.median
        return 1.0 if self.new.median == self.old.median else float("inf")

    @property
    def verdict(self) -> str:
        overlap = self.new.range[0] <= self.old.range[1] and self.old.range[0] <= self.new.range[1]
        if overlap or abs(self.ratio - 1) < SAME or not self.quantity.better:
            return ""
        return "better" if (self.new.median > self.old.median) == (self.quantity.better > 0) else "worse"


def changes(old: Results, new: Results) -> Iterator[Change]:
    """Every series that both runs have, in the order of the new run."""
    before = {(group, workload, subject, quantity.name): series for group, workload, subject, quantity, series in old}
    for group, workload, subject, quantity, series in new:
        if found := before.get((group, workload, subject, quantity.name)):
            yield Change(group, workload, subject, quantity, found, series)
