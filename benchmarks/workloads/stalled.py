"""A member that never reads: its effect on the other members, and on the server's memory."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.loadgen.generator import Generator
from benchmarks.servers.targets import MEMORY, serve
from benchmarks.settings import Settings
from benchmarks.workloads.latency import percentiles

GROUP = "A member that never reads"
OPTIONS = {"rooms": 1, "members": 10, "publishers": 4, "rate": 2_000, "payload": 4_096, "warmup_ms": 1_500}
"""The warm-up sends the member 12 MB: more than the kernel buffers, so that the server must hold the rest."""
WORKLOAD = "1 room x 10, 2,000 publishes/s of 4 KiB"
WITHOUT, WITH = "all read", "one never reads"


def run(generator: Generator, settings: Settings) -> Iterator[Figure]:
    """One pass without such a member, and one with it. The figures leave out its own latency."""
    times = {"measure_ms": int(settings.seconds * 1000)}
    p99, grown = 0.0, 0.0
    for subject, deaf in ((WITHOUT, 0), (WITH, 1)):
        with serve(MEMORY, settings) as server:
            load = generator.load(server, OPTIONS | times | {"deaf": deaf})
        growth = (load.resident_after - load.resident_before) / 2**20  # includes the messages: the store is in memory
        found = percentiles(load) | {figures.GROWN: growth}
        if deaf:
            found |= {figures.P99_RATIO: load.p99_us / p99, figures.GROWN_MORE: growth - grown}
        p99, grown = load.p99_us, growth
        for quantity, value in found.items():
            yield Figure(GROUP, WORKLOAD, subject, quantity, value)
