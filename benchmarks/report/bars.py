"""The bars: the project's goals for speed and memory, and whether a run met them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import figures
from benchmarks.figures import Cells, Quantity, Results
from benchmarks.servers import peers
from benchmarks.servers.targets import MEMORY, SQLITE
from benchmarks.workloads import codec, durable, growth, idle, stalled, traffic


@dataclass(frozen=True, slots=True)
class Bar:
    """A goal: the median of `quantity` is at least `limit`, or at most `limit` if less is better.

    It must hold for each of the `subjects`. The report also shows the quantity `beside` of `ours` and of the subject.
    """

    text: str
    group: str
    workload: str
    subjects: tuple[str, ...]
    quantity: Quantity
    limit: float
    beside: Quantity | None = None
    ours: str = ""

    @property
    def asked(self) -> str:
        sign = ">=" if self.quantity.better > 0 else "<="
        return f"{self.quantity.name} {sign} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A bar and its verdict in this run, "met", "missed" or "not measured", with the figures in words."""

    bar: Bar
    verdict: str
    found: str
    beside: str


def _faster(shape: traffic.Shape, least: dict[str, float]) -> Iterator[Bar]:
    for peer, limit in least.items():
        text = f"{shape.text}: against {peer}"
        quantity, beside = figures.ROOMWIRE_TO_THIS, figures.PER_CORE
        yield Bar(text, traffic.GROUP, shape.text, (peer,), quantity, limit, beside, MEMORY.name)


def _durable(peer: str, limit: float) -> Bar:
    text = f"durable publishes: against {peer}"
    quantity, beside = figures.SERVER_TO_THIS, figures.ACKED
    return Bar(text, durable.GROUP, durable.SHAPE.text, (peer,), quantity, limit, beside, SQLITE.name)


def _level(curve: growth.Curve, limit: float) -> Bar:
    subjects = tuple(f"{point:,}" for point in curve.points if point > growth.BASE)
    return Bar(f"growth: {curve.text}", growth.GROUP, curve.text, subjects, figures.TO_TEN, limit)


def _codec(case: str, quantity: Quantity, limit: float) -> Bar:
    return Bar(f"codec: {case}", codec.GROUP, case, (codec.SUBJECT,), quantity, limit, figures.NANOSECONDS)


NATS, REDIS = peers.NATS.name, peers.REDIS.name
BARS = (
    *_faster(traffic.BURST, {NATS: 3, REDIS: 2, peers.MOSQUITTO.name: 30, peers.WEBSOCKETS.name: 20}),
    *_faster(traffic.ROOMS, {NATS: 1.5, REDIS: 1.2}),
    *_faster(traffic.CROWD, {NATS: 2, REDIS: 1.5}),
    *_faster(traffic.SINGLE, {REDIS: 1}),
    *_faster(traffic.BURST, {peers.TICK.name: 0.5}),  # at most twice its CPU
    *(_durable(f"SQLite alone, {size:,} a transaction", 0.5) for size in durable.BATCHES),
    _durable(peers.JETSTREAM.name, 10),
    *(
        Bar(f"idle, {subject}", idle.GROUP, idle.workload(10_000), (subject,), figures.MEMORY, 3)
        for subject in idle.SUBJECTS
    ),
    Bar("a member that never reads", stalled.GROUP, stalled.WORKLOAD, (stalled.WITH,), figures.P99_RATIO, 1.5,
        figures.P99, stalled.WITHOUT),
    Bar("a member that never reads", stalled.GROUP, stalled.WORKLOAD, (stalled.WITH,), figures.GROWN_MORE, 2,
        figures.GROWN, stalled.WITHOUT),
    *(_codec(f"{action} MESSAGE", figures.AGAINST_CONSTRUCT, 15) for action in ("decode", "encode")),
    *(_codec(f"{action} MESSAGE", figures.AGAINST_HAND, 1.5) for action in ("decode", "encode")),
    Bar(f"codec: {codec.PROMISE}", codec.GROUP, codec.PROMISE, (codec.SUBJECT,), figures.NANOSECONDS,
        codec.PROMISE_NANOSECONDS),
    _level(growth.MEMBERS, 1),
    _level(growth.TALKING, 1.3),
    _level(growth.SILENT, 1.3),
    _level(growth.IDLE, 1.3),
)  # fmt: skip


def judge(results: Results) -> list[Outcome]:
    """The outcome of each bar in this run."""
    return [_judge(bar, results.rows(bar.group, bar.workload)) for bar in BARS]


def _judge(bar: Bar, rows: dict[str, Cells]) -> Outcome:
    better = bar.quantity.better
    found = {subject: rows[subject][bar.quantity] for subject in bar.subjects if bar.quantity in rows.get(subject, {})}
    if not found:
        return Outcome(bar, "not measured", "", "")
    worst = min(found, key=lambda subject: better * found[subject].median)
    series = found[worst]
    met = better * series.median >= better * bar.limit
    text, (low, high) = format(series.median, bar.quantity.format), series.range
    if len(series.values) > 1:
        text += f" ({low:{bar.quantity.format}} - {high:{bar.quantity.format}})"
    if len(bar.subjects) > 1:
        text += f" at {worst}"
    return Outcome(bar, "met" if met else "missed", text, _beside(bar, rows, worst))


def _beside(bar: Bar, rows: dict[str, Cells], subject: str) -> str:
    if bar.beside is None:
        return ""
    parts = []
    for name in (bar.ours, subject) if bar.ours else (subject,):
        if bar.beside in rows.get(name, {}):
            parts.append(f"{name} {rows[name][bar.beside].median:{bar.beside.format}}")
    return f"{bar.beside.name}: {', '.join(parts)}" if parts else ""
