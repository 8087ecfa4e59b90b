"""The shortest script that fails."""

from collections.abc import Sequence

from conformance.fuzz.server.player import Player
from conformance.fuzz.server.steps import Step
from conformance.fuzz.shrink import shortest
from conformance.fuzz.stats import Stats
from conformance.harness.ddmin import smallest
from tests.mutants.catalogue import SERVERS
from tests.mutants.servers import mutated
from tests.support.hub_network import HubNetwork


def test_shortest_script() -> None:
    mutant = SERVERS["crash-forgets-ids"]
    steps = [
        Step("connect", 3), Step("connect"), Step("send", items=("join", "ping"), number=8, cut=60),
        Step("send", items=("text", "empty")), Step("send", 3, items=("join",)), Step("restart"), Step("connect"),
        Step("send", items=("join-own",)), Step("send", items=("pong", "repeat", "unknown")), Step("drop", 3),
    ]  # fmt: skip

    def fails(some: Sequence[Step]) -> bool:
        with mutated(mutant):
            failure = Player(HubNetwork(1, mutant), 1, Stats(), 5.0).play(some)
        return failure is not None and failure.requirement == "RW-DEDUPE-1"

    left = smallest(steps, shortest, fails)
    assert fails(left)
    assert not any(fails(left[:at] + left[at + 1 :]) for at in range(len(left)))
    assert not any(
        fails([*left[:at], other, *left[at + 1 :]]) for at, step in enumerate(left) for other in step.simpler()
    )
    assert len(left) == 7
