"""The model as a hypothesis state machine, for anybody's pytest.

    from conformance.fuzz.machine import server_machine
    from conformance.fuzz.server.network import Sockets

    TestMyServer = server_machine(lambda: Sockets(lambda: ("127.0.0.1", 7117), 5.0, {})).TestCase

Each rule takes one step of `steps`; the promise is checked after each, and liveness at the end.
"""

from collections.abc import Callable, Sequence

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
) -> type[RuleBasedStateMachine]:
    """A state machine that drives a server, which `network` begins anew for each example.

    `timeout`: how long an answer may take, in seconds. What goes wrong is conformance.harness.verdicts.Failed, with the
    requirement. With `restarts` the server is killed and started again, where the network can do that.
    """
    counted = stats or Stats()

    class ServerMachine(RuleBasedStateMachine):
        @initialize(seed=st.integers(0, 2**32))
        def begin(self, seed: int) -> None:
            self.network = network()
            self.player = Player(self.network, seed, counted, timeout)

        def teardown(self) -> None:
            if hasattr(self, "player"):
                try:
                    self.player.finish()
                    counted.scripts += 1
                finally:
                    self.player.close()

        def take(self, step: Step) -> None:
            self.player.take(step)

        @rule(client=CLIENTS, what=st.sampled_from(("", "grease")), cut=CUTS)
        def connect(self, client: int, what: str, cut: int) -> None:
            self.take(Step("connect", client, what=what, number=client, cut=cut))

        @rule(client=CLIENTS, room=ROOMS, item=st.sampled_from(JOINS), number=NUMBERS, roster=st.booleans(), cut=CUTS)
        def join(self, client: int, room: int, item: str, number: int, roster: bool, cut: int) -> None:
            if client not in self.player.clients:
                self.take(Step("connect", client, number=client))
            self.take(Step("send", client, room, "", (item,), number, roster, cut))

        @precondition(lambda self: bool(self.player.clients))
        @rule(
            client=CLIENTS, room=ROOMS, number=NUMBERS, cut=CUTS,
            items=st.lists(st.sampled_from(ITEMS), min_size=1, max_size=6),
        )  # fmt: skip
        def send(self, client: int, room: int, items: Sequence[str], number: int, cut: int) -> None:
            self.take(Step("send", client, room, "", tuple(items), number, cut=cut))

        @rule(
            client=CLIENTS, room=ROOMS, what=st.sampled_from(("fin", "reset", "half", "unanswered")),
            items=st.lists(st.sampled_from(sorted(DROPPABLE)), max_size=3),
        )  # fmt: skip
        def drop(self, client: int, room: int, what: str, items: Sequence[str]) -> None:
            self.take(Step("drop", client, room, what, tuple(items)))

        @rule(client=CLIENTS, room=ROOMS, items=st.lists(st.sampled_from(ITEMS), max_size=3))
        def goaway(self, client: int, room: int, items: Sequence[str]) -> None:
            self.take(Step("goaway", client, room, "", tuple(items)))

        @rule(client=CLIENTS, room=ROOMS, what=st.sampled_from(sorted(BROKEN)), cut=CUTS)
        def send_rubbish(self, client: int, room: int, what: str, cut: int) -> None:
            self.take(Step("break", client, room, what, cut=cut))

        @rule(what=st.sampled_from(sorted(HANDSHAKES)), cut=CUTS)
        def come_in_wrongly(self, what: str, cut: int) -> None:
            self.take(Step("handshake", what=what, cut=cut))

        @rule(client=CLIENTS)
        def read_slowly(self, client: int) -> None:
            self.take(Step("pause", client))

        @rule(client=CLIENTS)
        def read_again(self, client: int) -> None:
            self.take(Step("resume", client))

        @precondition(lambda self: restarts)
        @rule()
        def restart(self) -> None:
            self.take(Step("restart"))

        @rule(number=st.sampled_from((500, 3_000, 20_000)))
        def let_time_pass(self, number: int) -> None:
            self.take(Step("time", number=number))

    return ServerMachine
