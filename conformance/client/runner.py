"""Runs client cases side by side, each with a client and a server of its own."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conformance.client.context import Context
from conformance.client.target import Launch
from conformance.harness.case import Case
from conformance.harness.judge import Report, in_time, judge
from conformance.harness.options import Options
from conformance.harness.process import Unreachable
from conformance.harness.verdicts import (
    ACCEPTED,
    CaseEnd,
    ContractBroken,
    Crashed,
    Failed,
    Inconclusive,
    Result,
    combine,
)
from conformance.spec.tables import Spec
from conformance.wire import clock

_IN_A_ROW = 12  # deaths or broken contracts, after which the command is given up


class ClientRunner:
    """Runs cases against one command. `report` is told of each result, and may change it."""

    def __init__(self, launch: Launch, spec: Spec, options: Options, report: Report) -> None:
        self.results: list[Result] = []
        self._launch = launch
        self._spec = spec
        self._options = options
        self._report = report
        self._slots = asyncio.Semaphore(options.jobs)
        self._gate = asyncio.Semaphore(max(2, os.cpu_count() or 2))
        self._failures = 0
        self._in_a_row = 0
        self._given_up = ""
        self._began = clock.now()
        self.greeting: dict[str, Any] = {}

    async def run(self, cases: Sequence[Case]) -> list[Result]:
        """All results in the order of the cases. Raises Unreachable when no client connects, or Unstartable."""
        await self._probe()
        # Those that wait begin first: what they wait for goes by while the others work.
        ordered = sorted(cases, key=lambda case: "waits" not in case.tags)
        await asyncio.gather(*(self._one(case) for case in ordered))
        order = {case.id: at for at, case in enumerate(cases)}
        self.results.sort(key=lambda result: order[result.id])
        return self.results

    async def _probe(self) -> None:
        """Launches a client that has to get ready and connected. Raises Unreachable.

        One that does something wrong on its way is there, and the cases will say what.
        """
        context = Context(self._launch, self._options)
        try:
            await context.start()
            self.greeting = context.client.greeting
            await context.open("probe")
        except CaseEnd as end:
            if isinstance(end, Failed) and end.passive:
                return
            raise Unreachable(f"the client did not get connected: {end}", context.stderr) from None
        finally:
            await context.close()

    @property
    def _enough(self) -> bool:
        return bool(self._options.max_failures) and self._failures >= self._options.max_failures

    async def _one(self, case: Case) -> None:
        if "waits" in case.tags:
            await self._judged(case)
            return
        async with self._slots:
            await self._judged(case)

    async def _judged(self, case: Case) -> None:
        results = []
        for _ in range(self._options.repeat):
            if self._enough:
                return
            results.append(await self._try(case))
        if self._enough:
            return
        result = self._report(combine(results))
        self.results.append(result)
        self._failures += result.verdict not in ACCEPTED

    async def _try(self, case: Case) -> Result:
        context = Context(self._launch, self._options, self._gate)
        began = clock.now()
        end: Exception | None = None
        try:
            in_time(self._options, began - self._began)
            if self._given_up:
                raise Crashed(self._given_up)
            await asyncio.wait_for(self._steps(case, context), self._bound)
        except TimeoutError:
            end = Inconclusive(f"the case did not come to its end within {self._bound:g} s")
        except Exception as exception:
            end = exception
        finally:
            await context.close()
        self._in_a_row = self._in_a_row + 1 if isinstance(end, ContractBroken | Crashed) else 0
        if self._in_a_row >= _IN_A_ROW:
            self._given_up = self._given_up or f"given up after {_IN_A_ROW} cases in a row: {end}"
        result = judge(case, self._spec, end, clock.now() - began, context.log, self._options)
        if end is not None:
            result = replace(result, wire=(*result.wire, *context.said), stderr=context.stderr)
        return result

    @property
    def _bound(self) -> float:
        return 12 * self._options.timeout + 15

    @staticmethod
    async def _steps(case: Case, context: Context) -> None:
        await context.begin()
        try:
            await case.run(context)
        except (Failed, Inconclusive):
            context.finish()  # what the client did wrong unasked says more than what did not follow
            raise
        context.finish()
