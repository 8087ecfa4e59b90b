"""The command `server`, against the reference server as a program."""

import asyncio
import json
import shlex
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.commands.selftest_server import SmallServer, serving
from conformance.harness.exit_status import CONFORMS, USAGE
from conformance.harness.selection import Selection
from conformance.server.cases import server_cases
from conformance.spec.tables import load
from tests.support.accounts import ADMINS, PASSWORDS, accounts_file
from tests.support.suite import SERVER, of_each_section


def _whole(tmp_path: Path) -> list[str]:
    """The options for a target with accounts and TLS."""
    config = tmp_path / "accounts.toml"
    tables = {"accounts": PASSWORDS, "admins": ADMINS}
    with config.open("w", encoding="utf-8") as file:
        for table, accounts in tables.items():
            print(
                f"[{table}]",
                *(f"{json.dumps(name)} = {json.dumps(word)}" for name, word in accounts.items()),
                sep="\n",
                file=file,
            )
    return ["--tls", "--config", str(config)]


def _passed(status: int, capsys: pytest.CaptureFixture[str]) -> int:
    """The number of cases that passed in a run of which none failed."""
    document = json.loads(capsys.readouterr().out)
    failures = {r["id"]: (r["expected"], r["got"], r["reason"]) for r in document["results"] if r["verdict"] == "FAIL"}
    assert failures == {}
    assert status == CONFORMS, document["counts"]
    passed = document["counts"]["PASS"]
    assert isinstance(passed, int)
    return passed


def test_durable_server_with_accounts_and_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every case at one process, and the cases that crash one or drain it.

    tests/mutants/test_kill_matrix.py tries the others that start a server of their own, and those that wait.
    """
    accounts = shlex.quote(str(accounts_file()))
    command = f"{SERVER} --data {{dir}} --accounts {accounts} --tls-cert {{cert}} --tls-key {{key}}"
    selected = "not waits and not slow and (not process or survives or crash or 8.6/stream or 7.20)"
    status = main(["server", "--exec", command, *_whole(tmp_path), "--format", "json", "-k", selected])
    assert _passed(status, capsys) > 400


def test_server_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """A case of each section."""
    selected = of_each_section(Selection(words="not waits and not process").of(server_cases(), load()))
    status = main(["server", "--exec", f"{SERVER} --memory", "--format", "json", *selected])
    assert len(selected) >= 35
    assert _passed(status, capsys) > 30


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("server {prot}", "unknown placeholder {prot}, known are dir, host, port"),
        ("server {cert}", "placeholder {cert}, known are dir, host, port; a server has {cert} and {key} with --tls"),
    ],
)
def test_unknown_placeholder(template: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["server", "--exec", template]) == USAGE
    assert capsys.readouterr().err.endswith(f"{told}\n")


def test_cases_with_limits_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    ids = ["server/7.9/too-many-rooms", "server/10.1/no-dedupe", "server/15/publish-rate", "server/9.3/quiet"]
    assert main(["server", "--exec", f"{SERVER} --memory", "--format", "json", *ids]) == CONFORMS
    assert json.loads(capsys.readouterr().out)["counts"] == {"PASS": 4}


def test_rooms_that_stay(capsys: pytest.CaptureFixture[str]) -> None:
    """A run against a server that goes on says what it leaves there, under which names."""

    async def run() -> tuple[int, list[str]]:
        server = SmallServer()
        async with serving(server.connected) as port:
            command = ["server", "--connect", f"127.0.0.1:{port}", "server/7.9/fresh", "--room-prefix", "ci_", "-v"]
            return await asyncio.to_thread(main, command), list(server.rooms)

    status, rooms = asyncio.run(run())
    assert status == CONFORMS
    assert rooms
    assert all(name.startswith("ci_") for name in rooms)
    assert "leaves behind rooms whose names begin with ci_" in capsys.readouterr().err


def test_rooms_of_a_server_that_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["server", "--exec", f"{SERVER} --memory", "server/7.9/fresh"]) == CONFORMS
    assert "rooms" not in capsys.readouterr().err


@pytest.mark.parametrize("prefix", ["", "a b", "x" * 21, "\u00e9"])
def test_prefix_of_rooms_that_is_refused(prefix: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["server", "--connect", "127.0.0.1:1", "--room-prefix", prefix])
    assert caught.value.code == USAGE
