"""Results as tables for people, and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures import QUANTITIES, Figure, Quantity, Results, Rows, Series
from benchmarks.report.bars import Outcome
from benchmarks.report.compare import Change

FORMAT = 1


class Unreadable(Exception):
    """A file of results cannot be read. `str()` is one line."""


def show(results: Results, console: Console) -> None:
    """Print a table for each group: with borders on a terminal, otherwise as plain columns."""
    for group, rows in results.groups.items():
        _show(console, group, *table(rows))


def show_bars(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print the bars and their figures; bars without measurements are only counted."""
    lines = [[o.verdict, o.bar.text, o.bar.asked, o.found, o.beside] for o in outcomes if o.found]
    if not lines:
        return
    unmeasured = len(outcomes) - len(lines)
    title = "Bars" + (f" ({unmeasured} more were not measured in this run)" if unmeasured else "")
    _show(console, title, ["", "bar", "asked", "found", "beside"], lines)


def show_changes(changes: Sequence[Change], console: Console) -> None:
    """Print the series that differ by more than chance may explain."""
    shown = [change for change in changes if change.verdict]
    title = f"Compared with the older run: {len(shown)} of {len(changes)} series differ"
    lines = [[c.verdict, c.workload, c.subject, c.quantity.name, *cells(c)] for c in shown]
    _show(console, title, ["", "workload", "of", "quantity", "old", "new", "new / old"], lines)


def cells(change: Change) -> tuple[str, str, str]:
    """Old, new, and their ratio."""
    return cell(change.old, change.quantity), cell(change.new, change.quantity), f"{change.ratio:.2f}"


def table(rows: Rows) -> tuple[list[str], list[list[str]]]:
    """The head and the lines of one group's table."""
    quantities = list(dict.fromkeys(quantity for cells in rows.values() for quantity in cells))
    head = ["workload", "of", *(quantity.name for quantity in quantities)]
    return head, [
        [workload, subject, *(cell(cells.get(quantity), quantity) for quantity in quantities)]
        for (workload, subject), cells in rows.items()
    ]


def cell(series: Series | None, quantity: Quantity) -> str:
    """The median, with the range if there are several values."""
    if series is None:
        return ""
    low, high = series.range
    text = format(series.median, quantity.format)
    return text if len(series.values) == 1 else f"{text} ({low:{quantity.format}} - {high:{quantity.format}})"


def _show(console: Console, title: str, head: list[str], lines: list[list[str]]) -> None:
    if console.is_terminal:
        drawn = Table(*head, show_lines=True, title=title, title_justify="left", title_style="bold")
        for line in lines:
            drawn.add_row(*(text.replace(" (", "\n(") for text in line))
        console.print(drawn)
    else:
        print(f"\n{title}", *_columns([head, *lines]), sep="\n", file=console.file)


def _columns(lines: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()


def write(results: Results, environment: Mapping[str, str], file: Path) -> None:
    """Write every value of every series to `file`."""
    series = [
        {"group": group, "workload": workload, "subject": subject, "quantity": quantity.name, "values": values.values}
        for group, workload, subject, quantity, values in results
    ]
    text = json.dumps({"format": FORMAT, "environment": dict(environment), "series": series}, indent=1)
    file.write_text(text + "\n", encoding="utf-8")


def read(file: Path, results: Results) -> dict[str, str]:
    """Read a file of `write` into `results`, and return its environment. Raises Unreadable."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["format"] != FORMAT:
            raise Unreadable(f"{file}: expected results of format {FORMAT}, found {found['format']}")
        for series in found["series"]:
            quantity = QUANTITIES.get(series["quantity"]) or Quantity(series["quantity"], ".3g")
            for value in series["values"]:
                results.add(Figure(series["group"], series["workload"], series["subject"], quantity, float(value)))
        return {str(name): str(value) for name, value in found["environment"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{file}: expected results of an earlier run, found {type(error).__name__}: {error}") from None
