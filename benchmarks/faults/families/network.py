"""The network fails: a reset after every octet of a session, and replies that never arrive."""

from __future__ import annotations

import asyncio
import random
from typing import Literal

from benchmarks.faults.stage.process import Server
from benchmarks.faults.stage.proxy import Plan, Proxy
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import STORE, Family, Run, Scene

SESSION_OCTETS: dict[Literal["up", "down"], int] = {"up": 420, "down": 760}
"""Preface, HELLO, JOIN and six PUBLISHes; their replies, and the room's stream."""


async def reset(run: Run, outcome: Outcome) -> None:
    """A reset after every octet of a session, in both directions, with publishes under way."""
    rng = run.rng("reset")
    step = run.either(1, 24)
    every: list[Plan | None] = [
        Plan(direction, octets)
        for direction in SESSION_OCTETS
        for octets in range(1 + rng.randrange(step), SESSION_OCTETS[direction] + 1, step)
    ]
    await _through_proxies(run, outcome, rng, every, window=6, name="reset")


async def repeat(run: Run, outcome: Outcome) -> None:
    """Replies are lost, and then the connection: repeated publishes are acknowledged at their first place."""
    rng = run.rng("repeat")
    plans: list[Plan | None] = []
    for _ in range(run.either(1_000, 12)):
        plans.append(Plan("down", rng.randrange(180, 4_000), rng.uniform(0.01, 0.06)))
        if rng.random() < 0.5:
            plans.append(None)
    await _through_proxies(run, outcome, rng, plans, window=256, name="repeat", whole_seconds=0.05)


async def _through_proxies(
    run: Run,
    outcome: Outcome,
    rng: random.Random,
    plans: list[Plan | None],
    *,
    window: int,
    name: str,
    whole_seconds: float = 0.0,
) -> None:
    """Give each connection the next plan; a connection without a plan lasts for `whole_seconds`."""
    total = len(plans)
    cutting = True

    def plan() -> Plan | None:
        return plans.pop() if plans and cutting else None

    plans.reverse()
    server = Server(run.directory / name)
    proxy = Proxy(lambda: server.port, lambda: None)
    scene = Scene(server, rng, publishers=3, readers=1, window=window, port=proxy.port)
    async with proxy, scene:
        for members in scene.rooms.values():
            members[-1].port = lambda: server.port
        proxy.plan = plan
        for member in scene.members:
            member.cut()
        scene.publish()
        while plans:
            await asyncio.sleep(max(0.02, whole_seconds))
            run.progress(f"{name} {total - len(plans)} of {total}")
            for member in scene.publishers:
                if whole_seconds and rng.random() < 0.3:
                    member.cut()  # otherwise a connection without a plan would last for ever
        cutting = False
        outcome.faults += proxy.cuts
        await scene.finish(outcome)
        outcome.notes["connections"] = sum(member.connects for member in scene.members)
        outcome.notes["ACKs with DUPLICATE"] = sum(member.duplicates for member in scene.members)


FAMILIES = (
    Family("reset", "the connection is reset after every octet of a session", STORE, reset),
    Family("repeat", "ACKs are lost, and the publishes repeated", STORE, repeat),
)
