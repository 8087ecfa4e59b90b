"""Servers that are odd but keep every requirement: the suite has nothing to say against them.

An `OddServer` is the reference server with one choice that SPEC.md leaves open made in an unusual way, and the options
that its implementer would give to roomwire-check. `judged` runs all server cases against one, as a run of
roomwire-check does, in virtual time.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from conformance.harness.case import Case
from conformance.harness.options import Options
from conformance.harness.process import Program
from conformance.harness.verdicts import Result
from conformance.server.runner import ServerRunner
from conformance.server.target import OFFERED
from conformance.spec.tables import load
from tests.mutants.servers import MutantServer, ServerMutant, mutated
from tests.support import virtual_time
from tests.support.accounts import ADMINS, PASSWORDS


@dataclass(frozen=True)
class OddServer(ServerMutant):
    """A server that keeps every requirement.

    `declared` and `limits` are options of its run; with `heeds` it takes the limits that are offered.
    """

    declared: frozenset[str] = frozenset()
    limits: dict[str, int] = field(default_factory=dict)
    heeds: bool = True
    accounts: bool = True

    def settings(self, offered: Mapping[str, int]) -> dict[str, Any]:
        return {"memory": True, **(offered if self.heeds else {}), **self.config}

    @property
    def options(self) -> Options:
        """The options of a run: those of a user who gives none, and what the server declares."""
        known = {n: p for n, p in PASSWORDS.items() if n.isascii() or "ascii-names" not in self.declared}
        accounts = {"accounts": known, "admins": ADMINS} if self.accounts else {}
        return Options(declared=self.declared, limits=self.limits, **accounts)  # type: ignore[arg-type]


class _InProcess(Program):
    """Stands for the process of a server in this one, which does not die."""

    def __init__(self) -> None:
        """Starts nothing."""

    async def wait(self, seconds: float) -> bool:
        return False


class _Server(MutantServer):
    """A server in this process that a runner can ask for its process."""

    @property
    def program(self) -> Program:
        return _InProcess()


def judged(odd: OddServer, cases: Sequence[Case]) -> tuple[list[Result], list[str]]:
    """The results of the cases on an odd server, and the exceptions that its event loop met."""
    with mutated(odd):
        return virtual_time.run(_judged(odd, cases))


async def _judged(odd: OddServer, cases: Sequence[Case]) -> tuple[list[Result], list[str]]:
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(repr(context)))
    options = odd.options
    server = _Server(odd, options.ready, OFFERED)
    await server.start()
    try:
        return await ServerRunner(server, load(), options, lambda result: result).run(cases), errors
    finally:
        await server.stop()
