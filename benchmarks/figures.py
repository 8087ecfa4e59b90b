"""Figures that benchmarks yield, and the results that they add up to."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity that benchmarks measure.

    `format` is its format specification for people; `better` is 1 if more is better, -1 if less is, 0 if neither.
    """

    name: str
    format: str
    better: int = 0


DELIVERIES = Quantity("deliveries/s", ",.0f", 1)
ACKED = Quantity("publishes acked/s", ",.0f", 1)
CPU = Quantity("CPU s/M deliveries", ".3f", -1)
PER_CORE = Quantity("deliveries/CPU s", ",.0f", 1)
BUSY = Quantity("server busy", ".0%")
WAITED = Quantity("server waited", ".0%")
GENERATOR = Quantity("generator busy", ".0%")
ROOMWIRE_TO_THIS = Quantity("Roomwire / this, per CPU s", ".2f", 1)
SERVER_TO_THIS = Quantity("server / this", ".2f", 1)
P50 = Quantity("p50 us", ",.0f", -1)
P90 = Quantity("p90 us", ",.0f", -1)
P99 = Quantity("p99 us", ",.0f", -1)
P999 = Quantity("p99.9 us", ",.0f", -1)
MOST = Quantity("most us", ",.0f")
P99_RATIO = Quantity("p99 / p99 without", ".2f", -1)
GROWN = Quantity("MiB grown", ".1f")
GROWN_MORE = Quantity("MiB more than without", ".1f", -1)
TO_TEN = Quantity("CPU / that at 10", ".2f", -1)
MEMORY = Quantity("KiB/connection", ".2f", -1)
NANOSECONDS = Quantity("ns/frame", ",.0f", -1)
AGAINST_CONSTRUCT = Quantity("construct / codec", ".1f", 1)
AGAINST_HAND = Quantity("codec / by hand", ".2f", -1)

QUANTITIES = {value.name: value for value in tuple(globals().values()) if isinstance(value, Quantity)}
"""By name, as in files of results."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One value of one pass: the `quantity` of `subject` under `workload`. The figures of a `group` share a table."""

    group: str
    workload: str
    subject: str
    quantity: Quantity
    value: float


@dataclass(slots=True)
class Series:
    """The values of one quantity in all passes."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def range(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


Cells = dict[Quantity, Series]
Rows = dict[tuple[str, str], Cells]
"""By workload and subject."""


class Results:
    """All figures of a run: by group, then by workload and subject, then by quantity, in the order of `add`."""

    def __init__(self) -> None:
        self.groups: dict[str, Rows] = {}

    def add(self, figure: Figure) -> None:
        """Add one value to its series."""
        rows = self.groups.setdefault(figure.group, {})
        cells = rows.setdefault((figure.workload, figure.subject), {})
        cells.setdefault(figure.quantity, Series()).values.append(figure.value)

    def rows(self, group: str, workload: str) -> dict[str, Cells]:
        """The cells of one workload, by subject."""
        rows = self.groups.get(group, {})
        return {subject: cells for (of, subject), cells in rows.items() if of == workload}

    def __iter__(self) -> Iterator[tuple[str, str, str, Quantity, Series]]:
        for group, rows in self.groups.items():
            for (workload, subject), cells in rows.items():
                for quantity, series in cells.items():
                    yield group, workload, subject, quantity, series
