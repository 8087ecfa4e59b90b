"""Client mutants: the reference client in this process with one behaviour overridden, so that it breaks a rule.

A `ClientMutant` patches classes of the reference client, none of which the suite uses. `trial` runs cases against a
mutant. The mutants are in client/.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest

from conformance.client.runner import ClientRunner
from conformance.harness.case import Case
from conformance.harness.options import Options
from conformance.harness.verdicts import Result, Verdict
from conformance.spec.tables import load
from tests.support import virtual_time
from tests.support.client_in_process import launch, run_to_the_end

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class ClientMutant:
    """A client with one behaviour overridden; `breaks` is the requirement that it no longer keeps.

    It is tried with the cases that cite this requirement, or with those of `only`, which may have wildcards.
    """

    ROLE: ClassVar = "client"

    slug: str
    description: str
    breaks: tuple[str]
    patch: Callable[[Patch], None]
    only: tuple[str, ...] = ()


def trial(mutant: ClientMutant, cases: Sequence[Case]) -> tuple[dict[str, str], list[str]]:
    """How cases end on a client mutant, in the words of `servers.trial`.

    A failure over a requirement that the case does not cite counts as found by the watch.
    """
    cited = {case.id: case.requirements for case in cases}

    def end(result: Result) -> str:
        if result.verdict is Verdict.PASS:
            return "pass"
        if result.verdict not in (Verdict.FAIL, Verdict.WARN):
            return f"no verdict: {result.verdict.name}: {result.reason}"
        return f"{'kill' if result.requirement in cited[result.id] else 'watch'} {result.requirement}"

    with pytest.MonkeyPatch.context() as patch:
        mutant.patch(patch)
        runner = ClientRunner(launch, load(), Options(timeout=0.6, ready=5.0, jobs=24), lambda result: result)
        return {result.id: end(result) for result in virtual_time.run(run_to_the_end(runner.run(cases)))}, []
