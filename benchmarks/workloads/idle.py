"""Memory of connections that do nothing."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.loadgen.generator import Generator
from benchmarks.servers.targets import MEMORY, serve
from benchmarks.settings import Settings, possible

GROUP = "Memory of idle connections, RSS of the server's process"
MEMBERS = 100
COUNTS = (1_000, 10_000)
SUBJECTS = ("in no room", f"in a room of {MEMBERS}")
WARM = 8
"""Connections that come and go first, so that what the server makes once is not counted."""


def counts(settings: Settings) -> list[int]:
    """How many are tried, as far as the run and the system allow."""
    return [count for count in COUNTS if count <= settings.connections and possible(count)]


def workload(count: int) -> str:
    """What `count` connections are called."""
    return f"{count:,} connections"


def run(generator: Generator, settings: Settings) -> Iterator[Figure]:
    """One pass: connections in no room, then each in a room of MEMBERS."""
    for count in counts(settings):
        shapes: tuple[dict[str, int], ...] = (
            {"rooms": 0, "members": count},
            {"rooms": count // MEMBERS, "members": MEMBERS},
        )
        for subject, options in zip(SUBJECTS, shapes, strict=True):
            with serve(MEMORY, settings) as server:
                with generator.connections(server, {"rooms": 0, "members": WARM}):
                    pass
                before = server.resident_octets()
                with generator.connections(server, options | {"publishers": 0}):
                    growth = server.resident_octets() - before
            yield Figure(GROUP, workload(count), subject, figures.MEMORY, growth / count / 1024)
