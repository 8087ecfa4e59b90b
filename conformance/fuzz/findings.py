"""What a fuzzer has found, and how it is shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.fuzz.endpoint import wire_lines
from conformance.fuzz.refusals import Failure
from conformance.spec import load


@dataclass(frozen=True)
class Found:
    """A failure with its script, which is as short as could be made of it. `repeats`: it fails each time."""

    failure: Failure
    steps: Sequence[Any]  # of `steps.Step` or `client_steps.ClientStep`
    seed: int
    repeats: bool
    seconds: float
    limits: Mapping[str, int]


def say_failure(found: Found, say: Callable[[str], None]) -> None:
    """Shows it, a line at a time."""
    failure = found.failure
    requirement = load().requirements.get(failure.requirement)
    flaky = "" if found.repeats else " (FLAKY: it did not fail again in the same way)"
    say(f"FAIL {failure.requirement or 'CRASH'}{flaky}")
    if requirement:
        say(f"  {requirement.text}")
    say(f"  expected {failure.expected}")
    say(f"  got      {failure.got}")
    say(f"  {len(found.steps)} steps, seed {found.seed}, found after {found.seconds:.1f} s:")
    for step in found.steps:
        say(f"    {str(step.to_json())[:400]}")
    log = list(failure.log)
    say(f"  last of {len(log)} writes on the wire:")
    for line in wire_lines(log, 40 if found.repeats else len(log)):
        say(f"    {line[:400]}")
