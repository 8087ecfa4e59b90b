"""What makes the suite useful in one's own house: declarations, repeats, replay files, skeletons, pytest, self-test."""

import asyncio
import importlib.metadata
import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.commands.selftest import Expectation, judge
from conformance.commands.selftest_server import Quirk, SmallServer, serving
from conformance.harness.case import Case
from conformance.harness.config import Config, ConfigError
from conformance.harness.ddmin import fewest, smallest, smallest_async
from conformance.harness.exit_status import CONFORMS, FAILS, UNREACHABLE, USAGE
from conformance.harness.options import Options
from conformance.harness.process import Unreachable
from conformance.harness.selection import Selection
from conformance.harness.verdicts import Informative, Result, Verdict, combine
from conformance.server import replay
from conformance.server import shrink as shrinking
from conformance.server.cases import server_cases
from conformance.server.context import Context
from conformance.server.runner import ServerRunner
from conformance.server.target import OFFERED, LaunchedServer, ServerTarget
from conformance.spec.tables import load
from tests.support.accounts import accounts_file
from tests.support.places import ROOT

PYTHON = shlex.quote(sys.executable)
SERVER = f"{PYTHON} -m reference_server.cli --port {{port}} --memory"
CODEC = f"{PYTHON} -m conformance.codec.reference"
OPTIONS = Options(timeout=2.0, patience=2.0)


def _cases(*ids: str) -> list[Case]:
    return Selection(ids).of(server_cases(), load())


async def _tried(quirk: Quirk, cases: list[Case], options: Options) -> list[Result]:
    async with serving(SmallServer(quirk).connected) as port:
        target = ServerTarget("127.0.0.1", port, 5.0)
        return await ServerRunner(target, load(), options, lambda result: result).run(cases)


# Declarations, and what a target is offered.


def test_declaration(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text(
        '[features]\nascii-names = true\nno-retention = false\n[limits]\nframe_ms = 9\n[accounts]\nada = "x"\n'
    )
    said = Config.read(path)
    assert said == Config(frozenset({"ascii-names"}), {"frame_ms": 9}, {"ada": "x"})


@pytest.mark.parametrize(
    "text",
    [
        "[feature]",
        "[features]\nflying = true",
        "[features]\nascii-names = 1",
        "[limits]\nspeed = 1",
        "[limits]\nframe_ms = true",
        "[limits]\nheartbeat_ms = 1",
        "[accounts]\nada = 1",
        "limits = 3",
        "not toml",
    ],
)
def test_declaration_that_is_wrong(tmp_path: Path, text: str) -> None:
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        Config.read(path)
    assert main(["server", "--connect", "127.0.0.1:1", "--config", str(path)]) == USAGE


def test_time_outs_are_waited_for_as_declared() -> None:
    options = Options(timeout=1.0, patience=10.0, limits={"frame_ms": 4_000, "drain_ms": 60_000})
    t = Context(ServerTarget("127.0.0.1", 1, 1.0), options)
    assert t.time_out("preface_ms") == 10.0
    assert t.time_out("frame_ms") == 5.0
    with pytest.raises(Informative):
        t.time_out("drain_ms")


def test_limits_are_offered_in_the_environment(tmp_path: Path) -> None:
    source = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    path = tmp_path / "seen.json"
    server = LaunchedServer(f"{PYTHON} -c {shlex.quote(source)} {shlex.quote(str(path))} {{port}}", 5.0)
    own = server.another(max_rooms=4)

    async def start() -> None:
        try:
            with pytest.raises(Unreachable):
                await own.start()
        finally:
            await own.stop()

    asyncio.run(start())
    seen = json.loads(path.read_text())
    assert seen["ROOMWIRE_MAX_ROOMS"] == "4"
    assert int(seen["ROOMWIRE_PUBLISH_RATE"]) == OFFERED["publish_rate"]
    assert server.limits == OFFERED
    assert "preface_ms" not in own.limits  # nobody waits for it there


def test_cases_that_need_limits_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    ids = ["server/7.9/too-many-rooms", "server/10.1/no-dedupe", "server/15/publish-rate", "server/9.3/quiet"]
    assert main(["server", "--exec", SERVER, "--format", "json", *ids]) == CONFORMS
    assert json.loads(capsys.readouterr().out)["counts"] == {"PASS": 4}


# Repeats, time and chance.


def test_results_that_differ_are_flaky() -> None:
    [result] = asyncio.run(_tried("", _cases("server/7.13/ok"), replace(OPTIONS, repeat=3)))
    assert result.verdict is Verdict.PASS
    failed = replace(result, verdict=Verdict.FAIL, expected="this", got="that")
    flaky = combine([result, failed, result])
    assert (flaky.verdict, flaky.reason, flaky.got) == (Verdict.FLAKY, "2 PASS, 1 FAIL of 3", "that")
    assert combine([failed, failed]).verdict is Verdict.FAIL


def test_time_that_is_over_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["codec", "--exec", CODEC, "codec/7.6", "--max-time", "1e-9", "--format", "json"]) == FAILS
    assert set(json.loads(capsys.readouterr().out)["counts"]) == {"INCONCLUSIVE"}


def test_seed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["server", "--exec", SERVER, "server/10.3/generated-order", "--seed", "12"]) == CONFORMS
    assert "seed 12" in capsys.readouterr().out


# Replay files.


def test_failure_is_replayed_anywhere(tmp_path: Path) -> None:
    options = replace(OPTIONS, replay_dir=tmp_path)
    cases = _cases("server/7.13/not-joined", "server/7.9/already-joined", "server/7.13/ok")
    for failed in asyncio.run(_tried("wrong-code", cases, options)):
        assert failed.verdict is Verdict.FAIL
        script = replay.read(Path(failed.replay))
        [again] = asyncio.run(_tried("wrong-code", [script.case], OPTIONS))
        assert (again.id, again.verdict, again.requirement) == (failed.id, Verdict.FAIL, failed.requirement)
        [other] = asyncio.run(_tried("", [script.case], OPTIONS))
        assert other.verdict is Verdict.PASS, (other.expected, other.got, other.reason)


def test_what_comes_unasked_is_judged_in_a_replay(tmp_path: Path) -> None:
    options = replace(OPTIONS, replay_dir=tmp_path)
    [failed] = asyncio.run(_tried("echo-before-ack", _cases("server/7.17/order-of-one-connection"), options))
    script = replay.read(Path(failed.replay))
    [again] = asyncio.run(_tried("echo-before-ack", [script.case], OPTIONS))
    assert (again.verdict, again.requirement) == (Verdict.FAIL, "RW-PROMISE-11")
    [other] = asyncio.run(_tried("", [script.case], OPTIONS))
    assert other.verdict is not Verdict.FAIL


def test_login_leaves_no_replay_file(tmp_path: Path) -> None:
    """Its proof is for one nonce of the server: done again, it would be wrong at any server."""

    async def run() -> list[Result]:
        target = LaunchedServer(f"{SERVER} --accounts {shlex.quote(str(accounts_file()))}", 15.0)
        await target.start()
        options = replace(OPTIONS, replay_dir=tmp_path, accounts={"Ada": "not her password"})
        try:
            return await ServerRunner(target, load(), options, lambda result: result).run(_cases("server/13/scram"))
        finally:
            await target.stop()

    [failed] = asyncio.run(run())
    assert (failed.verdict, failed.requirement, failed.replay) == (Verdict.FAIL, "RW-SCRAM-5", "")


@pytest.mark.parametrize(
    ("quirk", "id"),
    [
        ("loses-messages", "server/7.17/all-members"),
        ("echo-before-ack", "server/7.17/all-members"),
        ("wrong-code", "server/7.13/not-joined"),
    ],
)
def test_failure_is_shrunk(quirk: Quirk, id: str, tmp_path: Path) -> None:
    """What is left fails in the same way, and has its grounds: a server that is right passes it."""
    [failed] = asyncio.run(_tried(quirk, _cases(id), replace(OPTIONS, replay_dir=tmp_path)))
    script = replay.read(Path(failed.replay))
    quick = replace(OPTIONS, timeout=0.15)

    async def shrink() -> replay.Script:
        async with serving(SmallServer(quirk).connected) as port:
            return await shrinking.shrunk(script, ServerTarget("127.0.0.1", port, 5.0), quick)

    shorter = asyncio.run(shrink())
    assert len(shorter.steps) < len(script.steps)
    [again] = asyncio.run(_tried(quirk, [shorter.case], quick))
    assert (again.verdict, again.requirement) == (Verdict.FAIL, failed.requirement)
    [other] = asyncio.run(_tried("", [replace(shorter, compared=False).case], quick))
    assert other.verdict in (Verdict.PASS, Verdict.INCONCLUSIVE), (other.expected, other.got)


def test_nothing_to_shrink(tmp_path: Path) -> None:
    [failed] = asyncio.run(_tried("wrong-code", _cases("server/7.13/ok"), replace(OPTIONS, replay_dir=tmp_path)))
    assert main(["replay", failed.replay, "--exec", SERVER, "--shrink", str(tmp_path / "short")]) == USAGE
    assert not (tmp_path / "short").exists()


def test_fewest() -> None:
    def fails(items: list[int]) -> bool:
        return {3, 7} <= set(items)

    async def fails_too(items: list[int]) -> bool:
        return fails(items)

    for items in (range(20), [3, 7]):
        assert smallest(items, fewest, fails) == [3, 7]
        assert asyncio.run(smallest_async(items, fewest, fails_too)) == [3, 7]
    assert smallest([3, 7], fewest, lambda items: True) == []


def test_search_that_is_ended_early() -> None:
    tried: list[list[int]] = []

    def fails(items: list[int]) -> bool:
        tried.append(items)
        return 3 in items

    left = smallest(range(20), fewest, fails, lambda: len(tried) == 2)
    assert tried == [[], list(range(10, 20))]
    assert left == list(range(20))
    left = smallest(range(20), fewest, fails, lambda: len(tried) == 5)
    assert left == tried[-1]
    assert left == list(range(10))


def test_replay_as_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = replace(OPTIONS, replay_dir=tmp_path)
    [failed] = asyncio.run(_tried("wrong-code", _cases("server/7.13/not-joined"), options))
    assert main(["replay", failed.replay, "--exec", SERVER, "--format", "json"]) == CONFORMS
    assert json.loads(capsys.readouterr().out)["counts"] == {"PASS": 1}
    assert main(["replay", failed.replay, "--connect", "127.0.0.1:1"]) == UNREACHABLE


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "nonsense", '{"roomwire_replay": 9, "case": "server/3/x"}\n{"do": "eof"}']
)
def test_replay_of_another_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_text(text)
    assert main(["replay", str(path), "--connect", "127.0.0.1:1"]) == USAGE


# Self-test and skeletons.


def test_selftest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest"]) == CONFORMS, capsys.readouterr().out


def test_selftest_notices() -> None:
    results = asyncio.run(_tried("wrong-code", _cases("server/7.13"), OPTIONS))
    assert judge(Expectation("", "", frozenset()), results, len(results))
    assert judge(Expectation("", "", frozenset({"server/7.9/fresh"})), results, len(results))
    assert judge(Expectation("", "", None), results[:1], 2)
    assert not judge(Expectation("", "", frozenset({"server/7.13/not-joined"})), results, len(results))


def test_codec_skeleton(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["init", "codec", "--output", str(tmp_path)]) == CONFORMS
    assert main(["init", "codec", "--output", str(tmp_path)]) == USAGE
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    arguments = ["codec", "--exec", f"{PYTHON} codec_adapter.py", "--baseline", "roomwire-baseline.toml"]
    assert main([*arguments, "--format", "json"]) == CONFORMS
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts["PASS"] >= 50
    assert set(counts) == {"PASS", "UNSUPPORTED"}


def test_client_skeleton(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["init", "client", "--output", str(tmp_path)]) == CONFORMS
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    command = f"{PYTHON} client_adapter.py {{host}} {{port}}"
    assert main(["client", "--exec", command, "client/7.7", "--format", "json"]) in (CONFORMS, FAILS)
    assert json.loads(capsys.readouterr().out)["counts"]["PASS"] >= 1


def test_server_skeleton(tmp_path: Path) -> None:
    assert main(["init", "server", "--output", str(tmp_path)]) == CONFORMS
    files = ["--config", str(tmp_path / "roomwire-server.toml"), "--baseline", str(tmp_path / "roomwire-baseline.toml")]
    assert main(["server", "--exec", SERVER, *files, "server/7.13"]) == CONFORMS
    assert "@" not in (tmp_path / "roomwire.yml").read_text().replace("@v4", "").replace("@v5", "")


# pytest.

_SERVE = """
import asyncio, sys
from conformance.commands.selftest_server import SmallServer

async def run():
    server = await asyncio.start_server(SmallServer(sys.argv[2]).connected, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(run())
"""


def _pytest(directory: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    installed = any(point.name == "roomwire" for point in importlib.metadata.entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", "conformance.pytest_entry"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, "--pyargs", "conformance", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    (directory / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120)


def test_cases_as_items_of_pytest(tmp_path: Path) -> None:
    script = tmp_path / "serve.py"
    script.write_text(_SERVE)
    command = f"{PYTHON} {shlex.quote(str(script))} {{port}} wrong-code"
    run = _pytest(tmp_path, "--roomwire-exec", command, "-k", "7.13 and (ok or left) or RW-JOIN-1 or 7.20", "-rs")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "FAIL server/7.9/already-joined: " in run.stdout
    assert load().requirements["RW-JOIN-1"].text in run.stdout
    assert "expected ERROR(ALREADY_JOINED)" in run.stdout
    assert "UNSUPPORTED: WELCOME does not name the extension admin" in run.stdout


def test_pytest_without_a_server(tmp_path: Path) -> None:
    assert _pytest(tmp_path, "--roomwire-server", "127.0.0.1:1", "-k", "RW-JOIN-1").returncode == UNREACHABLE
    assert _pytest(tmp_path, "--roomwire-server", "nowhere").returncode == pytest.ExitCode.USAGE_ERROR
    run = _pytest(tmp_path)
    assert run.returncode != 0
    assert "--roomwire-server HOST:PORT" in run.stdout


def test_pytest_loads_no_suite_unasked(request: pytest.FixtureRequest) -> None:
    assert not request.config.pluginmanager.has_plugin("roomwire-suite")
