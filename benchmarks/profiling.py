"""The command `python -m benchmarks profile`: where the server's time goes for a delivery."""

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
"""How much longer the load lasts than the sampling, since py-spy has to start first."""

EXAMPLES = """\
examples:
  python -m benchmarks profile                          100 rooms x 10, in memory
  python -m benchmarks profile burst --seconds 10
  python -m benchmarks profile durable --store sqlite

A sample is the Python stack of each thread of the server that is running. py-spy takes the samples; it needs the right
to inspect other processes: run as root, or with kernel.yama.ptrace_scope=0.

exit status: 0 measured, 1 not measured, 2 wrong usage
"""

WAITING = "wait for sockets, or for work"
"""No part of the cost of a delivery: py-spy counts a thread that waits as one that runs now and then."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the server's work, and the frames of stacks that belong to it.

    `functions` are names, with their class where the name alone is ambiguous; `files` are paths in the repository;
    `pattern` matches other frames, as py-spy writes them: "function (file:line)".
    """

    name: str
    functions: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    pattern: str = r"(?!)"

    def holds(self, frame: str) -> bool:
        """Whether the frame belongs to this stage."""
        function, _, place = frame.partition(" (")
        named = any(f".{function}".endswith(f".{name}") for name in self.functions)
        return named or place.rpartition(":")[0].endswith(self.files) or bool(re.search(self.pattern, frame))


CORE, HANDLERS, STORE = "reference_server/core", "reference_server/core/handlers", "reference_server/store"
STAGES = (
    Stage(WAITING, ("_next_group", "SqliteStore._read"), (), r" \(selectors\.py"),
    Stage("read sockets", pattern=r"\b_read_ready\S* \(asyncio"),
    Stage("write sockets", pattern=r"\b(write|_write_\S+|writelines) \(asyncio"),
    Stage(
        "parse PUBLISH",
        ("receive_data", "events", "_interpret", "_owe", "_may_read"),
        ("protocol/framing.py", "protocol/codec.py"),
        r"\bdecode_",
    ),
    Stage(
        "decide, sequence, encode MESSAGE",
        ("reply_in_turn", "proposed", "moved"),
        (f"{HANDLERS}/publish.py", f"{CORE}/messages.py", f"{CORE}/limits.py", f"{CORE}/clock.py", f"{STORE}/walk.py"),
        r"\bpack_MESSAGE",
    ),
    Stage(
        "memory of ids and messages", (), (f"{STORE}/memory.py", f"{STORE}/id_index.py", f"{STORE}/base.py"), "<string>"
    ),
    Stage(
        "rows, transaction, sync", (), tuple(f"{STORE}/sqlite{part}.py" for part in ("", "_tables", "_files", "_wal"))
    ),
    Stage("ACK", ("settle", "_settle", "reply", "_due", "ready"), (), r"\bpack_ACK"),
    Stage("slice rooms' logs, hand them out", ("write_stream", "send_encoded", "_flush_rooms"), (f"{CORE}/room.py",)),
    Stage(
        "gather and write each client's octets",
        ("_write_out", "write_out", "data_to_send", "_steer_reading", "wants_data", "PeerProtocol.write"),
    ),
    Stage(
        "other requests",
        (),
        (f"{CORE}/peer.py", *(f"{HANDLERS}/{name}.py" for name in ("hello", "join", "history", "stop"))),
    ),
    Stage(
        "event loop",
        (),
        ("reference_server/net/listener.py", "reference_server/net/transport.py", f"{CORE}/hub.py", f"{CORE}/state.py"),
        r"\(asyncio",
    ),
)
"""The innermost frame that a stage holds decides about a stack; if several stages hold it, the first one counts."""

OTHER = "else"


class ProfileFailed(Exception):
    """There are no samples. `str()` is one line."""


@dataclass(frozen=True, slots=True)
class Samples:
    """The number of samples of each stage, and of each line of Python at the top of a stack."""

    stages: Counter[str]
    lines: Counter[str]

    @property
    def total(self) -> int:
        """All samples without those of waiting."""
        return self.stages.total() - self.stages[WAITING]


def stage_of(frames: Sequence[str]) -> str:
    """The stage of a stack, whose outermost frame comes first."""
    for frame in reversed(frames):
        for stage in STAGES:
            if stage.holds(frame):
                return stage.name
    return OTHER


def parse(lines: Iterable[str]) -> Samples:
    """Read py-spy's "raw" format: frames separated by semicolons, a space, and the number of samples."""
    samples = Samples(Counter(), Counter())
    for line in lines:
        stack, _, count = line.strip().rpartition(" ")
        if stack:
            frames = stack.split(";")
            found = stage_of(frames)
            samples.stages[found] += int(count)
            if found != WAITING:
                samples.lines[frames[-1]] += int(count)
    return samples


def program() -> str | None:
    """The py-spy beside Python, or else the system's."""
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
        raise ProfileFailed(f"py-spy: {' '.join(errors.split()) or 'ended too early'}")


def profile(shape: traffic.Shape, target: Target, settings: Settings) -> tuple[Load, Samples]:
    """Load the server twice: without py-spy, for the cost of a delivery, and with it, for the samples.

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
        description="Shows where the server's time goes under load, stage by stage.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("workload", nargs="?", choices=SHAPES, default=traffic.ROOMS.name, help="the workload (rooms)")
    top.add_argument("--store", choices=TARGETS, default="memory", help="the server's store (memory)")
    top.add_argument("--seconds", type=float, default=5.0, metavar="S", help="duration of the sampling (5)")
    return top


def main(argv: Sequence[str]) -> int:
    """Run the command, and return the exit status."""
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
    for name in [*(stage.name for stage in STAGES if stage.name != WAITING), OTHER]:
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
