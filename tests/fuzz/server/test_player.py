"""Scripts played at the reference server without I/O, which keeps the model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conformance.files import CORPUS
from conformance.fuzz import script_file
from conformance.fuzz.failure import Content, Failure
from conformance.fuzz.server.generate import Profile, script
from conformance.fuzz.server.login_steps import LOGINS
from conformance.fuzz.server.model import Fate, Model
from conformance.fuzz.server.player import STEPS, Player
from conformance.fuzz.server.steps import KINDS, Step
from conformance.fuzz.stats import Stats
from conformance.harness.verdicts import Failed
from protocol.frames import HistoryEnd, Join, Joined, Message
from protocol.names import normalise
from protocol.registry import Code, Flag
from reference_server.core.handlers import join
from reference_server.core.peer import Peer
from reference_server.core.room import Room
from reference_server.store.memory import MemoryLog, MemoryStore
from tests.mutants.catalogue import SERVERS
from tests.mutants.server.changes import changes
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


def _respells(patch: pytest.MonkeyPatch) -> None:
    enter = join._enter
    refs: dict[str, int] = {}

    def respell(peer: Peer, frame: Join, room: Room) -> None:
        if not room.members:
            room.ref = refs.setdefault(room.key, len(refs) + 1)
            assert isinstance(room.log, MemoryLog)
            room.log.name = normalise(frame.name)
        enter(peer, frame, room)

    patch.setattr(join, "_enter", respell)


RESPELLS = ServerMutant(
    "respells-empty-rooms", "Keeps an empty room's ref, and spells the room as its next member does.", patch=_respells
)


@pytest.mark.parametrize("restarts", [False, True])
def test_empty_room_with_another_spelling(restarts: bool) -> None:
    """RW-JOIN-4: a spelling holds only as long as the room has members."""
    again = Step("send", room=1, items=("join",), number=1)
    steps = [Step("connect"), Step("send", room=1, items=("join",)), Step("send", room=1, items=("text", "leave"))]
    with mutated(RESPELLS):
        failure = Player(HubNetwork(1, RESPELLS), 1, Stats(), 5.0).play([*steps, again])
        assert failure is None, str(failure)
        for seed in range(40):
            made = script(Random(seed), Profile(restart=0.1 if restarts else 0.0))
            failure = Player(HubNetwork(seed, RESPELLS), seed, Stats(), 5.0).play(made)
            assert failure is None, (seed, str(failure))


def test_spelling_changed_under_a_member() -> None:
    """RW-JOIN-4"""
    mutant = SERVERS["room-name-as-asked"]
    joins = [Step("send", client, 1, items=("join",), number=client) for client in range(2)]
    with mutated(mutant):
        failure = Player(HubNetwork(1, mutant), 1, Stats(), 5.0).play([Step("connect"), Step("connect", 1), *joins])
    assert failure is not None
    assert failure.requirement == "RW-JOIN-4"


def _joined_with(change: Callable[[Joined], Joined], *steps: Step) -> str:
    """Returns the requirement that a server breaks which changes each JOINED."""
    mutant = ServerMutant("changes-joined", "Changes JOINED.", sends=changes(Joined, change))
    with mutated(mutant):
        failure = Player(HubNetwork(1, mutant), 1, Stats(), 5.0).play([Step("connect"), *steps])
    return failure.requirement if failure else ""


def _history(end: HistoryEnd, *, newest: bool = False, start: int = 0) -> str:
    """Returns the requirement that a HISTORY of a room breaks that had oldest 1 and has head 8."""
    model = Model()
    room = model.room(0)
    room.epoch, room.head = 5, 8
    got = []
    for seq in range(1, 9):
        message = Message(seq, 1, 9, seq.to_bytes(16, "big"), 0, "ada", b"x", flags=Flag.SEQ, room=1)
        room.fates[message.id] = Fate(Content.of(message), seq, 1, acked=True)
        got += [message] if end.start <= seq < end.end else []
    try:
        model.history(room, (start, 0, 3, newest), end, got)
    except Failed as failed:
        return failed.requirement
    return ""


def test_history_trimmed_while_it_is_sent() -> None:
    """The range begins at what was the oldest message when the request came."""
    assert _history(HistoryEnd(1, 4, 3, flags=Flag.MORE)) == ""
    assert _history(HistoryEnd(3, 6, 3, flags=Flag.MORE)) == ""
    assert _history(HistoryEnd(6, 9, 7, flags=Flag.MORE), newest=True) == ""
    assert _history(HistoryEnd(6, 9, 7), newest=True) == ""
    assert _history(HistoryEnd(6, 9, 7), newest=True, start=6) == ""
    assert _history(HistoryEnd(6, 9, 7, flags=Flag.MORE), newest=True, start=6) == "RW-HISTORY-5"
    assert _history(HistoryEnd(1, 4, 3)) == "RW-HISTORY-5"
    assert _history(HistoryEnd(4, 7, 3, flags=Flag.MORE)) == "RW-HISTORY-6"
    assert _history(HistoryEnd(2, 5, 1, flags=Flag.MORE)) == "RW-HISTORY-6"


def test_joined_that_starts_at_0() -> None:
    first = Step("send", items=("join",))
    published = Step("send", items=("text", "leave", "join-last"), number=2)
    assert _joined_with(lambda joined: joined, first, published) == ""
    assert _joined_with(lambda joined: replace(joined, start=0), first, published) == "RW-CURSOR-1"
    assert _joined_with(lambda joined: replace(joined, start=0) if joined.head else joined, first, published) == (
        "RW-CURSOR-1"
    )


def test_joined_without_a_name() -> None:
    """It is a failure of the server and no fault of the suite."""
    assert _joined_with(lambda joined: replace(joined, name=""), Step("send", items=("join",))) == "RW-NAME-4"


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
