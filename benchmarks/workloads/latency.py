"""Latency at fixed rates: the time from when a publish is due until each member of its room has it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import figures
from benchmarks.figures import Figure, Quantity
from benchmarks.loadgen.generator import Generator, Load
from benchmarks.servers.peers import BROKERS, NATS, NGIRCD, REDIS, TICK
from benchmarks.servers.targets import MEMORY, SQLITE, Target, serve
from benchmarks.settings import Settings, possible
from benchmarks.workloads.traffic import PAYLOAD, WARMUP_MS, installed

GROUP = "Latency at a fixed rate, from when a publish is due to when a member has it"
MANY_WARMUP_MS = 1_000

CORES = (MEMORY, SQLITE, NATS, REDIS, TICK)
CALM = (MEMORY, SQLITE, *(peer for peer in BROKERS if peer is not NGIRCD))
"""The targets that keep up at a low rate. ngIRCd keeps up at no useful rate: it does not echo, and counts penalties."""


@dataclass(frozen=True, slots=True)
class Pace:
    """A fixed rate: all publishers together send `rate` publishes a second into `rooms` of `members`."""

    text: str
    rooms: int
    members: int
    publishers: int
    rate: int
    targets: tuple[Target, ...]

    def options(self) -> dict[str, int]:
        """The options of loadgen/main.c."""
        return {
            "rooms": self.rooms,
            "members": self.members,
            "publishers": self.publishers,
            "rate": self.rate,
            "payload": PAYLOAD,
        }


PACES = (
    Pace("1 room x 100, 200 publishes/s", 1, 100, 4, 200, CALM),
    Pace("1 room x 100, 2,000 publishes/s", 1, 100, 4, 2_000, CORES),
)
MANY = Pace("500 rooms x 20, 1,000 of 10,000 publish, 1,000/s", 500, 20, 2, 1_000, (MEMORY,))
"""Ten thousand connections, a tenth of which publish now and then."""


def percentiles(load: Load) -> dict[Quantity, float]:
    """The quantities of a load at a fixed rate."""
    return {
        figures.P50: load.p50_us,
        figures.P90: load.p90_us,
        figures.P99: load.p99_us,
        figures.P999: load.p999_us,
        figures.MOST: load.most_us,
        figures.CPU: load.server_cpu / max(load.deliveries, 1) * 1e6,
        figures.BUSY: load.server_cpu / load.seconds,
        figures.WAITED: load.server_waited / load.seconds,
    }


def run(generator: Generator, settings: Settings) -> Iterator[Figure]:
    """One pass of each pace against each of its targets."""
    times = {"warmup_ms": WARMUP_MS, "measure_ms": int(settings.seconds * 1000)}
    for pace in PACES:
        for target in installed(pace.targets):
            with serve(target, settings) as server:
                load = generator.load(server, pace.options() | times)
            for quantity, value in percentiles(load).items():
                yield Figure(GROUP, pace.text, target.name, quantity, value)


def run_many(generator: Generator, settings: Settings) -> Iterator[Figure]:
    """One pass of MANY, with the memory of one connection, if the run allows so many connections."""
    count = MANY.rooms * MANY.members
    if count > settings.connections or not possible(count):
        return
    times = {"warmup_ms": MANY_WARMUP_MS, "measure_ms": max(2_000, int(settings.seconds * 1000))}
    with serve(MEMORY, settings) as server:
        before = server.resident_octets()
        load = generator.load(server, MANY.options() | times)
    memory = {figures.MEMORY: (load.resident_before - before) / count / 1024}
    for quantity, value in (percentiles(load) | memory).items():
        yield Figure(GROUP, MANY.text, MEMORY.name, quantity, value)
