"""Runs codec cases, each worker with a process of its own that lives as long as it answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conformance.codec.context import Context
from conformance.codec.target import CodecTarget
from conformance.harness.case import Case
from conformance.harness.judge import Report, in_time, judge
from conformance.harness.options import Options
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.verdicts import ACCEPTED, ContractBroken, Crashed, Result, combine
from conformance.spec.tables import Spec
from conformance.wire import clock
from conformance.wire.log import WireLog

_IN_A_ROW = 3  # deaths or broken answers of one worker's process, after which its program is given up


class CodecRunner:
    """Runs cases against one command. `report` is told of each result, and may change it."""

    def __init__(self, command: str, spec: Spec, options: Options, report: Report) -> None:
        self.results: list[Result] = []
        self._command = command
        self._spec = spec
        self._options = options
        self._report = report
        self._failures = 0
        self._given_up = ""
        self._tries: dict[str, list[Result]] = {}
        self.greeting: dict[str, Any] = {}
        self._began = clock.now()

    async def run(self, cases: Sequence[Case]) -> list[Result]:
        """The results, in the order in which they came. Raises Unreachable or Unstartable."""
        queue = [case for case in reversed(cases) for _ in range(self._options.repeat)]
        first = await self._start()
        workers = min(self._options.jobs, max(1, len(cases) // 20))
        await asyncio.gather(*(self._work(queue, first if at == 0 else None) for at in range(workers)))
        return self.results

    async def _start(self) -> CodecTarget:
        codec = await CodecTarget.start(self._command, self._options.ready, self._options.timeout)
        self.greeting = codec.greeting
        return codec

    async def _work(self, queue: list[Case], codec: CodecTarget | None) -> None:
        in_a_row = 0
        try:
            while queue and not self._enough:
                case = queue.pop()
                began = clock.now()
                end: Exception | None = None
                context: Context | None = None
                try:
                    in_time(self._options, began - self._began)
                    if self._given_up:
                        raise Crashed(self._given_up)
                    codec = codec or await self._start()
                    context = Context(codec)
                    await case.run(context)
                except (Unreachable, Unstartable) as reason:
                    end = Crashed(str(reason))
                except Exception as exception:
                    end = exception
                stderr = ""
                in_a_row = in_a_row + 1 if isinstance(end, (ContractBroken, Crashed)) else 0
                if in_a_row and codec:
                    await codec.stop()
                    stderr, codec = codec.stderr, None
                if in_a_row >= _IN_A_ROW:
                    self._given_up = self._given_up or f"given up after {_IN_A_ROW} cases in a row: {end}"
                self._add(case, end, clock.now() - began, context, stderr)
        finally:
            if codec:
                await codec.stop()

    @property
    def _enough(self) -> bool:
        return bool(self._options.max_failures) and self._failures >= self._options.max_failures

    def _add(self, case: Case, end: BaseException | None, seconds: float, context: Context | None, stderr: str) -> None:
        log = context.log if context else WireLog()
        result = judge(case, self._spec, end, seconds, log, self._options)
        said = tuple(context.said) if context and end else ()
        tries = self._tries.setdefault(case.id, [])
        tries.append(replace(result, wire=said, stderr=stderr))
        if len(tries) < self._options.repeat:
            return
        result = self._report(combine(self._tries.pop(case.id)))
        self.results.append(result)
        self._failures += result.verdict not in ACCEPTED
