"""The command `client`, against the reference client as a program, and programs that cannot be run."""

import json
import shlex

import pytest

from conformance.cli import main
from conformance.client.cases import client_cases
from conformance.harness.exit_status import CONFORMS, FAILS, UNREACHABLE, USAGE
from conformance.harness.selection import Selection
from conformance.spec.tables import load
from tests.support.suite import CLIENT, PYTHON, of_each_section


def test_reference_client(capsys: pytest.CaptureFixture[str]) -> None:
    """A case of each section. tests/conformance/client/test_mutants.py tries every case, in this process."""
    selected = of_each_section(Selection(words="not waits").of(client_cases(), load()))
    status = main(["client", "--exec", CLIENT, "--format", "json", *selected])
    document = json.loads(capsys.readouterr().out)
    failures = {r["id"]: (r["expected"], r["got"], r["reason"]) for r in document["results"] if r["verdict"] != "PASS"}
    assert failures == {}
    assert status == CONFORMS
    assert {r["id"] for r in document["results"]} >= set(selected)
    assert len(selected) > 30


def test_reference_client_over_tls(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["client", "--tls", "--exec", CLIENT, "--format", "json", "client/7.15", "client/8.5", "client/14"])
    document = json.loads(capsys.readouterr().out)
    assert {r["id"]: r["got"] for r in document["results"] if r["verdict"] != "PASS"} == {}
    assert status == CONFORMS
    assert len(document["results"]) > 15


def test_command_that_cannot_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["client", "--exec", "/nowhere/no-such-client {host} {port}"]) == UNREACHABLE
    assert main(["client", "--exec", "client {nobody}"]) == USAGE
    assert main(["client", "--exec", "'"]) == USAGE
    assert "Traceback" not in "".join(capsys.readouterr())


def test_client_that_hangs_at_quit(capsys: pytest.CaptureFixture[str]) -> None:
    """It fails the cases about quitting, and delays no other."""
    source = (
        "import asyncio, sys\nfrom reference_client import adapter\n"
        "class Deaf(adapter.Adapter):\n"
        "    async def run(self, lines):\n"
        "        await super().run(lines)\n"
        "        await asyncio.Event().wait()\n"
        "adapter.Adapter = Deaf\nasyncio.run(adapter._main(sys.argv[1], int(sys.argv[2])))"
    )
    command = f"{PYTHON} -c {shlex.quote(source)} {{host}} {{port}}"
    status = main(["client", "--exec", command, "--timeout", "4", "--format", "json", "client/8.5/quit", "client/7.7"])
    results = {r["id"]: r["verdict"] for r in json.loads(capsys.readouterr().out)["results"]}
    assert status == FAILS
    assert results == {"client/7.7/answered": "PASS", "client/7.7/unasked": "PASS", "client/8.5/quit": "FAIL"}
