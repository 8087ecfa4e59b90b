"""What the runners of all roles share: how a case ended, the verdict on it, and the results of a run."""

import asyncio
import shlex
import traceback
from collections.abc import Awaitable, Callable, Sequence

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
    Unsupported,
    Verdict,
    combine,
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


class Results:
    """The results of a run. `enough` is set once there are as many failures as the run allows."""

    def __init__(self, options: Options, on_result: OnResult) -> None:
        self.enough = asyncio.Event()
        self._most = options.max_failures
        self._on_result = on_result
        self._results: list[Result] = []
        self._failures = 0

    def add(self, tries: Sequence[Result]) -> None:
        """Adds the result of a case, which was tried once or several times."""
        result = self._on_result(combine(tries))
        self._results.append(result)
        self._failures += result.verdict not in ACCEPTED
        if self._most and self._failures >= self._most:
            self.enough.set()

    def in_order(self, cases: Sequence[Case]) -> list[Result]:
        """All results in the order of the cases."""
        order = {case.id: at for at, case in enumerate(cases)}
        return sorted(self._results, key=lambda result: order[result.id])


async def ended(steps: Awaitable[None], within: float | None = None) -> Exception | None:
    """Takes the steps of a case and returns how it ended, None for success; `within` is in seconds."""
    try:
        await asyncio.wait_for(steps, within)
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
    verdict, failure, reason = _verdict(case, spec, end)
    requirement = failure.requirement or case.requirements[0]
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
        wire=() if verdict is Verdict.PASS else log.render(),
        trace=log.newest(),
        command=shlex.join((*options.command, case.id)),
    )


def _verdict(case: Case, spec: Spec, end: BaseException | None) -> tuple[Verdict, Failed, str]:
    """The verdict, what failed if anything did, and a reason in words."""
    nothing = Failed("", "")
    match end:
        case None:
            return Verdict.PASS, nothing, ""
        case Failed():
            level = spec.requirements[end.requirement or case.requirements[0]].level
            verdict = {"SHOULD": Verdict.WARN, "SHOULD NOT": Verdict.WARN, "MAY": Verdict.INFO}.get(level, Verdict.FAIL)
            return verdict, end, "seen while the case did something else" if end.passive else ""
        case CaseEnd():
            return next(verdict for kind, verdict in _ENDS.items() if isinstance(end, kind)), nothing, str(end)
        case _:
            return Verdict.HARNESS_ERROR, nothing, "".join(traceback.format_exception(end))
