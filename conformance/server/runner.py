"""Runs server cases side by side, and turns how each ended into a verdict."""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from conformance.harness.case import Case
from conformance.harness.judge import RECORDED, OnResult, Results, ended, in_time, judge
from conformance.harness.options import Options
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.verdicts import Crashed, Failed, Inconclusive, Result, Verdict
from conformance.server.context import Context
from conformance.server.recording import Recording
from conformance.server.target import LaunchedServer, ServerTarget
from conformance.spec.tables import Spec
from conformance.wire import clock

_RESTARTS = 10  # of a server that dies again and again
_ALONE = 10  # cases that crash the server alone, after which no more are run again
_DEATH_NOTICED = 0.2  # seconds that a dying process has to be seen as dead after a case failed
_DYING = 5.0  # seconds that it has if it closed a connection, and answers no other: a busy machine ends it slowly


@dataclass
class _Suspect:
    """A case that ran beside others while the target died after `death` restarts, with its results if it ended."""

    case: Case
    death: int
    tries: list[Result]


class ServerRunner:
    """Runs cases against one target. `on_result` is told of each result as it comes.

    Cases that ran beside each other while the target died are run again alone, so that only those are blamed that
    bring it down by themselves. If none does, the one that ended first is.
    """

    def __init__(self, target: ServerTarget, spec: Spec, options: Options, on_result: OnResult) -> None:
        self._target = target
        self._spec = spec
        self._options = options
        self._results = Results(options, on_result)
        self._slots = asyncio.Semaphore(options.jobs)
        self._restarting = asyncio.Lock()
        self._restarts = 0
        self._last_stderr = ""
        self._running = 0
        self._begun = 0
        self._suspects: list[_Suspect] = []
        self._began = clock.now()

    async def run(self, cases: Sequence[Case]) -> list[Result]:
        """All results in the order of the cases; fewer once there were as many failures as the run allows."""
        own = [case for case in cases if "process" in case.tags]
        shared = [case for case in cases if "process" not in case.tags]
        # Cases that wait begin first, so that their time passes while the others work.
        shared.sort(key=lambda case: "waits" not in case.tags)
        try:
            if isinstance(self._target, LaunchedServer) and own and not self._target.side_by_side:
                await self._all(shared)
                await self._again_alone()
                await self._target.stop()  # it may hold the files that the next one needs
                self._slots = asyncio.Semaphore(1)
                await self._all(own)
            else:
                await self._all([*shared, *own])
                await self._again_alone()
        finally:
            self._add(suspect.tries for suspect in self._suspects)
            self._results.settle()
        return self._results.in_order(cases)

    async def _all(self, cases: Iterable[Case]) -> None:
        tasks = [asyncio.create_task(self._one(case)) for case in cases]
        enough = asyncio.create_task(self._results.enough.wait())
        try:
            pending = set(tasks)
            while pending and not self._results.enough.is_set():
                done, _ = await asyncio.wait({*pending, enough}, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {enough}:
                    task.result()
                pending -= done
        finally:
            for task in (*tasks, enough):
                task.cancel()
            await asyncio.gather(*tasks, enough, return_exceptions=True)

    async def _one(self, case: Case) -> None:
        async with contextlib.nullcontext() if "waits" in case.tags else self._slots:
            generation, begun, alone = self._restarts, self._begun + 1, not self._running
            try:
                tries = await self._tries(case)
            except asyncio.CancelledError:
                died = any(suspect.death == generation for suspect in self._suspects)
                if died and "process" not in case.tags:
                    self._suspects.append(_Suspect(case, generation, []))
                raise
        alone = alone and begun == self._begun
        if _crashed(tries) and not alone and "process" not in case.tags and isinstance(self._target, LaunchedServer):
            self._suspects.append(_Suspect(case, generation, tries))
            self._results.foresee(len({suspect.death for suspect in self._suspects}))
        else:
            self._results.add(tries)

    async def _tries(self, case: Case) -> list[Result]:
        self._running += 1
        self._begun += 1
        try:
            return [await self._try(case) for _ in range(self._options.repeat)]
        finally:
            self._running -= 1

    async def _again_alone(self) -> None:
        """Runs the suspects again, one at a time. Each death is blamed on the cases that repeat it alone."""
        suspects, again = self._suspects, list[list[Result]]()
        self._results.foresee(0)
        for suspect in suspects:
            guilty = sum(map(_crashed, again))
            if guilty < _ALONE:
                await self._restart_if_dead()
                again.append(_with_reason(await self._tries(suspect.case), "it ran alone"))
            else:
                again.append(_with_reason(suspect.tries, f"not tried alone: {guilty} cases crash it alone"))
        self._suspects = []
        blamed = {suspect.death for suspect, tries in zip(suspects, again, strict=True) if _crashed(tries)}
        for at, suspect in enumerate(suspects):
            if suspect.death in blamed:
                _forget_replays(suspect.tries, again[at])
            else:
                blamed.add(suspect.death)
                again[at] = _with_reason(suspect.tries, "no case that ran then repeats it alone")
        self._add(again)

    def _add(self, results: Iterable[list[Result]]) -> None:
        """Adds the results of suspects; a case that ended early, with the run, may have none."""
        for tries in results:
            if tries:
                self._results.add(tries)

    async def _restart_if_dead(self) -> None:
        if self._target.died:
            with contextlib.suppress(Unreachable, Unstartable):
                await self._target.start()

    async def _try(self, case: Case) -> Result:
        context = Context(self._target, self._options)
        began, generation = clock.now(), self._restarts
        try:
            end = await ended(self._steps(case, context, began), self._bound, context.bounded_by)
        finally:
            lost = context.lost
            await context.close()
        if end is None:
            context.leave_rooms()
        died = ""
        if isinstance(end, (Failed, Inconclusive, Crashed)) and "process" not in case.tags:
            died = await self._revive(generation, lost)
        if died:
            end = Crashed(died)
        result = judge(case, self._spec, end, clock.now() - began, context.log, self._options)
        directory = self._options.replay_dir
        if context.recording and directory and result.verdict in RECORDED:
            result = _recorded(context.recording, directory, result, self._options.seed)
        return replace(result, stderr=self._last_stderr) if died else result

    async def _steps(self, case: Case, context: Context, began: float) -> None:
        in_time(self._options, began - self._began)
        await case.run(context)
        await context.finish()

    @property
    def _bound(self) -> float:
        return 20 * self._options.timeout + 3 * self._options.patience

    async def _revive(self, generation: int, lost: bool) -> str:
        """How the target died while the case ran, or "". A target that the suite starts is started again.

        `lost` says whether a connection of the case had ended, as those of a dying process do.
        """
        target = self._target
        if not isinstance(target, LaunchedServer):
            return ""
        if not await target.program.wait(_DEATH_NOTICED) and lost and not await target.answers(_DYING):
            await target.program.wait(_DYING)
        async with self._restarting:
            if generation != self._restarts:
                return "the program ended while this case ran beside others"
            if not target.died:
                return ""
            died, self._last_stderr = target.died, target.stderr
            if self._restarts < _RESTARTS:
                self._restarts += 1
                with contextlib.suppress(Unreachable, Unstartable):
                    await target.start()
            return f"the program {died}"


def _recorded(recording: Recording, directory: Path, result: Result, seed: int) -> Result:
    """The result with its replay file, or with the reason why that could not be written."""
    try:
        path = recording.write(directory, result, seed)
    except OSError as error:
        reason = f"no replay file in {directory}: {error.strerror or error}"
        return replace(result, reason=f"{result.reason}; {reason}" if result.reason else reason)
    return replace(result, replay=str(path) if path else "")


def _crashed(tries: Sequence[Result]) -> bool:
    return any(result.verdict is Verdict.CRASH for result in tries)


def _with_reason(tries: Sequence[Result], reason: str) -> list[Result]:
    """The results, in which a crash has one more reason."""
    return [
        replace(result, reason=f"{result.reason}; {reason}") if result.verdict is Verdict.CRASH else result
        for result in tries
    ]


def _forget_replays(before: Sequence[Result], after: Sequence[Result]) -> None:
    """Removes the replay files of results that no longer count."""
    for path in {result.replay for result in before} - {result.replay for result in after} - {""}:
        Path(path).unlink(missing_ok=True)
