"""The fuzzers' tools: shrinking, replay files and the corpus, octets, the codec's differences, and the command."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conformance.cli import main
from conformance.files import CORPUS as CORPUS_FOLDER
from conformance.fuzz import codec, script_file
from conformance.fuzz.failure import Failure
from conformance.fuzz.options import Options
from conformance.fuzz.server import mutations
from conformance.fuzz.server.fuzzer import ServerFuzz
from conformance.fuzz.server.login_steps import LOGINS
from conformance.fuzz.server.network import Hosted
from conformance.fuzz.server.player import Player
from conformance.fuzz.server.steps import Step
from conformance.fuzz.shrink import shortest
from conformance.fuzz.stats import Stats
from conformance.harness.ddmin import smallest
from conformance.harness.replay_file import ReplayError
from conformance.harness.verdicts import Failed
from conformance.server.invariants import Invariants
from conformance.wire.octets import CLIENT_PREFACE, encode, frame
from protocol.codec import RawFrame, decode
from protocol.frames import Ack, Error, Goaway, Hello, Join, Joined, Leave, Message, Ok, Pong, Publish, Welcome
from protocol.registry import Code, Flag, Sender
from tests.mutants.catalogue import SERVERS
from tests.mutants.fuzz_matrix import PATIENT, in_process, over_sockets, play
from tests.mutants.servers import UNCHANGED, UNCHANGED_DURABLE, MutantServer, ServerMutant, mutated
from tests.support.hub_network import HubNetwork
from tests.support.places import ROOT

CORPUS = sorted(CORPUS_FOLDER.glob("*.jsonl"))
SERVER_PREFACE = bytes.fromhex("F5525750 01000000")
SAMPLE = (
    "seq-from-2", "ack-seqs-reversed", "duplicate-other-time", "id-conflict-accepted",
    "first-new-message-missing", "replay-missing", "crash-loses-last-message",
    "crash-forgets-ids", "presence-left-missing", "presence-left-as-lost", "roster-first-entry-missing",
    "gap-flag-inverted", "preceded-accepted", "id-never-expires", "silent-after-error", "checks-other-order",
    "drain-no-replies", "message-before-ack", "refused-publish-appended", "quiet-flag-once",
)  # fmt: skip
"""Servers that break order, repeats, loss, presence, recovery or refusals; `tests.mutants.fuzz_matrix` has all."""


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_reference_passes_the_corpus(path: Path) -> None:
    again = script_file.read(path)
    for boot in (UNCHANGED, UNCHANGED_DURABLE):
        limits: dict[str, Any] = again.limits
        failure = Player(HubNetwork(again.seed, boot, **limits), again.seed, Stats(), 5.0).play(again.steps)
        assert failure is None, str(failure)


@pytest.mark.parametrize("slug", SAMPLE)
def test_broken_servers_are_found_and_made_short(slug: str) -> None:
    """And of the shortest script no step can be left out."""
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


def _logins_of_a_busy_account(mutant: ServerMutant) -> tuple[Failure | None, Stats]:
    """What comes of logins in each way where the account has a connection already, which is all that it may have."""
    stats = Stats()
    with mutated(mutant):
        network = HubNetwork(1, mutant, {"Ada": "correct horse"}, account_connections=1)
        assert network.hub is not None
        network.hub.state.account_connections["ada"] = 1
        return Player(network, 1, stats, 5.0).play([Step("login", what=what) for what in LOGINS]), stats


def test_account_may_have_no_more_connections() -> None:
    """RW-SASL-10"""
    failure, stats = _logins_of_a_busy_account(UNCHANGED)
    assert failure is None, str(failure)
    assert Code.SERVER_FULL not in stats.unseen_codes()


def test_account_with_all_its_connections_is_nobodys_to_know() -> None:
    """RW-SASL-11"""
    failure, _ = _logins_of_a_busy_account(SERVERS["account-full-before-proof"])
    assert failure is not None
    assert failure.requirement == "RW-SASL-11"


def test_no_step_can_be_left_out() -> None:
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


@pytest.mark.parametrize("slug", ["first-new-message-missing", "crash-loses-last-message"])
def test_broken_servers_are_found_over_sockets(slug: str) -> None:
    row = over_sockets(SERVERS[slug], 60.0, shrinking=1.0)
    assert row is not None
    assert row.repeats


def _fuzz(mutant: ServerMutant, options: Options) -> ServerFuzz:
    fuzz = ServerFuzz(MutantServer(mutant, 10.0, PATIENT), options)
    with mutated(mutant):
        fuzz.start()
        try:
            fuzz.run()
        finally:
            fuzz.stop()
    return fuzz


def test_whole_server_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    fuzz = _fuzz(UNCHANGED, Options(max_time=0, max_examples=24, timeout=20.0, restart=0.1, format="json"))
    assert fuzz.found == []
    assert fuzz.stats.connections > 200
    figures = json.loads(capsys.readouterr().out)
    assert figures["outcome"] == "nothing found"
    assert any(line.startswith("SLOW: ") for line in figures["unseen_codes"])


def test_failure_is_written_and_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mutant = SERVERS["seq-from-2"]
    _fuzz(mutant, Options(max_time=30.0, timeout=5.0, save=tmp_path))
    assert "RW-MODEL-1" in capsys.readouterr().out
    [path] = tmp_path.iterdir()
    assert json.loads(path.read_text().splitlines()[-1])["wire"]
    with mutated(mutant):
        served = MutantServer(mutant, 10.0, PATIENT)
        hosted = Hosted(served)
        hosted.start()
        try:
            assert main(["replay", str(path), "--connect", f"127.0.0.1:{served.port}"]) == 1
        finally:
            hosted.stop()
    whole = MutantServer(UNCHANGED, 10.0, PATIENT)
    hosted = Hosted(whole)
    with mutated(UNCHANGED):
        hosted.start()
        try:
            assert main(["replay", str(path), "--connect", f"127.0.0.1:{whole.port}"]) == 0
        finally:
            hosted.stop()


def test_what_does_not_repeat_is_flaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ServerFuzz, "_play", lambda *_: None)
    fuzz = _fuzz(SERVERS["seq-from-2"], Options(max_time=30.0, save=tmp_path))
    [found] = fuzz.found
    assert not found.repeats
    [path] = tmp_path.iterdir()
    assert script_file.read(path).verdict == "FLAKY"
    assert len(path.read_text().splitlines()) > len(found.steps) + len(found.failure.log)


@pytest.mark.parametrize("text", ["", "{}", '{"roomwire_replay": 1, "fuzz": "server"}', "\x00", "[1]"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(ReplayError):
        script_file.read(path)
    with pytest.raises(ReplayError):
        script_file.read(tmp_path / "none")


# --- octets


@pytest.mark.parametrize(
    ("said", "rule"),
    [
        (b"HTTP/1.1 400", "RW-PREFACE-2"),
        (SERVER_PREFACE[:4] + bytes(4) + b"x", "RW-PREFACE-4"),
        (SERVER_PREFACE + encode(Goaway(101)) + encode(Pong(bytes(8))), "RW-CLOSE-1"),
        (SERVER_PREFACE + frame(0x07, b"1234567"), "RW-FRAME-7"),
        (SERVER_PREFACE + encode(Error(101, request=1)), "RW-CODE-1"),
        (SERVER_PREFACE + encode(Goaway(999)), "RW-CODE-1"),
        (SERVER_PREFACE + frame(0x07, length=2**31), "RW-FRAME-3"),
    ],
)  # fmt: skip
def test_what_no_server_may_say_is_noticed(said: bytes, rule: str) -> None:
    with pytest.raises(Failed) as failed:
        mutations.judge(said, Stats())
    assert failed.value.requirement == rule


def test_mutations_are_many_and_repeatable() -> None:
    said = CLIENT_PREFACE + encode(Hello("ada", "ANONYMOUS", b"", request=1)) + encode(Join("x", 0, 0, request=2))
    made = [[mutations.mutated(random, said, said[::-1]) for _ in range(200)] for random in (Random(1), Random(1))]
    assert made[0] == made[1]
    assert len(set(made[0])) > 150


def test_server_that_hangs_is_found() -> None:
    class Hung:
        ended = False

        def write(self, octets: bytes) -> None: ...

        def read(self) -> bytes:
            return b""

        def pause(self, paused: bool) -> None: ...

        def eof(self) -> None: ...

        def close(self, *, abort: bool = False) -> None: ...

    network = HubNetwork()
    network.connect = Hung  # type: ignore[method-assign,assignment]
    steps = mutations.burst_steps(Random(1), [CLIENT_PREFACE + frame(0x06, bytes(8))], 3)
    failure = mutations.burst(network, steps, Stats(), 1.0)
    assert failure is not None
    assert failure.requirement == "RW-CLOSE-2"


# --- the codec


def test_codecs_agree() -> None:
    fuzz = codec.CodecFuzz(Options(seed=5, max_time=0, max_examples=3000))
    assert fuzz.run() == 0
    assert fuzz.stats.scripts >= 3000


def test_codec_that_differs_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def wrong(raw: RawFrame, sender: Sender) -> object:
        value = decode(raw, sender)
        return replace(value, since=value.since ^ 1) if isinstance(value, Join) else value

    monkeypatch.setattr(codec, "decode", wrong)
    assert codec.CodecFuzz(Options(max_time=0, max_examples=20_000)).run() == 1
    assert "does not agree" in capsys.readouterr().out


def test_text_that_grows_when_it_is_read_is_no_difference() -> None:
    """Found with coverage as the guide: 255 octets that are not UTF-8 are read as 765, which no text8 holds."""
    hello = frame(0x01, b"\x03ada\xff" + b"\xff" * 255 + b"\0\0", request=1)
    assert codec.compare(hello, "C", written=True) is None


def test_program_that_differs_is_found() -> None:
    right = {"id": 1, "frame": "PING", "value": {"opaque": "00" * 8, "fields": [], "flags": 0, "request": 0, "room": 0}}
    assert codec.disagree("C", b"", right, right) is None
    assert codec.disagree("C", b"", right, {**right, "value": {**right["value"], "opaque": "11" * 8}})  # type: ignore[dict-item]
    assert codec.disagree("C", b"", right, {"error": "MALFORMED"})
    assert codec.disagree("C", b"", {"error": "MALFORMED"}, {"error": "BAD_HEADER"})


def test_example_for_a_codec_passes() -> None:
    """examples/test_my_codec.py, as its reader would run it."""
    example = ROOT / "examples" / "test_my_codec.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(example)]
    done = subprocess.run(command, cwd=example.parent.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


# --- the command, and what it found in the suite


def test_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fuzz", "server", "--connect", "127.0.0.1:1", "--max-time", "1"]) == 3
    assert "127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize("role", ["server", "codec"])
def test_help_has_examples(role: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["fuzz", role, "--help"])
    assert end.value.code == 0
    assert "roomwire-check fuzz" in capsys.readouterr().out


def test_message_of_an_earlier_membership_has_its_ack() -> None:
    """The room may have another ref when the message comes back: the watch took that for RW-PROMISE-11."""
    breaches: list[str] = []
    watch = Invariants(lambda requirement, expected, got: breaches.append(requirement))
    id = bytes(16)
    watch.sent(Hello("ada", "ANONYMOUS", b"", request=1))
    watch.received(Welcome(9, "ada", 1, 65536, 30_000, 0, 32, 256, b"", request=1))
    for request, ref in ((2, 5), (5, 6)):
        watch.sent(Join("x", 0, 9, request=request))
        watch.received(Joined(7, request // 5, 1, 1, 1, "x", request=request, room=ref))
        if ref == 5:
            watch.sent(Publish(id, 0, b"", request=3, room=5))
            watch.received(Ack(1, 1, request=3, room=5))
        watch.received(Message(1, 1, 9, id, 0, "ada", b"", flags=Flag.SEQ, room=ref))
        if ref == 5:
            watch.sent(Leave(request=4, room=5))
            watch.received(Ok(request=4, room=5))
    assert breaches == []
