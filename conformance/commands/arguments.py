"""Arguments that several subcommands share, and the values that are made from them."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from conformance.commands.completion import What, complete
from conformance.commands.run import Run
from conformance.harness.config import Config
from conformance.harness.exit_status import UsageError
from conformance.harness.options import ROOM_PREFIX, Options
from conformance.harness.selection import Selection
from conformance.report.results import About
from conformance.report.terminal import FORMATS

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EXAMPLES = """\
examples:
  roomwire-check server --connect localhost:7117
  roomwire-check server --exec './my-server --port {port} --store {dir}/rooms.db'
  roomwire-check server --connect localhost:7117 'server/7.9/*' -x
  roomwire-check server --connect localhost:7117 --section 10 -k 'not waits'
  roomwire-check client --exec 'python3 -m reference_client.adapter {host} {port}'
  roomwire-check codec --exec 'python3 -m conformance.codec.reference' --format json
  roomwire-check server --connect localhost:7117 --report after
  roomwire-check compare before after
  roomwire-check report ours theirs --output both
  roomwire-check explain server/7.9/already-joined
  roomwire-check explain RW-JOIN-1
  roomwire-check explain 7.9                                all that is about a section
  roomwire-check explain slow member                        all that has these words
  roomwire-check describe JOIN
  roomwire-check decode F5525750 01 01 0000

exit status: 0 conforms, 1 does not or stale baseline, 2 usage, 3 not reachable or did not start,
4 a fault of the suite, 5 nothing selected"""


class Once(argparse.Action):
    """Stores the only value of an option. A second one would take its place, and what is not run would not show."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, value: object, option: str | None = None
    ) -> None:
        if getattr(namespace, self.dest) not in (None, value):
            raise argparse.ArgumentError(self, "given twice, and a run takes one")
        setattr(namespace, self.dest, value)


def add_selection(parser: argparse.ArgumentParser, cases: What = "cases") -> None:
    """Adds the arguments that select cases; `selection` reads them. `cases` says what completes their ids."""
    ids = parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="id, glob, or the start of an id, for example server/7.9"
    )
    about = parser.add_argument(
        "--requirement", action="append", default=[], metavar="RW-X-1", help="cases about this requirement"
    )
    within = parser.add_argument(
        "--section", action="append", default=[], metavar="N", help="cases of this section and its subsections"
    )
    complete(ids, cases)
    complete(about, "requirements")
    complete(within, "sections")
    levels = ["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"]
    parser.add_argument("--level", action="append", default=[], choices=levels, help="cases about such requirements")
    parser.add_argument("-k", dest="words", default="", metavar="WORDS", help="words of a case, with and, or, not")


def add_run(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that every run takes; `options` and `run_of` read them."""
    parser.add_argument(
        "-x", dest="max_failures", action="store_const", const=1, default=0, help="stop at the first failure"
    )
    parser.add_argument(
        "--max-failures", type=count, metavar="N", default=argparse.SUPPRESS, help="stop after N failures"
    )
    parser.add_argument("-j", "--jobs", type=count, default=8, metavar="N", help="cases at the same time (default 8)")
    parser.add_argument("--timeout", type=seconds, default=5.0, metavar="S", help="for each answer (default 5)")
    parser.add_argument("--format", choices=FORMATS, default="human")
    parser.add_argument(
        "--config", action=Once, type=Path, metavar="FILE", help="TOML: features, limits and accounts of the target"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="for random inputs (default 1)")
    parser.add_argument(
        "--repeat", type=count, default=1, metavar="N", help="run each case N times; FLAKY if verdicts differ"
    )
    parser.add_argument("--max-time", type=seconds, default=0.0, metavar="S", help="start no case after this time")
    parser.add_argument("--replay-dir", type=folder, metavar="DIR", help="write a file for each failure (see replay)")
    parser.add_argument(
        "--baseline", action=Once, type=Path, metavar="FILE", help="TOML: cases that are expected to fail"
    )
    parser.add_argument(
        "--report", action=Once, type=folder, metavar="DIR", help="write a page, results.json, junit.xml, badge.json"
    )
    parser.add_argument("--name", default="", metavar="TEXT", help="name of the target in the report")
    told = parser.add_mutually_exclusive_group()
    told.add_argument("-v", "--verbose", action="store_true", help="list the cases that passed, too")
    told.add_argument("-q", "--quiet", action="store_true", help="one line for each cause of failures, and the verdict")


def add_last_failed(parser: argparse.ArgumentParser) -> None:
    """Adds --last-failed; `run_of` reads it. A run without it keeps no record of what failed."""
    parser.add_argument(
        "--last-failed", action="store_true", help="only cases that failed when this target last ran in this folder"
    )


def folder(text: str) -> Path:
    """A folder to write into, which may not exist yet. Raises ArgumentTypeError for something else."""
    path = Path(text)
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, found a file: {text}")
    return path


def seconds(text: str) -> float:
    """A time in seconds, above 0. Raises ArgumentTypeError, or ValueError for text that is not a number."""
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("must be above 0, and below 1000000")
    return value


def room_prefix(text: str) -> str:
    """The beginning of a room's name. Raises ArgumentTypeError for one that might not be valid in SPEC.md's sense."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,20}", text):
        raise argparse.ArgumentTypeError("must be 1 to 20 of A-Z, a-z, 0-9, full stop, underscore and hyphen")
    return text


def count(text: str) -> int:
    """A whole number of at least 1. Raises ArgumentTypeError, or ValueError for text that is not a number."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def address(text: str) -> tuple[str, int]:
    """The host and port of HOST:PORT, an IPv6 host without its brackets. Raises UsageError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"not HOST:PORT: {text}")
    return host.removeprefix("[").removesuffix("]"), int(port)


def selection(args: argparse.Namespace) -> Selection:
    """The cases that the arguments of `add_selection` select."""
    return Selection(args.cases, args.requirement, args.section, args.level, args.words)


def options(args: argparse.Namespace, role: str, target: Sequence[str]) -> Options:
    """The options of a run; `target` holds the arguments that name its target. Raises ConfigError."""
    said = Config.read(args.config) if args.config else Config()
    declare = getattr(args, "declare", [])
    options = Options(
        timeout=args.timeout,
        patience=getattr(args, "patience", Options.patience),
        jobs=args.jobs,
        max_failures=args.max_failures,
        declared=said.features | frozenset(declare),
        limits=said.limits,
        accounts=said.accounts,
        admins=said.admins,
        tls=getattr(args, "tls", False),
        seed=args.seed,
        room_prefix=getattr(args, "room_prefix", ROOM_PREFIX),
        repeat=args.repeat,
        max_time=args.max_time,
        replay_dir=args.replay_dir,
    )
    again = [part for name in declare for part in ("--declare", name)]
    again += ["--config", str(args.config)] if args.config else []
    again += ["--tls"] if options.tls else []
    again += ["--ca", str(args.ca)] if getattr(args, "ca", None) else []
    again += ["--tls-insecure"] if getattr(args, "tls_insecure", False) else []
    return replace(options, command=("roomwire-check", role, *target, *again, *changed(options)))


def changed(options: Options) -> list[str]:
    """The arguments that bear on a single case, as far as they are not what they are by default."""
    defaults = {"room_prefix": ROOM_PREFIX, "seed": 1, "timeout": Options.timeout, "patience": Options.patience}
    arguments = []
    for name, default in defaults.items():
        value = getattr(options, name)
        if value != default:
            arguments += [f"--{name.replace('_', '-')}", f"{value:.12g}" if isinstance(value, float) else str(value)]
    return arguments


def run_of(args: argparse.Namespace, role: str, selected: Selection, target: str) -> Run:
    """The run that the arguments of `add_run` describe."""
    about = About(("roomwire-check", *args.argv), args.seed, args.name)
    return Run(
        role,
        target,
        selected,
        format=args.format,
        baseline_path=args.baseline,
        verbose=args.verbose,
        quiet=args.quiet,
        only_failed=getattr(args, "last_failed", None),
        report_dir=args.report,
        about=about,
    )
