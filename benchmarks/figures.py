"""What a benchmark yields, and what many passes of it come to."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Quantity:
    """What was measured; `format` is how people read a value of it."""

    name: str
    format: str


DELIVERIES = Quantity("deliveries/s", ",.0f")
ACKED = Quantity("publishes acked/s", ",.0f")
CPU = Quantity("CPU s/M deliveries", ".3f")
PER_CORE = Quantity("deliveries/CPU s", ",.0f")
BUSY = Quantity("server busy", ".0%")
WAITED = Quantity("server waited", ".0%")
GENERATOR = Quantity("generator busy", ".0%")
ROOMWIRE_TO_THIS = Quantity("Roomwire / this, per CPU s", ".2f")
SERVER_TO_THIS = Quantity("server / this", ".2f")
MEMORY = Quantity("KiB/connection", ".2f")
NANOSECONDS = Quantity("ns/frame", ",.0f")
AGAINST_CONSTRUCT = Quantity("construct / codec", ".1f")
AGAINST_HAND = Quantity("codec / by hand", ".2f")


@dataclass(frozen=True, slots=True)
class Figure:
    """One value of one pass: the `quantity` of `subject` under `workload`. Figures of one `group` share a table."""

    group: str
    workload: str
    subject: str
    quantity: Quantity
    value: float


@dataclass(slots=True)
class Series:
    """The values of all passes."""

    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def range(self) -> tuple[float, float]:
        return min(self.values), max(self.values)


class Results:
    """All figures of a run, by group, then by workload and subject, then by quantity, each in order of arrival."""

    def __init__(self) -> None:
        self.groups: dict[str, dict[tuple[str, str], dict[Quantity, Series]]] = {}

    def add(self, figure: Figure) -> None:
        """Take one more value of a series."""
        rows = self.groups.setdefault(figure.group, {})
        cells = rows.setdefault((figure.workload, figure.subject), {})
        cells.setdefault(figure.quantity, Series()).values.append(figure.value)

    def __iter__(self) -> Iterator[tuple[str, str, str, Quantity, Series]]:
        for group, rows in self.groups.items():
            for (workload, subject), cells in rows.items():
                for quantity, series in cells.items():
                    yield group, workload, subject, quantity, series
