"""What people do to a store: lock it with a shell, delete or move it, remove its lock and start a second server."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from benchmarks.faults.stage.ledger import DATABASE
from benchmarks.faults.stage.process import Refused, Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import RECOVERY_SECONDS, STORE, Family, Run, Scene, wait_until

SAID = "expected the file or directory that this server opened"


async def locks(run: Run, outcome: Outcome) -> None:
    """Another program holds a write transaction while members publish: they wait, or are refused, and lose nothing."""
    rng, cycles = run.rng("locks"), run.either(40, 1)
    server = Server(run.directory / "locks")
    scene = Scene(server, rng, window=32)
    for member in scene.publishers:
        member.ordered = True
    async with scene:
        for _ in range(cycles):
            scene.publish()
            with closing(sqlite3.connect(server.data / DATABASE, isolation_level=None, timeout=30)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                await asyncio.sleep(rng.uniform(0.1, run.either(8, 2)))
                connection.execute("ROLLBACK")
            outcome.faults += 1
            run.progress(f"locks {outcome.faults} of {cycles}")
            since = time.monotonic()
            if not server.alive:
                outcome.breach("recovery", f"the server ended: {server.log()[-200:]}")
                await server.start()
            await scene.recovered(outcome, since)
        await scene.finish(outcome)


async def taken(run: Run, outcome: Outcome) -> None:
    """The store is taken away under a server, which must end by itself; or it gets a second server, which must not
    start. What was acknowledged is where the files went."""
    rng = run.rng("taken")
    ways = (_moved, _replaced, _deleted, _second) * 15 if run.long else (_moved, _second)
    for number, way in enumerate(ways):
        server = Server(run.directory / f"taken-{number}")
        async with (scene := Scene(server, rng, window=64)):
            scene.publish()
            await asyncio.sleep(rng.uniform(0.05, 0.5))
            await way(scene, outcome, rng)
            outcome.faults += 1
            run.progress(f"taken {outcome.faults} of {len(ways)}")


async def _moved(scene: Scene, outcome: Outcome, rng: random.Random) -> None:
    """The directory is moved away."""
    old = scene.server.data
    old.rename(away := old.with_name(f"{old.name}-away"))
    await _ends(scene, outcome)
    await _comes_back(scene, outcome, away)


async def _replaced(scene: Scene, outcome: Outcome, rng: random.Random) -> None:
    """The directory is moved away, and a copy of an earlier state takes its place."""
    old = scene.server.data
    shutil.copytree(old, copy := old.with_name(f"{old.name}-copy"))
    await asyncio.sleep(rng.uniform(0, 0.2))
    old.rename(away := old.with_name(f"{old.name}-away"))
    copy.rename(old)
    await _ends(scene, outcome)
    shutil.rmtree(old)
    await _comes_back(scene, outcome, away)


async def _deleted(scene: Scene, outcome: Outcome, rng: random.Random) -> None:
    """The directory, or one of its files, is deleted. Nothing is left to be looked for."""
    data = scene.server.data
    if rng.random() < 0.5:
        shutil.rmtree(data, ignore_errors=True)
    else:
        (data / rng.choice((DATABASE, f"{DATABASE}-wal"))).unlink()
    await _ends(scene, outcome)


async def _second(scene: Scene, outcome: Outcome, rng: random.Random) -> None:
    """The file `lock` is removed, and a second server is started on the store."""
    server = scene.server
    (server.data / "lock").unlink()
    second = Server(server.data)
    second.name_log("second")
    try:
        await second.start()
    except Refused as refused:
        if "to be the only user" not in str(refused):
            outcome.breach("served", f"the second server was refused without saying why: {str(refused)[-200:]}")
    else:
        outcome.breach("served", "a second server opened the store")
        await second.kill()
    await scene.finish(outcome)


async def _ends(scene: Scene, outcome: Outcome) -> None:
    server = scene.server
    if not await wait_until(lambda: not server.alive, RECOVERY_SECONDS):
        outcome.breach("served", "the server went on without its store")
        await server.kill()
        return
    status, words = await server.wait(), server.log().strip()
    if status != 1 or SAID not in words or "Traceback" in words:
        outcome.breach("served", f"exit status {status}: {words[-200:]}")


async def _comes_back(scene: Scene, outcome: Outcome, away: Path) -> None:
    """Put the files back, and check that all that was acknowledged is in them."""
    away.rename(scene.server.data)
    await scene.revive(outcome)
    await scene.finish(outcome)


FAMILIES = (
    Family("locks", "a write transaction of another program", (*STORE, "recovery"), locks),
    Family("taken", "a store that is deleted or moved, or gets a second server", (*STORE, "served", "recovery"), taken),
)
