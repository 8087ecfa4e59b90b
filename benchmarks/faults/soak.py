"""The soak: mixed load and faults for a long time; memory and descriptors must not grow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from benchmarks.faults.stage.attack import KINDS, attack
from benchmarks.faults.stage.ledger import Stored, read
from benchmarks.faults.stage.member import Member
from benchmarks.faults.stage.process import Server
from benchmarks.faults.stage.proxy import Plan, Proxy
from benchmarks.faults.stage.results import Outcome
from benchmarks.faults.stage.scene import STORE, Run, Scene

CHECKED = (*STORE, "memory", "recovery")
RETAINED = 20_000
"""Messages a room retains; with more, the store and the index of ids would rightly grow."""

SETTINGS = {"retention_messages": RETAINED, "dedupe_ms": 20_000, "join_rate": 50, "join_burst": 200}
RATE_SECONDS = 0.05
BURST = 4
"""Each publisher sends BURST messages every RATE_SECONDS: few, so that a long run leaves the machine usable."""

DISTURBED = 0.005
"""The probability, at each burst, of a flood or a stall in addition to the cuts."""

WARM_UP = 0.25
"""The share of the samples that counts as warming up."""

GROWTH = 1.10
DESCRIPTORS = 16
"""How much the last third of the other samples may exceed the first: memory as a factor, descriptors as a number."""


class Sample(NamedTuple):
    """The state of the server, `second` seconds after the start."""

    second: float
    resident_mib: float
    descriptors: int
    acknowledged: int


async def soak(run: Run, outcome: Outcome, minutes: float, samples: list[Sample]) -> None:
    """Publishes, resets, stalls and floods on one server, which is never restarted, so that its memory shows growth."""
    rng = run.rng("soak")
    server = Server(run.directory / "soak", SETTINGS)
    proxy = Proxy(lambda: server.port, lambda: Plan("down", rng.randrange(200, 100_000), rng.choice((0.0, 0.05))))
    scene = Scene(server, rng, publishers=3, readers=3, window=64, rooms=("red", "blue", "green"))
    seen = {room: Seen() for room in scene.rooms}
    began = time.monotonic()
    async with proxy, scene:
        for members in scene.rooms.values():
            members[1].port = proxy.port  # one publisher and one reader of each room have a bad connection
            members[4].port = proxy.port
            members[1].cut()
            members[4].cut()
        while (second := time.monotonic() - began) < minutes * 60:
            for member in scene.publishers:
                member.target = member.sent + BURST
                member.pump()
            for room, members in scene.rooms.items():
                seen[room].take(members, outcome)
            await asyncio.sleep(RATE_SECONDS)
            if not samples or second - samples[-1].second >= 2.0:
                sample = Sample(second, server.resident_octets() / 2**20, server.descriptors(), outcome.acknowledged)
                samples.append(sample)
                run.progress(
                    f"soak: {second / 60:.1f} of {minutes:g} min, {sample.resident_mib:.1f} MiB,"
                    f" {sample.descriptors} descriptors, {outcome.acknowledged:,} acknowledged"
                )
            if rng.random() < DISTURBED:
                await _disturb(run, outcome, scene)
        outcome.faults += proxy.cuts
        await scene.quiet(outcome)
        await server.end()
        logs = read(server.data, scene.rooms)
        for room, members in scene.rooms.items():
            seen[room].take(members, outcome)
            seen[room].compare(outcome, logs[room])
        scene.audit(outcome, ended=True)
    judge(outcome, samples)


async def _disturb(run: Run, outcome: Outcome, scene: Scene) -> None:
    rng = run.rng(f"disturb {outcome.faults}")
    outcome.faults += 1
    if rng.random() < 0.5:
        async with attack(rng.choice(KINDS), scene.server.port, 2):
            await asyncio.sleep(0.5)
    else:
        member = rng.choice(scene.members)
        member.hold(True)
        await asyncio.sleep(0.3)
        member.hold(False)


class Seen:
    """The messages seen in a room, by seq. Compares the members with each other, and each ACK with the messages.

    Checked data is dropped, so that this program does not grow; the last 2 x RETAINED places are kept.
    """

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def take(self, members: Sequence[Member], outcome: Outcome) -> None:
        """Check what the room's members have received since the last call."""
        for member in members:
            member.report(outcome)
            for segment in member.segments:
                self._compare(outcome, member.name, segment.start, segment.numbers)
                outcome.delivered += len(segment.numbers)
                segment.start += len(segment.numbers)
                del segment.numbers[:]
            del member.segments[:-1]
            outcome.repeated += member.repeated
            member.repeated = 0
        for member in members:
            arrived = [(number, ack.seq) for number, ack in member.acked.items() if ack.seq <= member.cursor[1]]
            for number, seq in arrived:
                del member.acked[number]
                outcome.breach("lost", f"{member.name}: {number} is not at {seq}", self._numbers.get(seq) != number)
            outcome.acknowledged += len(arrived)
        while len(self._numbers) > 2 * RETAINED:
            del self._numbers[next(iter(self._numbers))]

    def compare(self, outcome: Outcome, stored: Stored) -> None:
        """Compare the store with the messages seen."""
        self._compare(outcome, "the store", stored.oldest, stored.numbers)

    def _compare(self, outcome: Outcome, who: str, start: int, numbers: Sequence[int]) -> None:
        differ = sum(self._numbers.setdefault(seq, number) != number for seq, number in enumerate(numbers, start))
        outcome.breach("order", f"{who} has other messages than the others from {start} on", differ)


def judge(outcome: Outcome, samples: list[Sample]) -> None:
    """Check that memory and descriptors did not grow."""
    warm = samples[int(len(samples) * WARM_UP) :]
    third = max(1, len(warm) // 3)
    first, last = warm[:third], warm[-third:]
    for name, early, late, bound in (
        ("MiB", median(s.resident_mib for s in first), median(s.resident_mib for s in last), GROWTH),
        ("descriptors", median(s.descriptors for s in first), median(s.descriptors for s in last), None),
    ):
        outcome.notes[f"{name}, first and last third after warming up"] = f"{early:.1f}, {late:.1f}"
        if late > (early * bound if bound else early + DESCRIPTORS):
            outcome.breach("memory", f"{late:.1f} {name} at the end, {early:.1f} before")


WIDTH, HEIGHT, LEFT, TOP = 900, 360, 60, 30


def plot(samples: list[Sample]) -> str:
    """The SVG of memory and descriptors over time."""
    span = max(samples[-1].second, 1.0)
    lines = []
    for index, (label, colour, values) in enumerate(
        (
            ("resident memory, MiB", "#2b6cb0", [s.resident_mib for s in samples]),
            ("descriptors", "#c05621", [float(s.descriptors) for s in samples]),
        )
    ):
        top = max(values) * 1.1 or 1.0
        points = " ".join(
            f"{LEFT + s.second / span * WIDTH:.1f},{TOP + HEIGHT * (1 - value / top):.1f}"
            for s, value in zip(samples, values, strict=True)
        )
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{points}"/>')
        text = f"{label}: {values[0]:.1f} at first, at most {max(values):.1f}, {values[-1]:.1f} at the end"
        lines.append(f'<text x="{LEFT}" y="{TOP + HEIGHT + 40 + 20 * index}" fill="{colour}">{text}</text>')
    axis = f'<path d="M{LEFT} {TOP}V{TOP + HEIGHT}H{LEFT + WIDTH}" fill="none" stroke="#888"/>'
    minutes = f'<text x="{LEFT + WIDTH - 90}" y="{TOP + HEIGHT + 18}">{span / 60:.1f} minutes</text>'
    size = f'width="{WIDTH + 2 * LEFT}" height="{HEIGHT + TOP + 80}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', axis, minutes, *lines, "</svg>"]) + "\n"
