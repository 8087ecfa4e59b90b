"""`python -m benchmarks profile`: where the time of a delivery goes."""

from __future__ import annotations

import argparse
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.loadgen.generator import Generator, Load, LoadFailed
from benchmarks.servers.targets import MEMORY, SQLITE, Running, ServerFailed, Target, serve
from benchmarks.settings import Settings, compiler
from benchmarks.workloads import traffic

SHAPES = {shape.name: shape for shape in (traffic.BURST, traffic.ROOMS, traffic.CROWD, traffic.SINGLE, traffic.DURABLE)}
TARGETS = {"memory": MEMORY, "sqlite": SQLITE}
RATE = 500
"""Samples a second."""

LINES = 15
SLACK_MS = 2_000
"""So much longer there is load than samples are taken, for py-spy has to begin first."""

EXAMPLES = """\
examples:
  python -m benchmarks profile                          100 rooms x 10, in memory
  python -m benchmarks profile burst --seconds 10
  python -m benchmarks profile durable --store sqlite

A sample is a look at each thread of the server that is running: what it is at, in Python. It is taken by py-spy, which
needs the right to look into other processes: that of root, or kernel.yama.ptrace_scope=0.

exit status: 0 measured, 1 it could not be, 2 wrong usage
"""

WAITING = "wait for sockets, or for work"
"""No part of what a delivery costs: a thread that waits is taken for one that runs now and then."""

STAGES = (
    (WAITING, r" \(selectors\.py|\b_next_group |\bSqliteStore\._read "),
    ("read sockets", r"\b_read_ready\S* \(asyncio"),
    ("write sockets", r"\b(write|_write_\S+|writelines) \(asyncio"),
    ("parse PUBLISH", r"\bdecode_|\(protocol/(framing|codec)|\b(receive_data|events|_interpret|_owe|_may_read) "),
    (
        "decide, sequence, encode MESSAGE",
        r"\bpack_MESSAGE|/(publish|messages|limits|clock)\.py|\b(reply_in_turn|appended|sequenced) ",
    ),
    ("memory of ids and messages", r"/store/(memory|id_index|base)\.py|<string>"),
    ("rows, transaction, sync", r"/sqlite_\w+\.py"),
    ("ACK", r"\bpack_ACK|\b(settle|_settle|reply|_due|ready) "),
    ("slice rooms' logs, hand them out", r"/room\.py|\b(write_stream|send_encoded|_flush_rooms) "),
    (
        "gather and write each client's octets",
        r"\b(_write_out|write_out|data_to_send|_steer_reading|wants_data) |PeerProtocol\.write ",
    ),
    ("what else clients ask", r"/peer\.py|/handlers/"),
    ("event loop", r"\(asyncio|/(listener|transport)\.py|/(hub|state)\.py"),
)
"""Where a frame belongs, by "function (file:line)"; the innermost frame of a stack that belongs anywhere decides."""

OTHER = "else"


class ProfileFailed(Exception):
    """There are no samples. `str()` is one line."""


@dataclass(frozen=True, slots=True)
class Samples:
    """How many samples fell on each stage, and on each line of Python that was at work itself."""

    stages: Counter[str]
    lines: Counter[str]

    @property
    def total(self) -> int:
        """Those of work."""
        return self.stages.total() - self.stages[WAITING]


def stage(frames: Sequence[str]) -> str:
    """The stage of a stack, outermost frame first."""
    for frame in reversed(frames):
        for name, pattern in STAGES:
            if re.search(pattern, frame):
                return name
    return OTHER


def parse(lines: Iterable[str]) -> Samples:
    """py-spy's "raw" format: frames with semicolons between them, a space, and how often that was seen."""
    samples = Samples(Counter(), Counter())
    for line in lines:
        stack, _, count = line.strip().rpartition(" ")
        if stack:
            frames = stack.split(";")
            found = stage(frames)
            samples.stages[found] += int(count)
            if found != WAITING:
                samples.lines[frames[-1]] += int(count)
    return samples


def program() -> str | None:
    """py-spy: that beside Python, else the system's."""
    return shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")


@contextmanager
def _sampled(command: str, server: Running, seconds: float, file: Path) -> Iterator[None]:
    arguments = ["--pid", str(server.pid), "--duration", str(math.ceil(seconds)), "--rate", str(RATE)]
    record = [command, "record", *arguments, "--format", "raw", "--output", str(file)]
    with subprocess.Popen(record, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield
            errors = process.communicate()[1]
        finally:
            process.kill()
    if process.returncode:
        raise ProfileFailed(f"py-spy: {' '.join(errors.split()) or 'it ended too early'}")


def profile(shape: traffic.Shape, target: Target, settings: Settings) -> tuple[Load, Samples]:
    """Load the server, once unobserved, for what a delivery costs, and once while it is sampled.

    Raises ProfileFailed, LoadFailed and ServerFailed.
    """
    command = program()
    if command is None:
        raise ProfileFailed("py-spy is not installed: pip install -e '.[bench]' brings it")
    with tempfile.TemporaryDirectory(prefix="roomwire-bench-") as directory:
        loader, file = Generator(Path(directory)), Path(directory) / "raw"
        unobserved = traffic.measure(shape, target, loader, settings)
        times = {"warmup_ms": 0, "measure_ms": int(settings.seconds * 1000) + SLACK_MS}
        with serve(target, settings) as server, _sampled(command, server, settings.seconds, file):
            loader.load(server, shape.options() | times)
        return unobserved, parse(file.read_text(encoding="utf-8").splitlines())


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m benchmarks profile",
        description="Says where the server's time goes under a load, stage by stage.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("workload", nargs="?", choices=SHAPES, default=traffic.ROOMS.name, help="(rooms)")
    top.add_argument("--store", choices=TARGETS, default="memory", help="(memory)")
    top.add_argument("--seconds", type=float, default=5.0, metavar="S", help="how long samples are taken (5)")
    return top


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit status."""
    options = _parser().parse_args(argv)
    shape, target = SHAPES[options.workload], TARGETS[options.store]
    settings = Settings(options.seconds, 1, 1_000, Path(tempfile.gettempdir()))
    console = Console()
    try:
        if compiler() is None:
            raise LoadFailed("no C compiler (cc, or $CC, on Linux)")
        with Console(stderr=True).status(f"{shape.text}: without, then with samples"):
            load, samples = profile(shape, target, settings)
    except (LoadFailed, ServerFailed, ProfileFailed) as error:
        print(f"benchmarks profile: {error}", file=sys.stderr)
        return 1
    _show(console, shape, target, load, samples)
    return 0


def _show(console: Console, shape: traffic.Shape, target: Target, load: Load, samples: Samples) -> None:
    cost_us = load.server_cpu / max(load.deliveries, 1) * 1e6
    title = (
        f"{shape.text}, {target.name}: {cost_us:.3f} CPU us a delivery, {load.deliveries / load.seconds:,.0f} a second"
    )
    stages = Table("stage", "share", "us a delivery", title=title, title_justify="left", box=None)
    for name in [*(name for name, _ in STAGES if name != WAITING), OTHER]:
        share = samples.stages[name] / samples.total
        if share:
            stages.add_row(name, f"{share:.1%}", f"{share * cost_us:.3f}")
    lines = Table("line", "share", title=f"The {LINES} busiest lines", title_justify="left", box=None)
    for line, count in samples.lines.most_common(LINES):
        lines.add_row(line, f"{count / samples.total:.1%}")
    console.print(
        stages,
        "",
        lines,
        f"\n{samples.total:,} samples of work, {samples.stages[WAITING]:,} of waiting",
        sep="\n",
        markup=False,
    )
