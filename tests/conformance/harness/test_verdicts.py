"""Verdicts of cases that are repeated."""

from dataclasses import replace

from conformance.harness.verdicts import Verdict, combine
from tests.support.suite import OPTIONS, run_at_small_server, select


def test_results_that_differ() -> None:
    [result] = run_at_small_server("", select("server/7.13/ok"), replace(OPTIONS, repeat=3))
    assert result.verdict is Verdict.PASS
    failed = replace(result, verdict=Verdict.FAIL, expected="this", got="that")
    flaky = combine([result, failed, result])
    assert (flaky.verdict, flaky.reason, flaky.got) == (Verdict.FLAKY, "2 PASS, 1 FAIL of 3", "that")
    assert combine([failed, failed]).verdict is Verdict.FAIL
