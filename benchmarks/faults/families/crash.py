"""The server process ends: kill -9 while it writes, and SIGTERM while its queues are full."""

from __future__ import annotations

import asyncio
import random
import time

from benchmarks.faults.stage.process import Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import RECOVERY_SECONDS, STORE, Family, Run, Scene

CYCLES_A_STORE = 5
"""After so many kills the family starts with a new store, since it reads the whole store after each kill."""


async def kill(run: Run, outcome: Outcome) -> None:
    """kill -9 at random moments; the family reads the store before the server starts again."""
    rng, cycles = run.rng("kill"), run.either(200, 2)
    while outcome.faults < cycles:
        server = Server(run.directory / f"kill-{outcome.faults}")
        scene = Scene(server, rng, window=rng.choice((16, 64, 256)))
        async with scene:
            for _ in range(min(CYCLES_A_STORE, cycles - outcome.faults)):
                await scene.kill(outcome, rng.uniform(0.05, 0.4))
                run.progress(f"kill {outcome.faults} of {cycles}")
                await scene.revive(outcome)
            await scene.finish(outcome)


async def drain(run: Run, outcome: Outcome) -> None:
    """SIGTERM with full windows and stalled members: the exit status is 0, and nothing is lost."""
    rng, cycles = run.rng("drain"), run.either(20, 1)
    server = Server(run.directory / "drain", {"drain_ms": run.either(2_000, 300)})
    async with (scene := Scene(server, rng, window=256, readers=2)):
        for _ in range(cycles):  # on one store, so that each restart finds the ids of the last ten minutes
            await _drained(run, outcome, scene, rng)
        await scene.finish(outcome)


async def _drained(run: Run, outcome: Outcome, scene: Scene, rng: random.Random) -> None:
    scene.publish()
    for members in scene.rooms.values():
        members[-1].hold(True)
    await asyncio.sleep(rng.uniform(0.1, 0.5))
    began = time.monotonic()
    status = await scene.server.end()
    taken = time.monotonic() - began
    outcome.faults += 1
    run.progress(f"drain {outcome.faults}")
    outcome.notes["slowest drain, s"] = round(max(taken, float(outcome.notes.get("slowest drain, s", 0))), 2)
    if status != 0:
        outcome.breach("recovery", f"exit status {status} after SIGTERM: {scene.server.log()[-200:]}")
    if taken > RECOVERY_SECONDS:
        outcome.breach("recovery", f"draining took {taken:.1f} s")
    for member in scene.members:
        member.hold(False)
    await scene.revive(outcome)


FAMILIES = (
    Family("kill", "kill -9 during publishing", (*STORE, "recovery"), kill),
    Family("drain", "SIGTERM with full queues", (*STORE, "recovery"), drain),
)
