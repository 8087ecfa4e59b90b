"""Runs client cases side by side, each with a client and a server of its own."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from conformance.client.context import Context
from conformance.client.target import Launch
from conformance.harness.case import Case
from conformance.harness.judge import OnResult, Results, RunOne, ended, in_time, judge
from conformance.harness.options import Options
from conformance.harness.process import Unreachable
from conformance.harness.verdicts import CaseEnd, ContractBroken, Crashed, Failed, Inconclusive, Result
from conformance.spec.tables import Spec
from conformance.wire import clock

_IN_A_ROW = 12  # deaths or broken contracts, after which the command is given up


class ClientRunner:
    """Runs cases against one command. `on_result` is told of each result as it comes."""

    def __init__(self, launch: Launch, spec: Spec, options: Options, on_result: OnResult) -> None:
        self.greeting: dict[str, Any] = {}
        self._launch = launch
        self._spec = spec
        self._options = options
        self._results = Results(options, on_result)
        self._slots = asyncio.Semaphore(options.jobs)
        self._gate = asyncio.Semaphore(max(2, os.cpu_count() or 2))
        self._in_a_row = 0
        self._given_up = ""
        self._began = clock.now()

    async def run(self, cases: Sequence[Case]) -> list[Result]:
        """All results in the order of the cases; fewer once there were as many failures as the run allows.

        Raises Unreachable when no client connects, or Unstartable.
        """
        await self._probe()
        # Cases that wait begin first, so that their time passes while the others work.
        ordered = sorted(cases, key=lambda case: "waits" not in case.tags)
        try:
            await asyncio.gather(*(self._one(case) for case in ordered))
        finally:
            self._results.settle()
        return self._results.in_order(cases)

    @contextlib.asynccontextmanager
    async def one_by_one(self) -> AsyncIterator[RunOne]:
        """Yields what runs one case. Raises Unreachable when no client connects, or Unstartable."""
        await self._probe()
        yield self._try

    async def _probe(self) -> None:
        """Launches a client that has to get ready and connect. Raises Unreachable.

        A client that does something wrong on its way is reachable, and the cases say what is wrong.
        """
        context = Context(self._launch, self._options)
        try:
            await context.start()
            self.greeting = context.client.greeting
            await context.open("probe")
        except CaseEnd as end:
            if isinstance(end, Failed) and end.passive:
                return
            await context.close()  # then all of its standard error has arrived
            raise Unreachable(f"the client does not connect: {end}", context.stderr) from None
        finally:
            await context.close()

    async def _one(self, case: Case) -> None:
        async with contextlib.nullcontext() if "waits" in case.tags else self._slots:
            tries = []
            for _ in range(self._options.repeat):
                if self._results.enough.is_set():
                    return
                tries.append(await self._try(case))
        if not self._results.enough.is_set():
            self._results.add(tries)

    async def _try(self, case: Case) -> Result:
        context = Context(self._launch, self._options, self._gate)
        began = clock.now()
        try:
            end = await ended(self._steps(case, context, began), self._bound)
        finally:
            await context.close()
        self._in_a_row = self._in_a_row + 1 if isinstance(end, ContractBroken | Crashed) else 0
        if self._in_a_row >= _IN_A_ROW:
            self._given_up = self._given_up or f"given up after {_IN_A_ROW} cases in a row: {end}"
        result = judge(case, self._spec, end, clock.now() - began, context.log, self._options)
        if end is not None:
            result = replace(result, wire=(*result.wire, *context.said), stderr=context.stderr)
        return result

    async def _steps(self, case: Case, context: Context, began: float) -> None:
        in_time(self._options, began - self._began)
        if self._given_up:
            raise Crashed(self._given_up)
        await context.begin()
        try:
            await case.run(context)
        except (Failed, Inconclusive):
            context.finish()  # an earlier breach of the client says more than what did not follow
            raise
        context.finish()

    @property
    def _bound(self) -> float:
        return 12 * self._options.timeout + 15
