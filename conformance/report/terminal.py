"""Results on standard output, for people and for programs. What a peer sent is escaped for people."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from textwrap import fill
from typing import TextIO

from rich.console import Console
from rich.text import Text

from conformance.harness.verdicts import ACCEPTED, Result, Verdict
from conformance.report.causes import FOLDED, Account, by_cause
from conformance.report.profile import headline
from conformance.report.results import Summary, as_json
from conformance.wire.text import escape

FORMATS = ("human", "json", "ndjson")

_STYLES = {
    Verdict.PASS: "green",
    Verdict.FAIL: "bold red",
    Verdict.WARN: "yellow",
    Verdict.INFO: "cyan",
    Verdict.UNSUPPORTED: "dim",
    Verdict.INCONCLUSIVE: "magenta",
    Verdict.CRASH: "bold red",
    Verdict.HARNESS_ERROR: "bold white on red",
    Verdict.XFAIL: "dim yellow",
    Verdict.XPASS: "bold red",
    Verdict.FLAKY: "bold magenta",
}
_WIDTH = 118  # of lines of names


class Progress:
    """One line on standard error that shows how far a run is, if that is a terminal."""

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self._shown = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._total = total
        self._done = 0
        self._failed = 0

    def result(self, result: Result) -> None:
        """Shows that a case has ended."""
        self._done += 1
        self._failed += result.verdict not in ACCEPTED
        failed = f"  {self._failed} failed" if self._failed else ""
        self._write(f"{self._done}/{self._total}{failed}  {result.id}")

    def end(self) -> None:
        """Removes the line."""
        self._write("")

    def _write(self, line: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K")
            sys.stderr.flush()


class Reporter:
    """Writes results to `out` in one of FORMATS, and progress to standard error if that is a terminal.

    For people it lists the passed cases if it is `verbose`, and one line for each cause if it is `quiet`.
    """

    def __init__(
        self, format: str, total: int, *, verbose: bool = False, quiet: bool = False, out: TextIO | None = None
    ) -> None:
        self._format = format
        self._verbose = verbose
        self._quiet = quiet
        self._out = out or sys.stdout
        self._console = Console(file=self._out, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._progress = Progress(total, quiet=quiet)

    def result(self, result: Result) -> None:
        """Reports a case that has ended."""
        self._progress.result(result)
        if self._format == "ndjson":
            self._out.write(json.dumps({"type": "result", **as_json(result)}) + "\n")
            self._out.flush()

    def end(self, summary: Summary) -> None:
        """Reports the end of the run: for people what passed, what is folded, the failures, then the verdict."""
        self._progress.end()
        if self._format == "ndjson":
            self._out.write(json.dumps({"type": "summary", **summary.as_json()}) + "\n")
        elif self._format == "json":
            document = {**summary.as_json(), "results": [as_json(result) for result in summary.results]}
            self._out.write(json.dumps(document, indent=1) + "\n")
        else:
            self._human(summary)
        self._out.flush()

    def _human(self, summary: Summary) -> None:
        if self._verbose:
            for result in summary.results:
                if result.verdict is Verdict.PASS:
                    self._console.print(Text.assemble((f"{result.verdict:13}", "green"), f" {result.id}"))
        self._folded([result for result in summary.results if result.verdict in FOLDED])
        groups = by_cause(_shown(summary.results), _account)
        for at, group in enumerate(groups):
            if self._quiet:
                self._console.print(Text(quiet_line(group), _STYLES[group[0].verdict]))
            else:
                self._group(group, f"cause {at + 1} of {len(groups)}")
        self._verdict(summary)

    def _folded(self, results: Sequence[Result]) -> None:
        """One line for each reason; with the ids below it for a verbose reporter."""
        if self._quiet:
            return
        groups = by_cause(results, lambda result: (result.verdict, "", "", "", result.reason))
        order = list(Verdict)
        for group in sorted(groups, key=lambda group: (order.index(group[0].verdict), -len(group))):
            line = Text(f"{group[0].verdict:13}", _STYLES[group[0].verdict])
            line.append(f" {_cases(len(group))}: {escape(_one_line(group[0].reason))}", "default")
            self._console.print(line)
            if self._verbose:
                self._console.print(Text(_names(group), "dim"))

    def _group(self, group: Sequence[Result], title: str) -> None:
        """The first case of a cause in full, and the others by name."""
        self._console.print()
        self._console.print(Text(f"-- {title}: {_cases(len(group))} ".ljust(72, "-"), "dim"))
        first, *others = failure_lines(group[0])
        verdict = str(group[0].verdict)
        self._console.print(Text.assemble((verdict, _STYLES[group[0].verdict]), first.removeprefix(verdict)))
        for line in others:
            self._console.print(line)
        if group[1:]:
            self._console.print(Text(f"  and {_cases(len(group) - 1, 'more case')} with this cause:", "bold"))
            self._console.print(_names(group[1:]))

    def _verdict(self, summary: Summary) -> None:
        if summary.results and not self._quiet:
            self._console.print()
        for name in summary.stale:
            self._console.print(Text(f"stale baseline entry: {escape(name)}", "bold red"))
        if summary.error:
            self._console.print(Text(escape(summary.error), "bold red"))
        counts = ", ".join(f"{summary.counts[v.value]} {v}" for v in Verdict if summary.counts[v.value])
        found = summary.profile
        verdict = headline(summary.status, found.as_json()) or "does not pass"
        seed = "" if summary.seed is None else f" (seed {summary.seed})"
        line = f"{summary.target} {verdict}: {counts or 'nothing was run'}{seed}"
        style = "bold red" if summary.status else "bold yellow" if found.partial else "bold green"
        if not summary.status and not found.partial and found.missing:
            self._console.print(Text(f"not shown: {', '.join(found.missing)}", "yellow"))
        self._console.print(Text(escape(line), style))


def _shown(results: Sequence[Result]) -> list[Result]:
    """The results that need an account: warnings first, what failed last, next to the verdict."""
    last = {Verdict.WARN: 0, Verdict.INCONCLUSIVE: 1}
    shown = [result for result in results if result.verdict not in ACCEPTED or result.verdict is Verdict.WARN]
    return sorted(shown, key=lambda result: last.get(result.verdict, 2))


def _account(result: Result) -> Account:
    return result.verdict, result.requirement, result.expected, result.got, result.reason


def _cases(count: int, what: str = "case") -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _one_line(text: str) -> str:
    return text.splitlines()[0] if text else "no reason given"


def _names(results: Iterable[Result]) -> str:
    """The ids, separated by spaces, so that they can be pasted behind a command."""
    names = " ".join(result.id for result in results)
    indent = "    "
    return fill(
        names, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def quiet_line(group: Sequence[Result]) -> str:
    """One line about a group of results with one cause. What a peer sent is escaped."""
    first = group[0]
    found = f"expected {first.expected}, got {first.got}" if first.expected else first.reason
    more = f" and {len(group) - 1} more" if group[1:] else ""
    return f"{first.verdict:13} {first.id}{more}: {first.requirement}: {escape(_one_line(found))}"


def failure_lines(result: Result) -> list[str]:
    """The account of a case that did not pass. What a peer sent is escaped."""
    lines = [f"{result.verdict} {result.id}: {result.summary}", f"  {result.requirement}: {result.sentence}"]
    if result.expected:
        lines += [f"  expected {escape(result.expected)}", f"  got      {escape(result.got)}"]
    lines += [f"  {escape(line)}" for line in result.reason.splitlines()]
    if result.wire:
        lines.append("  last frames (seconds, connection, -> sent, <- received):")
    lines += [f"    {escape(line)}" for line in result.wire]
    lines += [f"  stderr: {escape(line)}" for line in result.stderr.splitlines()[-15:]]
    lines.append(f"  again: {result.command}")
    if result.replay:
        lines.append(f"  or:    roomwire-check replay {escape(result.replay)}, with the target")
    return lines
