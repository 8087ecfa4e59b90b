"""The store is damaged while the server is down: a bit flips, or the write-ahead log loses its end."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from benchmarks.faults.stage.ledger import DATABASE, Stored, count, read
from benchmarks.faults.stage.member import Member
from benchmarks.faults.stage.process import Refused, Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import ROOMS, Family, Run, Scene, wait_until
from benchmarks.servers.targets import ROOT

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
                if not await wait_until(lambda: DATABASE in server.log()):  # the log is written a moment later
                    outcome.breach("served", f"{what}: a room was closed without saying why: {server.log()[-200:]}")
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


async def rows(run: Run, outcome: Outcome) -> None:
    """Damage in one room: it is closed, the other is served; repairing keeps what is sound, and all of the other."""
    rng, cycles = run.rng("rows"), run.either(40, 1)
    for cycle in range(cycles):
        data = run.directory / f"rows-{cycle}"
        async with (scene := Scene(Server(data), rng, publishers=2, readers=0, window=32)):
            scene.publish(PAYLOADS_A_BATCH)
            await scene.quiet(outcome)
            await scene.server.end()
        count(outcome, scene.members)
        truth = read(data, ROOMS)
        what = _spoil(rng, data, truth[ROOMS[0]].head)
        outcome.faults += 1
        run.progress(f"rows {outcome.faults} of {cycles}")
        await _others_are_served(outcome, data, what)
        await _repaired(outcome, data, truth, what)


def _spoil(rng: random.Random, data: Path, head: int) -> str:
    """Damage a row of the first room."""
    seq = rng.randrange(1, head + 1)
    where = f"room = (SELECT id FROM rooms WHERE key = '{ROOMS[0]}')"
    row = f"{where} AND seq = {seq}"
    sql = rng.choice(
        (
            f"UPDATE messages SET payload = zeroblob(16) WHERE {row}",
            f"UPDATE messages SET time_ms = time_ms + 1 WHERE {row}",
            f"DELETE FROM messages WHERE {row}",
            f"DELETE FROM ids WHERE {where} AND id = (SELECT max(id) FROM ids WHERE {where})",
            f"UPDATE ids SET known = zeroblob(36) WHERE {where} AND id = (SELECT min(id) FROM ids WHERE {where})",
        )
    )
    with closing(sqlite3.connect(data / DATABASE)) as connection:
        connection.executescript(sql)
    return sql


async def _others_are_served(outcome: Outcome, data: Path, what: str) -> None:
    server = Server(data)
    await server.start()
    closed, other = (
        Member(f"late-{room}", 900 + at, room, lambda: server.port, 8, at) for at, room in enumerate(ROOMS)
    )
    for member in (closed, other):
        member.newest = 2**40
        member.start()
    try:
        if not await wait_until(lambda: closed.closed):
            outcome.breach("served", f"{what}: the room was not closed")
        await wait_until(other.open.is_set)
        other.target = PAYLOADS_A_BATCH
        other.pump()
        if not await wait_until(lambda: other.settled and len(other.acked) == PAYLOADS_A_BATCH):
            outcome.breach("served", f"{what}: the other room was not served")
        outcome.breach("served", f"{what}: damage was served", len([f for f in closed.faults if "payload" in f]))
        if not await wait_until(lambda: "a room is damaged" in server.log()) or not server.alive:
            outcome.breach("served", f"{what}: the log does not tell, or the server has ended")
        count(outcome, [other])
    finally:
        await asyncio.gather(closed.stop(), other.stop())
        await server.end()


async def _repaired(outcome: Outcome, data: Path, truth: dict[str, Stored], what: str) -> None:
    command = (sys.executable, "-m", "reference_server", "verify", "--repair", str(data))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    if process.returncode:
        outcome.breach("served", f"{what}: it was not repaired: {said.decode()[-200:]}")
    after = read(data, ROOMS)
    places = dict(zip(truth[ROOMS[0]].seqs, truth[ROOMS[0]].numbers, strict=True))
    kept = zip(after[ROOMS[0]].seqs, after[ROOMS[0]].numbers, strict=True)
    outcome.breach("order", f"{what}: other messages than were written", sum(places.get(s) != n for s, n in kept))
    outcome.breach("lost", f"{what}: less than half is kept", 2 * len(after[ROOMS[0]].seqs) < len(places))
    lost = set(truth[ROOMS[1]].numbers) - set(after[ROOMS[1]].numbers)
    outcome.breach("lost", f"{what}: messages of the other room", len(lost))
    server = Server(data)
    await server.start()
    try:
        for room in ROOMS:
            if await _served(server, room) != after[room].numbers:
                outcome.breach("served", f"{what}: {room} is not served after the repair")
    finally:
        await server.kill()


FAMILIES = (
    Family("rows", "a damaged row, and its repair", ("lost", "order", "served"), rows),
    Family("damage", "a flipped bit, a torn tail of the log", ("served",), damage),
)
