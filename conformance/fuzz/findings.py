"""What a fuzzer has found: how it is shown and written to files, and the end of a run."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from conformance.fuzz.failure import Failure, wire_lines
from conformance.fuzz.options import Options
from conformance.fuzz.progress import Progress
from conformance.fuzz.script_file import ScriptFile
from conformance.spec.tables import load


@dataclass(frozen=True)
class Found:
    """A failure and its script, which was made as short as possible. `repeats`: it fails each time."""

    failure: Failure
    steps: Sequence[Any]  # of `Step` or `ClientStep`
    seed: int
    repeats: bool
    seconds: float
    limits: Mapping[str, int]


def say_failure(found: Found, say: Callable[[str], None]) -> None:
    """Shows a finding, a line at a time."""
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


def conclude(role: str, found: Sequence[Found], ended: str, progress: Progress, options: Options, target: str) -> None:
    """Shows and writes what was found, and prints the summary. `ended` says why the run ended early, or is "".

    `target` holds the arguments that name the target when a file is replayed.
    """
    say = partial(print, file=sys.stderr if options.format == "json" else sys.stdout)
    for one in found:
        say_failure(one, say)
        if options.save:
            try:
                say(f"  again: roomwire-check replay {_write(role, one, options.save)} {target}")
            except OSError as error:
                say(f"  no replay file in {options.save}: {error.strerror or error}")
    outcome = f"{len(found)} failure{'s' if len(found) > 1 else ''} found" if found else "nothing found"
    progress.notes.append(f"seed {options.seed}: --seed {options.seed} repeats this run")
    progress.summary(outcome + (f" before {ended}" if ended else ""), options.format)


def _write(role: str, found: Found, directory: Path) -> Path:
    failure = found.failure
    path = directory / f"{failure.requirement or 'CRASH'}-{found.seed}.jsonl"
    said = (failure.requirement, failure.expected, failure.got)
    verdict = "FAIL" if found.repeats else "FLAKY"
    ScriptFile(role, found.seed, found.steps, *said, verdict, dict(found.limits)).write(path, failure.log)
    return path
