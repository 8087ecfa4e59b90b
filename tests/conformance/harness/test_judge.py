"""How the end of a case becomes a verdict, and when a run has failed often enough."""

import asyncio

import pytest

from conformance.harness.judge import Results, ended, judge
from conformance.harness.options import Options
from conformance.harness.verdicts import (
    ContractBroken,
    Crashed,
    Failed,
    HarnessFault,
    Inconclusive,
    Informative,
    Result,
    Unsupported,
    Verdict,
)
from conformance.server.cases import server_cases
from conformance.spec.tables import load
from conformance.wire.log import WireLog

CASES = server_cases()
CASE = next(case for case in CASES if case.level(load()) == "MUST")
SHOULD = next(r.id for r in load().requirements.values() if r.level == "SHOULD")
MAY = next(r.id for r in load().requirements.values() if r.level == "MAY")


def _judged(end: BaseException | None, log: WireLog | None = None) -> Result:
    return judge(CASE, load(), end, 1.23456, log or WireLog(), Options(command=("roomwire-check", "server")))


@pytest.mark.parametrize(
    ("end", "verdict", "reason"),
    [
        (None, Verdict.PASS, ""),
        (Failed("a", "b"), Verdict.FAIL, ""),
        (Failed("a", "b", passive=True), Verdict.FAIL, "seen while the case did something else"),
        (Failed("a", "b", SHOULD), Verdict.WARN, ""),
        (Failed("a", "b", MAY), Verdict.INFO, ""),
        (ContractBroken("a", "b"), Verdict.FAIL, ""),
        (Inconclusive("why"), Verdict.INCONCLUSIVE, "why"),
        (Informative("why"), Verdict.INFO, "why"),
        (Unsupported("why"), Verdict.UNSUPPORTED, "why"),
        (Crashed("why"), Verdict.CRASH, "why"),
        (HarnessFault("why"), Verdict.HARNESS_ERROR, "why"),
    ],
)
def test_each_end_has_a_verdict(end: BaseException | None, verdict: Verdict, reason: str) -> None:
    result = _judged(end)
    assert (result.verdict, result.reason) == (verdict, reason)
    failed = isinstance(end, Failed)
    assert (result.expected, result.got) == (("a", "b") if failed else ("", ""))
    assert result.requirement == ((end.requirement if isinstance(end, Failed) else "") or CASE.requirements[0])
    assert result.sentence == load().requirements[result.requirement].text
    assert (result.seconds, result.command) == (1.235, f"roomwire-check server {CASE.id}")


def test_what_escapes_a_case_is_a_fault_of_the_suite() -> None:
    result = _judged(ZeroDivisionError("by the case"))
    assert result.verdict is Verdict.HARNESS_ERROR
    assert "ZeroDivisionError: by the case" in result.reason


def test_wire_is_shown_unless_the_case_passed() -> None:
    log = WireLog()
    log.event("A", "an event")
    assert (_judged(None, log).wire, len(_judged(None, log).trace)) == ((), 1)
    assert len(_judged(Crashed("why"), log).wire) == 1


def test_case_that_takes_too_long_is_inconclusive() -> None:
    end = asyncio.run(ended(asyncio.sleep(60), 0.01))
    assert isinstance(end, Inconclusive)
    assert "0.01 s" in str(end)
    assert asyncio.run(ended(asyncio.sleep(0))) is None


def test_run_has_enough_at_its_last_allowed_failure() -> None:
    seen: list[Result] = []

    def told(result: Result) -> Result:
        seen.append(result)
        return result

    results = Results(Options(max_failures=2), told)
    first, second, third = CASES[:3]
    ends = {second: None, third: Failed("a", "b"), first: Crashed("why")}
    for at, (case, end) in enumerate(ends.items()):
        assert results.enough.is_set() is (at > 2)
        results.add([judge(case, load(), end, 0.0, WireLog(), Options())])
    assert results.enough.is_set()
    assert [result.id for result in seen] == [second.id, third.id, first.id]
    assert [result.id for result in results.in_order(CASES)] == [first.id, second.id, third.id]
    assert not Results(Options(), told).enough.is_set()
