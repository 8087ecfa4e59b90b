"""The clock fails: it steps an hour forward or back, while the server runs and while it does not."""

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


def _set(setting: Path, nanoseconds: int) -> None:
    """Write in place: the server has mapped the file."""
    with setting.open("r+b" if setting.exists() else "wb") as file:
        file.write(nanoseconds.to_bytes(8, "little", signed=True))


FAMILIES = (Family("clock", "the wall clock steps by an hour", (*STORE, "recovery"), clock),)
