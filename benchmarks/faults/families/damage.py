"""The store is damaged while the server is down: a bit flips, or the write-ahead log loses its end."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

from benchmarks.faults.stage.ledger import DATABASE, Stored, count, read
from benchmarks.faults.stage.member import Member
from benchmarks.faults.stage.process import Refused, Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import ROOMS, Family, Run, Scene, wait_until

LOG = f"{DATABASE}-wal"
BATCHES = 12
PAYLOADS_A_BATCH = 40
CUT = "incomplete transaction"
"""In the server's log if it starts without a torn transaction."""


async def damage(run: Run, outcome: Outcome) -> None:
    """A bit flips in the database or its log, or the log is cut: the server never serves damage, and never hides it."""
    rng = run.rng("damage")
    original = run.directory / "damage"
    server = Server(original)
    async with (scene := Scene(server, rng, publishers=2, readers=1, window=32)):
        for batch in range(BATCHES):
            scene.publish(PAYLOADS_A_BATCH)
            await scene.quiet(outcome)
            if batch == BATCHES // 2:  # so that both the database and the log hold messages
                await server.end()
                await server.start()
        count(outcome, scene.members)
        await server.kill()
    truth = read(original, ROOMS)
    kinds = ["database", "log", "tail"] * run.either(120, 1)
    verdicts = {"refused": 0, "closed when it was read": 0, "cut": 0, "harmless": 0}
    for kind in kinds:
        copy = run.directory / "damaged"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy, ignore=shutil.ignore_patterns("lock", "*-shm"))
        where = _damage(rng, kind, copy)
        outcome.faults += 1
        run.progress(f"damage {outcome.faults} of {len(kinds)}")
        verdicts[await _judge(outcome, copy, truth, f"{kind}, {where}")] += 1
    outcome.notes |= verdicts


def _damage(rng: random.Random, kind: str, copy: Path) -> str:
    path = copy / (DATABASE if kind == "database" else LOG)
    octets = bytearray(path.read_bytes())
    at = rng.randrange(len(octets))
    if kind == "tail":
        del octets[at:]
        where = f"cut at {at}"
    else:
        bit = rng.randrange(8)
        octets[at] ^= 1 << bit
        where = f"bit {bit} of octet {at}"
    path.write_bytes(octets)
    return where


async def _judge(outcome: Outcome, copy: Path, truth: dict[str, Stored], what: str) -> str:
    """Start a server on the damaged copy, and check everything that it serves. Returns the verdict."""
    server = Server(copy)
    try:
        await server.start()
    except Refused as refused:
        if DATABASE not in str(refused) or "Traceback" in str(refused):
            outcome.breach("served", f"{what}: refused without saying why: {str(refused)[-200:]}")
        return "refused"
    try:
        shorter = False
        for room in ROOMS:
            numbers = await _served(server, room)
            if numbers is None:
                words = server.log()
                if DATABASE not in words:
                    outcome.breach("served", f"{what}: a room was closed without saying why: {words[-200:]}")
                return "closed when it was read"
            if numbers != truth[room].numbers[: len(numbers)]:
                outcome.breach("served", f"{what}: {room} serves other messages than were written")
            shorter = shorter or len(numbers) < len(truth[room].numbers)
        if shorter and CUT not in server.log():
            outcome.breach("served", f"{what}: the end is missing, and the log does not say so")
        return "cut" if shorter else "harmless"
    finally:
        await server.kill()


async def _served(server: Server, room: str) -> list[int] | None:
    """All numbers that a new member receives of the whole log; None if the room is closed, or the server ends."""
    member = Member("reader", 999, room, lambda: server.port, 1, 0)
    member.newest = 2**40
    member.start()
    try:

        def all_there() -> bool:
            return not server.alive or member.closed or (member.open.is_set() and member.cursor[1] >= member.head)

        await wait_until(all_there)
        await asyncio.sleep(0)
        complete = member.open.is_set() and member.cursor[1] >= member.head
        if not complete:
            if not member.closed:
                await server.wait()
            return None
        return list(member.segments[0].numbers) if member.segments else []
    finally:
        await member.stop()


FAMILIES = (Family("damage", "a flipped bit, a torn tail of the log", ("served",), damage),)
