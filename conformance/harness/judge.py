"""What the runners of all roles share: how a case ended, the verdict on it, and the results of a run."""

import asyncio
import shlex
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from conformance.harness.case import Case
from conformance.harness.options import Options
from conformance.harness.verdicts import (
    ACCEPTED,
    CaseEnd,
    Crashed,
    Failed,
    HarnessFault,
    Inconclusive,
    Informative,
    Result,
    Undeclared,
    Unsupported,
    Verdict,
    combine,
    own_failure,
)
from conformance.spec.tables import Spec
from conformance.wire.log import WireLog

_ENDS: dict[type[CaseEnd], Verdict] = {
    Inconclusive: Verdict.INCONCLUSIVE,
    Informative: Verdict.INFO,
    Unsupported: Verdict.UNSUPPORTED,
    Crashed: Verdict.CRASH,
    HarnessFault: Verdict.HARNESS_ERROR,
}
RECORDED = frozenset({Verdict.FAIL, Verdict.WARN, Verdict.CRASH, Verdict.INCONCLUSIVE})
"""Verdicts for which a replay file is written."""

OnResult = Callable[[Result], Result]
"""Is told of each result of a run as it comes, and returns it as it counts."""

RunOne = Callable[[Case], Awaitable[Result]]
"""Runs one case, for what runs cases one by one."""


_EXPLAINS = frozenset({Verdict.FAIL, Verdict.CRASH})
"""The verdicts on a case by which it explains that others did not get past the step that it tries."""


class Results:
    """The results of a run. `enough` is set once there are as many failures as the run allows.

    A result whose usual step failed is told of once the case that tries this step for itself has ended.
    """

    def __init__(self, options: Options, on_result: OnResult) -> None:
        self.enough = asyncio.Event()
        self._most = options.max_failures
        self._on_result = on_result
        self._results: list[Result] = []
        self._failures = 0
        self._foreseen = 0
        self._verdicts: dict[str, Verdict] = {}
        self._waiting: list[Result] = []

    def add(self, tries: Sequence[Result]) -> None:
        """Adds the result of a case, which was tried once or several times."""
        result = combine(tries)
        self._verdicts[result.id] = result.verdict
        ready = [waiting for waiting in self._waiting if waiting.step == result.id]
        self._waiting = [waiting for waiting in self._waiting if waiting.step != result.id]
        if not result.step or result.step in self._verdicts:
            ready.insert(0, result)
        else:
            self._waiting.append(result)
        for item in ready:
            self._tell(item)
        self._count()

    def foresee(self, failures: int) -> None:
        """Counts so many failures whose cases are not known yet."""
        self._foreseen = failures
        self._count()

    def _count(self) -> None:
        if self._most and self._failures + len(self._waiting) + self._foreseen >= self._most:
            self.enough.set()

    def settle(self) -> None:
        """Tells of the results that still wait, because the run ends."""
        waiting, self._waiting = self._waiting, []
        for result in waiting:
            self._tell(result)

    def _tell(self, result: Result) -> None:
        told = self._on_result(explained(result, self._verdicts.get(result.step)))
        self._results.append(told)
        self._failures += told.verdict not in ACCEPTED

    def in_order(self, cases: Sequence[Case]) -> list[Result]:
        """All results in the order of the cases."""
        order = {case.id: at for at, case in enumerate(cases)}
        return sorted(self._results, key=lambda result: order[result.id])


def explained(result: Result, step: Verdict | None) -> Result:
    """The result by the verdict on the case that tries the failed step for itself; None if that was not run."""
    if not result.step or result.step == result.id or result.verdict not in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        return result
    if step in _EXPLAINS:
        why = f"{result.step}, which tries this step for itself, ended with {step}: see there"
        if result.verdict is Verdict.FAIL:
            why = f"the control failed: expected {result.expected}, got {result.got}; {why}"
            return replace(result, verdict=Verdict.INCONCLUSIVE, expected="", got="", reason=why)
    elif result.verdict is Verdict.FAIL:
        return result
    elif step is None:
        why = f"{result.step} tries this step for itself, and was not run"
    else:
        why = f"{result.step}, which tries this step for itself, ended with {step}"
    return replace(result, reason=f"{result.reason}; {why}")


def _unmoved(bound: asyncio.Timeout) -> None:
    """Leaves the bound where it is."""


async def ended(
    steps: Awaitable[None], within: float | None = None, bounded: Callable[[asyncio.Timeout], None] = _unmoved
) -> Exception | None:
    """Takes the steps of a case and returns how it ended, None for success; `within` is in seconds.

    `bounded` is given what ends the case then, so that the case can move it.
    """
    try:
        async with asyncio.timeout(within) as bound:
            bounded(bound)
            await steps
    except TimeoutError:
        return Inconclusive(f"the case did not end within {within:g} s" if within else "the case ran out of time")
    except Exception as exception:
        return exception
    return None


def in_time(options: Options, seconds: float) -> None:
    """Raises Inconclusive for a case that would begin too late, so many seconds into a run."""
    if options.max_time and seconds > options.max_time:
        raise Inconclusive(f"not tried: the {options.max_time:g} s of this run were over")


def judge(case: Case, spec: Spec, end: BaseException | None, seconds: float, log: WireLog, options: Options) -> Result:
    """The result of a case that ended so after so many seconds; None stands for success."""
    end = own_failure(case.id, end)
    verdict, failure, reason = _verdict(case, spec, end)
    requirement = _blamed(case, spec, failure)
    step = end.step if isinstance(end, Failed | Inconclusive) else ""
    return Result(
        id=case.id,
        section=case.section,
        requirements=case.requirements,
        level=case.level(spec),
        summary=case.summary,
        verdict=verdict,
        seconds=round(seconds, 3),
        requirement=requirement,
        sentence=spec.requirements[requirement].text,
        expected=failure.expected,
        got=failure.got,
        reason=reason,
        step="" if step == case.id else step,
        wire=() if verdict is Verdict.PASS else log.render(),
        trace=log.newest(),
        command=shlex.join((*options.command, case.id)),
    )


def _blamed(case: Case, spec: Spec, failure: Failed) -> str:
    """The requirement that a failure is about: that of the case, and not that of a usual step which it does not cite.

    Only a case that obliges to nothing leaves the blame with the step.
    """
    if failure.step and failure.requirement not in case.requirements and case.level(spec).startswith("MUST"):
        return case.requirements[0]
    return failure.requirement or case.requirements[0]


def _verdict(case: Case, spec: Spec, end: BaseException | None) -> tuple[Verdict, Failed, str]:
    """The verdict, what failed if anything did, and a reason in words."""
    nothing = Failed("", "")
    match end:
        case None:
            return Verdict.PASS, nothing, ""
        case Failed():
            level = spec.requirements[_blamed(case, spec, end)].level
            verdict = {"SHOULD": Verdict.WARN, "SHOULD NOT": Verdict.WARN, "MAY": Verdict.INFO}.get(level, Verdict.FAIL)
            if isinstance(end, Undeclared):
                verdict = Verdict.FAIL
            return verdict, end, "seen while the case did something else" if end.passive else ""
        case CaseEnd():
            return next(verdict for kind, verdict in _ENDS.items() if isinstance(end, kind)), nothing, str(end)
        case _:
            return Verdict.HARNESS_ERROR, nothing, "".join(traceback.format_exception(end))
