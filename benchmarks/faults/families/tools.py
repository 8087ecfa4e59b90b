"""Operators' tools and users: files that others can read, files of root, and checks beside a server that writes."""

from __future__ import annotations

import os
import random
import shutil
import stat
from pathlib import Path

from benchmarks.faults.stage.command import command, commands
from benchmarks.faults.stage.process import Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import STORE, Family, Run, Scene

OTHER = 65534
A_ROUND = 10
"""How many checks one process makes."""

ROUNDS_A_STORE = 10


async def rights(run: Run, outcome: Outcome) -> None:
    """Whatever the directory and the umask allow, only the owner of the directory can read what is in it."""
    rng, cycles = run.rng("rights"), run.either(40, 1)
    before = os.umask(0)
    try:
        for cycle in range(cycles):
            os.umask(rng.choice((0, 0o022, 0o077)))
            await _made_private(run.directory / f"rights-{cycle}", outcome, rng, made_before=not cycle % 2)
            outcome.faults += 1
            run.progress(f"rights {outcome.faults} of {cycles}")
    finally:
        os.umask(before)


async def _made_private(data: Path, outcome: Outcome, rng: random.Random, *, made_before: bool) -> None:
    data.mkdir()
    data.chmod(rng.choice((0o700, 0o755, 0o777)))
    if not os.geteuid() and rng.random() < 0.5:
        os.chown(data, OTHER, OTHER)
    server = Server(data)
    await command("user", "add", "ada", "--iterations", "4096", "--data", str(data), said="correct horse")
    async with (scene := Scene(server, rng, publishers=1, readers=0, window=16)):
        scene.publish(50)
        await scene.quiet(outcome)
        _check(data, outcome)
        scene.publish()
        await server.kill()
        if made_before:  # by a version that left this to SQLite
            for path in data.iterdir():
                path.chmod(0o644)
        await scene.revive(outcome)
        _check(data, outcome)
        copy = data.with_name(f"{data.name}-copy")
        await command("backup", str(data), str(copy))
        _check(copy, outcome)
        await scene.finish(outcome)


def _check(directory: Path, outcome: Outcome) -> None:
    owner = directory.stat().st_uid
    for path in directory.iterdir():
        about = path.stat()
        if stat.S_IMODE(about.st_mode) & 0o077 or about.st_uid != owner:
            outcome.breach("private", f"{path.name}: mode {stat.filemode(about.st_mode)}, of {about.st_uid}")


async def checks(run: Run, outcome: Outcome) -> None:
    """verify and backup beside a server that writes, and after kill -9: all is sound, whatever happened to `lock`."""
    rng, runs = run.rng("checks"), run.either(1_000, 2)
    while outcome.faults < runs:
        server = Server(run.directory / f"checks-{outcome.faults}")
        async with (scene := Scene(server, rng, publishers=1, readers=0, window=1)):
            for _ in range(ROUNDS_A_STORE):
                checked = min(A_ROUND, runs - outcome.faults)
                await _checked(scene, outcome, rng, checked)
                outcome.faults += checked
                run.progress(f"checks {outcome.faults} of {runs}")
                if outcome.faults == runs:
                    break
            await scene.finish(outcome)


async def _checked(scene: Scene, outcome: Outcome, rng: random.Random, runs: int) -> None:
    data = scene.server.data
    if rng.random() < 0.2:
        (data / "lock").unlink(missing_ok=True)
    dead = rng.random() < 0.2
    scene.publish()
    if dead:
        await scene.server.kill()
    copy = data.with_name("copy")
    each = [["verify", str(data)]] * (runs - 1) + [["backup", str(data), str(copy)]]
    status, words = await commands(*each)
    if status:
        outcome.breach("alarm", f"exit status {status}: {words[-200:]}")
    shutil.rmtree(copy, ignore_errors=True)
    if dead:
        await scene.server.start()
    await scene.quiet(outcome)


FAMILIES = (
    Family("rights", "directories that others can read, or of another owner", (*STORE, "private", "recovery"), rights),
    Family("checks", "verify and backup beside a server that writes", (*STORE, "alarm"), checks),
)
