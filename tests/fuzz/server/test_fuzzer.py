"""The fuzzer of servers: the reference server passes, mutants are found, and servers may die or be unusual."""

import json
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from conformance.cli import main
from conformance.fuzz import script_file
from conformance.fuzz.failure import Failure
from conformance.fuzz.options import Options
from conformance.fuzz.server import mutations
from conformance.fuzz.server.fuzzer import TIGHT, ServerFuzz
from conformance.fuzz.server.growth import Growth
from conformance.fuzz.server.network import Hosted
from conformance.fuzz.server.player import Player
from conformance.fuzz.server.steps import Step
from conformance.fuzz.stats import Stats
from conformance.harness.process import Unreachable
from conformance.wire.octets import CLIENT_PREFACE, encode
from protocol import names
from protocol.errors import NameInvalid
from protocol.frames import Frame, Hello, Ping, Pong
from reference_server.core.handlers import hello, join
from tests.mutants.catalogue import SERVERS
from tests.mutants.fuzz_matrix import PATIENT, in_process, over_sockets, play
from tests.mutants.servers import UNCHANGED, MutantConnection, MutantServer, Sent, ServerMutant, mutated
from tests.support.hub_network import HubNetwork

SAMPLE = (
    "seq-from-2", "ack-seqs-reversed", "duplicate-other-time", "id-conflict-accepted",
    "first-new-message-missing", "replay-missing", "crash-loses-last-message",
    "crash-forgets-ids", "presence-left-missing", "presence-left-as-lost", "roster-first-entry-missing",
    "gap-flag-inverted", "preceded-accepted", "id-never-expires", "silent-after-error", "checks-other-order",
    "drain-no-replies", "message-before-ack", "refused-publish-appended", "quiet-flag-once",
)  # fmt: skip
"""Mutants that break order, repeats, loss, presence, recovery or refusals; `tests.mutants.fuzz_matrix` tries all."""


def _of_ascii(patch: pytest.MonkeyPatch) -> None:
    def normalise(name: str) -> str:
        if not name.isascii():
            raise NameInvalid("name", "ASCII", name)
        return plain(name)

    plain = names.normalise
    patch.setattr(hello, "normalise", normalise)
    patch.setattr(join, "normalise", normalise)


ASCII = ServerMutant("ascii-only", "Reads and writes only ASCII.", patch=_of_ascii)


def _garbles(connection: MutantConnection, said: Frame) -> Iterable[Sent]:
    """One PONG is too short."""
    if isinstance(said, Pong) and said.opaque == b"opaque-*":
        return [b"\0\0\0\x07\0\x07" + bytes(10) + b"1234567"]
    return [said]


GARBLES = ServerMutant("garbles", "Garbles its frames.", ("RW-FRAME-7",), sends=_garbles)


def _fuzz(server: MutantServer | ServerMutant, options: Options) -> tuple[ServerFuzz, int]:
    """Fuzzes a server. Returns the fuzzer and the exit status."""
    if isinstance(server, ServerMutant):
        server = MutantServer(server, 10.0, PATIENT)
    fuzz = ServerFuzz(server, options)
    with mutated(server.mutant):
        fuzz.start()
        try:
            return fuzz, fuzz.run()
        finally:
            fuzz.stop()


@pytest.mark.parametrize("slug", SAMPLE)
def test_mutant_in_process(slug: str) -> None:
    """The script that is left fails at some seed by the same requirement."""
    mutant = SERVERS[slug]
    row = in_process(mutant, 30.0)
    assert row is not None, "not found"
    assert len(row.steps) < 15
    for seed in range(400):
        with mutated(mutant):
            failure = play(mutant, seed, row.steps)
            if failure and failure.requirement == row.requirement:
                break
    else:
        pytest.fail("the shortest script does not fail")


@pytest.mark.parametrize("slug", ["first-new-message-missing", "crash-loses-last-message"])
def test_mutant_over_sockets(slug: str) -> None:
    row = over_sockets(SERVERS[slug], 60.0, shrinking=1.0)
    assert row is not None
    assert row.repeats


def test_reference_server(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz, _ = _fuzz(UNCHANGED, Options(max_time=0, max_examples=24, timeout=20.0, restart=0.1, format="json"))
    assert fuzz.found == []
    assert fuzz.stats.connections > 200
    figures = json.loads(capsys.readouterr().out)
    assert figures["outcome"] == "nothing found"
    assert any(line.startswith("SLOW: ") for line in figures["unseen_codes"])


def test_failure_written_and_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mutant = SERVERS["seq-from-2"]
    _fuzz(mutant, Options(max_time=30.0, timeout=5.0, save=tmp_path))
    assert "RW-MODEL-1" in capsys.readouterr().out
    [path] = tmp_path.iterdir()
    assert json.loads(path.read_text().splitlines()[-1])["wire"]
    for replayed_at, status in ((mutant, 1), (UNCHANGED, 0)):
        server = MutantServer(replayed_at, 10.0, PATIENT)
        hosted = Hosted(server)
        with mutated(replayed_at):
            hosted.start()
            try:
                assert main(["replay", str(path), "--connect", f"127.0.0.1:{server.port}"]) == status
            finally:
                hosted.stop()


def test_failure_that_does_not_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerFuzz, "_play", lambda *_: None)
    fuzz, _ = _fuzz(SERVERS["seq-from-2"], Options(max_time=30.0, save=tmp_path))
    [found] = fuzz.found
    assert not found.repeats
    [path] = tmp_path.iterdir()
    assert script_file.read(path).verdict == "FLAKY"
    assert len(path.read_text().splitlines()) > len(found.steps) + len(found.failure.log)


@pytest.mark.parametrize("declared", [None, True])
def test_server_that_takes_only_ascii(declared: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(max_time=0, max_examples=16, timeout=20.0, mutations=False, ascii_only=declared)
    fuzz, status = _fuzz(ASCII, options)
    assert (status, fuzz.found) == (0, [])
    assert fuzz.stats.scripts == 16
    assert "nothing found" in capsys.readouterr().out


def test_server_that_takes_only_ascii_now_and_then() -> None:
    """A server that has taken another name must not refuse one now."""
    player = Player(HubNetwork(1, ASCII), 1, Stats(), 5.0, ascii_only=False)
    with mutated(ASCII):
        failure = player.play([Step("connect", number=1)])
    assert failure is not None
    assert failure.requirement == "RW-HELLO-2"


class _Mortal(MutantServer):
    """A server that starts only once."""

    async def start(self) -> None:
        if self.world["starts"]:
            raise Unreachable("the disk is full", "no space left")
        await super().start()


def test_server_that_does_not_start_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(max_time=60, timeout=5.0, mutations=False, restart=20.0, save=tmp_path, max_failures=9)
    fuzz, status = _fuzz(_Mortal(ServerMutant("mortal", "Dies."), 10.0, PATIENT), options)
    assert status == 1
    [found] = fuzz.found
    assert found.failure.expected == "a server that starts again after it was killed"
    out = capsys.readouterr().out
    assert "FAIL CRASH" in out
    assert "the disk is full" in out
    [path] = tmp_path.iterdir()
    assert script_file.read(path).steps[-1].do in ("restart", "drain")


class _Alone(MutantServer):
    def another(self, **limits: int) -> "MutantServer":
        return _Never(self.mutant)


class _Never(MutantServer):
    async def start(self) -> None:
        raise Unreachable("somebody has the lock")


def test_second_server_that_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz, status = _fuzz(_Alone(UNCHANGED, 10.0, PATIENT), Options(max_time=0, max_examples=4, timeout=20.0))
    assert (status, fuzz.found) == (0, [])
    assert "somebody has the lock" in capsys.readouterr().out


class _OneMore(MutantServer):
    def another(self, **limits: int) -> "MutantServer":
        return _Never(self.mutant) if "quiet_members" not in limits else super().another(**limits)


def test_third_server_that_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    """The second server does not get the small buffers that were meant for it."""
    served = _OneMore(UNCHANGED, 10.0, PATIENT)
    fuzz, _ = _fuzz(served, Options(max_time=0, max_examples=1, timeout=20.0))
    assert [place.receive_buffer for place in fuzz._places] == [0, 0]
    assert "somebody has the lock" in capsys.readouterr().out


def test_fault_of_the_suite(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fault(*_: object) -> Failure:
        raise KeyError("a mistake")

    monkeypatch.setattr(Player, "play", fault)
    _, status = _fuzz(UNCHANGED, Options(max_time=5))
    assert status == 4
    said = capsys.readouterr()
    assert "a fault of the suite at example 0, seed 1" in said.out
    assert "a mistake" in said.err


def test_octets_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    said = CLIENT_PREFACE + encode(Hello("ada", "ANONYMOUS", b"", request=1)) + encode(Pong(bytes(8))) * 9
    culprit = said + encode(Ping(b"opaque-*")) + encode(Ping(b"opaque--"))

    def burst_steps(random: Random, corpus: object, count: int = 40) -> list[Step]:
        return [Step("octets", octets=(culprit if at == 7 else said).hex()) for at in range(20)]

    monkeypatch.setattr(mutations, "burst_steps", burst_steps)
    fuzz, status = _fuzz(GARBLES, Options(max_time=60, timeout=5.0, save=tmp_path))
    assert status == 1
    [found] = fuzz.found
    assert found.repeats
    [step] = found.steps
    assert len(step.octets) < len(culprit.hex()) // 2
    with mutated(GARBLES):
        assert _play(GARBLES, step) == "RW-FRAME-7"
        for shorter in step.simpler():
            assert _play(GARBLES, shorter) != "RW-FRAME-7", "something could be left out"
    [path] = tmp_path.iterdir()
    assert script_file.read(path).steps == [step]
    assert "RW-FRAME-7" in capsys.readouterr().out


def _play(mutant: ServerMutant, step: Step) -> str:
    failure = Player(HubNetwork(1, mutant), 1, Stats(), 5.0).play([step])
    return failure.requirement if failure else ""


def test_growth_as_a_finding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Growth, "judge", lambda self: ("memory 1 MiB, then 900 MiB: they grow", True))
    fuzz, status = _fuzz(UNCHANGED, Options(max_time=0, max_examples=1, timeout=20.0))
    assert status == 1
    assert fuzz.found[0].failure.got.endswith("they grow")
    assert "1.5 times" in capsys.readouterr().out


def test_declared_limits_are_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "server.toml"
    file.write_text("[features]\nascii-names = true\n[limits]\nreplay_messages = 7\nwindow = 9\nstall_ms = 9000\n")
    made: list[ServerFuzz] = []

    def start(self: ServerFuzz) -> None:
        made.append(self)
        raise Unreachable("not now")

    monkeypatch.setattr(ServerFuzz, "start", start)
    assert main(["fuzz", "server", "--exec", "x {port}", "--config", str(file)]) == 3
    [fuzz] = made
    assert fuzz.options.ascii_only is True
    assert fuzz.options.limits == {"replay_messages": 7, "window": 9, "stall_ms": 9000}
    assert "stall_ms" not in fuzz._target.limits  # type: ignore[attr-defined]


def test_declared_limit_that_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that replays 10,000 messages does not have the cap of 1 that was declared."""
    options = Options(max_time=60, timeout=5.0, mutations=False, limits={"replay_messages": 1}, shrinking=1.0)
    fuzz, status = _fuzz(UNCHANGED, options)
    assert status == 1
    assert fuzz.found[0].failure.requirement == "RW-CURSOR-1"
    assert fuzz.found[0].limits["replay_messages"] == 1
    assert TIGHT["replay_messages"] != 1
    assert capsys.readouterr().out
