"""Running cases against a server that dies."""

import asyncio
import math
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance.harness.options import Options
from conformance.harness.verdicts import Failed, Result, Verdict
from conformance.server.context import Context
from conformance.server.runner import ServerRunner
from conformance.server.target import LaunchedServer
from conformance.spec.tables import load
from conformance.wire import clock
from tests.support import virtual_time
from tests.support.suite import SERVER, select


def test_server_that_dies_in_a_case() -> None:
    """The process dies in the middle of a case: CRASH, and the next case finds it started again."""
    cases = [*select("server/7.15/echo"), *select("server/7.7/same-opaque")]
    killed = False
    target = LaunchedServer(f"{SERVER} --memory", 60.0)

    async def murderous(context: object) -> None:
        nonlocal killed
        killed = True
        target.program.send_signal(signal.SIGKILL)
        await cases[0].run(context)

    async def run() -> list[Result]:
        try:
            await target.start()
            runner = ServerRunner(target, load(), Options(timeout=20.0, patience=1.0, jobs=1), lambda result: result)
            return await runner.run([replace(cases[0], run=murderous), cases[1]])
        finally:
            await target.stop()

    crashed, after = asyncio.run(run())
    assert killed
    assert crashed.verdict is Verdict.CRASH
    assert "SIGKILL" in crashed.reason
    assert after.verdict is Verdict.PASS


class _Dying(LaunchedServer):
    """A server that has closed its connections, and whose end the suite sees a second later."""

    def __init__(self) -> None:
        super().__init__("dying", 1.0)
        self.ends = math.inf

    @property
    def program(self) -> Any:
        return self

    @property
    def died(self) -> str:
        return "ended by SIGSEGV" if clock.now() >= self.ends else ""

    async def start(self) -> None:
        self.ends = math.inf

    async def answers(self, seconds: float) -> bool:
        return self.ends == math.inf

    async def wait(self, seconds: float) -> bool:
        await asyncio.sleep(max(0.0, min(seconds, self.ends - clock.now())))
        return bool(self.died)


@pytest.mark.parametrize("dies", [True, False])
def test_death_that_is_seen_late(dies: bool) -> None:
    """On a busy machine. The case that the server died in is to blame, and not the next one."""
    target = _Dying()

    async def run() -> list[Result]:
        async def closed(context: object) -> None:
            target.ends = clock.now() + 1.0 if dies else math.inf
            raise Failed("an answer", "the connection closed", "RW-PING-1")

        case = replace(select("server/7.7/same-opaque")[0], run=closed)
        return await ServerRunner(target, load(), Options(jobs=1), lambda result: result).run([case])

    [result] = virtual_time.run(run())
    assert result.verdict is (Verdict.CRASH if dies else Verdict.FAIL)


_KILLER = "server/7.15/echo"


class _Killing:
    """Three cases that run side by side: one ends the server's process while the two others wait for an answer.

    It does so in each run, or only in the first `times`.
    """

    def __init__(self, times: int = 99) -> None:
        self.target = LaunchedServer(f"{SERVER} --memory", 60.0)
        self.kills = 0
        self._times = times
        self._ready = 0
        self._all_ready = asyncio.Event()
        self._killed = asyncio.Event()

    async def killer(self, t: Context) -> None:
        client = await t.open()
        await self._all_ready.wait()
        if self.kills < self._times:
            self.kills += 1
            self.target.program.send_signal(signal.SIGKILL)
            await client.expect_closed()
            self._killed.set()
        await client.fence()

    async def neighbour(self, t: Context) -> None:
        client = await t.open()
        self._ready += 1
        if self._ready == 2:
            self._all_ready.set()
        await self._killed.wait()
        await client.fence()

    def run(self, options: Options) -> tuple[list[str], dict[str, Result]]:
        """The ids in the order in which they were told of, and the results."""
        [killer], others = select(_KILLER), select("server/7.13/ok", "server/7.7/same-opaque")
        cases = [*(replace(case, run=self.neighbour) for case in others), replace(killer, run=self.killer)]
        told: list[str] = []

        def on_result(result: Result) -> Result:
            told.append(result.id)
            return result

        async def run() -> list[Result]:
            try:
                await self.target.start()
                return await ServerRunner(self.target, load(), options, on_result).run(cases)
            finally:
                await self.target.stop()

        return told, {result.id: result for result in asyncio.run(run())}


def test_neighbours_of_a_crash(tmp_path: Path) -> None:
    """They run again alone and pass, without a replay file; the killer is blamed when it kills again."""
    killing = _Killing()
    options = Options(timeout=20.0, patience=1.0, jobs=4, replay_dir=tmp_path)
    told, results = killing.run(options)
    verdicts = {id: result.verdict for id, result in results.items()}
    assert verdicts.pop(_KILLER) is Verdict.CRASH
    assert list(verdicts.values()) == [Verdict.PASS, Verdict.PASS]
    assert "SIGKILL; it ran alone" in results[_KILLER].reason
    assert (killing.kills, sorted(told)) == (2, sorted(results))
    assert {str(path) for path in tmp_path.iterdir()} == {results[_KILLER].replay} - {""}


def test_crash_that_no_case_repeats() -> None:
    """A death does not get lost: the case that ended first keeps it."""
    _, results = _Killing(times=1).run(Options(timeout=20.0, patience=1.0, jobs=4))
    crashed = [result for result in results.values() if result.verdict is Verdict.CRASH]
    assert len(crashed) == 1
    assert crashed[0].reason.endswith("no case that ran then repeats it alone")
    assert [result.verdict for result in results.values()].count(Verdict.PASS) == 2


def test_crash_counts_before_its_case_is_known() -> None:
    """With --exitfirst a run ends at the first death, and says which case it was."""
    _, results = _Killing().run(Options(timeout=20.0, patience=1.0, jobs=4, max_failures=1))
    assert results[_KILLER].verdict is Verdict.CRASH
    assert [result.verdict for result in results.values()].count(Verdict.CRASH) == 1
