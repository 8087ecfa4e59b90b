"""The suite against client mutants, each of which must fail a case on the requirement that it breaks.

A case that cannot fail proves nothing.
"""

import gc
from collections.abc import Sequence

import pytest

from conformance.client.cases import client_cases
from conformance.client.runner import ClientRunner
from conformance.harness.case import Case
from conformance.harness.options import Options
from conformance.harness.verdicts import Result, Verdict
from conformance.spec.tables import load
from tests.mutants.catalogue import CLIENTS
from tests.mutants.kill_matrix import cases_for
from tests.support import virtual_time
from tests.support.client_in_process import launch, run_to_the_end

_OPTIONS = Options(timeout=0.6, ready=5.0, jobs=24)


def _run(cases: Sequence[Case], options: Options = _OPTIONS) -> list[Result]:
    runner = ClientRunner(launch, load(), options, lambda result: result)
    return virtual_time.run(run_to_the_end(runner.run(cases)))


def test_unchanged_client_passes_every_case() -> None:
    """A case that failed on every client would kill every mutant, and prove nothing."""
    results = _run(client_cases())
    assert {r.id: (r.expected, r.got, r.reason) for r in results if r.verdict is not Verdict.PASS} == {}
    assert len(results) == len(client_cases())


# A mutant that is ended while it connects leaves a socket to the collector: that is its fault, not the suite's.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("slug", CLIENTS)
def test_client_mutant(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = CLIENTS[slug]
    mutant.patch(monkeypatch)
    results = _run(cases_for(mutant))
    gc.collect()  # here, and not in some later test
    assert [result.reason for result in results if result.verdict is Verdict.HARNESS_ERROR] == []
    failed = [r for r in results if r.verdict in (Verdict.FAIL, Verdict.WARN) and r.requirement in mutant.breaks]
    assert failed, [(r.id, r.verdict, r.requirement, r.expected, r.got, r.reason) for r in results]
    sentence = load().requirements[mutant.breaks[0]].text
    assert all(result.wire and result.sentence == sentence for result in failed)
