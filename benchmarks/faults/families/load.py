"""Clients misbehave: slow readers and floods, and their effect on the others."""

from __future__ import annotations

import asyncio
import math
import time

from benchmarks.faults.stage.attack import KINDS, attack
from benchmarks.faults.stage.member import Member
from benchmarks.faults.stage.process import Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import STORE, Family, Run, Scene, wait_until

MEMORY_MIB = 128
"""MiB by which the server may grow under each attack."""

FLOOR_SECONDS = 0.010
"""A 99th percentile below this harms no client, even if it was much lower before."""

ATTACKERS = 8

RATE = 50
"""Messages a second that the others exchange during the measurement."""

FAIR = {"join_rate": 2, "join_burst": 20, "publish_rate": 200, "publish_burst": 400, "history_rate": 10}
"""Rates like the server's defaults, which protect it against floods."""


def _percentile(values: list[float]) -> float:
    return sorted(values)[max(0, math.ceil(len(values) * 0.99) - 1)] if values else math.inf


async def _timed(member: Member, seconds: float) -> float:
    """The 99th percentile of the time from a publish to its ACK, with messages at a steady rate."""
    waits: list[float] = []
    sent: dict[int, float] = {}

    def acked(number: int) -> None:
        if number in sent:
            waits.append(time.monotonic() - sent.pop(number))

    member.on_ack = acked
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        sent[member.next_number] = now
        member.target = member.sent + 1
        member.pump()
        await asyncio.sleep(1 / RATE)
    await wait_until(lambda: member.settled, 10)
    member.on_ack = None
    # A publish without an ACK has waited until now.
    return _percentile(waits + [time.monotonic() - start for start in sent.values()])


async def floods(run: Run, outcome: Outcome) -> None:
    """Each kind of flood, while members exchange messages at a steady rate.

    The attackers take CPU time from this machine, although real ones would have their own. So they also flood another
    server, which shows the cost of the attackers themselves.
    """
    rng = run.rng("floods")
    seconds = 10.0 if run.long else 0.4

    for name in KINDS if run.long else KINDS[::2]:
        server, other = (Server(run.directory / f"{what}-{outcome.faults}", FAIR) for what in ("flood", "other"))
        async with (scene := Scene(server, rng, publishers=1, readers=2, window=32, rooms=("red",))):
            [probe] = scene.publishers
            probe.target = 300
            probe.pump()
            await wait_until(lambda: probe.settled)  # noqa: B023
            run.progress(f"floods: {name}")
            before = await _timed(probe, seconds)
            beside = await _beside(other, name, probe, seconds)
            memory = server.resident_octets()
            async with attack(name, server.port, ATTACKERS):
                during = await _timed(probe, seconds)
                grown = (server.resident_octets() - memory) / 2**20
            outcome.faults += ATTACKERS
            found = f"{before * 1000:.1f}, {beside * 1000:.1f}, {during * 1000:.1f}"
            outcome.notes[f"{name}: p99 before, beside and during, ms; growth, MiB"] = f"{found}; {grown:.1f}"
            if run.long and during > max(2 * beside, FLOOR_SECONDS):  # the short form is too short to judge
                outcome.breach("p99", f"{name}: before, beside and during, ms: {found}")
            if grown > MEMORY_MIB:
                outcome.breach("memory", f"{name}: {grown:.0f} MiB more")
            await scene.finish(outcome)


async def _beside(other: Server, name: str, probe: Member, seconds: float) -> float:
    """The percentile of `probe` while the attackers flood `other`, a server that it does not use."""
    try:
        await other.start()
        async with attack(name, other.port, ATTACKERS):
            return await _timed(probe, seconds)
    finally:
        await other.kill()


async def slow(run: Run, outcome: Outcome) -> None:
    """Members of a busy room stop reading for a while: they get everything later, and the others do not wait."""
    rng = run.rng("slow")
    readers = run.either(60, 6)
    server = Server(run.directory / "slow", {"stall_ms": 3_000})
    async with (scene := Scene(server, rng, publishers=3, readers=readers, window=64, rooms=("red",))):
        for round_ in range(run.either(6, 1)):
            scene.publish()
            await asyncio.sleep(0.3)
            memory = server.resident_octets()
            stalled = [member for member in scene.members[3:] if rng.random() < 0.7]
            for member in stalled:
                member.hold(True)
            outcome.faults += len(stalled)
            acked = sum(len(member.acked) for member in scene.publishers)
            await asyncio.sleep(3.0 if run.long else 0.4)
            run.progress(f"slow: round {round_ + 1}")
            grown = (server.resident_octets() - memory) / 2**20
            outcome.notes["growth while members stalled, MiB"] = round(
                max(grown, float(outcome.notes.get("growth while members stalled, MiB", 0))), 1
            )
            if grown > MEMORY_MIB + 0.3 * len(stalled):  # each has a buffer of 256 KiB
                outcome.breach("memory", f"{grown:.0f} MiB more while {len(stalled)} stalled")
            if sum(len(member.acked) for member in scene.publishers) == acked:
                outcome.breach("recovery", "publishers waited for members that do not read")
            for member in stalled:
                member.hold(False)
            await scene.quiet(outcome)
        await scene.finish(outcome)


FAMILIES = (
    Family("slow", "members that stop reading", (*STORE, "memory", "recovery"), slow),
    Family("floods", "PING, JOIN and LEAVE, HISTORY, connects", (*STORE, "memory", "p99"), floods),
)
