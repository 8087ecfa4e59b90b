"""What a run says on a terminal: each failure once, by cause, and the verdict last."""

import io
import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from conformance.harness.verdicts import Verdict
from conformance.report.results import Summary
from conformance.report.terminal import Progress, Reporter
from tests.support.reports import EVERY, HOSTILE, results, unsafe


def _told(verdicts: list[Verdict], **said: Any) -> Summary:
    """A run with these verdicts, whose results have the texts of `said`."""
    found = [replace(result, wire=(), stderr="", **said) for result in results(verdicts)]
    return Summary("server", "./target", found, status=1, selected=len(found))


def _text(summary: Summary, *, verbose: bool = False, quiet: bool = False) -> list[str]:
    out = io.StringIO()
    reporter = Reporter("human", summary.selected, verbose=verbose, quiet=quiet, out=out)
    for result in summary.results:
        reporter.result(result)
    reporter.end(summary)
    return out.getvalue().splitlines()


def test_each_failure_once() -> None:
    summary = _told([*EVERY, *EVERY], requirement="RW-JOIN-1", expected="OK", got="nothing within 2 s", reason="")
    words = Counter(word.rstrip(":") for line in _text(summary) for word in line.split() if "again:" not in line)
    shown = {Verdict.FAIL, Verdict.WARN, Verdict.CRASH, Verdict.INCONCLUSIVE, Verdict.FLAKY, Verdict.XPASS}
    for result in summary.results:
        if result.verdict in shown:
            assert words[result.id] == 1, result
        elif result.verdict in (Verdict.PASS, Verdict.UNSUPPORTED, Verdict.INFO):
            assert words[result.id] == 0, result


def test_first_in_full_and_others_by_name() -> None:
    summary = _told([Verdict.FAIL] * 4, requirement="RW-JOIN-1", expected="OK", got="nothing within 2 s", reason="")
    other = replace(summary.results[2], got="ERROR(FORBIDDEN)")
    lines = _text(replace(summary, results=[*summary.results[:2], other, summary.results[3]]))
    heads = [line for line in lines if line.startswith("-- cause")]
    assert [head.strip("- ") for head in heads] == ["cause 1 of 2: 3 cases", "cause 2 of 2: 1 case"]
    assert sum("  expected OK" in line for line in lines) == 2
    at = lines.index("  and 2 more cases with this cause:")
    assert lines[at + 1].split() == [summary.results[1].id, summary.results[3].id]
    assert lines[-1] == "./target does not pass: 4 FAIL"


def test_one_line_for_a_reason() -> None:
    summary = _told([Verdict.UNSUPPORTED] * 5, expected="", got="", reason="no TLS")
    assert _text(summary)[0] == "UNSUPPORTED   5 cases: no TLS"
    assert not any(summary.results[0].id in line for line in _text(summary))
    assert any(summary.results[0].id in line for line in _text(summary, verbose=True))


def test_failures_next_to_the_verdict() -> None:
    lines = _text(_told([Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.WARN], expected="", got="", reason="so"))
    order = [line.split()[0] for line in lines if line.split(" ")[0] in list(Verdict)]
    assert order == ["WARN", "INCONCLUSIVE", "FAIL"]


def test_quiet() -> None:
    summary = _told([Verdict.PASS, Verdict.UNSUPPORTED] + [Verdict.FAIL] * 3, expected="OK", got="nothing", reason="")
    found = [replace(result, requirement="RW-JOIN-1") for result in summary.results]
    line, verdict = _text(replace(summary, results=found), quiet=True)
    assert line == f"FAIL          {found[2].id} and 2 more: RW-JOIN-1: expected OK, got nothing"
    assert verdict == "./target does not pass: 1 PASS, 3 FAIL, 1 UNSUPPORTED"


@pytest.mark.parametrize("quiet", [False, True])
def test_hostile_target(quiet: bool) -> None:
    summary = Summary("server", HOSTILE, results(EVERY), status=1, error=HOSTILE, stale=[HOSTILE])
    assert unsafe("\n".join(_text(summary, verbose=not quiet, quiet=quiet))) == set()


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line removes what is left of the one before, and the last removes the line."""
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    progress = Progress(2)
    for result in results([Verdict.PASS, Verdict.FAIL]):
        progress.result(result)
    progress.end()
    empty, *lines = terminal.getvalue().split("\r")
    assert empty == ""
    assert all(line.endswith("\x1b[K") and len(line) <= 29 + len("\x1b[K") for line in lines)
    assert lines[1].startswith("2/2  1 failed  server/")
    assert lines[-1] == "\x1b[K"


@pytest.mark.parametrize(("quiet", "term"), [(True, "xterm"), (False, "dumb")])
def test_no_progress(quiet: bool, term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := _Terminal())
    monkeypatch.setenv("TERM", term)
    progress = Progress(1, quiet=quiet)
    progress.result(results([Verdict.PASS])[0])
    progress.end()
    assert terminal.getvalue() == ""
