"""The fuzzer of servers with servers that are unlike the reference: of ASCII alone, dying, growing, not coming back."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from conformance.cli import main
from conformance.fuzz import script_file
from conformance.fuzz.failure import Failure
from conformance.fuzz.options import Options
from conformance.fuzz.server import growth, mutations
from conformance.fuzz.server.fuzzer import TIGHT, ServerFuzz
from conformance.fuzz.server.growth import FREE_FILES, FREE_OCTETS, Growth, Sample
from conformance.fuzz.server.player import Player
from conformance.fuzz.server.steps import Step
from conformance.fuzz.stats import Stats
from conformance.harness.process import Unreachable
from conformance.wire.octets import CLIENT_PREFACE, encode
from protocol import names
from protocol.errors import NameInvalid
from protocol.frames import Frame, Hello, Ping, Pong
from reference_server.core.handlers import hello, join
from tests.mutants.fuzz_matrix import PATIENT
from tests.mutants.servers import UNCHANGED, MutantConnection, MutantServer, Sent, ServerMutant, mutated
from tests.support.hub_network import HubNetwork


def _of_ascii(patch: pytest.MonkeyPatch) -> None:
    def normalise(name: str) -> str:
        if not name.isascii():
            raise NameInvalid("name", "ASCII", name)
        return plain(name)

    plain = names.normalise
    patch.setattr(hello, "normalise", normalise)
    patch.setattr(join, "normalise", normalise)


def _garbles(connection: MutantConnection, said: Frame) -> Iterable[Sent]:
    """One PONG is too short."""
    if isinstance(said, Pong) and said.opaque == b"opaque-*":
        return [b"\0\0\0\x07\0\x07" + bytes(10) + b"1234567"]
    return [said]


QUICK = Options(max_time=0, max_examples=4, timeout=20.0)
ASCII = ServerMutant("ascii-only", "Reads and writes only ASCII.", patch=_of_ascii)
GARBLES = ServerMutant("garbles", "Garbles its frames.", ("RW-FRAME-7",), sends=_garbles)


def _fuzzed(served: MutantServer, options: Options) -> tuple[ServerFuzz, int]:
    fuzz = ServerFuzz(served, options)
    with mutated(served.mutant):
        fuzz.start()
        try:
            return fuzz, fuzz.run()
        finally:
            fuzz.stop()


@pytest.mark.parametrize("declared", [None, True])
def test_server_of_ascii_alone_is_fuzzed(declared: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(max_time=0, max_examples=16, timeout=20.0, mutations=False, ascii_only=declared)
    fuzz, status = _fuzzed(MutantServer(ASCII, 10.0, PATIENT), options)
    assert (status, fuzz.found) == (0, [])
    assert fuzz.stats.scripts == 16
    assert "nothing found" in capsys.readouterr().out


def test_server_that_now_and_then_takes_ascii_alone_is_found() -> None:
    """One that has taken another name before has no right to it."""
    player = Player(HubNetwork(1, ASCII), 1, Stats(), 5.0, ascii_only=False)
    with mutated(ASCII):
        failure = player.play([Step("connect", number=1)])
    assert failure is not None
    assert failure.requirement == "RW-HELLO-2"


class _Mortal(MutantServer):
    """It starts once."""

    async def start(self) -> None:
        if self.world["starts"]:
            raise Unreachable("the disk is full", "no space left")
        await super().start()


def test_server_that_does_not_start_again_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options(max_time=60, timeout=5.0, mutations=False, restart=20.0, save=tmp_path, max_failures=9)
    fuzz, status = _fuzzed(_Mortal(ServerMutant("mortal", "Dies."), 10.0, PATIENT), options)
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


def test_second_server_that_does_not_start_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz, status = _fuzzed(_Alone(UNCHANGED, 10.0, PATIENT), Options(max_time=0, max_examples=4, timeout=20.0))
    assert (status, fuzz.found) == (0, [])
    assert "somebody has the lock" in capsys.readouterr().out


class _OneMore(MutantServer):
    def another(self, **limits: int) -> "MutantServer":
        return _Never(self.mutant) if "quiet_members" not in limits else super().another(**limits)


def test_third_server_that_does_not_start_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The small buffers that were meant for it are not the second one's."""
    served = _OneMore(UNCHANGED, 10.0, PATIENT)
    fuzz, _ = _fuzzed(served, Options(max_time=0, max_examples=1, timeout=20.0))
    assert [place.receive_buffer for place in fuzz._places] == [0, 0]
    assert "somebody has the lock" in capsys.readouterr().out


def test_fault_of_the_suite_is_told_apart(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fault(*_: object) -> Failure:
        raise KeyError("a mistake")

    monkeypatch.setattr(Player, "play", fault)
    _, status = _fuzzed(MutantServer(UNCHANGED, 10.0, PATIENT), Options(max_time=5))
    assert status == 4
    said = capsys.readouterr()
    assert "a fault of the suite at example 0, seed 1" in said.out
    assert "a mistake" in said.err


# --- octets are made short, written and replayed


def test_octets_that_fail_are_made_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = CLIENT_PREFACE + encode(Hello("ada", "ANONYMOUS", b"", request=1)) + encode(Pong(bytes(8))) * 9
    culprit = said + encode(Ping(b"opaque-*")) + encode(Ping(b"opaque--"))

    def burst_steps(random: Random, corpus: object, count: int = 40) -> list[Step]:
        return [Step("octets", octets=(culprit if at == 7 else said).hex()) for at in range(20)]

    monkeypatch.setattr(mutations, "burst_steps", burst_steps)
    fuzz, status = _fuzzed(MutantServer(GARBLES, 10.0, PATIENT), Options(max_time=60, timeout=5.0, save=tmp_path))
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


# --- memory and descriptors


def _grown(memory: list[int], files: list[int], messages: int = 0, seconds: float = 200.0) -> tuple[str, bool]:
    pairs = list(zip(memory, files, strict=True))
    step = seconds / (len(pairs) - 1)
    samples = [Sample(at * step, *pair, 0, at * messages) for at, pair in enumerate(pairs)]
    return Growth(1, samples).judge()


def test_growth_is_judged_by_its_rule() -> None:
    flat = [2**26] * 40
    few = [20] * 40
    assert _grown(flat, few) == (_grown(flat, few)[0], False)
    assert "flat" in _grown(flat, few)[0]
    leak = [2**26 + at * FREE_OCTETS // 4 for at in range(40)]
    assert _grown(leak, few)[1]
    assert not _grown(leak, few, messages=10_000)[1], "it may keep what it was told"
    assert not _grown(leak, few, seconds=growth.JUDGED_AFTER - 1)[1]
    assert "too short" in _grown(leak, few, seconds=growth.JUDGED_AFTER - 1)[0]
    assert _grown(flat, [20] * 25 + [41 + FREE_FILES] * 15)[1]
    assert not _grown(flat, [20] * 25 + [40 + FREE_FILES] * 15)[1]
    filled = [2**24] * 5 + [2**28] * 35
    assert not _grown(filled, few)[1], "what fills up once does not count"
    assert Growth().judge() == ("", False)


def test_another_process_begins_anew() -> None:
    watched = Growth()
    pid = os.getpid()
    watched.watch(pid, 1.0, 0, 0)
    watched.watch(pid, 1.5, 0, 0)
    assert [sample.seconds for sample in watched.samples] == ([1.0] if sys.platform == "linux" else [])
    watched.watch(0, 3.0, 0, 0)
    assert watched.samples == []


def test_growth_is_a_finding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Growth, "judge", lambda self: ("memory 1 MiB, then 900 MiB: they grow", True))
    fuzz, status = _fuzzed(MutantServer(UNCHANGED, 10.0, PATIENT), Options(max_time=0, max_examples=1, timeout=20.0))
    assert status == 1
    assert fuzz.found[0].failure.got.endswith("they grow")
    assert "1.5 times" in capsys.readouterr().out


# --- what is declared


def test_what_is_declared_is_not_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    file.write_text("[limits]\nwindows = 9\n")
    assert main(["fuzz", "server", "--exec", "x {port}", "--config", str(file)]) == 2
    assert main(["fuzz", "server", "--exec", "x {nonsense}"]) == 2


def test_declared_limits_are_held(capsys: pytest.CaptureFixture[str]) -> None:
    """A server that replays 10,000 messages does not have the cap of 1 that was declared."""
    options = Options(max_time=60, timeout=5.0, mutations=False, limits={"replay_messages": 1}, shrinking=1.0)
    fuzz, status = _fuzzed(MutantServer(UNCHANGED, 10.0, PATIENT), options)
    assert status == 1
    assert fuzz.found[0].failure.requirement == "RW-CURSOR-1"
    assert fuzz.found[0].limits["replay_messages"] == 1
    assert TIGHT["replay_messages"] != 1
    assert capsys.readouterr().out
