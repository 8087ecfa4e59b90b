"""All clients come back at once: thousands of members reconnect after the server was killed."""

from __future__ import annotations

import resource

from benchmarks.faults.stage.member import Member
from benchmarks.faults.stage.process import Server
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import STORE, Family, Run, Scene, wait_until

ROOM_MEMBERS = 100
RESERVE = 500
"""Descriptors that this program needs besides those of the members."""


async def storm(run: Run, outcome: Outcome) -> None:
    """kill -9 with 10,000 connections in rooms of 100: after 10 s all members are in their rooms and get messages."""
    rng = run.rng("storm")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = run.either(10_000, 150)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, wanted + RESERVE)), hard))
    count = min(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - RESERVE)
    if count < wanted:
        outcome.notes["limited by descriptors"] = f"{count:,} of {wanted:,}"
    server = Server(run.directory / "storm", {"heartbeat_ms": 600_000})
    crowd = [
        Member(f"m{index}", 1_000 + index, f"crowd-{index // ROOM_MEMBERS}", lambda: server.port, 8, index)
        for index in range(count)
    ]
    async with (scene := Scene(server, rng, publishers=2, readers=1, window=32)):
        for index, member in enumerate(crowd):
            scene.add(member)
            if index % 200 == 199 or index == count - 1:  # in batches: this is not measured
                await wait_until(lambda: all(m.open.is_set() for m in scene.members))
                run.progress(f"storm: {index + 1:,} connections")
        outcome.notes["server with all connections, MiB"] = round(server.resident_octets() / 2**20, 1)
        for _ in range(run.either(3, 1)):
            scene.publish()
            for member in crowd[::ROOM_MEMBERS]:
                member.target = member.sent + 2
                member.pump()
            await server.kill()
            outcome.faults += count
            await scene.revive(outcome)
            run.progress(f"storm: back after {outcome.notes['slowest recovery, s']} s")
        outcome.notes["server at the end, MiB"] = round(server.resident_octets() / 2**20, 1)
        await scene.finish(outcome)


FAMILIES = (Family("storm", "thousands reconnect at once", (*STORE, "recovery"), storm),)
