"""The fuzzer of clients: the reference client passes, mutants are found, and their scripts are shrunk and kept."""

import asyncio
import json
import shlex
import sys
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.fuzz import reach, script_file
from conformance.fuzz.client import fuzzer
from conformance.fuzz.client.fuzzer import ClientFuzz
from conformance.fuzz.client.player import ClientPlayer
from conformance.fuzz.client.steps import EVICTIONS, HANDSHAKES, ClientStep
from conformance.fuzz.failure import Failure
from conformance.fuzz.options import Options
from conformance.fuzz.stats import Stats
from conformance.harness import replay_file
from protocol.registry import Code
from tests.mutants.catalogue import CLIENTS
from tests.mutants.fuzz_client_matrix import ONLY_AT_CLIENTS, calm, find
from tests.support import virtual_time
from tests.support.client_in_process import launch, run_to_the_end

COMMAND = f"{shlex.quote(sys.executable)} -m reference_client.adapter {{host}} {{port}}"
SAMPLE = (
    "rejoin-without-cursor", "repeat-with-new-id", "old-message-reported", "repeats-reversed",
)  # fmt: skip
"""Mutants that break the promise; `tests.mutants.fuzz_client_matrix` tries all."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the reference client connect again soon, and leave nothing behind in the event loop."""
    monkeypatch.setattr(ClientFuzz, "whole", lambda self: run_to_the_end(self.fuzz()))
    calm(monkeypatch)


@pytest.mark.usefixtures("quick")
def test_generated_scripts_at_the_reference_client(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz = ClientFuzz(launch, Options(max_time=0, max_examples=60, timeout=20.0, format="json"))
    assert fuzz.run() == 0
    assert fuzz.found == []
    assert fuzz.stats.connections > 70
    assert fuzz.stats.states("client") == {
        "CONNECTING", "PREFACE", "HELLO_SENT", "OPEN", "DRAINING", "CLOSING", "CLOSED"
    }  # fmt: skip
    assert json.loads(capsys.readouterr().out)["outcome"] == "nothing found"


def _situations() -> list[list[ClientStep]]:
    """Scripts that bring about all possible transitions of a client, and codes the reference server never sends."""
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
def test_transitions_that_no_script_reaches() -> None:
    stats = Stats()

    async def play() -> list[Failure | None]:
        gate = asyncio.Semaphore(8)
        scripts = _situations()
        players = [ClientPlayer(launch, seed, stats, 20.0, gate) for seed in range(len(scripts))]
        played = (player.play(steps) for player, steps in zip(players, scripts, strict=True))
        return await run_to_the_end(asyncio.gather(*played))

    assert [failure for failure in virtual_time.run(play()) if failure] == []
    missed = {f"{row.state}, {row.event}" for row in stats.unvisited("client")}
    assert missed == set(reach.load()["never"]["client"])
    assert {Code(code).name for _, code in stats.codes} >= ONLY_AT_CLIENTS


@pytest.mark.parametrize("slug", SAMPLE)
def test_mutant(slug: str) -> None:
    row = find(CLIENTS[slug], 60.0, shrinking=1.0, run=virtual_time.run)
    assert row is not None, "not found"


@pytest.mark.usefixtures("quick")
def test_failure_written_and_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [ClientStep(do) for do in ("join", "ping", "others", "publish")] + [ClientStep("break", what="hole")]
    with pytest.MonkeyPatch.context() as patch:
        CLIENTS["hole-ignored"].patch(patch)
        patch.setattr(fuzzer, "script", lambda random, losses: steps)
        patch.setattr(asyncio, "run", virtual_time.run)
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
    assert main(["replay", str(path), "--exec", COMMAND]) == 0, "the reference client passes"
    assert main(["replay", str(path), "--connect", "127.0.0.1:1"]) == 2


def test_command_that_is_no_client(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "client", "--exec", "/nonexistent/client {port}", "--max-time", "1"]) == 3
    assert main(["fuzz", "client", "--exec", f"{sys.executable} -c pass", "--max-time", "1"]) == 3
    assert main(["fuzz", "client", "--exec", "x {nonsense}"]) == 2
    assert "cannot run" in capsys.readouterr().err
