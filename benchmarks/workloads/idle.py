"""Memory of idle connections."""

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
"""Connections that come and go first, so that one-time allocations of the server do not count."""


def counts(settings: Settings) -> list[int]:
    """The numbers of connections that the run and the system allow."""
    return [count for count in COUNTS if count <= settings.connections and possible(count)]


def workload(count: int) -> str:
    """The name of the workload of `count` connections."""
    return f"{count:,} connections"


def run(generator: Generator, settings: Settings) -> Iterator[Figure]:
    """One pass with connections in no room, and one with connections in rooms of MEMBERS."""
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
