"""The command `server`, against the reference server as a program."""

import json
import shlex
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.harness.exit_status import CONFORMS, USAGE
from tests.support.accounts import ADMINS, PASSWORDS, accounts_file
from tests.support.suite import SERVER


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


@pytest.mark.parametrize("whole", [False, True], ids=["in-memory", "durable-with-accounts-and-tls"])
def test_reference_server(whole: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accounts = shlex.quote(str(accounts_file()))
    store = f"--data {{dir}} --accounts {accounts} --tls-cert {{cert}} --tls-key {{key}}" if whole else "--memory"
    more = _whole(tmp_path) if whole else []
    selected = ["--format", "json", "-k", "not waits and not slow and not 8.6/ends"]
    status = main(["server", "--exec", f"{SERVER} {store}", *more, *selected])
    document = json.loads(capsys.readouterr().out)
    failures = {r["id"]: (r["expected"], r["got"], r["reason"]) for r in document["results"] if r["verdict"] == "FAIL"}
    assert failures == {}
    assert status == CONFORMS, document["counts"]
    assert document["counts"]["PASS"] > (430 if whole else 350)


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
