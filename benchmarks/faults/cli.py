"""The command `python -m benchmarks.faults`: the families, and the table of faults x invariants."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.faults.families import (
    accounts,
    clock,
    crash,
    damage,
    disk,
    lazyfs,
    load,
    network,
    people,
    storm,
    stuck,
    tools,
)
from benchmarks.faults.soak import CHECKED, Sample, plot, soak
from benchmarks.faults.stage.results import INVARIANTS, Outcome
from benchmarks.faults.stage.scene import Family, Missing, Run

_MODULES = (crash, disk, lazyfs, damage, people, accounts, tools, network, clock, load, storm, stuck)
FAMILIES: dict[str, Family] = {family.name: family for module in _MODULES for family in module.FAMILIES}

EXAMPLES = """\
examples:
  python -m benchmarks.faults                     the short form: every family, half a minute
  python -m benchmarks.faults --long              the long form: some minutes a family
  python -m benchmarks.faults --long --only kill  one family: 200 times kill -9
  python -m benchmarks.faults --seed 7            the same random choices (but timing makes each run different)
  python -m benchmarks.faults --json faults.json  write the counts, too
  python -m benchmarks.faults soak --minutes 30   mixed load and faults; plots memory and descriptors as SVG

families:
{families}

columns of the table:
{invariants}

A cell counts how often the invariant was broken; it is empty if the family does not check the invariant.

Without a C compiler, the families power, full, clock, years and hung do not run; without LazyFS, lazyfs does not.

exit status: 0 no invariant was broken, 1 one was, or a family failed, 2 wrong usage, 130 Ctrl-C (the table shows the
counts until then)
"""


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    families = "\n".join(f"  {family.name:<9}{family.text}" for family in FAMILIES.values())
    invariants = "\n".join(f"  {name:<9}{text}" for name, text in INVARIANTS.items())
    top = argparse.ArgumentParser(
        prog="python -m benchmarks.faults",
        description="Makes real server processes fail as servers do, and checks the promises of SPEC.md.",
        epilog=EXAMPLES.format(families=families, invariants=invariants),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("command", nargs="?", choices=("matrix", "soak"), default="matrix", help="matrix (the default)")
    length = top.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="a few faults of each family (the default)")
    length.add_argument("--long", action="store_true", help="as many faults as for the figures in README.md")
    top.add_argument(
        "--only", nargs="+", metavar="NAME", choices=FAMILIES, default=list(FAMILIES), help="run only these families"
    )
    top.add_argument("--seed", type=int, metavar="N", help="seed of all choices (random, and printed)")
    top.add_argument("--json", type=Path, metavar="FILE", help="write the counts to FILE")
    top.add_argument("--directory", type=Path, metavar="DIR", help="directory for the stores during the run")
    top.add_argument("--minutes", type=float, metavar="M", default=30.0, help="length of the soak (30)")
    top.add_argument("--svg", type=Path, metavar="FILE", default=Path("soak.svg"), help="the soak's plot (soak.svg)")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return the exit status."""
    options = parser().parse_args(argv)
    if options.directory is not None and not options.directory.is_dir():
        parser().error(f"--directory: there is no directory {options.directory}")
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(2**32)
    outcomes: list[Outcome] = []
    samples: list[Sample] = []
    stopped = False
    families = [FAMILIES[name] for name in options.only]
    if options.command == "soak":
        families = [Family("soak", "", CHECKED, lambda run, outcome: soak(run, outcome, options.minutes, samples))]
    with tempfile.TemporaryDirectory(prefix="roomwire-faults-", dir=options.directory) as name:
        run = Run(seed, options.long, Path(name), _progress)
        try:
            asyncio.run(_run_all(families, run, outcomes))
        except KeyboardInterrupt:
            stopped = True
            for outcome in outcomes[-1:]:
                outcome.state = "stopped"
    _progress("")
    show(outcomes, seed, long=options.long)
    if samples:
        options.svg.write_text(plot(samples), encoding="utf-8")
        print(f"the plot is in {options.svg}")
    if options.json:
        report = {
            "seed": seed,
            "form": "long" if options.long else "short",
            "families": [o.as_json() for o in outcomes],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if stopped:
        return 130
    return int(any(outcome.broken.total() or outcome.state.startswith("failed") for outcome in outcomes))


async def _run_all(families: Sequence[Family], run: Run, outcomes: list[Outcome]) -> None:
    for family in families:
        outcome = Outcome(family.name, family.checked)
        outcomes.append(outcome)
        start = time.monotonic()
        try:
            await family.run(run, outcome)
        except Missing as error:
            outcome.state = f"not run: {error}"
        except Exception as error:  # the other families still run
            traceback.print_exc()
            outcome.state = f"failed: {str(error) or type(error).__name__}"
        finally:
            outcome.seconds = time.monotonic() - start


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def show(outcomes: Sequence[Outcome], seed: int, *, long: bool) -> None:
    """Print the table, and the first words about what was broken."""
    table = Table(title=f"Faults x invariants, {'long' if long else 'short'} form, seed {seed}")
    table.add_column("family")
    for name in ("faults", "acknowledged", "delivered", "repeated", "s"):
        table.add_column(name, justify="right")
    for name in INVARIANTS:
        table.add_column(name, justify="right")
    for outcome in outcomes:
        counts = [outcome.faults, outcome.acknowledged, outcome.delivered, outcome.repeated]
        table.add_row(
            outcome.name + (f" ({outcome.state.partition(':')[0]})" if outcome.state else ""),
            *(f"{count:,}" for count in counts),
            f"{outcome.seconds:.0f}",
            *(str(outcome.broken[name]) if name in outcome.checked else "" for name in INVARIANTS),
        )
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    total = sum(outcome.acknowledged for outcome in outcomes)
    console.print(
        f"{total:,} acknowledged, {sum(outcome.broken.total() for outcome in outcomes)} breaches", highlight=False
    )
    for outcome in outcomes:
        if outcome.state:
            console.print(f"{outcome.name}: {outcome.state}", highlight=False, markup=False)
        for word in outcome.words:
            console.print(f"{outcome.name}: {word}", highlight=False, markup=False)
        for name, value in outcome.notes.items():
            console.print(f"{outcome.name}: {name}: {value}", highlight=False, markup=False)
