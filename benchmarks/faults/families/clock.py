"""The clock fails: it steps by hours while the server runs and while it does not, or by years at any start."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.faults.stage import library
from benchmarks.faults.stage.process import Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import STORE, Family, Run, Scene

HOUR_NS = 3_600 * 10**9


async def clock(run: Run, outcome: Outcome) -> None:
    """Clock steps of an hour: times never decrease, no publish is refused, and repeats are still recognised."""
    rng, cycles = run.rng("clock"), run.either(24, 1)
    data, setting = run.directory / "clock", run.directory / "clock.ns"
    _set(setting, 0)
    server = Server(data, environment=library.environment(run.directory, data, clock=setting))
    async with (scene := Scene(server, rng, window=128)):
        for cycle in range(cycles):
            scene.publish()
            for hours in (rng.choice((1, -1)), 0):
                _set(setting, hours * HOUR_NS)
                outcome.faults += 1
                await asyncio.sleep(rng.uniform(0.1, 0.4))
            _set(setting, rng.choice((1, 0, -1)) * HOUR_NS)
            if rng.random() < 0.5:
                for member in scene.publishers:
                    member.cut()
                await asyncio.sleep(0.1)
            await server.kill()
            _set(setting, rng.choice((1, 0, -1)) * HOUR_NS)
            outcome.faults += 1
            run.progress(f"clock {cycle + 1} of {cycles}")
            await scene.revive(outcome)
        await scene.finish(outcome)
        unknown = sum(len(member.unknown) for member in scene.members)
        outcome.notes["outcome unknown (ID_EXPIRED after an hour's step across a restart)"] = unknown


async def years(run: Run, outcome: Outcome) -> None:
    """The server starts with a clock that is wrong by up to ten years: nothing is deleted, nothing is doubled."""
    rng, starts = run.rng("years"), run.either(120, 2)
    number = 0
    while outcome.faults < starts:
        number += 1
        data, setting = run.directory / f"years-{number}", run.directory / f"years-{number}.ns"
        _set(setting, 0)
        server = Server(data, environment=library.environment(run.directory, data, clock=setting))
        async with (scene := Scene(server, rng, window=128)):
            for _ in range(min(6, starts - outcome.faults)):
                if rng.random() < 0.7:
                    scene.publish()
                    await asyncio.sleep(rng.uniform(0.05, 0.6))
                await scene.quiet(outcome)
                await (server.kill() if rng.random() < 0.5 else server.end())
                _set(setting, rng.choice((0, 0, 1, 24, 720, 8_766, 87_660)) * rng.choice((1, -1)) * HOUR_NS)
                outcome.faults += 1
                run.progress(f"years {outcome.faults} of {starts}")
                scene.publish(1)
                await scene.revive(outcome)
            await scene.finish(outcome)


def _set(setting: Path, nanoseconds: int) -> None:
    """Write in place: the server has mapped the file."""
    with setting.open("r+b" if setting.exists() else "wb") as file:
        file.write(nanoseconds.to_bytes(8, "little", signed=True))


FAMILIES = (
    Family("clock", "the wall clock steps by an hour", (*STORE, "recovery"), clock),
    Family("years", "a wall clock that is wrong by up to ten years at any start", (*STORE, "recovery"), years),
)
