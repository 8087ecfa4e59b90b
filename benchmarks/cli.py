"""The command `python -m benchmarks`: its options, the run, and the output."""

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
  python -m benchmarks                          everything; takes about ten minutes
  python -m benchmarks --quick                  everything, with short passes, to see whether it works
  python -m benchmarks --only burst --seconds 5 one benchmark, with longer passes
  python -m benchmarks --only codec idle        two benchmarks
  python -m benchmarks --json new.json --report new.html
                                                write every value of every pass, and a page with plots
  python -m benchmarks --compare old.json       show what became better or worse
  python -m benchmarks --from a.json b.json --report all.html
                                                write one page of earlier runs, and measure nothing
  python -m benchmarks profile --help           show where the time of a delivery goes

benchmarks:
{names}

The server runs on one core and the load generator on another, over 127.0.0.1. If other programs run meanwhile, trust
only `deliveries/CPU s` and ratios; `server waited` is the share of its core that others took. If `generator busy` is
near 100 %, the generator was the limit, except at a fixed rate: there it always polls the clock.

A cell is the median of all passes, with the smallest and the largest value. After Ctrl-C, the run shows and writes what
it has measured.

exit status: 0 measured, 1 a check failed under load or a server did not start, 2 wrong usage, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    names = "\n".join(f"  {name:<9}{text}" for name, text in runs.TEXTS.items())
    top = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the reference server and the codec.",
        epilog=EXAMPLES.format(names=names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    everything = list(runs.TEXTS)
    top.add_argument(
        "--only", nargs="+", metavar="NAME", choices=everything, default=everything, help="run only these benchmarks"
    )
    top.add_argument("--quick", action="store_true", help="few and short passes, and at most 1,000 connections")
    top.add_argument("--seconds", type=positive(float), metavar="S", help="length of a pass (1; with --quick 0.4)")
    top.add_argument("--passes", type=positive(int), metavar="N", help="passes of each benchmark (3; with --quick 2)")
    top.add_argument("--json", type=Path, metavar="FILE", help="write every value to FILE")
    top.add_argument("--report", type=Path, metavar="FILE", help="write a page with bars, plots and tables to FILE")
    top.add_argument("--plot", type=Path, metavar="FILE", help="write the plot of the ratios to FILE, as SVG")
    top.add_argument("--compare", type=Path, metavar="OLD", help="compare with the --json file of an earlier run")
    top.add_argument("--from", dest="earlier", nargs="+", type=Path, metavar="FILE", help="show these; measure nothing")
    where = "directory for the stores during the run (the system's temporary directory)"
    top.add_argument("--directory", type=Path, metavar="DIR", default=Path(tempfile.gettempdir()), help=where)
    return top


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """An argparse type for numbers above 0."""

    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < 1e6:
            raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
        return value

    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["profile"]:
        return profiling.main(arguments[1:])
    top = parser()
    options = top.parse_args(arguments)
    if not options.directory.is_dir():
        top.error(f"--directory: there is no directory {options.directory}")
    for file in (options.json, options.report, options.plot):
        if file and not file.parent.is_dir():  # report it now, not after ten minutes
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
        print(f"benchmarks: the older run had another {', '.join(differing)}", file=sys.stderr)
    _report(options, results, machine, old if options.compare else None)
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
        print("benchmarks: interrupted; this is what it has measured", file=sys.stderr)
        status = 130
    return status


def _report(options: argparse.Namespace, results: Results, machine: dict[str, str], old: Results | None) -> None:
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
