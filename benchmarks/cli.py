"""`python -m benchmarks`: which benchmarks there are, and a run of them."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks import codec, durable, generator, idle, peers, report, traffic
from benchmarks.figures import Figure, Results
from benchmarks.generator import Generator, LoadFailed
from benchmarks.settings import Settings, cores, environment
from benchmarks.targets import ServerFailed

EXAMPLES = """\
examples:
  python -m benchmarks                          everything; some minutes
  python -m benchmarks --quick                  everything, short: to see whether it works
  python -m benchmarks --only burst --seconds 5 one workload, longer
  python -m benchmarks --only codec idle        two of them
  python -m benchmarks --json results.json      every value of every pass, too

benchmarks:
{names}

The server runs on one core and the load generator on another, over 127.0.0.1. Where other programs run meanwhile,
`deliveries/CPU s` and ratios are what can be trusted; `server waited` tells how much of its core others took. If
`generator busy` is near 100 %, it is the generator that was measured.

A cell is the median of all passes, with the least and the greatest value.

exit status: 0 measured, 1 a check failed under load or a server did not start, 2 wrong usage
"""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One that can be asked for by `name`; `run` is one pass."""

    name: str
    text: str
    run: Callable[[Generator, Settings], Iterator[Figure]]


def _traffic(shape: traffic.Shape) -> Benchmark:
    return Benchmark(shape.name, shape.text, partial(traffic.run, shape))


LOADED = (
    *map(_traffic, (traffic.BURST, traffic.ALL_TALK, traffic.SINGLE, traffic.ROOMS, traffic.CROWD)),
    Benchmark("durable", f"{durable.SHAPE.text}, beside SQLite alone", durable.run),
    Benchmark("idle", "memory of connections that do nothing", idle.run),
)
"""Those that need the load generator. The codec needs nothing, and has passes of its own."""

CODEC = "codec"
NAMES = (*(benchmark.name for benchmark in LOADED), CODEC)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    texts = {benchmark.name: benchmark.text for benchmark in LOADED}
    texts[CODEC] = "encode and decode, beside construct and beside code by hand"
    names = "\n".join(f"  {name:<9}{text}" for name, text in texts.items())
    top = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the reference server and the codec.",
        epilog=EXAMPLES.format(names=names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--only", nargs="+", metavar="NAME", choices=NAMES, default=NAMES, help="these benchmarks alone")
    top.add_argument("--quick", action="store_true", help="three short passes, and 500 idle connections")
    top.add_argument("--seconds", type=_positive(float), metavar="S", help="of each measured pass (1.5; quick: 0.5)")
    top.add_argument("--passes", type=_positive(int), metavar="N", help="how many, taking turns (5; quick: 3)")
    top.add_argument("--json", type=Path, metavar="FILE", help="write every value there")
    where = "where stores are put for a while (the system's directory for temporary files)"
    top.add_argument("--directory", type=Path, metavar="DIR", default=Path(tempfile.gettempdir()), help=where)
    return top


def _positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        value = kind(text)
        if not 0 < value < 1e6:
            raise argparse.ArgumentTypeError(f"expected a number above 0, found {text}")
        return value

    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    options = parser().parse_args(argv)
    quick = options.quick
    settings = Settings(
        seconds=options.seconds or (0.5 if quick else 1.5),
        passes=options.passes or (3 if quick else 5),
        connections=(500,) if quick else (2_000, 10_000),
        directory=options.directory,
    )
    if not settings.directory.is_dir():
        parser().error(f"--directory: there is no directory {settings.directory}")
    results = Results()
    try:
        with Console(stderr=True).status("") as status:
            for figure in run(options.only, settings, status.update):
                results.add(figure)
    except (LoadFailed, ServerFailed) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    machine = environment(settings.directory) | peers.versions()
    print(", ".join(f"{name}: {value}" for name, value in machine.items()))
    report.show(results, Console())
    if options.json:
        report.write(results, machine, options.json)
    return 0


def run(names: Sequence[str], settings: Settings, progress: Callable[[str], None]) -> Iterator[Figure]:
    """All figures of the benchmarks called `names`. Raises LoadFailed and ServerFailed."""
    loaded = [benchmark for benchmark in LOADED if benchmark.name in names]
    if loaded and generator.compiler() is None:
        print(f"skipped, no C compiler (cc, or $CC, on Linux): {' '.join(b.name for b in loaded)}", file=sys.stderr)
    elif loaded:
        yield from _run_loaded(loaded, settings, progress)
    if CODEC in names:
        progress(CODEC)
        yield from codec.run(3 * settings.passes)


def _run_loaded(
    benchmarks: Sequence[Benchmark], settings: Settings, progress: Callable[[str], None]
) -> Iterator[Figure]:
    if cores().shared:
        print("one core only: the server and the load generator take it from each other", file=sys.stderr)
    for count in settings.connections:
        if not idle.possible(count):
            print(f"skipped, the limit of open descriptors is too low: {count:,} connections", file=sys.stderr)
    for peer in (*peers.BROKERS, peers.JETSTREAM):
        if reason := peer.missing():
            print(f"skipped, {reason}: {peer.name}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="roomwire-bench-") as directory:
        program = Generator(Path(directory))
        for number in range(1, settings.passes + 1):
            for benchmark in benchmarks:
                progress(f"pass {number} of {settings.passes}: {benchmark.name}")
                yield from benchmark.run(program, settings)
