"""Turns how a case ended into a verdict."""

import shlex
import traceback
from collections.abc import Callable

from conformance.harness.case import Case
from conformance.harness.options import Options
from conformance.harness.verdicts import (
    CaseEnd,
    Crashed,
    Failed,
    HarnessFault,
    Inconclusive,
    Informative,
    Result,
    Unsupported,
    Verdict,
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
"""Verdicts of which a replay file is written."""

Report = Callable[[Result], Result]


def judge(case: Case, spec: Spec, end: BaseException | None, seconds: float, log: WireLog, options: Options) -> Result:
    """The result of a case that ended so; None stands for success."""
    verdict = Verdict.PASS
    requirement = expected = got = reason = ""
    match end:
        case None:
            pass
        case Failed():
            requirement = end.requirement or case.requirements[0]
            level = spec.requirements[requirement].level
            verdict = {"SHOULD": Verdict.WARN, "SHOULD NOT": Verdict.WARN, "MAY": Verdict.INFO}.get(level, Verdict.FAIL)
            expected, got = end.expected, end.got
            reason = "seen while the case did something else" if end.passive else ""
        case CaseEnd():
            verdict = next(verdict for kind, verdict in _ENDS.items() if isinstance(end, kind))
            reason = str(end)
        case _:
            verdict = Verdict.HARNESS_ERROR
            reason = "".join(traceback.format_exception(end))
    requirement = requirement or case.requirements[0]
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
        expected=expected,
        got=got,
        reason=reason,
        wire=() if verdict is Verdict.PASS else log.render(),
        trace=log.newest(),
        command=shlex.join((*options.command, case.id)),
    )


def in_time(options: Options, seconds: float) -> None:
    """Raises Inconclusive if a case would begin so many seconds into a run, and that is too late."""
    if options.max_time and seconds > options.max_time:
        raise Inconclusive(f"not tried: the {options.max_time:g} s of this run were over")
