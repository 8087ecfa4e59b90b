"""The list of benchmarks, and a run of them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.loadgen.generator import Generator, LoadFailed
from benchmarks.servers import peers
from benchmarks.servers.targets import ServerFailed
from benchmarks.settings import Settings, compiler, cores, possible
from benchmarks.workloads import codec, durable, growth, idle, latency, stalled, traffic


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark that --only can name. `run` is one pass; a slow benchmark gets only half the passes (`few`)."""

    name: str
    text: str
    run: Callable[[Generator, Settings], Iterator[Figure]]
    few: bool = False

    def passes(self, settings: Settings) -> int:
        """The number of its passes in a run."""
        return (settings.passes + 1) // 2 if self.few else settings.passes


def _traffic(shape: traffic.Shape) -> Benchmark:
    return Benchmark(shape.name, shape.text, partial(traffic.run, shape))


LOADED = (
    *map(_traffic, (traffic.BURST, traffic.ALL_TALK, traffic.SINGLE, traffic.ROOMS, traffic.CROWD)),
    Benchmark("durable", f"{durable.SHAPE.text}, compared with SQLite alone", durable.run),
    Benchmark("latency", "percentiles at fixed rates", latency.run, True),
    Benchmark("stalled", "a member that never reads", stalled.run, True),
    Benchmark("idle", "memory of connections that do nothing", idle.run, True),
    Benchmark("many", "10,000 connections, 1,000 of which publish now and then", latency.run_many, True),
    Benchmark("growth", "cost as members, rooms, connections and messages grow", growth.run, True),
)
"""The benchmarks that need the load generator. The codec does not, and makes its own passes."""

CODEC = "codec"
TEXTS = {benchmark.name: benchmark.text for benchmark in LOADED} | {
    CODEC: "encode and decode, compared with construct and with hand-written code"
}


def run(names: Sequence[str], settings: Settings, progress: Callable[[str], None]) -> Iterator[Figure | str]:
    """Run the benchmarks called `names`. Yields figures, and a line for each pass that failed; the others go on.

    Raises LoadFailed if the load generator does not compile.
    """
    loaded = [benchmark for benchmark in LOADED if benchmark.name in names]
    if loaded and compiler() is None:
        print(f"skipped, no C compiler (cc, or $CC, on Linux): {' '.join(b.name for b in loaded)}", file=sys.stderr)
    elif loaded:
        yield from _run_loaded(loaded, settings, progress)
    if CODEC in names:
        progress(CODEC)
        yield from codec.run(3 * settings.passes)


def _run_loaded(
    benchmarks: Sequence[Benchmark], settings: Settings, progress: Callable[[str], None]
) -> Iterator[Figure | str]:
    _warn_of_missing(settings)
    with tempfile.TemporaryDirectory(prefix="roomwire-bench-") as directory:
        program = Generator(Path(directory))
        for number in range(1, settings.passes + 1):
            for benchmark in benchmarks:
                if number > benchmark.passes(settings):
                    continue
                progress(f"pass {number} of {settings.passes}: {benchmark.name}")
                try:
                    yield from benchmark.run(program, settings)
                except (LoadFailed, ServerFailed) as error:
                    yield f"{benchmark.name}, pass {number}: {error}"


def _warn_of_missing(settings: Settings) -> None:
    if cores().shared:
        print("one core only: the server and the load generator compete for it", file=sys.stderr)
    if not possible(settings.connections):
        text = f"the limit of open descriptors is too low for {settings.connections:,} connections"
        print(f"{text}: the benchmarks that need them are skipped", file=sys.stderr)
    for peer in (*peers.BROKERS, peers.JETSTREAM):
        if reason := peer.missing():
            print(f"skipped, {reason}: {peer.name}", file=sys.stderr)


def quick(directory: Path) -> Settings:
    """Short passes, to see whether everything works."""
    return Settings(seconds=0.4, passes=2, connections=1_000, directory=directory)


def full(directory: Path) -> Settings:
    """The settings for figures that are published."""
    return Settings(seconds=1.0, passes=3, connections=10_000, directory=directory)


def adjusted(settings: Settings, seconds: float | None, passes: int | None) -> Settings:
    """The settings with the values of the command line."""
    return replace(settings, seconds=seconds or settings.seconds, passes=passes or settings.passes)
