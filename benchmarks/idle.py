"""Memory of connections that do nothing."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.generator import Generator
from benchmarks.settings import Settings
from benchmarks.targets import MEMORY, serve

GROUP = "Memory of idle connections, RSS of the server's process"
MEMBERS = 100
SPARE_DESCRIPTORS = 200
WARM = 8
"""Connections that come and go first, so that what the server makes once is not counted."""


def possible(connections: int) -> bool:
    """Whether the limit of open descriptors lets both ends hold so many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return hard == resource.RLIM_INFINITY or connections + SPARE_DESCRIPTORS <= hard


def run(generator: Generator, settings: Settings) -> Iterator[Figure]:
    """One pass: connections in no room, then each in a room of MEMBERS."""
    for count in filter(possible, settings.connections):
        shapes = {
            "in no room": {"rooms": 0, "members": count},
            f"in a room of {MEMBERS}": {"rooms": count // MEMBERS, "members": MEMBERS},
        }
        for name, options in shapes.items():
            with serve(MEMORY, settings) as server:
                with generator.connections(server, {"rooms": 0, "members": WARM}):
                    pass
                before = server.resident_octets()
                with generator.connections(server, options | {"publishers": 0}):
                    growth = server.resident_octets() - before
            yield Figure(
                GROUP, f"{count:,} connections", f"{MEMORY.name}, {name}", figures.MEMORY, growth / count / 1024
            )
