"""Fuzzing a server: scripts against the model, and mutated octets. What fails is made short and kept."""

import contextlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from types import MappingProxyType

from conformance.fuzz import reach
from conformance.fuzz.failure import Failure
from conformance.fuzz.findings import Found, conclude
from conformance.fuzz.options import Options
from conformance.fuzz.progress import Progress
from conformance.fuzz.server import mutations
from conformance.fuzz.server.generate import Profile, script
from conformance.fuzz.server.growth import RULE, Growth
from conformance.fuzz.server.idle import KINDS, Idle
from conformance.fuzz.server.network import Hosted, Sockets
from conformance.fuzz.server.player import Player
from conformance.fuzz.server.steps import Step
from conformance.fuzz.shrink import shortest
from conformance.fuzz.stats import Stats
from conformance.harness.ddmin import smallest
from conformance.harness.exit_status import CONFORMS, FAILS, FAULT
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.verdicts import Crashed, Failed
from conformance.server.target import LaunchedServer, ServerTarget
from conformance.wire import clock

TIGHT = MappingProxyType(
    {
        "quiet_members": 2, "replay_messages": 3, "history_messages": 3, "max_rooms": 2, "window": 4, "max_body": 4096,
        "retention_messages": 6, "publish_burst": 12, "publish_rate": 1, "stall_ms": 30_000,
    }
)  # fmt: skip
"""Limits that a second server is offered, which short scripts reach."""

LAGGY = MappingProxyType({"retention_messages": 200, "stall_ms": 30_000})
"""Limits that a third server is offered. It retains one flood, and trims the first of two."""

_RECEIVE_BUFFER = 32 * 1024  # octets, of clients of the third server
TIMES = ("preface_ms", "handshake_ms", "frame_ms", "linger_ms", "drain_ms")
"""Times that WELCOME does not tell. They are taken to be in force if the offered heartbeat is."""

TRUSTED = ("replay_messages", "history_messages", "quiet_members")
"""Limits that WELCOME does not tell. They are taken to be in force if the offered limits are that it does tell."""

_IDLE_AT_ONCE = 8
_RESTARTS_UNTIL = 0.25  # part of a run in which the first server is restarted; after that its memory is watched
_LONGEST = 20_000  # octets of a conversation that others are made of, so that no flood is among them
_CORPUS = 400  # conversations that octets are made of
_TRIES = 2  # of a failing script, which has to fail in the same way each time


@dataclass
class Place:
    """A server that is up, and what scripts for it are made with."""

    hosted: Hosted
    limits: dict[str, int]
    profiles: Sequence[Profile]
    renewable: bool
    receive_buffer: int = 0
    accounts: Mapping[str, str] = field(default_factory=dict)

    def network(self, timeout: float) -> Sockets:
        """Returns the way to the server."""
        return self.hosted.network(timeout, self.limits, self.receive_buffer, self.accounts)


class ServerFuzz:
    """One run against a server, and, where this program starts it, against two more with other limits."""

    def __init__(self, target: ServerTarget, options: Options, stats: Stats | None = None) -> None:
        self.options = options
        self.stats = stats or Stats()
        self.found: list[Found] = []
        kinds = reach.kinds(launched=isinstance(target, LaunchedServer), accounts=bool(options.accounts))
        self.progress = Progress("fuzz server", self.stats, options.max_time, options.max_examples, kinds=kinds)
        self._target = target
        self._places: list[Place] = []
        self._corpus: list[bytes] = []
        self._idle: list[Idle] = []
        self._growth = Growth()
        self._gone = False  # a server does not start any more

    # --- the servers

    def start(self) -> None:
        """Starts the servers. Raises Unreachable or Unstartable."""
        hosted, known = Hosted(self._target), dict(self.options.limits)
        own = isinstance(self._target, LaunchedServer)
        place = Place(hosted, known, self._profiles(hosted), own, accounts=self.options.accounts)
        self._places.append(place)
        hosted.start()
        if isinstance(self._target, LaunchedServer):
            offered = dict(self._target.limits)
            if self._heeds(place, offered, "heartbeat_ms"):
                place.limits = {name: offered[name] for name in TIMES if name in offered} | known
            tight = {name: value for name, value in TIGHT.items() if name not in known}
            self._another(self._target, tight, Profile(rooms=4), Profile(6, 4, 40))
            if len(self._places) > 1 and self._heeds(self._places[1], tight, "window", "max_rooms", "max_body"):
                self._places[1].limits = known | {name: tight[name] for name in TRUSTED if name in tight}
                lag = Profile(3, 1, 4, time=0.1, lag=60.0)
                laggy = {name: value for name, value in LAGGY.items() if name not in known}
                self._another(self._target, laggy, lag, receive_buffer=_RECEIVE_BUFFER)

    def _another(
        self, target: LaunchedServer, offered: dict[str, int], *profiles: Profile, receive_buffer: int = 0
    ) -> None:
        """Starts one more server, which is offered limits. Notes if it does not start."""
        hosted = Hosted(target.another(**offered))
        restart = self.options.restart
        made = [replace(profile, restart=restart, drain=restart / 3) for profile in profiles]
        try:
            hosted.start()
        except (Unreachable, Unstartable) as error:
            hosted.stop()
            shown = ", ".join(f"{name} {value}" for name, value in offered.items())
            self.progress.notes.append(f"another server, with {shown}, did not start, and was left out: {error}")
        else:
            known = dict(self.options.limits)
            self._places.append(Place(hosted, known, made, True, receive_buffer, self.options.accounts))

    def _profiles(self, hosted: Hosted) -> list[Profile]:
        restart = self.options.restart if isinstance(hosted.target, LaunchedServer) else 0.0
        return [
            Profile(restart=restart, drain=restart / 3),
            Profile(clients=6, steps=40, restart=restart, drain=restart / 3),
        ]

    def _heeds(self, place: Place, offered: dict[str, int], *names: str) -> bool:
        """Whether a server took the limits that it was offered, as WELCOME shows."""
        player = self._player(place, 1, Stats(), self.options.timeout)
        shown = [name for name in names if name in offered]
        try:
            player.take(Step("connect"))
            welcome = player.clients[0].welcome
            return welcome is not None and bool(shown) and all(getattr(welcome, n) == offered[n] for n in shown)
        except Exception:
            return False  # the scripts will show what is wrong
        finally:
            player.close()

    def _player(self, place: Place, seed: int, stats: Stats, timeout: float) -> Player:
        return Player(place.network(timeout), seed, stats, timeout, ascii_only=self.options.ascii_only)

    def stop(self) -> None:
        """Stops the servers."""
        self._drop_idle()
        for place in self._places:
            place.hosted.stop()

    # --- the run

    def run(self) -> int:
        """Fuzzes until time, examples or failures are used up, prints the summary, and returns the exit status."""
        ended = ""
        try:
            with self.progress:
                self.fuzz()
        except KeyboardInterrupt:
            ended = "it was interrupted"
        except Exception:
            traceback.print_exc()
            ended = f"a fault of the suite at example {self.stats.scripts}, seed {self.options.seed}: please report it"
        self._judge_growth()
        tolerated = ", ".join(f"{name} {count}" for name, count in self.stats.tolerated.items())
        if tolerated:
            self.progress.notes.append(f"refusals that a server may give at any time: {tolerated}")
        conclude("server", self.found, ended, self.progress, self.options, "--connect HOST:PORT")
        return FAILS if self.found else FAULT if ended.startswith("a fault") else CONFORMS

    def fuzz(self) -> None:
        """Fuzzes until time, examples or failures are used up, or until a server does not start any more."""
        number = 0
        while not (self.progress.over or self._gone) and len(self.found) < self.options.max_failures:
            lag = len(self._places) > 2 and number % self.options.lag_every == self.options.lag_every - 1
            self.one(self._places[2 if lag else number % len(self._places[:2])], number)
            number += 1
            if self.options.mutations and number % 4 == 0 and self._corpus and not self._gone:
                self._mutate(self._places[(number // 4) % len(self._places[:2])], number)
            self._look_at_idle()
            self._growth.watch(
                self._places[0].hosted.pid, self.progress.seconds, self.stats.told, self.stats.acknowledged
            )
            self.progress.show(self._growth.newest)

    def one(self, place: Place, number: int) -> Found | None:
        """Plays one script. Repeats, shrinks and keeps what it finds."""
        seed = self.options.seed * 1_000_003 + number
        random = Random(seed)
        profile = random.choice(place.profiles)
        if place is self._places[0] and self.progress.done > _RESTARTS_UNTIL:
            profile = replace(profile, restart=0.0, drain=0.0)  # its memory is watched by now
        steps = script(random, profile)
        player = self._player(place, seed, self.stats, self.options.timeout)
        failure = player.play(steps)
        for code, count in player.model.refusals.items():
            self.stats.tolerated[code.name] += count
        if failure is None:
            self._corpus += [said for said in mutations.conversations(player.log) if len(said) <= _LONGEST]
            del self._corpus[:-_CORPUS]
            return None
        return self._keep(place, steps[: failure.at + 1], seed, failure)

    def _keep(self, place: Place, steps: list[Step], seed: int, failure: Failure) -> Found:
        """Repeats a failure and makes it short. That the server does not start again is a finding of its own."""
        seconds = self.progress.seconds
        self.progress.show(f"{failure.requirement} broken, repeating it")
        self._drop_idle()
        try:
            if place.hosted.target.died or failure.crashed:
                self._renew(place)
            again = [self._play(place, steps, seed) for _ in range(_TRIES)]
            repeats = all(other is not None and other.requirement == failure.requirement for other in again)
            if repeats:
                steps, failure = self._shrunk(place, steps, seed, failure)
        except Crashed as error:
            self._gone = True
            said = f"{error}; before that {failure.requirement or 'a failure'}: {failure.got}"
            failure = Failure("", "a server that starts again after it was killed", said, failure.at, failure.log, True)
            repeats = True
        found = Found(failure, steps, seed, repeats, seconds, place.limits)
        self.found.append(found)
        return found

    def _renew(self, place: Place) -> None:
        """Restarts a server, with a second try. Raises Crashed."""
        try:
            place.hosted.restart()
        except Crashed:
            place.hosted.restart()

    def _play(self, place: Place, steps: Sequence[Step], seed: int) -> Failure | None:
        """Plays a script once more, at a new server where that is possible. Raises Crashed."""
        if place.renewable and (place.hosted.target.died or not all(step.do == "octets" for step in steps)):
            self._renew(place)
        player = self._player(place, seed, Stats(), min(self.options.timeout, 2.0))
        player.network.waits = True
        return player.play(steps)

    def _shrunk(self, place: Place, steps: list[Step], seed: int, failure: Failure) -> tuple[list[Step], Failure]:
        until = clock.now() + self.options.shrinking
        last = failure

        def fails(shorter: Sequence[Step]) -> bool:
            nonlocal last
            self.progress.show(f"shrinking to {len(shorter)} steps")
            other = self._play(place, shorter, seed)
            if other is None or other.requirement != failure.requirement:
                return False
            last = other
            return True

        return smallest(steps, shortest, fails, lambda: clock.now() > until), last

    def _mutate(self, place: Place, number: int) -> None:
        """Sends one burst of mutated octets, during which another connection has to be served."""
        seed = self.options.seed * 1_000_003 + number
        steps = mutations.burst_steps(Random(seed), self._corpus)
        control = self._player(place, seed, self.stats, self.options.timeout)
        try:
            failure = control.play([Step("connect")], whole=False)
            failure = failure or mutations.burst(control.network, steps, self.stats, 3 * self.options.timeout)
            failure = failure or control.play([Step("send", items=("ping",)), Step("connect", 1)], whole=False)
        finally:
            control.close()
        if failure is None:
            return
        alone = steps[failure.at : failure.at + 1]
        with contextlib.suppress(Crashed):
            if alone and not failure.crashed and self._play(place, alone, seed) is not None:
                steps = alone
        self._keep(place, steps, seed, failure)

    # --- idle connections while scripts run

    def _look_at_idle(self) -> None:
        """Begins idle connections while the server is not restarted, and looks at those that exist."""
        place = self._places[0]
        if self._gone or (place.renewable and self.progress.done <= _RESTARTS_UNTIL):
            return
        what = ""
        try:
            if len(self._idle) < _IDLE_AT_ONCE:
                seed = self.options.seed * 1_000_003 + self.stats.scripts
                what = Random(seed).choice([name for name in KINDS if name != "login" or self.options.accounts])
                player = self._player(place, seed, self.stats, self.options.timeout)
                self._idle.append(Idle(player, what))
            for idle in list(self._idle):
                what = idle.what
                if idle.poll():
                    idle.player.close()
                    self._idle.remove(idle)
        except (Failed, Crashed, OSError) as error:
            said = ("RW-CLOSE-7", "a server that goes on serving", f"{error}")
            if isinstance(error, Failed):
                said = (error.requirement, error.expected, error.got)
            failure = Failure(*said, 0, ())
            self._keep(place, [Step("idle", what=what)], self.options.seed, failure)

    def _drop_idle(self) -> None:
        for idle in self._idle:
            idle.player.close()
        self._idle.clear()

    # --- memory and descriptors

    def _judge_growth(self) -> None:
        said, grows = self._growth.judge()
        if said:
            self.progress.notes.append(said)
        if grows:
            failure = Failure("RW-CLOSE-7", f"memory and descriptors that do not grow: {RULE}", said, 0, ())
            self.found.append(Found(failure, [], self.options.seed, True, self.progress.seconds, {}))
