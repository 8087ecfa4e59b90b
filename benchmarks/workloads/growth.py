"""The cost of a delivery as members, rooms, connections or messages grow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import figures
from benchmarks.figures import Figure, Results
from benchmarks.loadgen.generator import Generator
from benchmarks.servers.targets import MEMORY, serve
from benchmarks.settings import Settings, possible
from benchmarks.workloads.traffic import PAYLOAD, WARMUP_MS

GROUP = "Growth, in memory"
BASE = 10
"""The point of a curve that the other costs are compared with."""

TEN_TALK = {"rooms": 10, "members": 10, "publishers": 1, "window": 16, "payload": PAYLOAD}


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve: the options of loadgen/main.c and the number of connections for each of `points`."""

    text: str
    points: tuple[int, ...]
    options: Callable[[int], dict[str, int]]
    connections: Callable[[int], int]


MEMBERS = Curve(
    "members of 1 room, 4 publish, window 16",
    (10, 100, 1_000, 10_000),
    lambda count: {"rooms": 1, "members": count, "publishers": 4, "window": 16, "payload": PAYLOAD},
    lambda count: count,
)
TALKING = Curve(
    "rooms x 10, 1 publisher each, window 16",
    (1, 10, 100, 1_000),
    lambda count: TEN_TALK | {"rooms": count},
    lambda count: 10 * count,
)
SILENT = Curve(
    "silent rooms of 1, beside 10 that talk",
    (10, 100, 1_000, 10_000),
    lambda count: TEN_TALK | {"extra": count, "extra_rooms": 1},
    lambda count: count,
)
IDLE = Curve(
    "connections that are idle, beside 10 rooms that talk",
    (10, 100, 1_000, 10_000),
    lambda count: TEN_TALK | {"extra": count},
    lambda count: count,
)
SIZES = Curve(
    "octets of a message, 1 room x 10, 400 publishes/s",
    (16, 64, 256, 1_024, 4_096, 16_384, 65_536),
    lambda size: {"rooms": 1, "members": 10, "publishers": 4, "rate": 400, "payload": size},
    lambda _: 10,
)
CURVES = (MEMBERS, TALKING, SILENT, IDLE, SIZES)


def run(generator: Generator, settings: Settings) -> Iterator[Figure]:
    """One pass of each curve, without the points that need more connections than the run and the system allow."""
    times = {"warmup_ms": WARMUP_MS, "measure_ms": int(settings.seconds * 1000)}
    for curve in CURVES:
        costs = {}
        for point in curve.points:
            if curve.connections(point) > settings.connections or not possible(curve.connections(point)):
                continue
            with serve(MEMORY, settings) as server:
                load = generator.load(server, curve.options(point) | times)
            costs[point] = load.server_cpu / max(load.deliveries, 1) * 1e6
            yield Figure(GROUP, curve.text, f"{point:,}", figures.CPU, costs[point])
            yield Figure(GROUP, curve.text, f"{point:,}", figures.DELIVERIES, load.deliveries / load.seconds)
            yield Figure(GROUP, curve.text, f"{point:,}", figures.WAITED, load.server_waited / load.seconds)
        for point, cost in costs.items():
            if BASE in costs:
                yield Figure(GROUP, curve.text, f"{point:,}", figures.TO_TEN, cost / costs[BASE])


def costs(results: Results, curve: Curve) -> dict[int, figures.Series]:
    """The measured costs of a curve, by point: CPU s a million deliveries, which is CPU us a delivery."""
    rows = results.rows(GROUP, curve.text)
    return {
        int(subject.replace(",", "")): cells[figures.CPU] for subject, cells in rows.items() if figures.CPU in cells
    }
