"""Scripts played at the reference server without I/O, which keeps the model."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conformance.files import CORPUS
from conformance.fuzz import script_file
from conformance.fuzz.failure import Failure
from conformance.fuzz.server.generate import Profile, script
from conformance.fuzz.server.login_steps import LOGINS
from conformance.fuzz.server.player import STEPS, Player
from conformance.fuzz.server.steps import KINDS, Step
from conformance.fuzz.stats import Stats
from protocol.registry import Code
from reference_server.store.memory import MemoryStore
from tests.mutants.catalogue import SERVERS
from tests.mutants.servers import UNCHANGED, UNCHANGED_DURABLE, ServerMutant, mutated
from tests.support.hub_network import HubNetwork, tight

PROFILES = (
    Profile(restart=0.3, drain=0.1, time=0.3),
    Profile(clients=5, rooms=4, restart=0.2, drain=0.1, time=0.2),
)


@pytest.mark.parametrize(
    "made", [HubNetwork, tight, lambda seed: HubNetwork(seed, UNCHANGED_DURABLE)], ids=["open", "tight", "durable"]
)
def test_generated_scripts_at_the_reference_server(made: Callable[[int], HubNetwork]) -> None:
    stats = Stats()
    for seed in range(60):
        failure = Player(made(seed), seed, stats, 5.0).play(script(Random(seed), PROFILES[seed % 2]))
        assert failure is None, (seed, str(failure))
    assert stats.scripts == 60
    assert stats.received > 3000
    assert stats.states("server") >= {"WAIT_PREFACE", "WAIT_HELLO", "OPEN", "DRAINING", "CLOSING", "CLOSED"}


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_corpus_at_the_reference_server(path: Path) -> None:
    file = script_file.read(path)
    limits: dict[str, Any] = file.limits
    for server in (UNCHANGED, UNCHANGED_DURABLE):
        network = HubNetwork(file.seed, server, **limits)
        failure = Player(network, file.seed, Stats(), 5.0).play(file.steps)
        assert failure is None, str(failure)


def test_same_seed_twice() -> None:
    runs = []
    for _ in range(2):
        same = ServerMutant(
            "predictable",
            "Has the same epochs after each start.",
            store=lambda old, retention: MemoryStore(retention, Random(7).randbytes),
        )
        player = Player(HubNetwork(7, same), 7, Stats(), 5.0, "fresh")
        assert player.play(script(Random(7), PROFILES[0])) is None
        runs.append([(said.client, said.sender, said.octets) for said in player.log])
    assert runs[0] == runs[1]
    assert len(runs[0]) > 50


def test_functions_for_all_steps() -> None:
    assert set(STEPS) == set(KINDS)
    player = Player(HubNetwork(1), 1, Stats(), 5.0)
    for kind in KINDS:
        player.take(Step(kind))  # steps that make no sense are passed over
    player.close()


def test_abandoned_rooms_after_their_retention() -> None:
    """The server visited them more slowly than a long run left them behind, so that memory grew."""
    network = HubNetwork(1, None, retention_ms=1_000)
    player = Player(network, 1, Stats(), 5.0)
    player.take(Step("connect"))
    for room in range(60):
        for items in (("join",), ("text", "text"), ("leave",)):
            player.take(Step("send", 0, room, items=items))
    assert network._store is not None
    logs = network._store._logs.values()
    assert len(logs) == 60
    network.sleep(10.0)
    assert [log.head for log in logs if log.oldest <= log.head] == []
    player.close()


def _logins_of_a_full_account(mutant: ServerMutant) -> tuple[Failure | None, Stats]:
    """Logs in in each way, as an account that has all the connections that it may have."""
    stats = Stats()
    with mutated(mutant):
        network = HubNetwork(1, mutant, {"Ada": "correct horse"}, account_connections=1)
        assert network.hub is not None
        network.hub.state.account_connections["ada"] = 1
        return Player(network, 1, stats, 5.0).play([Step("login", what=what) for what in LOGINS]), stats


def test_logins_of_a_full_account() -> None:
    """RW-SASL-10"""
    failure, stats = _logins_of_a_full_account(UNCHANGED)
    assert failure is None, str(failure)
    assert Code.SERVER_FULL not in stats.unseen_codes()


def test_full_account_told_before_the_proof() -> None:
    """RW-SASL-11"""
    failure, _ = _logins_of_a_full_account(SERVERS["account-full-before-proof"])
    assert failure is not None
    assert failure.requirement == "RW-SASL-11"
