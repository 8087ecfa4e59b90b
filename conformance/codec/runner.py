"""Runs codec cases, each worker with a process of its own that lives as long as it answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from conformance.codec.context import Context
from conformance.codec.target import CodecTarget
from conformance.harness.case import Case
from conformance.harness.judge import OnResult, Results, RunOne, ended, in_time, judge
from conformance.harness.options import Options
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.verdicts import ContractBroken, Crashed, Result
from conformance.spec.tables import Spec
from conformance.wire import clock
from conformance.wire.log import WireLog

_IN_A_ROW = 3  # deaths or broken contracts of one worker's process, after which its program is given up


@dataclass
class _Worker:
    """One process at a time. `in_a_row` counts the cases in which it died or broke its contract."""

    codec: CodecTarget | None = None
    context: Context | None = None
    in_a_row: int = 0

    async def stop(self) -> str:
        """Ends the process; returns what it wrote to its standard error."""
        if not self.codec:
            return ""
        await self.codec.stop()
        stderr, self.codec = self.codec.stderr, None
        return stderr


class CodecRunner:
    """Runs cases against one command. `on_result` is told of each result as it comes."""

    def __init__(self, command: str, spec: Spec, options: Options, on_result: OnResult) -> None:
        self.greeting: dict[str, Any] = {}
        self._command = command
        self._spec = spec
        self._options = options
        self._results = Results(options, on_result)
        self._tries: dict[str, list[Result]] = {}
        self._given_up = ""
        self._began = clock.now()

    async def run(self, cases: Sequence[Case]) -> list[Result]:
        """All results in the order of the cases; fewer once there were as many failures as the run allows.

        Raises Unreachable or Unstartable.
        """
        queue = [case for case in reversed(cases) for _ in range(self._options.repeat)]
        workers = [_Worker() for _ in range(min(self._options.jobs, max(1, len(cases) // 20)))]
        workers[0].codec = await self._start()
        try:
            await asyncio.gather(*(self._work(queue, worker) for worker in workers))
        finally:
            self._results.settle()
        return self._results.in_order(cases)

    @contextlib.asynccontextmanager
    async def one_by_one(self) -> AsyncIterator[RunOne]:
        """Starts a process, and yields what runs one case against it. Raises Unreachable or Unstartable."""
        worker = _Worker(await self._start())
        try:
            yield lambda case: self._try(case, worker)
        finally:
            await worker.stop()

    async def _start(self) -> CodecTarget:
        codec = await CodecTarget.start(self._command, self._options.ready, self._options.timeout)
        self.greeting = codec.greeting
        return codec

    async def _work(self, queue: list[Case], worker: _Worker) -> None:
        try:
            while queue and not self._results.enough.is_set():
                await self._one(queue.pop(), worker)
        finally:
            await worker.stop()

    async def _one(self, case: Case, worker: _Worker) -> None:
        tries = self._tries.setdefault(case.id, [])
        tries.append(await self._try(case, worker))
        if len(tries) == self._options.repeat:
            self._results.add(self._tries.pop(case.id))

    async def _try(self, case: Case, worker: _Worker) -> Result:
        began = clock.now()
        end = await ended(self._steps(case, worker, began))
        if isinstance(end, Unreachable | Unstartable):
            end = Crashed(str(end))
        stderr = ""
        worker.in_a_row = worker.in_a_row + 1 if isinstance(end, ContractBroken | Crashed) else 0
        if worker.in_a_row:
            stderr = await worker.stop()
        if worker.in_a_row >= _IN_A_ROW:
            self._given_up = self._given_up or f"given up after {_IN_A_ROW} cases in a row: {end}"
        context = worker.context
        log = context.log if context else WireLog()
        result = judge(case, self._spec, end, clock.now() - began, log, self._options)
        return replace(result, wire=tuple(context.said) if context and end else (), stderr=stderr)

    async def _steps(self, case: Case, worker: _Worker, began: float) -> None:
        worker.context = None
        in_time(self._options, began - self._began)
        if self._given_up:
            raise Crashed(self._given_up)
        worker.codec = worker.codec or await self._start()
        worker.context = Context(worker.codec)
        await case.run(worker.context)
