"""Results as tables for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Quantity, Results, Series


def show(results: Results, console: Console) -> None:
    """Print a table for each group: drawn on a terminal, otherwise plain lines of columns."""
    for group, rows in results.groups.items():
        quantities = list(dict.fromkeys(quantity for cells in rows.values() for quantity in cells))
        head = ["workload", "of", *(quantity.name for quantity in quantities)]
        lines = [
            [workload, subject, *(_cell(cells.get(quantity), quantity) for quantity in quantities)]
            for (workload, subject), cells in rows.items()
        ]
        if console.is_terminal:
            table = Table(*head, show_lines=True, title=group, title_justify="left", title_style="bold")
            for line in lines:
                table.add_row(*(cell.replace(" (", "\n(") for cell in line))
            console.print(table)
        else:
            print(f"\n{group}", *_columns([head, *lines]), sep="\n", file=console.file)


def _cell(series: Series | None, quantity: Quantity) -> str:
    if series is None:
        return ""
    low, high = series.range
    text = format(series.median, quantity.format)
    return text if len(series.values) == 1 else f"{text} ({low:{quantity.format}} - {high:{quantity.format}})"


def _columns(lines: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def write(results: Results, environment: Mapping[str, str], file: Path) -> None:
    """Write every value of every series, so that medians can be had anew."""
    series = [
        {"group": group, "workload": workload, "subject": subject, "quantity": quantity.name, "values": values.values}
        for group, workload, subject, quantity, values in results
    ]
    text = json.dumps({"format": 1, "environment": dict(environment), "series": series}, indent=1)
    file.write_text(text + "\n", encoding="utf-8")
