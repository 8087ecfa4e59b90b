"""What can come of a case, and how a case says so.

A case that returns has passed. Every other end is an exception from here; what escapes besides is a fault of
the suite, never of the peer.
"""

from dataclasses import dataclass
from enum import StrEnum


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
    """One case with its verdict, ready to be reported. `wire` are rendered lines, `seconds` the time it took."""

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
    stderr: str = ""
    command: str = ""
