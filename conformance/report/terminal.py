"""Results on standard output, for people and for programs. What a peer sent is escaped for people."""

import json
import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

from conformance.harness.verdicts import ACCEPTED, Result, Verdict
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


class Reporter:
    """Writes results to `out` in one of FORMATS, and progress to standard error if that is a terminal."""

    def __init__(self, format: str, total: int, *, verbose: bool = False, out: TextIO | None = None) -> None:
        self._format = format
        self._total = total
        self._done = 0
        self._verbose = verbose
        self._out = out or sys.stdout
        self._console = Console(file=self._out, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._progress = Console(stderr=True, highlight=False, markup=False)

    def result(self, result: Result) -> None:
        """Reports a case that has ended."""
        self._done += 1
        if self._progress.is_terminal:
            self._progress.print(f"{self._done}/{self._total} {result.id}", end="\r", overflow="crop", no_wrap=True)
        if self._format == "ndjson":
            self._out.write(json.dumps({"type": "result", **as_json(result)}) + "\n")
            self._out.flush()

    def end(self, summary: Summary) -> None:
        """Reports the end of the run: for people the cases, the failures, then the summary."""
        if self._progress.is_terminal:
            self._progress.control()
            self._progress.print(" " * (self._progress.width - 1), end="\r")
        if self._format == "ndjson":
            self._out.write(json.dumps({"type": "summary", **summary.as_json()}) + "\n")
        elif self._format == "json":
            document = {**summary.as_json(), "results": [as_json(result) for result in summary.results]}
            self._out.write(json.dumps(document, indent=1) + "\n")
        else:
            self._human(summary)
        self._out.flush()

    def _human(self, summary: Summary) -> None:
        for result in summary.results:
            if self._verbose or result.verdict is not Verdict.PASS:
                self._line(result)
        for result in summary.results:
            if result.verdict not in ACCEPTED or result.verdict is Verdict.WARN:
                self._failure(result)
        if summary.results:
            self._console.print()
        for name in summary.stale:
            self._console.print(Text(f"stale baseline entry: {escape(name)}", "bold red"))
        if summary.error:
            self._console.print(Text(escape(summary.error), "bold red"))
        counts = ", ".join(f"{summary.counts[v.value]} {v}" for v in Verdict if summary.counts[v.value])
        verdict = "conforms, as far as tested" if not summary.status else "does not pass"
        seed = "" if summary.seed is None else f" (seed {summary.seed})"
        line = f"{summary.target} {verdict}: {counts or 'nothing was run'}{seed}"
        self._console.print(Text(escape(line), "bold red" if summary.status else "bold green"))

    def _line(self, result: Result) -> None:
        line = Text()
        line.append(f"{result.verdict:13}", _STYLES[result.verdict])
        line.append(f" {result.id}")
        if result.verdict in (Verdict.INFO, Verdict.UNSUPPORTED, Verdict.XFAIL, Verdict.XPASS):
            line.append(f"  {escape(result.reason)}", "dim")
        self._console.print(line)

    def _failure(self, result: Result) -> None:
        self._console.print()
        first, *others = failure_lines(result)
        verdict = str(result.verdict)
        self._console.print(Text.assemble((verdict, _STYLES[result.verdict]), first.removeprefix(verdict)))
        for line in others:
            self._console.print(line)


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
