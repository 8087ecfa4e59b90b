"""One run of a role from selection to exit status."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from conformance.commands import last_failed
from conformance.harness import baseline
from conformance.harness.case import Case, check
from conformance.harness.exit_status import CONFORMS, FAILS, FAULT, INTERRUPTED, NOTHING, UNREACHABLE, USAGE, UsageError
from conformance.harness.judge import OnResult
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.selection import Selection, SelectionError
from conformance.harness.verdicts import ACCEPTED, Result, Verdict
from conformance.report import files
from conformance.report.results import About, Summary
from conformance.report.terminal import Reporter
from conformance.spec.tables import load

RunCases = Callable[[Sequence[Case], OnResult], Coroutine[None, None, None]]
"""Runs cases against the target and reports each result. Raises Unreachable or Unstartable."""


@dataclass(frozen=True)
class Run:
    """One run: its role, its target, its cases and what it writes. `format` is one of terminal.FORMATS.

    `only_failed` takes the cases that failed last, None neither reads nor keeps them.
    """

    role: str
    target: str
    selection: Selection
    format: str = "human"
    baseline_path: Path | None = None
    verbose: bool = False
    quiet: bool = False
    only_failed: bool | None = None
    report_dir: Path | None = None
    about: About = field(default_factory=About)

    def execute(self, cases: Iterable[Case], run_cases: RunCases) -> int:
        """Runs the selected ones of `cases`, reports them, and returns the exit status.

        Raises SelectionError, BaselineError or UsageError for wrong usage, and HarnessFault for a case that does not
        fit SPEC.md.
        """
        spec, known = load(), list(cases)
        if self.report_dir:
            files.prepare(self.report_dir)
        check(known, spec)
        selected = self._selected(known)
        expected = baseline.read(self.baseline_path) if self.baseline_path else {}
        reporter = Reporter(self.format, len(selected), verbose=self.verbose, quiet=self.quiet)
        results: list[Result] = []

        def report(result: Result) -> Result:
            judged = baseline.apply(result, expected)
            reporter.result(judged)
            results.append(judged)
            return judged

        error, interrupted = "", False
        try:
            if selected:
                error = _run_until_done(run_cases(selected, report))
        except KeyboardInterrupt:
            interrupted, error = True, f"interrupted after {len(results)} of {len(selected)} cases"
        order = {case.id: at for at, case in enumerate(selected)}
        results.sort(key=lambda result: order[result.id])
        mine = [name for name in expected if name.startswith(f"{self.role}/")]
        old, total = baseline.stale(mine, [case.id for case in known]), len(known)
        summary = Summary(self.role, self.target, results, old, error, 0, len(selected), total, self.about.seed)
        summary.status, summary.error = (INTERRUPTED, error) if interrupted else _status(summary)
        if self.only_failed is not None:
            last_failed.note(self.role, self.target, results)
        reporter.end(summary)
        return self._reported(summary)

    def _reported(self, summary: Summary) -> int:
        """Writes the report, if there is to be one, and returns the exit status: never 0 without the report."""
        try:
            if self.report_dir:
                files.write(summary, self.about, self.report_dir)
        except UsageError as error:
            print(f"roomwire-check: no report: {error}", file=sys.stderr)
            return summary.status or USAGE
        return summary.status

    def _selected(self, known: Sequence[Case]) -> list[Case]:
        """The selected cases; with `only_failed` those that failed last, or all if none is known to have failed."""
        selected = taken(self.selection, known)
        if self.only_failed:
            failed = last_failed.read(self.role, self.target)
            again = [case for case in selected if case.id in failed]
            if again:
                return again
            print("roomwire-check: no selected case is known to have failed, so all of them run", file=sys.stderr)
        return selected


def taken(selection: Selection, cases: Sequence[Case]) -> list[Case]:
    """The cases that are selected. If there are none, standard error says which names select nothing.

    Raises SelectionError if only some names select nothing.
    """
    selected = selection.of(cases, load())
    idle = selection.idle(cases, load())
    if selected and idle:
        raise SelectionError(f"{'; '.join(idle)} (no case was run, because the others alone might pass)")
    for line in idle:
        print(f"roomwire-check: {line}", file=sys.stderr)
    return selected


def _run_until_done(run: Coroutine[None, None, None]) -> str:
    """Runs all cases. Returns why the target could not be reached or started, or ""."""
    try:
        asyncio.run(run)
    except (Unreachable, Unstartable) as error:
        for line in getattr(error, "stderr", "").splitlines()[-15:]:
            print(f"stderr: {line}", file=sys.stderr)
        return str(error)
    return ""


def _status(summary: Summary) -> tuple[int, str]:
    """The exit status, and the error to report with it."""
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
        return NOTHING, "no selected case applies to the target"
    return CONFORMS, ""
