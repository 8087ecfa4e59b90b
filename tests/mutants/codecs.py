"""Codec mutants: the reference codec in this process with some of its answers changed, so that it breaks a rule.

`trial` runs cases against a mutant. The mutants are in codec/.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from conformance.codec.context import Context
from conformance.codec.reference import answer
from conformance.codec.target import CodecTarget
from conformance.harness.case import Case
from conformance.harness.verdicts import CaseEnd, Failed, Unsupported
from conformance.wire.log import WireLog
from tests.support import virtual_time

Answer = dict[str, Any]
Change = Callable[[Answer, Answer], Answer]
"""From a request and the right answer to the answer that is given."""


@dataclass(frozen=True)
class CodecMutant:
    """A codec with one behaviour changed; `breaks` are the requirements that it no longer keeps.

    It is tried with the cases that cite these requirements, or with those of `only`, which may have wildcards.
    """

    ROLE: ClassVar = "codec"

    slug: str
    description: str
    breaks: tuple[str, ...]
    change: Change
    only: tuple[str, ...] = ()


class _InProcess(CodecTarget):
    """A codec without a process of its own."""

    def __init__(self, change: Change) -> None:
        self.said = []
        self._change = change

    async def ask(self, request: Answer, log: WireLog) -> Answer:
        request = {"id": 1, **request}
        return self._change(request, answer(request))


def trial(mutant: CodecMutant, cases: Sequence[Case]) -> tuple[dict[str, str], list[str]]:
    """How cases end on a codec mutant, in the words of `servers.trial`."""
    return virtual_time.run(_trial(mutant, cases)), []


async def _trial(mutant: CodecMutant, cases: Sequence[Case]) -> dict[str, str]:
    return {case.id: await _end(case, Context(_InProcess(mutant.change))) for case in cases}


async def _end(case: Case, context: Context) -> str:
    try:
        await case.run(context)
    except Failed as failure:
        return f"kill {failure.requirement or case.requirements[0]}"
    except Unsupported as end:
        return f"unsupported: {end}"
    except CaseEnd as end:
        return f"no verdict: {type(end).__name__}: {end}"
    return "pass"
