"""The cases: what each is about, and the function that tries it.

A case is addressed by role, section and name: `server/7.9/already-joined`. It names the requirements that it is about,
first the one that it judges. Their sentences come from SPEC.md.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from conformance.harness.verdicts import HarnessFault
from conformance.spec.tables import Spec

Run = Callable[[Any], Awaitable[None]]
"""Takes the `Context` of its role."""

TAGS = {
    "waits": "waits for a time-out of the target, side by side with all other cases",
    "process": "starts a server of its own if there is --exec; cases that kill it or set its limits need that",
    "slow": "sends or reads much",
}


@dataclass(frozen=True)
class Case:
    """One case. `tags` are keys of TAGS."""

    id: str
    section: str
    requirements: tuple[str, ...]
    summary: str
    run: Run
    tags: frozenset[str] = frozenset()

    @property
    def role(self) -> str:
        """server, client or codec."""
        return self.id.split("/", 1)[0]

    def level(self, spec: Spec) -> str:
        """The key word of the requirement that the case judges."""
        return spec.requirements[self.requirements[0]].level


class CaseRegistry:
    """The cases of one role by id, in the order of their definition."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.cases: dict[str, Case] = {}

    def case(self, path: str, *requirements: str, tags: Iterable[str] = ()) -> Callable[[Run], Run]:
        """Registers the decorated function as a case; its docstring is the description."""

        def register(run: Run) -> Run:
            self.add(path, requirements, inspect.getdoc(run) or "", run, tags)
            return run

        return register

    def add(self, path: str, requirements: Iterable[str], summary: str, run: Run, tags: Iterable[str] = ()) -> None:
        """Registers a case. Raises HarnessFault for a taken id, an unknown tag, or a missing text or requirement."""
        case = Case(f"{self.role}/{path}", path.split("/")[0], tuple(requirements), summary, run, frozenset(tags))
        if case.id in self.cases or not summary or not case.requirements or not case.tags <= TAGS.keys():
            raise HarnessFault(f"{case.id} is defined twice, or has no text or requirement, or an unknown tag")
        self.cases[case.id] = case


def check(cases: Iterable[Case], spec: Spec) -> None:
    """Raises HarnessFault for a case with a requirement or section that SPEC.md does not have."""
    sections = {heading.section for heading in spec.document.headings}
    for case in cases:
        unknown = [name for name in case.requirements if name not in spec.requirements]
        if unknown:
            raise HarnessFault(f"{case.id} names {', '.join(unknown)}, which SPEC.md does not have")
        if case.section not in sections:
            raise HarnessFault(f"{case.id} names section {case.section}, which SPEC.md does not have")
