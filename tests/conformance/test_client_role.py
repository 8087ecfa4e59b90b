"""The suite against the reference client, and against clients that break one requirement each.

A case that cannot fail proves nothing: each client mutant has to fail a case, on the requirement that it breaks.
"""

import asyncio
import gc
import json
import re
import shlex
import sys
from collections.abc import Sequence

import pytest

from conformance.cli import main
from conformance.client.cases import client_cases
from conformance.client.runner import ClientRunner
from conformance.client.target import EVENTS, FEATURES
from conformance.harness.case import Case
from conformance.harness.exit_status import CONFORMS
from conformance.harness.options import Options
from conformance.harness.verdicts import Result, Verdict
from conformance.spec.tables import load
from reference_client import adapter
from tests.mutants.catalogue import CLIENTS
from tests.mutants.kill_matrix import cases_for
from tests.support.client_in_process import launch, run_to_the_end
from tests.support.places import ROOT

_CONFORMANCE = ROOT / "conformance"
_COMMAND = f"{shlex.quote(sys.executable)} -m reference_client.adapter {{host}} {{port}}"
_OPTIONS = Options(timeout=0.6, ready=5.0, jobs=24)


def _run(cases: Sequence[Case], options: Options = _OPTIONS) -> list[Result]:
    runner = ClientRunner(launch, load(), options, lambda result: result)
    return asyncio.run(run_to_the_end(runner.run(cases)))


def _lines(heading: str) -> list[str]:
    """The first cells of the table under a heading of CONTRACT.md."""
    section = (_CONFORMANCE / "CONTRACT.md").read_text(encoding="utf-8").split(f"### {heading}\n")[1].split("\n### ")[0]
    return [line.split("|")[1].strip().strip("`") for line in section.splitlines() if line.startswith("| `")]


def test_contract_is_one() -> None:
    """What the page says, what the schema says, and what the suite and the adapter know have the same names."""
    schema = json.loads((_CONFORMANCE / "data" / "contract.schema.json").read_text(encoding="utf-8"))["$defs"]
    events = [report["properties"]["event"]["const"] for report in schema["report"]["oneOf"]]
    ops = [command["properties"]["op"]["const"] for command in schema["command"]["oneOf"]]
    assert set(_lines("Reports")) == set(events) == EVENTS
    assert _lines("Commands") == ops
    assert set(_lines("Features")) == set(schema["greeting"]["properties"]["features"]["examples"][0]) == FEATURES
    assert set(adapter.FEATURES) == FEATURES
    page = (_CONFORMANCE / "CONTRACT.md").read_text(encoding="utf-8")
    for line in re.findall(r"^(?:in|out) +(\{.*)$", page, re.MULTILINE):
        said = json.loads(line)
        kinds = {"op": "command", "event": "report", "ready": "greeting"}
        kind = next(name for key, name in kinds.items() if key in said)
        shapes = schema[kind].get("oneOf", [schema[kind]])
        fitting = [
            s for s in shapes if all(s["properties"][k].get("const", said[k]) == said[k] for k in kinds if k in said)
        ]
        assert len(fitting) == 1
        assert set(fitting[0]["required"]) <= said.keys() <= fitting[0]["properties"].keys()


def test_reference_client_conforms(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["client", "--exec", _COMMAND, "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    failures = {r["id"]: (r["expected"], r["got"], r["reason"]) for r in document["results"] if r["verdict"] != "PASS"}
    assert failures == {}
    assert status == CONFORMS
    assert document["counts"]["PASS"] == len(client_cases()) >= 90


def test_reference_client_conforms_over_tls(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["client", "--tls", "--exec", _COMMAND, "--format", "json", "client/7.15", "client/8.5", "client/14"])
    document = json.loads(capsys.readouterr().out)
    assert {r["id"]: r["got"] for r in document["results"] if r["verdict"] != "PASS"} == {}
    assert status == CONFORMS
    assert len(document["results"]) > 15


# A mutant that is ended while it connects leaves a socket to the collector: that is its fault, not the suite's.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.parametrize("slug", CLIENTS)
def test_client_mutant_is_killed(slug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = CLIENTS[slug]
    mutant.patch(monkeypatch)
    results = _run(cases_for(mutant))
    gc.collect()  # here, and not in some later test
    assert [result.reason for result in results if result.verdict is Verdict.HARNESS_ERROR] == []
    failed = [r for r in results if r.verdict in (Verdict.FAIL, Verdict.WARN) and r.requirement in mutant.breaks]
    assert failed, [(r.id, r.verdict, r.requirement, r.expected, r.got, r.reason) for r in results]
    sentence = load().requirements[mutant.breaks[0]].text
    assert all(result.wire and result.sentence == sentence for result in failed)
