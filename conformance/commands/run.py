"""One run of a role from selection to exit status."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conformance.commands import reports as report_commands
from conformance.harness import baseline
from conformance.harness.case import Case, check
from conformance.harness.exit_status import CONFORMS, FAILS, FAULT, INTERRUPTED, NOTHING, UNREACHABLE
from conformance.harness.judge import Report
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.selection import Selection
from conformance.harness.verdicts import ACCEPTED, Result, Verdict
from conformance.report.results import About
from conformance.report.terminal import Reporter, Summary
from conformance.spec.tables import load

RunCases = Callable[[Sequence[Case], Report], Awaitable[None]]


@dataclass(frozen=True)
class Session:
    """What a run consists of. `format` is one of report.FORMATS; `baseline_path` and `report_dir` may be None."""

    role: str
    target: str
    selection: Selection
    format: str = "human"
    baseline_path: Path | None = None
    verbose: bool = False
    report_dir: Path | None = None
    about: About = field(default_factory=About)

    def run(self, cases: Iterable[Case], run: RunCases) -> int:
        """Runs what is selected of `cases`, reports it, and returns the exit status.

        Raises SelectionError, BaselineError and ValueError for wrong usage, HarnessFault for a wrong case.
        """
        spec, known = load(), list(cases)
        if self.report_dir:
            report_commands.prepare(self.report_dir)
        check(known, spec)
        selected = self.selection.of(known, spec)
        expected = baseline.read(self.baseline_path) if self.baseline_path else {}
        mine = [name for name in expected if name.startswith(f"{self.role}/")]
        reporter = Reporter(self.format, len(selected), verbose=self.verbose)
        results: list[Result] = []

        def report(result: Result) -> Result:
            judged = baseline.apply(result, expected)
            reporter.result(judged)
            results.append(judged)
            return judged

        error, interrupted = "", False
        if selected:
            try:
                asyncio.run(_awaited(run(selected, report)))
            except (Unreachable, Unstartable) as reason:
                error = str(reason)
                for line in getattr(reason, "stderr", "").splitlines()[-15:]:
                    print(f"stderr: {line}", file=sys.stderr)
            except KeyboardInterrupt:
                interrupted, error = True, f"interrupted after {len(results)} of {len(selected)} cases"
        order = {case.id: at for at, case in enumerate(selected)}
        results.sort(key=lambda result: order[result.id])
        old = baseline.stale(mine, [case.id for case in known])
        summary = Summary(self.role, self.target, results, old, error, selected=len(selected), seed=self.about.seed)
        summary.status, summary.error = (INTERRUPTED, error) if interrupted else _status(summary)
        reporter.end(summary)
        if self.report_dir:
            report_commands.write(summary, self.about, self.report_dir)
        return summary.status


async def _awaited(run: Awaitable[None]) -> None:
    await run


def _status(summary: Summary) -> tuple[int, str]:
    verdicts = {result.verdict for result in summary.results}
    if summary.error:
        return UNREACHABLE, summary.error
    if not summary.selected:
        return NOTHING, "no case was selected"
    if Verdict.HARNESS_ERROR in verdicts:
        return FAULT, ""
    if verdicts - ACCEPTED or summary.stale:
        return FAILS, ""
    if not verdicts & {Verdict.PASS, Verdict.XFAIL, Verdict.WARN}:
        return NOTHING, "nothing of what was selected applies to the target"
    return CONFORMS, ""
