"""Verdicts on servers that fail at a step which nearly every case needs, or that refuse names beyond ASCII."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import conformance
from conformance.commands.cases import all_cases
from conformance.harness.case import Case
from conformance.harness.verdicts import Result, Verdict
from conformance.server.runner import ServerRunner
from conformance.server.target import ServerTarget
from conformance.spec.tables import load
from protocol.frames import Hello, Join, Joined, Message, Pong, Welcome
from tests.mutants.server.changes import without
from tests.mutants.servers import OPTIONS, MutantConnection, MutantServer, Received, Sent, ServerMutant, mutated
from tests.support import virtual_time
from tests.support.suite import select


def _results(mutant: ServerMutant, cases: Sequence[Case], *declared: str) -> dict[str, Result]:
    """The results of a run at a server mutant, by case."""
    options = replace(OPTIONS, declared=frozenset(declared))

    async def run() -> list[Result]:
        server = MutantServer(mutant)
        await server.start()
        try:
            target = ServerTarget(server.host, server.port, 5.0)
            return await ServerRunner(target, load(), options, lambda result: result).run(cases)
        finally:
            await server.stop()

    with mutated(mutant):
        return {result.id: result for result in virtual_time.run(run())}


def _refused_beyond_ascii(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Hello | Join) and not received.name.isascii():
        return [replace(received, name="\x07")]
    return [received]


ASCII_ONLY = ServerMutant("ascii-names", "Refuses names beyond ASCII.", receives=_refused_beyond_ascii)


def test_names_beyond_ascii_refused_undeclared() -> None:
    """Each failure cites RW-NAME-6 and says how to declare it; nothing is blamed on HELLO or JOIN."""
    results = _results(ASCII_ONLY, select("server/12"))
    failed = [result for result in results.values() if result.verdict is not Verdict.PASS]
    assert len(failed) == 36, Counter(result.requirement for result in failed)
    assert {(result.verdict, result.requirement) for result in failed} == {(Verdict.FAIL, "RW-NAME-6")}
    assert all("--declare ascii-names" in result.expected and "NAME_INVALID" in result.got for result in failed)


def test_names_beyond_ascii_refused_as_declared() -> None:
    """What the server has to refuse in any case is tried, and only names that it may refuse are not."""
    results = _results(ASCII_ONLY, select("server/12"), "ascii-names")
    counts = Counter(result.verdict for result in results.values())
    assert set(counts) == {Verdict.PASS, Verdict.UNSUPPORTED}
    assert counts[Verdict.UNSUPPORTED] == 36
    beyond = re.compile(r"refuses .*\\u|refuses .*[^\x00-\x7f]")
    refusals = [result for result in results.values() if beyond.search(result.summary)]
    assert {result.verdict for result in refusals} == {Verdict.PASS}


@pytest.mark.parametrize(
    ("kind", "step", "requirement"),
    [
        (Welcome, "server/7.1/welcome", "RW-HELLO-2"),
        (Pong, "server/7.7/same-opaque", "RW-PING-1"),
        (Joined, "server/7.9/fresh", "RW-MODEL-3"),
        (Message, "server/7.15/echo", "RW-MESSAGE-1"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_step_without_an_answer(kind: type, step: str, requirement: str) -> None:
    """The case that tries the step for itself fails, and the others are inconclusive and refer to it."""
    mutant = ServerMutant("mute", "Leaves out a frame.", sends=without(kind))
    others = ("server/7.9/already-joined", "server/5.3/ignorable-join", "server/7.13/ok")
    results = _results(mutant, select(step, *others))
    assert (results[step].verdict, results[step].requirement) == (Verdict.FAIL, requirement)
    unproved = [result for id, result in results.items() if id != step and result.verdict is not Verdict.PASS]
    assert unproved
    assert {result.verdict for result in unproved} == {Verdict.INCONCLUSIVE}
    for result in unproved:
        assert result.reason.startswith("the control failed"), result.reason
        assert f"{step}, which tries this step for itself, ended with FAIL" in result.reason
        assert result.requirement in result.requirements


def test_step_whose_own_case_was_not_run() -> None:
    """Without the case that tries PING for itself, a missing PONG counts against the case's own requirement."""
    mutant = ServerMutant("mute", "Answers no PING.", sends=without(Pong))
    [result] = _results(mutant, select("server/5.3/ignorable-join")).values()
    assert (result.verdict, result.requirement) == (Verdict.FAIL, "RW-FIELD-1")
    assert result.step == "server/7.7/same-opaque"
    mutant = ServerMutant("mute", "Answers no JOIN.", sends=without(Joined))
    [result] = _results(mutant, select("server/7.9/already-joined")).values()
    assert result.verdict is Verdict.INCONCLUSIVE
    assert result.reason.endswith("server/7.9/fresh tries this step for itself, and was not run")


def test_ids_in_the_suite_exist() -> None:
    known = {case.id for case in all_cases()}
    package = Path(conformance.__file__).parent
    named = {
        id
        for path in (*package.glob("*/context.py"), package / "server" / "raw_client.py")
        for id in re.findall(r'"((?:server|client|codec)/[0-9][^"{]*)"', path.read_text(encoding="utf-8"))
    }
    assert len(named) > 8
    assert named <= known
