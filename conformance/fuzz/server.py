"""Fuzzing a server: scripts against the model, octets that nobody meant, what fails made short and written down."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from types import MappingProxyType

from conformance.fuzz import octets, replays
from conformance.fuzz.endpoint import wire_lines
from conformance.fuzz.generate import Profile, script
from conformance.fuzz.hosted import Hosted, usage
from conformance.fuzz.network import Sockets
from conformance.fuzz.player import Failure, Player
from conformance.fuzz.progress import Progress
from conformance.fuzz.shrink import shrunk
from conformance.fuzz.steps import Step
from conformance.fuzz.tally import Tally
from conformance.session import CONFORMS, FAILS
from conformance.spec import load
from conformance.target import LaunchedServer, ServerTarget

TIGHT = MappingProxyType(
    {
        "quiet_members": 2, "replay_messages": 3, "history_messages": 3, "max_rooms": 2, "window": 4, "max_body": 4096,
        "retention_messages": 6, "publish_burst": 12, "publish_rate": 1, "stall_ms": 30_000,
    }
)  # fmt: skip
"""Limits that a second server is offered, so that short scripts reach them."""

TRUSTED = ("replay_messages", "history_messages", "quiet_members")
"""Limits that nobody is told of, which the model takes to be in force where a server heeds those that it is told of."""

_CORPUS = 400  # conversations that octets are made of
_SHRINKING = 90.0  # seconds
_TRIES = 2  # of a failing script, which has to fail each time in the same way


@dataclass
class Options:
    """How to fuzz. `timeout` is how long an answer may take, in seconds; `save` is where failures are written."""

    seed: int = 1
    max_time: float = 60.0
    max_examples: int = 0
    max_failures: int = 1
    timeout: float = 5.0
    save: Path | None = None
    format: str = "human"
    octets: bool = True
    limits: dict[str, int] = field(default_factory=dict)
    shrinking: float = _SHRINKING
    restart: float = 0.03


@dataclass
class Place:
    """A server that is up, and how scripts for it are made."""

    hosted: Hosted
    limits: dict[str, int]
    profiles: Sequence[Profile]
    renewable: bool

    def network(self, timeout: float) -> Sockets:
        """Sockets to it."""
        return self.hosted.network(timeout, self.limits)


@dataclass(frozen=True)
class Found:
    """A failure with its script, which is as short as could be made of it. `repeats`: it fails each time."""

    failure: Failure
    steps: list[Step]
    seed: int
    repeats: bool
    seconds: float
    limits: dict[str, int]


class ServerFuzz:
    """One run. `another` makes a server with limits that it is offered, where that is possible."""

    def __init__(self, target: ServerTarget, options: Options, tally: Tally | None = None) -> None:
        self.options = options
        self.tally = tally or Tally()
        self.found: list[Found] = []
        self.progress = Progress("fuzz server", self.tally, options.max_time, options.max_examples)
        self._target = target
        self._places: list[Place] = []
        self._corpus: list[bytes] = []
        self._usage: list[tuple[float, int, int]] = []

    # --- the servers

    def start(self) -> None:
        """Starts what is to be fuzzed. Raises Unreachable or Unstartable."""
        hosted = Hosted(self._target)
        self._places.append(Place(hosted, dict(self.options.limits), self._profiles(hosted), self._own))
        hosted.start()
        if isinstance(self._target, LaunchedServer):
            tight = Hosted(self._target.another(**TIGHT))
            place = Place(tight, {}, self._profiles(tight, rooms=4), True)
            self._places.append(place)
            tight.start()
            if self._heeds(place):
                place.limits = {name: TIGHT[name] for name in TRUSTED}

    @property
    def _own(self) -> bool:
        return isinstance(self._target, LaunchedServer)

    def _profiles(self, hosted: Hosted, rooms: int = 2) -> list[Profile]:
        restart = self.options.restart if isinstance(hosted.target, LaunchedServer) else 0.0
        return [
            Profile(rooms=rooms, restart=restart, drain=restart / 3),
            Profile(clients=6, rooms=rooms, steps=40, restart=restart, drain=restart / 3),
        ]

    def _heeds(self, place: Place) -> bool:
        """Whether a server took the limits that it was offered: those that WELCOME tells show it."""
        player = Player(place.network(self.options.timeout), 1, Tally(), self.options.timeout)
        try:
            player.take(Step("connect"))
            welcome = player.clients[0].welcome
            return welcome is not None and all(
                getattr(welcome, n) == TIGHT[n] for n in ("window", "max_rooms", "max_body")
            )
        except Exception:
            return False  # what is wrong will show in the scripts
        finally:
            player.close()

    def stop(self) -> None:
        """Ends what was started."""
        for place in self._places:
            place.hosted.stop()

    # --- the run

    def run(self) -> int:
        """Fuzzes until time, examples or failures are used up; prints the summary, and gives back the exit status."""
        interrupted = False
        try:
            with self.progress:
                self._fuzz()
        except KeyboardInterrupt:
            interrupted = True
        self._judge_usage()
        outcome = "interrupted; what was found so far" if interrupted else "nothing found"
        if self.found:
            outcome = f"{len(self.found)} failure{'s' if len(self.found) > 1 else ''} found"
            outcome += " before it was interrupted" if interrupted else ""
        for found in self.found:
            self._report(found)
        tolerated = ", ".join(f"{name} {count}" for name, count in self.tally.tolerated.items())
        if tolerated:
            self.progress.notes.append(f"refusals that a server may give whenever it likes: {tolerated}")
        self.progress.notes.append(f"seed {self.options.seed}: --seed {self.options.seed} repeats this run")
        self.progress.summary(outcome, self.options.format)
        return FAILS if self.found else CONFORMS

    def _fuzz(self) -> None:
        number = 0
        while not self.progress.over and len(self.found) < self.options.max_failures:
            place = self._places[number % len(self._places)]
            self.one(place, number)
            number += 1
            if self.options.octets and number % 4 == 0 and self._corpus:
                self._octets(self._places[(number // 4) % len(self._places)], number)
            self.progress.show()
            self._watch_usage()

    def one(self, place: Place, number: int) -> Found | None:
        """Plays one script; what it finds is repeated, shrunk and kept."""
        seed = self.options.seed * 1_000_003 + number
        random = Random(seed)
        steps = script(random, random.choice(place.profiles))
        player = Player(place.network(self.options.timeout), seed, self.tally, self.options.timeout)
        failure = player.play(steps)
        for code, count in player.model.refusals.items():
            self.tally.tolerated[code.name] += count
        if failure is None:
            self._corpus += octets.conversations(player.log)
            del self._corpus[:-_CORPUS]
            return None
        seconds = self.progress.seconds
        self.progress.show(f"{failure.requirement} broken, repeating it")
        steps = steps[: failure.at + 1]
        if place.hosted.target.died or failure.crashed:
            place.hosted.restart()
        again = [self._play(place, steps, seed) for _ in range(_TRIES)]
        repeats = all(other is not None and other.requirement == failure.requirement for other in again)
        if repeats:
            steps, failure = self._shrunk(place, steps, seed, failure)
        found = Found(failure, steps, seed, repeats, seconds, place.limits)
        self.found.append(found)
        return found

    def _play(self, place: Place, steps: Sequence[Step], seed: int) -> Failure | None:
        """Plays a script once more, at a server that is as new as it can be."""
        if place.renewable:
            place.hosted.restart()
        return Player(place.network(self.options.timeout), seed, Tally(), min(self.options.timeout, 2.0)).play(steps)

    def _shrunk(self, place: Place, steps: list[Step], seed: int, failure: Failure) -> tuple[list[Step], Failure]:
        until = time.monotonic() + self.options.shrinking
        last = failure

        def fails(shorter: Sequence[Step]) -> bool:
            nonlocal last
            self.progress.show(f"shrinking to {len(shorter)} steps")
            other = self._play(place, shorter, seed)
            if other is None or other.requirement != failure.requirement:
                return False
            last = other
            return True

        return shrunk(steps, fails, lambda: time.monotonic() > until), last

    def _octets(self, place: Place, number: int) -> None:
        seed = self.options.seed * 1_000_003 + number
        network = place.network(self.options.timeout)
        failure = octets.burst(network, Random(seed), self._corpus, self.tally, 3 * self.options.timeout)
        if failure:
            crashed = bool(place.hosted.target.died)
            self.found.append(Found(failure, [], seed, crashed, self.progress.seconds, place.limits))
            if crashed:
                place.hosted.restart()

    # --- memory and descriptors

    def _watch_usage(self) -> None:
        pid = self._places[0].hosted.pid
        now = self.progress.seconds
        if pid and (not self._usage or now - self._usage[-1][0] >= 1):
            used = usage(pid)
            if used:
                self._usage.append((now, *used))

    def _judge_usage(self) -> None:
        """Memory and descriptors of the first quarter of the run beside those of the last one."""
        if len(self._usage) < 8:
            return
        quarter = len(self._usage) // 4
        first, last = self._usage[quarter : 2 * quarter], self._usage[-quarter:]
        memory = [max(used for _, used, _ in part) / 2**20 for part in (first, last)]
        files = [max(count for _, _, count in part) for part in (first, last)]
        grown = files[1] > 2 * files[0] + 64
        said = f"memory {memory[0]:.0f} MiB in the second quarter, {memory[1]:.0f} MiB in the last one; "
        said += f"descriptors {files[0]} and {files[1]}"
        verdict = "they grow" if grown or memory[1] > 1.5 * memory[0] + 32 else "flat"
        self.progress.notes.append(f"{said}: {verdict}")
        if grown:
            failure = Failure("RW-CLOSE-7", "descriptors that do not grow without bound", said, 0, ())
            self.found.append(Found(failure, [], self.options.seed, False, self.progress.seconds, {}))

    # --- what was found

    def _report(self, found: Found) -> None:
        failure = found.failure
        requirement = load().requirements.get(failure.requirement)
        flaky = "" if found.repeats else " (FLAKY: it did not fail again in the same way)"
        say = partial(print, file=sys.stderr if self.options.format == "json" else sys.stdout)
        say(f"FAIL {failure.requirement}{flaky}")
        if requirement:
            say(f"  {requirement.text}")
        say(f"  expected {failure.expected}")
        say(f"  got      {failure.got}")
        say(f"  {len(found.steps)} steps, seed {found.seed}, found after {found.seconds:.1f} s:")
        for step in found.steps:
            say(f"    {step.to_json()}")
        log = list(failure.log)
        say(f"  last of {len(log)} writes on the wire:")
        for line in wire_lines(log, 40 if found.repeats else len(log)):
            say(f"    {line[:400]}")
        if self.options.save:
            self.options.save.mkdir(parents=True, exist_ok=True)
            path = self.options.save / f"{failure.requirement}-{found.seed}.jsonl"
            verdict = "FAIL" if found.repeats else "FLAKY"
            replays.of(failure, found.steps, found.seed, found.limits, verdict).write(path, log)
            say(f"  again: roomwire-check replay {path} --connect HOST:PORT")
