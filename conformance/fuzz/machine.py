"""The model as a hypothesis state machine, for a pytest of your own.

    from conformance.fuzz.machine import server_machine
    from conformance.fuzz.server.network import Sockets

    TestMyServer = server_machine(lambda: Sockets(lambda: ("127.0.0.1", 7117), 5.0, {})).TestCase

Each rule takes one step of `server/steps.py`. The promise is checked after each step, and liveness at the end.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from conformance.fuzz.server.broken_frames import BROKEN, HANDSHAKES
from conformance.fuzz.server.network import Network
from conformance.fuzz.server.player import Player
from conformance.fuzz.server.requests import DROPPABLE
from conformance.fuzz.server.steps import ITEMS, Step
from conformance.fuzz.stats import Stats

CLIENTS = st.integers(0, 3)
ROOMS = st.integers(0, 1)
NUMBERS = st.sampled_from((0, 1, 2, 3, 5, 8, 100))
CUTS = st.sampled_from((0, 2, 7, 60))
JOINS = [item for item in ITEMS if item.startswith("join")]


def server_machine(
    network: Callable[[], Network], *, timeout: float = 5.0, stats: Stats | None = None, restarts: bool = True
) -> "type[ServerMachine]":
    """Returns a state machine that drives a server. `network` makes the way to a new server for each example.

    `timeout` is how long an answer may take, in seconds. With `restarts` the server is killed and started again, where
    the network can do that. The machine raises conformance.harness.verdicts.Failed, with the requirement.
    """

    class Machine(ServerMachine):
        new_network = staticmethod(network)
        answers_within = timeout
        counted = stats or Stats()
        kills = restarts

    return Machine


class ServerMachine(RuleBasedStateMachine):
    """The rules. `server_machine` makes a class that has a server."""

    new_network: ClassVar[Callable[[], Network]]
    answers_within: ClassVar[float]
    counted: ClassVar[Stats]
    kills: ClassVar[bool]

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.player = Player(type(self).new_network(), seed, self.counted, self.answers_within)

    def teardown(self) -> None:
        if hasattr(self, "player"):
            try:
                self.player.finish()
                self.counted.scripts += 1
            finally:
                self.player.close()

    @rule(client=CLIENTS, what=st.sampled_from(("", "grease")), cut=CUTS)
    def connect(self, client: int, what: str, cut: int) -> None:
        self.player.take(Step("connect", client, what=what, number=client, cut=cut))

    @rule(client=CLIENTS, room=ROOMS, item=st.sampled_from(JOINS), number=NUMBERS, roster=st.booleans(), cut=CUTS)
    def join(self, client: int, room: int, item: str, number: int, roster: bool, cut: int) -> None:
        if client not in self.player.clients:
            self.player.take(Step("connect", client, number=client))
        self.player.take(Step("send", client, room, "", (item,), number, roster, cut))

    @precondition(lambda self: bool(self.player.clients))
    @rule(
        client=CLIENTS, room=ROOMS, number=NUMBERS, cut=CUTS,
        items=st.lists(st.sampled_from(ITEMS), min_size=1, max_size=6),
    )  # fmt: skip
    def send(self, client: int, room: int, items: Sequence[str], number: int, cut: int) -> None:
        self.player.take(Step("send", client, room, "", tuple(items), number, cut=cut))

    @rule(
        client=CLIENTS, room=ROOMS, what=st.sampled_from(("fin", "reset", "half", "unanswered")),
        items=st.lists(st.sampled_from(sorted(DROPPABLE)), max_size=3),
    )  # fmt: skip
    def drop(self, client: int, room: int, what: str, items: Sequence[str]) -> None:
        self.player.take(Step("drop", client, room, what, tuple(items)))

    @rule(client=CLIENTS, room=ROOMS, items=st.lists(st.sampled_from(ITEMS), max_size=3))
    def goaway(self, client: int, room: int, items: Sequence[str]) -> None:
        self.player.take(Step("goaway", client, room, "", tuple(items)))

    @rule(client=CLIENTS, room=ROOMS, what=st.sampled_from(sorted(BROKEN)), cut=CUTS)
    def break_rule(self, client: int, room: int, what: str, cut: int) -> None:
        self.player.take(Step("break", client, room, what, cut=cut))

    @rule(what=st.sampled_from(sorted(HANDSHAKES)), cut=CUTS)
    def connect_wrongly(self, what: str, cut: int) -> None:
        self.player.take(Step("handshake", what=what, cut=cut))

    @rule(client=CLIENTS)
    def pause(self, client: int) -> None:
        self.player.take(Step("pause", client))

    @rule(client=CLIENTS)
    def resume(self, client: int) -> None:
        self.player.take(Step("resume", client))

    @precondition(lambda self: self.kills)
    @rule()
    def restart(self) -> None:
        self.player.take(Step("restart"))

    @rule(number=st.sampled_from((500, 3_000, 20_000)))
    def let_time_pass(self, number: int) -> None:
        self.player.take(Step("time", number=number))
