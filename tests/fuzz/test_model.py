"""The fuzzer's model against the reference server without I/O: it is kept by the whole one, and broken by others."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conformance.fuzz import strategies
from conformance.fuzz.machine import server_machine
from conformance.fuzz.server.broken_frames import BROKEN, HANDSHAKES
from conformance.fuzz.server.generate import Profile, script
from conformance.fuzz.server.player import STEPS, Player
from conformance.fuzz.server.steps import ITEMS, KINDS, Step
from conformance.fuzz.stats import Stats
from conformance.spec.tables import load
from conformance.wire.octets import HEADER, decode, read_header
from protocol.codec import RawFrame
from protocol.codec import decode as fast
from protocol.errors import RemoteProtocolError
from protocol.frames import Frame, Unknown
from protocol.names import key
from protocol.registry import Code
from reference_server.store.memory import MemoryStore
from tests.mutants.servers import UNCHANGED_DURABLE, ServerMutant
from tests.support.hub_network import HubNetwork

TIGHT: dict[str, Any] = {
    "quiet_members": 2, "replay_messages": 3, "history_messages": 3, "max_rooms": 2, "window": 4, "max_body": 4096,
    "retention_messages": 6, "publish_burst": 12, "publish_rate": 1,
}  # fmt: skip
"""Limits that a short script reaches."""

PROFILES = (
    Profile(restart=0.3, drain=0.1, time=0.3),
    Profile(clients=5, rooms=4, restart=0.2, drain=0.1, time=0.2),
)
ALWAYS = settings(
    max_examples=15, stateful_step_count=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

TestVolatileServer = server_machine(HubNetwork).TestCase
TestVolatileServer.settings = ALWAYS
TestDurableServer = server_machine(lambda: HubNetwork(1, UNCHANGED_DURABLE)).TestCase
TestDurableServer.settings = ALWAYS
TestServerWithTightLimits = server_machine(lambda: HubNetwork(1, None, **TIGHT)).TestCase
TestServerWithTightLimits.settings = ALWAYS


@pytest.mark.parametrize("made", [lambda seed: HubNetwork(seed), lambda seed: HubNetwork(seed, None, **TIGHT),
                                  lambda seed: HubNetwork(seed, UNCHANGED_DURABLE)],
                         ids=["open", "tight", "durable"])  # fmt: skip
def test_reference_keeps_generated_scripts(made: Callable[[int], HubNetwork]) -> None:
    stats = Stats()
    for seed in range(60):
        failure = Player(made(seed), seed, stats, 5.0).play(script(Random(seed), PROFILES[seed % 2]))
        assert failure is None, (seed, str(failure))
    assert stats.scripts == 60
    assert stats.received > 3000
    assert stats.states("server") >= {"WAIT_PREFACE", "WAIT_HELLO", "OPEN", "DRAINING", "CLOSING", "CLOSED"}


def test_same_seed_gives_the_same_octets() -> None:
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


@given(strategies.broken_frames())
def test_broken_frames_earn_what_they_say(broken: strategies.BrokenFrame) -> None:
    """Where the codec alone can tell: its code is one of those; both codecs agree."""
    header = read_header(broken.octets)
    [code] = broken.breakage.codes
    assert broken.breakage.requirement in load().requirements
    if code is Code.FRAME_TOO_LARGE:
        assert header.length > 65_536
        return
    body = broken.octets[HEADER.size :]
    assert len(body) == header.length
    raw = RawFrame(header.type, header.flags, header.request, header.room, body)
    said: list[Code | None] = []
    readers: list[Callable[[], Frame | Unknown]] = [lambda: decode(header, body, "C"), lambda: fast(raw, "C")]
    for read in readers:
        try:
            frame = read()
            said.append(Code.UNKNOWN_REQUEST if header.request else Code.UNKNOWN_TYPE)
            if not isinstance(frame, Unknown):
                said[-1] = None
        except RemoteProtocolError as error:
            said.append(error.code)
    assert said[0] == said[1]
    by_server = {Code.UNEXPECTED, Code.NOT_JOINED, Code.NAME_INVALID, Code.UNKNOWN_REQUEST}
    assert said[0] == code or (said[0] is None and code in by_server)


def test_every_way_to_be_wrong_names_its_rule() -> None:
    known = load().requirements
    assert all(breakage.requirement in known for breakage in BROKEN.values())
    assert all(handshake.requirement in known for handshake in HANDSHAKES.values())


@given(strategies.edge_names)
def test_edge_names_are_names(name: str) -> None:
    assert key(name)


@given(st.data())
def test_streams_are_whole(data: st.DataObject) -> None:
    pieces = data.draw(strategies.streams("C"))
    assert b"".join(pieces) == b"".join(data.draw(strategies.slices(b"".join(pieces))))


@given(strategies.scripts())
def test_steps_fit_into_json(steps: list[Step]) -> None:
    assert [Step.from_json(step.to_json()) for step in steps] == steps


@pytest.mark.parametrize("value", [{"do": "dance"}, {"do": "send", "items": ["dance"]}, {"do": "send", "dance": 1}])
def test_other_steps_are_refused(value: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Step.from_json(value)


def test_each_kind_of_step_has_a_function() -> None:
    assert set(STEPS) == set(KINDS)
    player = Player(HubNetwork(1), 1, Stats(), 5.0)
    for kind in KINDS:
        player.take(Step(kind))  # those that make no sense are passed over
    player.close()


def test_simpler_steps_are_steps() -> None:
    step = Step("send", 1, 1, "", tuple(ITEMS), 8, True, 60)
    simpler = list(step.simpler())
    assert step not in simpler
    assert len(simpler) > len(ITEMS)


def test_rooms_that_come_and_go_are_trimmed_in_time() -> None:
    """A long run left them behind faster than they were visited, so that memory grew."""
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
