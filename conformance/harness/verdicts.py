"""What can come of a case, and how a case says so.

A case that returns has passed. Every other end is an exception from here; what escapes besides is a fault of
the suite, never of the peer.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from conformance.wire.log import Entry


class Verdict(StrEnum):
    """The outcome of one case."""

    PASS = "PASS"
    FAIL = "FAIL"  # a MUST was broken
    WARN = "WARN"  # a SHOULD was broken
    INFO = "INFO"  # nothing was required, or the situation could not be brought about
    UNSUPPORTED = "UNSUPPORTED"  # the target has declared that it does not offer this
    INCONCLUSIVE = "INCONCLUSIVE"  # the control failed: what the case is about was never reached
    CRASH = "CRASH"  # the target died
    HARNESS_ERROR = "HARNESS_ERROR"  # the suite is wrong
    XFAIL = "XFAIL"  # failed, as the baseline says
    XPASS = "XPASS"  # passed, though the baseline says that it fails
    FLAKY = "FLAKY"  # repeated, and did not end the same each time


ACCEPTED = frozenset({Verdict.PASS, Verdict.WARN, Verdict.INFO, Verdict.UNSUPPORTED, Verdict.XFAIL})
"""Verdicts with which a run still conforms."""


class CaseEnd(Exception):
    """Base of the ends of a case other than success."""


class Failed(CaseEnd):
    """The peer broke a requirement.

    `requirement` is its id, "" standing for the first one of the case. `passive` is set where not the case's
    own assertion failed but the watch over all that a peer sends.
    """

    def __init__(self, expected: str, got: str, requirement: str = "", *, passive: bool = False) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected = expected
        self.got = got
        self.requirement = requirement
        self.passive = passive


class ContractBroken(Failed):
    """A program under test does not keep the contract of CONTRACT.md, so nothing more can be said about it."""


class Inconclusive(CaseEnd):
    """The control failed, so that nothing can be said about the requirement."""


class Informative(CaseEnd):
    """Nothing to judge: the document leaves it open, or the situation did not come about."""


class Unsupported(CaseEnd):
    """The target has declared, on the wire or by an option, that it does not offer this."""


class Crashed(CaseEnd):
    """The target died, or refuses connections."""


class HarnessFault(CaseEnd):
    """The suite itself did something wrong."""


@dataclass(frozen=True, slots=True)
class Result:
    """One case with its verdict, ready to be reported. `seconds` is the time it took.

    `wire` are lines for people, of cases that did not pass; `trace` are the newest of all that went over the wire.
    """

    id: str
    section: str
    requirements: tuple[str, ...]
    level: str
    summary: str
    verdict: Verdict
    seconds: float
    requirement: str = ""
    sentence: str = ""
    expected: str = ""
    got: str = ""
    reason: str = ""
    wire: tuple[str, ...] = ()
    trace: tuple[Entry, ...] = ()
    stderr: str = ""
    command: str = ""
    replay: str = ""


def combine(results: Sequence[Result]) -> Result:
    """One result for a case that was run several times: FLAKY if its verdicts differ."""
    counts = Counter(result.verdict for result in results)
    if len(counts) == 1:
        return results[-1]
    worst = next((result for result in results if result.verdict not in ACCEPTED), results[-1])
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    reason = f"{said} of {len(results)}" + (f"; {worst.reason}" if worst.reason else "")
    return replace(worst, verdict=Verdict.FLAKY, reason=reason)
