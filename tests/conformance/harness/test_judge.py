"""How the end of a case becomes a verdict, and when a run has failed often enough."""

import asyncio
import re
from dataclasses import replace

import pytest

from conformance.harness.judge import Results, ended, explained, judge
from conformance.harness.options import Options
from conformance.harness.verdicts import (
    ContractBroken,
    Crashed,
    Failed,
    HarnessFault,
    Inconclusive,
    Informative,
    Result,
    Undeclared,
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
        (Undeclared("a", "b", MAY), Verdict.FAIL, ""),
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


@pytest.mark.parametrize(
    ("verdict", "step", "judged", "reason"),
    [
        (Verdict.INCONCLUSIVE, None, Verdict.INCONCLUSIVE, "why; STEP tries this step for itself, and was not run"),
        (Verdict.INCONCLUSIVE, Verdict.PASS, Verdict.INCONCLUSIVE, "why; STEP, which tries .*, ended with PASS"),
        (Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.INCONCLUSIVE, "why; STEP, .*, ended with FAIL: see there"),
        (Verdict.FAIL, None, Verdict.FAIL, "why"),
        (Verdict.FAIL, Verdict.PASS, Verdict.FAIL, "why"),
        (Verdict.FAIL, Verdict.WARN, Verdict.FAIL, "why"),
        (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.FAIL, "why"),
        (
            Verdict.FAIL,
            Verdict.CRASH,
            Verdict.INCONCLUSIVE,
            "the control failed: expected a, got b; STEP, .* CRASH: .*",
        ),
        (Verdict.WARN, Verdict.FAIL, Verdict.WARN, "why"),
        (Verdict.FLAKY, Verdict.FAIL, Verdict.FLAKY, "why"),
    ],
)
def test_failed_step_and_its_own_case(verdict: Verdict, step: Verdict | None, judged: Verdict, reason: str) -> None:
    result = replace(_judged(Failed("a", "b")), verdict=verdict, reason="why", step="STEP")
    found = explained(result, step)
    assert found.verdict is judged
    assert re.fullmatch(reason, found.reason), found.reason
    assert bool(found.expected) is (judged is not Verdict.INCONCLUSIVE or verdict is Verdict.INCONCLUSIVE)


def test_control_in_its_own_case_is_a_failure() -> None:
    failed = _judged(Inconclusive("the control failed", Failed("a", "b"), CASE.id))
    assert (failed.verdict, failed.expected, failed.step) == (Verdict.FAIL, "a", "")
    elsewhere = _judged(Inconclusive("the control failed", Failed("a", "b"), "STEP"))
    assert (elsewhere.verdict, elsewhere.expected, elsewhere.step) == (Verdict.INCONCLUSIVE, "", "STEP")


def test_blame_for_a_usual_step() -> None:
    """A case that demands something is blamed for its own requirement; others leave the blame with the step."""
    failure = Failed("a", "b", "RW-PING-1")
    failure.step = "STEP"
    assert _judged(failure).requirement == CASE.requirements[0]
    lenient = replace(CASE, requirements=(MAY,))
    result = judge(lenient, load(), failure, 0.0, WireLog(), Options())
    assert (result.verdict, result.requirement) == (Verdict.FAIL, "RW-PING-1")
    about = replace(CASE, requirements=(*CASE.requirements, "RW-PING-1"))
    assert judge(about, load(), failure, 0.0, WireLog(), Options()).requirement == "RW-PING-1"


def test_results_that_wait_for_the_case_of_their_step() -> None:
    """They are told of once that case has ended, or when the run ends; they count as failures at once."""
    seen: list[str] = []

    def told(result: Result) -> Result:
        seen.append(result.id)
        return result

    results = Results(Options(max_failures=2), told)
    step, one, two = CASES[:3]
    waiting = replace(_judged(Inconclusive("why")), step=step.id)
    results.add([replace(waiting, id=one.id)])
    assert (seen, results.enough.is_set()) == ([], False)
    results.add([judge(step, load(), Failed("a", "b"), 0.0, WireLog(), Options())])
    assert (seen, results.enough.is_set()) == ([step.id, one.id], True)
    results.add([replace(waiting, id=two.id, step="elsewhere")])
    results.settle()
    assert seen == [step.id, one.id, two.id]
    assert "ended with FAIL" in results.in_order(CASES)[1].reason
