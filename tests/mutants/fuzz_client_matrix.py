"""How long `fuzz client` takes to find each broken client of the kill matrix, without being told which it is.

    python -m tests.mutants.fuzz_client_matrix [--seconds 60] [NAME ...]

The clients run in this process, and wait 50 ms at most before they connect again: a real one waits as SPEC.md, 8.7,
has it, and its scripts take so much longer.
"""

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytest

from conformance.fuzz.client.fuzzer import ClientFuzz
from conformance.fuzz.options import Options
from conformance.harness.process import Unreachable
from reference_client.session import backoff
from tests.mutants import client_accounts as broken_client_accounts
from tests.mutants.client_rooms import BROKEN
from tests.mutants.clients import Break
from tests.support.client_in_process import launch, run_to_the_end

DECLARED_IN = (broken_client_accounts,)
"""Modules that declare more broken clients when they are imported."""

ONLY_AT_CLIENTS = frozenset(
    {"SEQUENCE", "TLS_REQUIRED", "ABUSE", "UNAVAILABLE", "KICKED", "BANNED", "ROOM_CLOSED", "LOG_RESET"}
)
"""Codes that the reference server never sends, or that are a client's to send."""

BY_NAME = {broken.name: broken for broken in BROKEN}
ELSEWHERE = {
    "accounts and TLS": ("RW-SCRAM-", "RW-SASL-", "RW-TLS-", "RW-STOP-"),
    "times": ("RW-HEARTBEAT-", "RW-RECONNECT-", "RW-ID-1"),
}
"""What the scripts do not look for: the cases do."""


@dataclass(frozen=True)
class Row:
    """What came of one broken client."""

    name: str
    seconds: float
    requirement: str
    steps: int
    repeats: bool


def calm(patch: pytest.MonkeyPatch) -> None:
    """Has the reference client in this process come back soon, and connect to one address after the other.

    asyncio of Python 3.11 leaves sockets open when it is cancelled while it tries several at once; nobody cancels a
    client's process.
    """

    async def create_connection(self: asyncio.BaseEventLoop, *given: Any, **values: Any) -> Any:
        values.pop("happy_eyeballs_delay", None)
        return await plain(self, *given, **values)

    plain = asyncio.BaseEventLoop.create_connection
    patch.setattr(asyncio.BaseEventLoop, "create_connection", create_connection)
    patch.setattr(backoff, "_FIRST_BOUND", 0.05)
    patch.setattr(backoff, "_LAST_BOUND", 0.05)


def find(broken: Break | None, seconds: float, seed: int = 1, shrinking: float = 3.0) -> Row | None:
    """Fuzzes it, or the whole client; None if nothing was found in time."""
    with pytest.MonkeyPatch.context() as patch:
        calm(patch)
        if broken:
            broken.apply(patch)
        options = Options(seed=seed, max_time=seconds, timeout=2.0, shrinking=shrinking)
        fuzz = ClientFuzz(launch, options)
        began = time.monotonic()
        try:
            asyncio.run(run_to_the_end(fuzz.fuzz()))
        except Unreachable as error:
            return Row(broken.name if broken else "whole", time.monotonic() - began, f"{error}"[:60], 0, True)
    if not fuzz.found:
        return None
    found = fuzz.found[0]
    name = broken.name if broken else "whole"
    return Row(name, found.seconds, found.failure.requirement, len(found.steps), found.repeats)


def kind(name: str) -> str:
    """Which of ELSEWHERE it belongs to, or ""."""
    return next((kind for kind, rules in ELSEWHERE.items() if BY_NAME[name].requirement.startswith(rules)), "")


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each (default 60)")
    args = parser.parse_args()
    names = args.names or [name for name in BY_NAME if not kind(name)]
    times = []
    for name in names:
        row = find(BY_NAME[name], args.seconds)
        if row is None:
            print(f"   not in {args.seconds:g} s        {name}", flush=True)
            continue
        times.append(row.seconds)
        flaky = "" if row.repeats else " FLAKY"
        print(f"{row.seconds:6.2f} s {row.steps:3} steps {row.requirement:14}{flaky} {name}", flush=True)
    print(f"{len(times)} of {len(names)} found within {args.seconds:g} s each, median {median(times or [0]):.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
