"""The fuzzer of clients: the reference client keeps its scripts, broken ones are found, made short and replayed."""

import asyncio
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from conformance.cli import main
from conformance.fuzz import reach, script_file
from conformance.fuzz.client import fuzzer, player
from conformance.fuzz.client.broken_frames import BROKEN, ClientBench
from conformance.fuzz.client.fuzzer import ClientFuzz
from conformance.fuzz.client.model import ClientRoom
from conformance.fuzz.client.player import AT_HELLO, STEPS, ClientPlayer
from conformance.fuzz.client.steps import COMMANDS, EVICTIONS, HANDSHAKES, SERVER, ClientStep, script
from conformance.fuzz.failure import Failure
from conformance.fuzz.options import Options
from conformance.fuzz.stats import Stats
from conformance.harness import replay_file
from conformance.harness.verdicts import Failed
from conformance.spec.tables import load
from conformance.wire.octets import HEADER, decode, read_header
from protocol.errors import RemoteProtocolError
from protocol.frames import Join
from protocol.registry import Code
from tests.mutants.catalogue import CLIENTS
from tests.mutants.fuzz_client_matrix import ONLY_AT_CLIENTS, calm, find
from tests.support.client_in_process import launch, run_to_the_end

COMMAND = f"{shlex.quote(sys.executable)} -m reference_client.adapter {{host}} {{port}}"
SAMPLE = (
    "rejoin-without-cursor", "repeat-with-new-id", "old-message-reported", "repeats-reversed",
)  # fmt: skip
"""Clients that break the promise: `python -m tests.mutants.fuzz_client_matrix` has all."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference client does not wait long before it connects again, and leaves nothing behind in the loop."""
    monkeypatch.setattr(ClientFuzz, "whole", lambda self: run_to_the_end(self.fuzz()))
    calm(monkeypatch)


@pytest.mark.usefixtures("quick")
def test_reference_client_keeps_generated_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz = ClientFuzz(launch, Options(max_time=0, max_examples=60, timeout=20.0, format="json"))
    assert fuzz.run() == 0
    assert fuzz.found == []
    assert fuzz.stats.connections > 70
    assert fuzz.stats.states("client") == {
        "CONNECTING", "PREFACE", "HELLO_SENT", "OPEN", "DRAINING", "CLOSING", "CLOSED"
    }  # fmt: skip
    assert json.loads(capsys.readouterr().out)["outcome"] == "nothing found"


def _situations() -> list[list[ClientStep]]:
    """Scripts that bring about all transitions of a client that they can, and the codes that no server here has."""
    join, publish = ClientStep("join"), ClientStep("publish")
    ends = [("drain", how) for how in ("", "goaway", "broken", "quit")]
    ends += [("goaway", code) for code in ("SHUTDOWN", "ABUSE", "TLS_REQUIRED")] + [("silent", ""), ("quit", "")]
    ends += [("evict", code) for code in EVICTIONS] + [("break", "hole"), ("drop", "half")]
    made = [[ClientStep("handshake", what=how), join] for how in HANDSHAKES]
    made += [[join, publish, ClientStep(do, what=what)] for do, what in ends]
    made += [[join, ClientStep("break", what="unknown-critical", number=number)] for number in (1, 1, 1, 6)]
    made.append([join, ClientStep("refuse", what="UNAVAILABLE"), publish])
    return made


@pytest.mark.usefixtures("quick")
def test_every_transition_of_a_client_is_reached_or_listed() -> None:
    stats = Stats()

    async def play() -> list[Failure | None]:
        gate = asyncio.Semaphore(8)
        scripts = _situations()
        players = [ClientPlayer(launch, seed, stats, 20.0, gate) for seed in range(len(scripts))]
        played = (player.play(steps) for player, steps in zip(players, scripts, strict=True))
        return await run_to_the_end(asyncio.gather(*played))

    assert [failure for failure in asyncio.run(play()) if failure] == []
    missed = {f"{row.state}, {row.event}" for row in stats.unvisited("client")}
    assert missed == set(reach.load()["never"]["client"])
    assert {Code(code).name for _, code in stats.codes} >= ONLY_AT_CLIENTS


@pytest.mark.parametrize("slug", SAMPLE)
def test_broken_clients_are_found(slug: str) -> None:
    row = find(CLIENTS[slug], 60.0, shrinking=1.0)
    assert row is not None, "not found"


@pytest.mark.usefixtures("quick")
def test_failure_is_made_short_written_and_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [ClientStep(do) for do in ("join", "ping", "others", "publish")] + [ClientStep("break", what="hole")]
    with pytest.MonkeyPatch.context() as patch:
        CLIENTS["hole-ignored"].patch(patch)
        patch.setattr(fuzzer, "script", lambda random, losses: steps)
        fuzz = ClientFuzz(launch, Options(timeout=1.0, save=tmp_path, shrinking=20.0))
        assert fuzz.run() == 1
    [found] = fuzz.found
    assert found.repeats
    assert found.failure.requirement == "RW-STREAM-2"
    assert [step.do for step in found.steps] == ["join", "break"]
    assert "RW-STREAM-2" in capsys.readouterr().out
    [path] = tmp_path.iterdir()
    assert replay_file.read(path).is_script
    again = script_file.read(path)
    assert again.role == "client"
    assert list(again.steps) == list(found.steps)
    assert main(["replay", str(path), "--exec", COMMAND]) == 0, "the whole client passes"
    assert main(["replay", str(path), "--connect", "127.0.0.1:1"]) == 2


def test_script_of_no_steps_is_still_of_a_client(tmp_path: Path) -> None:
    """A handshake that fails needs none."""
    script_file.ScriptFile("client", 7, [], "RW-HELLO-1").write(tmp_path / "file.jsonl")
    assert script_file.read(tmp_path / "file.jsonl") == script_file.ScriptFile("client", 7, [], "RW-HELLO-1")


def test_client_that_is_none_is_not_reachable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "client", "--exec", "/nonexistent/client {port}", "--max-time", "1"]) == 3
    assert main(["fuzz", "client", "--exec", f"{sys.executable} -c pass", "--max-time", "1"]) == 3
    assert main(["fuzz", "client", "--exec", "x {nonsense}"]) == 2
    assert "cannot run" in capsys.readouterr().err


def test_broken_frames_break_what_they_say() -> None:
    """Where the decoder alone can tell, it says one of their codes; else it takes them."""
    known = load().requirements
    for seed in range(20):
        bench = ClientBench(Random(seed), 5, 4, 0x7000_0000, 65_536)
        for name, breakage in BROKEN.items():
            assert breakage.requirement in known
            octets = breakage.make(bench)
            header = read_header(octets)
            if Code.FRAME_TOO_LARGE in breakage.codes:
                assert header.length > 65_536
                continue
            assert header.length == len(octets) - HEADER.size
            code: Code | None = None
            try:
                decode(header, octets[HEADER.size :], "S")
            except RemoteProtocolError as error:
                code = error.code
            assert code is None or code in breakage.codes, name


def test_steps_are_values() -> None:
    steps = [step for seed in range(300) for step in script(Random(seed), 3)]
    assert [ClientStep.from_json(step.to_json()) for step in steps] == steps
    assert {step.do for step in steps} == {*COMMANDS, *SERVER}
    assert all(simpler != step for step in steps for simpler in step.simpler())
    with pytest.raises(ValueError, match="dance"):
        ClientStep.from_json({"do": "dance"})


def test_each_step_and_handshake_has_a_function() -> None:
    assert set(STEPS) == {*COMMANDS, *SERVER}
    assert AT_HELLO.keys().isdisjoint(player.HANDSHAKES)
    assert {*AT_HELLO, *player.HANDSHAKES} == set(HANDSHAKES)


def _room() -> ClientRoom:
    room = ClientRoom("lobby", 7, wanted=True)
    for number in range(3):
        room.append(bytes([number]) * 16, 77, 1, b"%d" % number)
    joined = room.answer(Join("lobby", 0, 0, request=2), 5)
    room.told_joined({name: str(getattr(joined, name)) for name in ("epoch", "head", "start", "oldest")})
    return room


_WHO = {"ctype": 1, "name": "b\u00f6b", "sender": "77"}


def _message(room: ClientRoom, seq: int, **other: object) -> dict[str, object]:
    entry = room.at(seq)
    assert entry
    return {"epoch": str(room.epoch), "seq": str(seq), "payload": entry.payload.hex(), **_WHO, **other}


def test_promise_is_held_against_reports() -> None:
    room = _room()
    for number in (3, 4, 5):
        room.append(bytes([number]) * 16, 77, 1, b"%d" % number)
    room.sent = room.head
    assert room.owed == "RW-PROMISE-10 message 4 of 'lobby'"
    room.told_message(_message(room, 4))
    for report, rule in (
        (_message(room, 4), "RW-RECOVER-3"),
        (_message(room, 6), "RW-PROMISE-10"),
        (_message(room, 5, payload="00"), "RW-MODEL-10"),
        (_message(room, 5, epoch="8"), "RW-MODEL-10"),
    ):
        with pytest.raises(Failed) as failed:
            room.told_message(report)
        assert failed.value.requirement == rule
    room.told_message(_message(room, 5))
    room.told_message(_message(room, 6))
    assert room.owed == ""
    with pytest.raises(Failed, match="no gap"):
        room.told_gap({"epoch": "7", "start": "9"})


def test_frames_of_extensions_are_owed_to_nobody_also_when_they_are_trimmed() -> None:
    room = _room()
    for _ in range(2):
        room.append(b"", 0, 0, b"extension", ignorable=True)
    room.append(bytes(16), 77, 1, b"a message")
    room.sent = room.head
    room.trim(1)
    assert room.owed == "RW-PROMISE-10 message 6 of 'lobby'"
    room.told_message(_message(room, 6))
    assert room.owed == ""


def test_cursors_and_gaps_are_held_against_what_was_sent() -> None:
    room = _room()
    room.reached[7] = 3
    back = Join("lobby", 7, 3, request=3)
    for wrong in (replace(back, since=2), replace(back, since=4), replace(back, epoch=8), replace(back, epoch=0)):
        with pytest.raises(Failed) as failed:
            room.answer(wrong, 6)
        assert failed.value.requirement == "RW-RECOVER-1"
    for number in (3, 4, 5):
        room.append(bytes([number]) * 16, 77, 1, b"%d" % number)
    room.trim(1)
    joined = room.answer(back, 6)
    assert joined.start == 6
    assert room.gap == (7, 6)
    room.told_joined({"epoch": "7", "head": "6", "start": "6", "oldest": "6"})
    assert room.owed.startswith("RW-PROMISE-10 `gap`")
    with pytest.raises(Failed, match="a gap up to 6"):
        room.told_message(_message(room, 6))
    room.told_gap({"epoch": "7", "start": "6"})
    room.sent = 6
    room.told_message(_message(room, 6))
    assert room.owed == ""
