"""The scene of every family: a run's settings, and a server with members that publish and receive."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.faults.stage import ledger
from benchmarks.faults.stage.member import Member
from benchmarks.faults.stage.process import Server
from benchmarks.faults.stage.results import Outcome

ENDLESS = 2**39
RECOVERY_SECONDS = 10.0
PATIENCE_SECONDS = 60.0
ROOMS = ("red", "blue")


class Missing(Exception):
    """This machine lacks something that a family needs. `str()` is one line."""


@dataclass(frozen=True, slots=True)
class Run:
    """The settings of a run. `directory` is empty; `progress` shows how far a family is."""

    seed: int
    long: bool
    directory: Path
    progress: Callable[[str], None]

    def rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}:{name}")

    def either(self, long: int, short: int) -> int:
        return long if self.long else short


@dataclass(frozen=True, slots=True)
class Family:
    """A family of faults. `run` counts in the Outcome as it goes on, so that it can be stopped at any time."""

    name: str
    text: str
    checked: tuple[str, ...]
    run: Callable[[Run, Outcome], Coroutine[Any, Any, None]]


async def wait_until(what: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> bool:
    """Wait until `what()` is true. Returns whether that was in time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.002)
    return True


class Scene:
    """A server, and members in each room, of which the first `publishers` publish."""

    def __init__(
        self,
        server: Server,
        rng: random.Random,
        *,
        publishers: int = 3,
        readers: int = 1,
        window: int = 256,
        rooms: tuple[str, ...] = ROOMS,
        port: Callable[[], int] | None = None,
    ) -> None:
        self.server = server
        self.rooms: dict[str, list[Member]] = {}
        index = 0
        for room in rooms:
            self.rooms[room] = []
            for number in range(publishers + readers):
                name = f"{room}-{number}"
                seed = rng.getrandbits(32)
                index += 1
                self.rooms[room].append(Member(name, index, room, port or (lambda: server.port), window, seed))
        self.members = [member for room in self.rooms.values() for member in room]
        self.publishers = [member for room in self.rooms.values() for member in room[:publishers]]

    async def __aenter__(self) -> Scene:
        await self.server.start()
        for member in self.members:
            member.start()
        if not await wait_until(lambda: all(member.open.is_set() for member in self.members)):
            raise TimeoutError("not all members joined their rooms")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(member.stop() for member in self.members))
        await self.server.kill()

    def add(self, member: Member) -> None:
        """Add a member, which does not take part in `publish`."""
        self.rooms.setdefault(member.room, []).append(member)
        self.members.append(member)
        member.start()

    def publish(self, count: int | None = None) -> None:
        """Let each publisher send `count` more messages, or go on until `quiet`."""
        for member in self.publishers:
            member.target = ENDLESS if count is None else member.sent + count
            member.pump()

    async def kill(self, outcome: Outcome, seconds: float) -> None:
        """Publish for `seconds`, then kill -9."""
        self.publish()
        await asyncio.sleep(seconds)
        await self.server.kill()
        outcome.faults += 1

    async def fail(self, outcome: Outcome) -> None:
        """Publish until the server's storage fails; the server must end by itself and say why."""
        self.publish()
        ended = await wait_until(lambda: not self.server.alive)
        outcome.faults += 1
        if not ended:
            outcome.breach("recovery", "the server did not end")
            await self.server.kill()
            return
        status, words = await self.server.wait(), self.server.log().strip()
        if status != 1 or "expected storage that can be read and written" not in words:
            outcome.breach("served", f"exit status {status}: {words[-200:]}")

    async def quiet(self, outcome: Outcome, seconds: float = PATIENCE_SECONDS) -> bool:
        """Stop publishing, and wait until everything is answered and delivered. Returns whether that was in time."""
        for member in self.members:
            member.target = member.sent

        def settled() -> bool:
            return all(member.settled and member.open.is_set() for member in self.members) and all(
                len({member.cursor for member in room}) == 1 for room in self.rooms.values()
            )

        done = await wait_until(settled, seconds)
        if not done:
            late = [member.name for member in self.members if not member.settled or not member.open.is_set()]
            outcome.breach("gap", f"not settled in {seconds:.0f} s: {late or 'members differ in their cursors'}")
        return done

    async def recovered(self, outcome: Outcome, since: float) -> None:
        """Check that all members are back, and each publisher has a reply, within 10 s of `since`."""
        before = {member: len(member.acked) + len(member.unknown) for member in self.publishers}
        left = max(0.1, RECOVERY_SECONDS - (time.monotonic() - since))
        done = await wait_until(
            lambda: (
                all(member.open.is_set() for member in self.members)
                and all(len(member.acked) + len(member.unknown) > count for member, count in before.items())
            ),
            left,
        )
        taken = time.monotonic() - since
        outcome.notes["slowest recovery, s"] = round(max(taken, float(outcome.notes.get("slowest recovery, s", 0))), 2)
        if not done:
            outcome.breach("recovery", f"not all members were back after {taken:.1f} s")
            await wait_until(lambda: all(member.open.is_set() for member in self.members))

    async def revive(self, outcome: Outcome) -> None:
        """Audit the store of the dead server, start it again, and check that all members come back."""
        self.audit(outcome, ended=False)
        since = time.monotonic()
        await self.server.start()
        await self.recovered(outcome, since)

    async def finish(self, outcome: Outcome) -> None:
        """Wait until everything has arrived, end the server, audit its store, and count."""
        await self.quiet(outcome)
        await self.server.end()
        self.audit(outcome, ended=True)
        ledger.count(outcome, self.members)

    def audit(self, outcome: Outcome, *, ended: bool) -> None:
        """Compare the store with all members."""
        try:
            logs = ledger.read(self.server.data, self.rooms)
        except sqlite3.DatabaseError as error:
            outcome.breach("lost", f"the store cannot be read: {error}")
            return
        for room, members in self.rooms.items():
            ledger.audit(outcome, logs[room], members, ended=ended)


STORE = ("lost", "seq", "order", "doubled", "gap")
