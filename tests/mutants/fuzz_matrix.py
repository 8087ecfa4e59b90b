"""How long `fuzz server` takes to find each server mutant, without being told which one it is.

    python -m tests.mutants.fuzz_matrix [--seconds 60] [--in-process] [SLUG ...]

Each mutant is fuzzed over sockets by the code of `roomwire-check fuzz server --exec`, or with --in-process without I/O
and on a virtual clock. The table says after how many seconds it failed, by which requirement, and how many steps the
shortest script has, none of which can be left out.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from statistics import median
from typing import Any

from conformance.fuzz.failure import Failure
from conformance.fuzz.options import Options
from conformance.fuzz.server.fuzzer import TIGHT, ServerFuzz
from conformance.fuzz.server.generate import Profile, script
from conformance.fuzz.server.player import Player
from conformance.fuzz.server.steps import Step
from conformance.fuzz.shrink import shortest
from conformance.fuzz.stats import Stats
from conformance.harness.ddmin import smallest
from conformance.harness.process import Unreachable
from tests.mutants.catalogue import SERVERS
from tests.mutants.servers import MutantServer, ServerMutant, mutated
from tests.support.accounts import PASSWORDS
from tests.support.hub_network import HubNetwork

CATEGORIES = {
    "ordering": ("RW-PROMISE-8", "RW-PROMISE-11", "RW-PROMISE-12", "RW-MODEL-2", "RW-ORDER-", "RW-REQUEST-3",
                 "RW-REQUEST-4", "RW-ACK-", "RW-PING-2"),
    "duplication": ("RW-DEDUPE-", "RW-ID-"),
    "loss": ("RW-PROMISE-", "RW-MESSAGE-", "RW-LAG-", "RW-PUBLISH-4", "RW-FIELD-5", "RW-REQUEST-2"),
    "presence": ("RW-PRESENCE-", "RW-ROSTER-", "RW-QUIET-"),
    "recovery": ("RW-CURSOR-", "RW-MODEL-", "RW-HISTORY-", "RW-WELCOME-5"),
    "refusal": ("RW-CHECK-", "RW-TYPE-", "RW-FRAME-", "RW-FIELD-", "RW-NAME-", "RW-JOIN-", "RW-LEAVE-", "RW-PUBLISH-",
                "RW-HELLO-", "RW-ERROR-", "RW-CODE-", "RW-EXT-", "RW-FLAG-", "RW-PREFACE-", "RW-LIMIT-", "RW-AUTH-",
                "RW-REQUEST-", "RW-GREASE-"),
    "accounts": ("RW-SASL-", "RW-SCRAM-", "RW-STOP-"),
    "connections": ("RW-CLOSE-", "RW-CONN-", "RW-DRAIN-", "RW-HEARTBEAT-", "RW-PING-", "RW-WELCOME-"),
    "TLS": ("RW-TLS-",),  # is not fuzzed
}  # fmt: skip
"""What a mutant breaks, by the beginning of the first requirement that it breaks; the first that fits counts."""

PROFILES = (
    Profile(restart=0.3, drain=0.1, time=0.3),
    Profile(clients=5, rooms=4, restart=0.2, drain=0.1, time=0.2),
)
TIMES = {"preface_ms": 4_000, "handshake_ms": 5_000, "frame_ms": 4_000, "heartbeat_ms": 5_000, "stall_ms": 4_000}
TIMES["linger_ms"] = 300
PATIENT = dict.fromkeys(TIMES, 60000)
"""Time-outs so long that none ends on a busy machine."""


@dataclass(frozen=True)
class Row:
    """What the fuzzer found of one mutant. `steps` is the shortest script that shows it."""

    slug: str
    seconds: float
    requirement: str
    steps: tuple[Step, ...]
    repeats: bool


def over_sockets(mutant: ServerMutant, seconds: float, seed: int = 1, shrinking: float = 2.0) -> Row | None:
    """Fuzzes a mutant as `fuzz server --exec` does; None if it found nothing in time."""
    with mutated(mutant):
        accounts = PASSWORDS if mutant.accounts else {}
        options = Options(accounts=accounts, seed=seed, max_time=seconds, timeout=2.0, shrinking=shrinking, restart=0.2)
        fuzz = ServerFuzz(MutantServer(mutant, 3.0, TIMES), options)
        began = time.monotonic()
        try:
            fuzz.start()
            fuzz.fuzz()
        except Unreachable as error:  # not even the first WELCOME came
            return Row(mutant.slug, time.monotonic() - began, f"no start: {error}"[:60], (), True)
        finally:
            fuzz.stop()
    if not fuzz.found:
        return None
    found = fuzz.found[0]
    return Row(mutant.slug, found.seconds, found.failure.requirement, tuple(found.steps), found.repeats)


def in_process(mutant: ServerMutant, seconds: float, first: int = 0) -> Row | None:
    """Fuzzes a mutant without I/O; None if it found nothing in time."""
    began, seed = time.monotonic(), first
    with mutated(mutant):
        while time.monotonic() - began < seconds:
            steps = script(Random(seed), PROFILES[seed % 2])
            failure = play(mutant, seed, steps)
            if failure:
                found = time.monotonic() - began
                left = shrunk(mutant, seed, steps[: failure.at + 1], failure)
                return Row(mutant.slug, found, failure.requirement, tuple(left), True)
            seed += 1
    return None


def category(mutant: ServerMutant) -> str:
    """The category that a mutant belongs to."""
    return next(name for name, rules in CATEGORIES.items() if mutant.breaks[0].startswith(rules))


def play(mutant: ServerMutant, seed: int, steps: Sequence[Step]) -> Failure | None:
    """Plays a script without I/O, with tight limits for every other seed."""
    limits: dict[str, Any] = dict(TIGHT) if seed % 4 > 1 else {}
    network = HubNetwork(seed, mutant, **limits)
    return Player(network, seed, Stats(), 5.0).play(steps)


def shrunk(mutant: ServerMutant, seed: int, steps: list[Step], failure: Failure) -> list[Step]:
    """The script without the steps that the failure does not need."""

    def fails(shorter: Sequence[Step]) -> bool:
        other = play(mutant, seed, shorter)
        return other is not None and other.requirement == failure.requirement

    return smallest(steps, shortest, fails)


def main() -> int:
    """Prints the table. The exit status is 1 if the fuzzer missed more than one mutant in ten."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slugs", nargs="*", metavar="SLUG")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each (default 60)")
    parser.add_argument("--in-process", action="store_true")
    parser.add_argument("--breaks", nargs="+", choices=list(CATEGORIES), metavar="WHAT", help=", ".join(CATEGORIES))
    args = parser.parse_args()
    find = in_process if args.in_process else over_sockets
    slugs = args.slugs or [slug for slug in SERVERS if category(SERVERS[slug]) in (args.breaks or CATEGORIES)]
    missed = []
    took: dict[str, list[float]] = {}
    for slug in slugs:
        row = find(SERVERS[slug], args.seconds)
        took.setdefault(category(SERVERS[slug]), []).append(row.seconds if row else inf)
        if row is None:
            missed.append(slug)
            print(f"   not in {args.seconds:g} s        {slug} ({', '.join(SERVERS[slug].breaks)})", flush=True)
            continue
        flaky = "" if row.repeats else " FLAKY"
        print(f"{row.seconds:6.2f} s {len(row.steps):3} steps {row.requirement:14}{flaky} {slug}", flush=True)
    _print_totals(took)
    print(f"{len(slugs) - len(missed)} of {len(slugs)} found within {args.seconds:g} s each")
    return int(len(missed) > len(slugs) // 10)


def _print_totals(took: dict[str, list[float]]) -> None:
    """How many mutants of each category were found, and after how many seconds."""
    print("\n| breaks | found | median, s | longest, s |\n|---|---|---|---|")
    for kind, times in sorted(took.items()):
        found = [seconds for seconds in times if seconds < inf]
        middle, longest = (f"{median(found):.2f}", f"{max(found):.1f}") if found else ("", "")
        print(f"| {kind} | {len(found)} of {len(times)} | {middle} | {longest} |")


if __name__ == "__main__":
    sys.exit(main())
