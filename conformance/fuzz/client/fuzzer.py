"""Fuzzing a client: scripts side by side, each with a client of its own. What fails is made short and kept."""

import asyncio
import os
import traceback
from collections.abc import Sequence
from random import Random

from conformance.client.target import Launch
from conformance.fuzz.client.player import ClientPlayer
from conformance.fuzz.client.steps import ClientStep, script
from conformance.fuzz.failure import Failure
from conformance.fuzz.findings import Found, conclude
from conformance.fuzz.options import Options
from conformance.fuzz.progress import Progress
from conformance.fuzz.shrink import shortest
from conformance.fuzz.stats import Stats
from conformance.harness.ddmin import smallest_async
from conformance.harness.exit_status import CONFORMS, FAILS, FAULT
from conformance.harness.process import Unreachable
from conformance.wire import clock

_TRIES = 2  # of a failing script, which has to fail in the same way each time
_LOSSES = (0, 1, 1, 2, 3)  # connections that a script loses at most: clients wait after each


class ClientFuzz:
    """One run against clients that `launch` starts, `jobs` of them side by side."""

    def __init__(self, launch: Launch, options: Options, jobs: int = 8, stats: Stats | None = None) -> None:
        self.options = options
        self.stats = stats or Stats()
        self.found: list[Found] = []
        self.progress = Progress("fuzz client", self.stats, options.max_time, options.max_examples, ("client",), ())
        self._launch = launch
        self._jobs = jobs
        self._starting = asyncio.Semaphore(max(2, os.cpu_count() or 2))
        self._number = 0
        self._fault = ""

    def run(self) -> int:
        """Fuzzes until time, examples or failures are used up, prints the summary, and returns the exit status.

        Raises Unreachable if the client does not connect.
        """
        ended = ""
        try:
            with self.progress:
                asyncio.run(self.whole())
        except KeyboardInterrupt:
            ended = "it was interrupted"
        ended = self._fault or ended
        conclude("client", self.found, ended, self.progress, self.options, "--exec 'COMMAND {host} {port}'")
        return FAILS if self.found else FAULT if self._fault else CONFORMS

    @property
    def _enough(self) -> bool:
        return bool(self._fault) or self.progress.over or len(self.found) >= self.options.max_failures

    async def fuzz(self) -> None:
        """Fuzzes until time, examples or failures are used up. Raises Unreachable."""
        await self._probe()
        await asyncio.gather(*(self._worker() for _ in range(self._jobs)))

    async def whole(self) -> None:
        """Does what `run` does in an event loop. Tests replace it for a client that has more to end in that loop."""
        await self.fuzz()

    async def _probe(self) -> None:
        """Plays a script of no steps. Raises Unreachable if the client breaks no requirement in it, and yet fails."""
        failure = await self.player(0, Stats()).play([])
        if failure and not failure.requirement:
            raise Unreachable(f"the client did not get connected: expected {failure.expected}, got {failure.got}")

    def player(self, seed: int, stats: Stats) -> ClientPlayer:
        """Returns a player with a new client."""
        return ClientPlayer(self._launch, seed, stats, self.options.timeout, self._starting)

    async def _worker(self) -> None:
        while not self._enough:
            seed = self.options.seed * 1_000_003 + self._number
            self._number += 1
            random = Random(seed)
            steps = script(random, random.choice(_LOSSES))
            try:
                failure = await self.player(seed, self.stats).play(steps)
                self.progress.show()
                if failure is not None and not self._enough:
                    await self._keep(
                        steps[: max(1, failure.at + 1)], seed, failure
                    )  # the first step may be a handshake
            except Exception:
                traceback.print_exc()
                self._fault = f"a fault of the suite, seed {seed}: please report it"

    async def _keep(self, steps: Sequence[ClientStep], seed: int, failure: Failure) -> None:
        """Repeats a failure and makes it short."""
        seconds = self.progress.seconds
        found = Found(failure, list(steps), seed, False, seconds, {})
        self.found.append(found)
        at = self.found.index(found)
        again = [await self.player(seed, Stats()).play(steps) for _ in range(_TRIES)]
        if not all(other is not None and other.requirement == failure.requirement for other in again):
            return
        until = clock.now() + self.options.shrinking
        last = failure

        async def fails(shorter: Sequence[ClientStep]) -> bool:
            nonlocal last
            self.progress.show(f"shrinking to {len(shorter)} steps")
            other = await self.player(seed, Stats()).play(shorter)
            if other is None or other.requirement != failure.requirement:
                return False
            last = other
            return True

        left = await smallest_async(steps, shortest, fails, lambda: clock.now() > until)
        self.found[at] = Found(last, left, seed, True, seconds, {})
