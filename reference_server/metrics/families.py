"""The metrics for Prometheus: read from the server's state on request, so that they cost clients nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from reference_server import VERSION
from reference_server.core.counters import Counters, Histogram
from reference_server.core.hub import Hub

AT_ONCE = 2_000
"""How many members are looked at in one turn of the event loop."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Sums over all members, and what only the loop's thread may read. The other metrics are read from `hub` and its
    state, which go on changing."""

    hub: Hub
    health: str
    oldest_commit_seconds: float
    members: int
    behind: int
    """Members that have not been handed all that is stable in their room."""
    farthest: int
    """Messages between the cursor that is farthest behind and the head of its room."""
    deliveries: int


async def survey(hub: Hub) -> Survey:
    """Look at every member of every room, AT_ONCE at a time: clients are served in between."""
    members = behind = farthest = looked = 0
    deliveries = hub.state.counters.deliveries
    for room in tuple(hub.state.rooms.values()):
        head = room.log.head
        for member in tuple(room.members.values()):
            lag = head - member.cursor
            if lag > 0:
                behind += 1
                farthest = max(farthest, lag)
        members += len(room.members)
        deliveries += room.delivered
        looked += 1 + len(room.members)
        if looked >= AT_ONCE:
            looked = 0
            await asyncio.sleep(0)
    oldest = hub.disk.oldest_commit_seconds(hub.state.now)
    return Survey(hub, hub.health, oldest, members, behind, farthest, deliveries)


def families(found: Survey) -> Iterator[Metric]:
    """The metrics. Their names contain the units, which are base units as Prometheus recommends."""
    hub, state, counters = found.hub, found.hub.state, found.hub.state.counters
    yield InfoMetricFamily("roomwire_server", "This server", {"version": VERSION, "id": f"{state.server_id:016x}"})
    yield _gauge("serving", "1 while new clients are served, 0 otherwise: see /healthz", int(found.health == "serving"))
    yield _gauge("connections", "Connections that are open", len(hub.peers))
    yield _gauge("connections_limit", "Connections that there may be", state.config.max_connections)
    yield _gauge("rooms", "Rooms that are loaded: those with members", len(state.rooms))
    yield _gauge("rooms_stored", "Rooms that were published to, loaded or not", state.store.rooms())
    yield _gauge("store_busy", "1 while another program keeps the store from being written", int(state.store.busy))
    yield _gauge("rooms_damaged", "Rooms that are closed because of damage in the store", len(state.damaged_rooms))
    yield _gauge("members", "Memberships of connections in rooms", found.members)
    yield _gauge("members_behind", "Members that have not been handed all that is stable", found.behind)
    yield _gauge("lag_messages_max", "Messages that the member farthest behind has not been handed", found.farthest)
    current = "1 while the accounts are as in their file, 0 while it cannot be read and the old ones stay"
    yield _gauge("accounts_current", current, int(state.accounts_current))
    yield _counter("connections_accepted", "Connections that were accepted", counters.accepted)
    yield _counter("connections_lost", "Connections of clients that ended without GOAWAY", counters.lost)
    yield _counter("joins", "JOINs that were accepted", counters.joins)
    yield _counter("evictions", "Memberships that the server ended because their cursor lagged", counters.evictions)
    yield _counter("publishes", "PUBLISHes that were accepted, and are stable", counters.stable)
    yield _counter("publishes_repeated", "PUBLISHes that were accepted before: ACK with DUPLICATE", counters.repeats)
    yield _counter("deliveries", "MESSAGEs handed to members", found.deliveries)
    yield _by("errors", "Requests refused", ("request", "code"), counters.errors.items())
    yield _by(
        "goaways",
        "GOAWAYs by who sent them, without those after a refused HELLO",
        ("by", "code"),
        counters.goaways.items(),
    )
    yield _gauge("commit_oldest_seconds", "Age of the oldest commit that is under way", found.oldest_commit_seconds)
    yield from _histograms(counters)
    files = GaugeMetricFamily("roomwire_store_bytes", "Size of the store's files", labels=("file",))
    for path in state.store.files():
        with suppress(OSError):  # SQLite's write-ahead log comes and goes
            files.add_metric((path.name,), path.stat().st_size)
    yield files


def _histograms(counters: Counters) -> Iterator[Metric]:
    for name, what, histogram in (
        ("commit_seconds", "From the end of a tick until what it appended is stable", counters.commit_seconds),
        ("commit_messages", "Messages that became stable at once", counters.commit_messages),
        ("tick_seconds", "Work at the end of a tick: commit, reply, deliver", counters.tick_seconds),
        ("late_seconds", "How late the event loop comes to a timer: how long all clients wait", counters.late_seconds),
    ):
        yield _histogram(f"roomwire_{name}", what, histogram)


def _histogram(name: str, what: str, histogram: Histogram) -> Metric:
    upto = [*map(str, map(float, histogram.bounds)), "+Inf"]
    buckets = [(bound, float(count)) for bound, count in zip(upto, accumulate(histogram.counts), strict=True)]
    return HistogramMetricFamily(name, what, buckets, histogram.total)


def _gauge(name: str, what: str, value: float) -> Metric:
    return GaugeMetricFamily(f"roomwire_{name}", what, value)


def _counter(name: str, what: str, value: float) -> Metric:
    return CounterMetricFamily(f"roomwire_{name}", what, value)


def _by(name: str, what: str, labels: tuple[str, ...], counts: Iterable[tuple[tuple[str, ...], int]]) -> Metric:
    family = CounterMetricFamily(f"roomwire_{name}", what, labels=labels)
    for values, count in tuple(counts):
        family.add_metric(values, count)
    return family
