"""Messages under load: how many the server delivers, and their cost in CPU time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import figures
from benchmarks.figures import Figure, Quantity
from benchmarks.loadgen.generator import Generator, Load
from benchmarks.servers.peers import BROKERS, NATS, NGIRCD, REDIS, TICK
from benchmarks.servers.targets import MEMORY, SQLITE, Target, serve
from benchmarks.settings import Settings

GROUP = "Messages, every one checked at every member"
PAYLOAD = 64
WARMUP_MS = 300


@dataclass(frozen=True, slots=True)
class Shape:
    """A shape of traffic: `rooms` of `members`, of which `publishers` keep `window` publishes unanswered."""

    name: str
    text: str
    rooms: int
    members: int
    publishers: int
    window: int
    targets: tuple[Target, ...]

    def options(self) -> dict[str, int]:
        """The options of loadgen/main.c."""
        return {
            "rooms": self.rooms,
            "members": self.members,
            "publishers": self.publishers,
            "window": self.window,
            "payload": PAYLOAD,
        }


BURST = Shape("burst", "1 room x 100, 4 publishers, window 64", 1, 100, 4, 64, (MEMORY, SQLITE, *BROKERS))
ALL_TALK = Shape("all-talk", "1 room x 100, 100 publishers, window 1", 1, 100, 100, 1, (MEMORY, NATS, REDIS, TICK))
SINGLE = Shape("single", "1 room x 100, 1 publisher, window 1", 1, 100, 1, 1, (MEMORY, *BROKERS))
MANY = tuple(peer for peer in BROKERS if peer is not NGIRCD)
"""The peers that 1,000 clients can connect to at once."""

ROOMS = Shape("rooms", "100 rooms x 10, 1 publisher each, window 16", 100, 10, 1, 16, (MEMORY, *MANY))
CROWD = Shape("crowd", "1 room x 1,000, 4 publishers, window 16", 1, 1000, 4, 16, (MEMORY, *MANY))
DURABLE = Shape("durable", "1 room x 16, all publish, window 64", 1, 16, 16, 64, (SQLITE,))


def run(shape: Shape, generator: Generator, settings: Settings) -> Iterator[Figure]:
    """One pass against each target, each with a new server."""
    ours = 0.0
    for target in installed(shape.targets):
        found = quantities(measure(shape, target, generator, settings))
        ours = ours or found[figures.PER_CORE]  # the first target is Roomwire
        found[figures.ROOMWIRE_TO_THIS] = ours / found[figures.PER_CORE]
        for quantity, value in found.items():
            yield Figure(GROUP, shape.text, target.name, quantity, value)


def installed(targets: tuple[Target, ...]) -> list[Target]:
    """The targets that are installed on this machine."""
    return [target for target in targets if not target.missing()]


def measure(shape: Shape, target: Target, generator: Generator, settings: Settings) -> Load:
    """One pass against one target."""
    with serve(target, settings) as server:
        times = {"warmup_ms": WARMUP_MS, "measure_ms": int(settings.seconds * 1000)}
        return generator.load(server, shape.options() | times)


def quantities(load: Load) -> dict[Quantity, float]:
    """The quantities of a load. `deliveries/CPU s` is what the server would deliver with a core of its own."""
    cpu = load.server_cpu
    return {
        figures.DELIVERIES: load.deliveries / load.seconds,
        figures.PER_CORE: load.deliveries / cpu if cpu else 0.0,  # a server that got no time delivered nothing
        figures.CPU: cpu / max(load.deliveries, 1) * 1e6,
        figures.ACKED: load.publishes / load.seconds,
        figures.BUSY: cpu / load.seconds,
        figures.WAITED: load.server_waited / load.seconds,
        figures.GENERATOR: load.own_cpu / load.seconds,
    }
