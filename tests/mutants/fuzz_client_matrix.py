"""How long `fuzz client` takes to find each client mutant, without being told which one it is.

    python -m tests.mutants.fuzz_client_matrix [--seconds 60] [SLUG ...]

The clients run in this process, and wait at most 50 ms before they connect again. A real client waits as long as
SPEC.md, 8.7, says, so its scripts take longer.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytest

from conformance.fuzz.client.fuzzer import ClientFuzz
from conformance.fuzz.options import Options
from conformance.harness.process import Unreachable
from reference_client.session import backoff
from tests.mutants.catalogue import CLIENTS
from tests.mutants.clients import ClientMutant
from tests.support.client_in_process import launch, run_to_the_end

ONLY_AT_CLIENTS = frozenset(
    {"SEQUENCE", "TLS_REQUIRED", "ABUSE", "UNAVAILABLE", "KICKED", "BANNED", "ROOM_CLOSED", "LOG_RESET"}
)
"""Codes that the reference server never sends, or that only clients send."""

ELSEWHERE = {
    "accounts and TLS": ("RW-SCRAM-", "RW-SASL-", "RW-TLS-", "RW-STOP-"),
    "times": ("RW-HEARTBEAT-", "RW-RECONNECT-", "RW-ID-1"),
}
"""What the scripts do not look for, and the cases do."""


@dataclass(frozen=True)
class Row:
    """What the fuzzer found of one mutant."""

    slug: str
    seconds: float
    requirement: str
    steps: int
    repeats: bool


def calm(patch: pytest.MonkeyPatch) -> None:
    """Makes the reference client in this process connect again soon, and to one address after the other.

    asyncio of Python 3.11 leaves sockets open when it is cancelled while it tries several addresses at once. A client
    in a process of its own is not cancelled.
    """

    async def create_connection(self: asyncio.BaseEventLoop, *given: Any, **values: Any) -> Any:
        values.pop("happy_eyeballs_delay", None)
        return await plain(self, *given, **values)

    plain = asyncio.BaseEventLoop.create_connection
    patch.setattr(asyncio.BaseEventLoop, "create_connection", create_connection)
    patch.setattr(backoff, "_FIRST_BOUND", 0.05)
    patch.setattr(backoff, "_LAST_BOUND", 0.05)


def find(
    mutant: ClientMutant | None,
    seconds: float,
    seed: int = 1,
    shrinking: float = 3.0,
    run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run,
) -> Row | None:
    """Fuzzes a mutant, or the client as it is, in an event loop of `run`; None if it found nothing in time."""
    slug = mutant.slug if mutant else "unchanged"
    with pytest.MonkeyPatch.context() as patch:
        calm(patch)
        if mutant:
            mutant.patch(patch)
        options = Options(seed=seed, max_time=seconds, timeout=2.0, shrinking=shrinking)
        fuzz = ClientFuzz(launch, options)
        began = time.monotonic()
        try:
            run(run_to_the_end(fuzz.fuzz()))
        except Unreachable as error:
            return Row(slug, time.monotonic() - began, f"{error}"[:60], 0, True)
    if not fuzz.found:
        return None
    found = fuzz.found[0]
    return Row(slug, found.seconds, found.failure.requirement, len(found.steps), found.repeats)


def kind(mutant: ClientMutant) -> str:
    """The kind of ELSEWHERE that a mutant belongs to, or ""."""
    return next((kind for kind, rules in ELSEWHERE.items() if mutant.breaks[0].startswith(rules)), "")


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slugs", nargs="*", metavar="SLUG")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each (default 60)")
    args = parser.parse_args()
    slugs = args.slugs or [slug for slug, mutant in CLIENTS.items() if not kind(mutant)]
    times = []
    for slug in slugs:
        row = find(CLIENTS[slug], args.seconds)
        if row is None:
            print(f"   not in {args.seconds:g} s        {slug}", flush=True)
            continue
        times.append(row.seconds)
        flaky = "" if row.repeats else " FLAKY"
        print(f"{row.seconds:6.2f} s {row.steps:3} steps {row.requirement:14}{flaky} {slug}", flush=True)
    print(f"{len(times)} of {len(slugs)} found within {args.seconds:g} s each, median {median(times or [0]):.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
