"""`python -m benchmarks`: the command line, and what becomes of the figures."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import profiling, runs
from benchmarks.figures import Figure, Results
from benchmarks.loadgen.generator import LoadFailed
from benchmarks.report import compare, page, tables
from benchmarks.report.bars import judge
from benchmarks.servers import peers
from benchmarks.settings import environment

EXAMPLES = """\
examples:
  python -m benchmarks                          everything; about ten minutes
  python -m benchmarks --quick                  everything, short: to see whether it works
  python -m benchmarks --only burst --seconds 5 one workload, longer
  python -m benchmarks --only codec idle        two of them
  python -m benchmarks --json new.json --report new.html
                                                every value of every pass, and a page with plots
  python -m benchmarks --compare old.json       what became better or worse since
  python -m benchmarks --from a.json b.json --report all.html
                                                measures nothing: one page of earlier runs
  python -m benchmarks profile --help           where the time of a delivery goes

benchmarks:
{names}

The server runs on one core and the load generator on another, over 127.0.0.1. Where other programs run meanwhile,
`deliveries/CPU s` and ratios are what can be trusted; `server waited` tells how much of its core others took. If
`generator busy` is near 100 %, it is the generator that was measured, but at a fixed rate it is always busy: it looks
at the clock.

A cell is the median of all passes, with the least and the greatest value. Ctrl-C ends the run, and what was measured
up to then is told and written.

exit status: 0 measured, 1 a check failed under load or a server did not start, 2 wrong usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    names = "\n".join(f"  {name:<9}{text}" for name, text in runs.TEXTS.items())
    top = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the reference server and the codec.",
        epilog=EXAMPLES.format(names=names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    everything = list(runs.TEXTS)
    top.add_argument(
        "--only", nargs="+", metavar="NAME", choices=everything, default=everything, help="these benchmarks alone"
    )
    top.add_argument("--quick", action="store_true", help="few and short passes, and at most 1,000 connections")
    top.add_argument("--seconds", type=positive(float), metavar="S", help="of each measured pass (1; quick: 0.4)")
    top.add_argument("--passes", type=positive(int), metavar="N", help="how many, taking turns (3; quick: 2)")
    top.add_argument("--json", type=Path, metavar="FILE", help="write every value there")
    top.add_argument("--report", type=Path, metavar="FILE", help="write a page with bars, plots and tables there")
    top.add_argument("--plot", type=Path, metavar="FILE", help="write the plot of the ratios there, as SVG")
    top.add_argument("--compare", type=Path, metavar="OLD", help="with what an earlier run wrote by --json")
    top.add_argument("--from", dest="earlier", nargs="+", type=Path, metavar="FILE", help="show these; measure nothing")
    where = "where stores are put for a while (the system's directory for temporary files)"
    top.add_argument("--directory", type=Path, metavar="DIR", default=Path(tempfile.gettempdir()), help=where)
    return top


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """For argparse: a number above 0."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < 1e6:
            raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
        return value

    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["profile"]:
        return profiling.main(arguments[1:])
    top = parser()
    options = top.parse_args(arguments)
    if not options.directory.is_dir():
        top.error(f"--directory: there is no directory {options.directory}")
    for file in (options.json, options.report, options.plot):
        if file and not file.parent.is_dir():  # rather now than after ten minutes
            top.error(f"there is no directory {file.parent}")
    old, results = Results(), Results()
    machine: dict[str, str] = {}
    status = 0
    try:
        before = tables.read(options.compare, old) if options.compare else {}
        for file in options.earlier or ():
            machine |= tables.read(file, results)
    except tables.Unreadable as error:
        top.error(str(error))
    if not options.earlier:
        machine = environment(options.directory) | peers.versions()
        status = _measure(options, results)
    differing = [name for name in machine if options.compare and before.get(name, machine[name]) != machine[name]]
    if differing:
        print(f"benchmarks: the older run was made with another {', '.join(differing)}", file=sys.stderr)
    _tell(options, results, machine, old if options.compare else None)
    return status


def _measure(options: argparse.Namespace, results: Results) -> int:
    preset = (runs.quick if options.quick else runs.full)(options.directory)
    status = 0
    try:
        with Console(stderr=True).status("") as shown:
            settings = runs.adjusted(preset, options.seconds, options.passes)
            for item in runs.run(options.only, settings, shown.update):
                if isinstance(item, Figure):
                    results.add(item)
                else:
                    print(f"benchmarks: {item}", file=sys.stderr)
                    status = 1
    except LoadFailed as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted; this is what was measured", file=sys.stderr)
        status = 130
    return status


def _tell(options: argparse.Namespace, results: Results, machine: dict[str, str], old: Results | None) -> None:
    console = Console()
    changes = None if old is None else list(compare.changes(old, results))
    if options.json:
        tables.write(results, machine, options.json)
    if options.report:
        options.report.write_text(page.html(results, machine, changes), encoding="utf-8")
    if options.plot and (svg := page.ratios(results)):
        options.plot.write_text(svg, encoding="utf-8")
    print(", ".join(f"{name}: {value}" for name, value in machine.items()))
    tables.show(results, console)
    tables.show_bars(judge(results), console)
    if changes is not None:
        tables.show_changes(changes, console)
