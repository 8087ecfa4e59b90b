"""Plots as standalone SVG: dots on a logarithmic scale, and curves. They follow the reader's light or dark scheme."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from xml.etree import ElementTree as xml

from benchmarks.figures import Series

WIDTH, LINE, CURVES_HEIGHT = 760, 24, 300
RIGHT, TOP, BOTTOM = 40, 16, 58
CURVES_LEFT = 70
LETTER = 6.8  # wide, about
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1")
"""Distinct for colour-blind readers, on white and on black."""

STYLE = """
.plot { font: 12px system-ui, sans-serif; --ink: #1d1d1f; --soft: #6e6e73; --grid: #e3e3e8; --paper: #ffffff; }
@media (prefers-color-scheme: dark) {
  .plot { --ink: #f2f2f4; --soft: #a1a1a8; --grid: #38383d; --paper: #17171a; }
}
.plot .paper { fill: var(--paper); } .plot text { fill: var(--ink); } .plot .soft { fill: var(--soft); }
.plot .grid { stroke: var(--grid); } .plot .one { stroke: var(--soft); stroke-dasharray: 4 3; }
.plot path { fill: none; stroke-width: 2; }
"""


@dataclass(frozen=True, slots=True)
class Dots:
    """A plot with a row of dots for each of `rows`, one dot for each name; a dashed line stands at `line`."""

    title: str
    axis: str
    rows: Mapping[str, Mapping[str, Series]]
    line: float | None = None


@dataclass(frozen=True, slots=True)
class Curves:
    """A plot of several curves, each from x to measured values, with logarithmic scales."""

    title: str
    axis: str
    across: str
    curves: Mapping[str, Mapping[int, Series]]


class _Scale:
    """A logarithmic scale from values to pixels, which begins and ends at powers of ten."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        positive = [value for value in values if value > 0] or [1.0]
        self.low = math.floor(math.log10(min(positive)) + 1e-9)
        self.high = max(self.low + 1, math.ceil(math.log10(max(positive)) - 1e-9))
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        share = (math.log10(max(value, 10.0**self.low)) - self.low) / (self.high - self.low)
        return round(self._start + share * (self._end - self._start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        powers = [10.0**power for power in range(self.low, self.high + 1)]
        return [(self.at(value), f"{value:,.0f}" if value >= 1 else f"{value:g}") for value in powers]


def dots(plot: Dots) -> str:
    """The SVG of a plot of dots, with a thin bar for each range."""
    names = list(dict.fromkeys(name for row in plot.rows.values() for name in row))
    colours = dict(zip(names, cycle(COLOURS)))
    left = 24 + LETTER * max(map(len, plot.rows))
    values = [bound for row in plot.rows.values() for series in row.values() for bound in series.range]
    scale = _Scale([*values, plot.line or values[0]], left, WIDTH - RIGHT)
    floor = TOP + LINE * len(plot.rows) + 8
    root = _root(plot.title, floor + BOTTOM + _legend_height(names))
    for x, text in scale.ticks():
        _line(root, x, TOP, x, floor, "grid")
        _text(root, x, floor + 16, text, "soft", "middle")
    if plot.line is not None:
        _line(root, scale.at(plot.line), TOP, scale.at(plot.line), floor, "one")
    _text(root, WIDTH - RIGHT, floor + 34, plot.axis, "soft", "end")
    for index, (label, row) in enumerate(plot.rows.items()):
        y = TOP + LINE * index + 16
        _text(root, left - 14, y + 4, label, "", "end")
        for name, series in row.items():
            low, high = series.range
            bar = xml.SubElement(root, "line", _at(x1=scale.at(low), y1=y, x2=scale.at(high), y2=y))
            bar.attrib |= {"stroke": colours[name], "stroke-opacity": "0.5", "stroke-width": "3"}
            _dot(root, scale.at(series.median), y, colours[name], f"{label}, {name}: {series.median:,.3g}")
    _legend(root, colours, floor + BOTTOM)
    return _svg(root)


def curves(plot: Curves) -> str:
    """The SVG of a plot of curves."""
    colours = dict(zip(plot.curves, cycle(COLOURS)))
    points = [(x, series) for curve in plot.curves.values() for x, series in curve.items()]
    floor = TOP + CURVES_HEIGHT
    across = _Scale([x for x, _ in points], CURVES_LEFT, WIDTH - RIGHT)
    up = _Scale([series.median for _, series in points], floor, TOP)
    root = _root(plot.title, floor + BOTTOM + _legend_height(list(colours)))
    for x, text in across.ticks():
        _line(root, x, TOP, x, floor, "grid")
        _text(root, x, floor + 16, text, "soft", "middle")
    for y, text in up.ticks():
        _line(root, CURVES_LEFT, y, WIDTH - RIGHT, y, "grid")
        _text(root, CURVES_LEFT - 8, y + 4, text, "soft", "end")
    _text(root, CURVES_LEFT, floor + 34, plot.axis, "soft", "start")
    _text(root, WIDTH - RIGHT, floor + 34, plot.across, "soft", "end")
    for name, curve in plot.curves.items():
        path = "L".join(f"{across.at(x)},{up.at(series.median)}" for x, series in curve.items())
        xml.SubElement(root, "path", {"d": f"M{path}", "stroke": colours[name]})
        for x, series in curve.items():
            _dot(root, across.at(x), up.at(series.median), colours[name], f"{name}, {x:,}: {series.median:,.3g}")
    _legend(root, colours, floor + BOTTOM)
    return _svg(root)


def _root(title: str, height: float) -> xml.Element:
    size = {"viewBox": f"0 0 {WIDTH} {height:g}", "width": "100%", "role": "img", "aria-label": title}
    root = xml.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "plot", **size})
    xml.SubElement(root, "style").text = STYLE
    xml.SubElement(root, "rect", {"class": "paper", "width": "100%", "height": "100%"})
    return root


def _svg(root: xml.Element) -> str:
    return xml.tostring(root, encoding="unicode") + "\n"


def _at(**places: float) -> dict[str, str]:
    return {name: f"{value:g}" for name, value in places.items()}


def _line(root: xml.Element, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
    xml.SubElement(root, "line", {"class": kind, **_at(x1=x1, y1=y1, x2=x2, y2=y2)})


def _text(root: xml.Element, x: float, y: float, text: str, kind: str, anchor: str) -> None:
    xml.SubElement(root, "text", {"class": kind, "text-anchor": anchor, **_at(x=x, y=y)}).text = text


def _dot(root: xml.Element, x: float, y: float, colour: str, title: str) -> None:
    dot = xml.SubElement(root, "circle", {"fill": colour, **_at(cx=x, cy=y, r=5)})
    xml.SubElement(dot, "title").text = title


def _legend_height(names: Sequence[str]) -> int:
    return 20 * len(_legend_lines(names)) + 10


def _legend_lines(names: Sequence[str]) -> list[list[tuple[float, str]]]:
    """The names of the legend with their x, in lines that fit the width."""
    lines: list[list[tuple[float, str]]] = [[]]
    x = 16.0
    for name in names:
        width = 30 + LETTER * len(name)
        if lines[-1] and x + width > WIDTH:
            lines.append([])
            x = 16.0
        lines[-1].append((x, name))
        x += width
    return lines


def _legend(root: xml.Element, colours: Mapping[str, str], top: float) -> None:
    for row, line in enumerate(_legend_lines(list(colours))):
        for x, name in line:
            xml.SubElement(root, "circle", {"fill": colours[name], **_at(cx=x, cy=top + 20 * row, r=5)})
            _text(root, x + 10, top + 20 * row + 4, name, "", "start")
