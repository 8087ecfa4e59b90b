"""The verdicts on a case, and how a case reports its end.

A case that returns has passed. Every other end is an exception of this module. Any other exception is a fault of the
suite, never of the target.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from conformance.wire.log import Entry


class Verdict(StrEnum):
    """The outcome of one case."""

    PASS = "PASS"
    FAIL = "FAIL"  # a MUST was broken
    WARN = "WARN"  # a SHOULD was broken
    INFO = "INFO"  # nothing was required, or the situation did not come about
    UNSUPPORTED = "UNSUPPORTED"  # the target declares that it does not offer this
    INCONCLUSIVE = "INCONCLUSIVE"  # the control failed, so the case never reached what it is about
    CRASH = "CRASH"  # the target died
    HARNESS_ERROR = "HARNESS_ERROR"  # the suite is wrong
    XFAIL = "XFAIL"  # failed, as the baseline says
    XPASS = "XPASS"  # passed, though the baseline says that it fails
    FLAKY = "FLAKY"  # repeated, with different verdicts


ACCEPTED = frozenset({Verdict.PASS, Verdict.WARN, Verdict.INFO, Verdict.UNSUPPORTED, Verdict.XFAIL})
"""The verdicts that a conforming run may have."""


class CaseEnd(Exception):
    """An end of a case other than success."""


class Failed(CaseEnd):
    """The target broke a requirement.

    `requirement` is its id; "" stands for the first one of the case. `passive` is set if the invariants noticed it, and
    not an assertion of the case. `step` is the id of the case that tries for itself the step that failed, or "".
    """

    def __init__(self, expected: str, got: str, requirement: str = "", *, passive: bool = False) -> None:
        super().__init__(f"expected {expected}, got {got}")
        self.expected = expected
        self.got = got
        self.requirement = requirement
        self.passive = passive
        self.step = ""


class Undeclared(Failed):
    """The target leaves out what it may leave out, and was not declared to: FAIL, though `requirement` is a MAY."""


class ContractBroken(Failed):
    """A program under test does not keep the contract of CONTRACT.md, so nothing more can be said about it."""


class Inconclusive(CaseEnd):
    """The control failed, so nothing can be said about the requirement.

    `failure` is what failed, if anything did, and `step` the id of the case that tries this step for itself, or "".
    """

    def __init__(self, reason: str, failure: Failed | None = None, step: str = "") -> None:
        super().__init__(reason)
        self.failure = failure
        self.step = step


class Informative(CaseEnd):
    """There is nothing to judge: the document leaves it open, or the situation did not come about."""


class Unsupported(CaseEnd):
    """The target declares, on the wire or by an option, that it does not offer this."""


class Crashed(CaseEnd):
    """The target died or refuses connections."""


class HarnessFault(CaseEnd):
    """The suite itself did something wrong."""


@contextlib.asynccontextmanager
async def control(what: str, step: str = "") -> AsyncIterator[None]:
    """Wraps steps that lead up to what a case is about, so that their failure is Inconclusive.

    `step` is the id of the case that tries these steps for itself. A breach of the invariants or of the contract stays
    what it is.
    """
    try:
        yield
    except Failed as failure:
        if failure.passive or type(failure) is not Failed:
            raise
        raise Inconclusive(f"the control failed, {what}: {failure}", failure, failure.step or step) from None


@contextlib.contextmanager
def usual(step: str) -> Iterator[None]:
    """Wraps a usual step, which may be part of an assertion; `step` is the id of the case that tries it for itself.

    If that case fails too, then it explains the failure of this one, which becomes inconclusive.
    """
    try:
        yield
    except Failed as failure:
        if type(failure) is Failed and not failure.passive and not failure.step:
            failure.step = step
        raise


def own_failure(id: str, end: BaseException | None) -> BaseException | None:
    """How a case ended: a control that fails is a failure in the one case that tries this step for itself."""
    return end.failure if isinstance(end, Inconclusive) and end.failure and end.step == id else end


def require(holds: bool, expected: str, got: object, requirement: str = "") -> None:
    """Raises Failed unless it holds."""
    if not holds:
        raise Failed(expected, str(got), requirement)


@dataclass(frozen=True, slots=True)
class Result:
    """One case with its verdict, as reports take it. `seconds` is the time that it took.

    `step` is the id of the case that tries for itself the step that failed, if that was a usual one. `wire` are lines
    for people unless the case passed; `trace` are the newest entries of its log.
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
    step: str = ""
    wire: tuple[str, ...] = ()
    trace: tuple[Entry, ...] = ()
    stderr: str = ""
    command: str = ""
    replay: str = ""


def combine(results: Sequence[Result]) -> Result:
    """The result of a case that was run once or several times: FLAKY if the verdicts differ."""
    counts = Counter(result.verdict for result in results)
    if len(counts) == 1:
        return results[-1]
    worst = next((result for result in results if result.verdict not in ACCEPTED), results[-1])
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    reason = f"{said} of {len(results)}" + (f"; {worst.reason}" if worst.reason else "")
    return replace(worst, verdict=Verdict.FLAKY, reason=reason)
