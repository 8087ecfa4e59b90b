"""The page of a run, which needs no network, and its plots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks import figures
from benchmarks.figures import Quantity, Results, Series
from benchmarks.report import plots, tables
from benchmarks.report.bars import Outcome, judge
from benchmarks.report.compare import Change
from benchmarks.report.plots import Curves, Dots
from benchmarks.servers.targets import MEMORY, SQLITE
from benchmarks.workloads import growth, latency, traffic

RATIOS = "Deliveries per CPU second: Roomwire over each peer"
GROWING = (growth.MEMBERS, growth.TALKING, growth.SILENT, growth.IDLE)


def ratios(results: Results) -> str:
    """The SVG of Roomwire's deliveries per CPU second over those of each peer; "" if the run has none."""
    rows = {}
    for workload, found in _dots(results, traffic.GROUP, figures.ROOMWIRE_TO_THIS).items():
        peers = {name: series for name, series in found.items() if name not in (MEMORY.name, SQLITE.name)}
        if peers:
            rows[workload] = peers
    if not rows:
        return ""
    axis = "Roomwire's deliveries per CPU second over the peer's; right of the line Roomwire is the faster"
    return plots.dots(Dots(RATIOS, axis, rows, 1.0))


def drawn(results: Results) -> Iterator[tuple[str, str]]:
    """The title and the SVG of each plot that has data."""
    if svg := ratios(results):
        yield RATIOS, svg
    for quantity in (figures.P50, figures.P99):
        if rows := _dots(results, latency.GROUP, quantity):
            title = f"Latency at a fixed rate: {quantity.name.split()[0]}"
            yield title, plots.dots(Dots(title, "microseconds", rows))
    grown = {curve.text: found for curve in GROWING if (found := growth.costs(results, curve))}
    if grown:
        title = "What a delivery costs as something grows"
        yield title, plots.curves(Curves(title, "CPU us a delivery", "how many", grown))
    if sizes := growth.costs(results, growth.SIZES):
        title = "What a delivery costs as messages grow"
        yield title, plots.curves(Curves(title, "CPU us a delivery", "octets of a payload", {growth.SIZES.text: sizes}))


def _dots(results: Results, group: str, quantity: Quantity) -> dict[str, dict[str, Series]]:
    rows: dict[str, dict[str, Series]] = {}
    for (workload, subject), cells in results.groups.get(group, {}).items():
        if quantity in cells:
            rows.setdefault(workload, {})[subject] = cells[quantity]
    return rows


def html(results: Results, environment: Mapping[str, str], changes: Sequence[Change] | None) -> str:
    """The page as HTML, with `changes` if the run was compared with another."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    outcomes: list[Outcome] = judge(results)
    return templates.get_template("page.html").render(
        environment=environment,
        outcomes=[outcome for outcome in outcomes if outcome.found],
        unmeasured=[outcome.bar for outcome in outcomes if not outcome.found],
        plots=[(title, Markup(svg)) for title, svg in drawn(results)],
        tables=[(group, *tables.table(rows)) for group, rows in results.groups.items()],
        changes=None if changes is None else [change for change in changes if change.verdict],
        compared=len(changes or ()),
        cells=tables.cells,
    )
