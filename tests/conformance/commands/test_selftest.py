"""The command `selftest`."""

import pytest

from conformance.cli import main
from conformance.commands.selftest import Expectation, judge
from conformance.harness.exit_status import CONFORMS
from tests.support.suite import run_at_small_server, select


def test_selftest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selftest"]) == CONFORMS, capsys.readouterr().out


def test_selftest_of_a_suite_that_is_wrong() -> None:
    results = run_at_small_server("wrong-code", select("server/7.13"))
    assert judge(Expectation("", "", frozenset()), results, len(results))
    assert judge(Expectation("", "", frozenset({"server/7.9/fresh"})), results, len(results))
    assert judge(Expectation("", "", None), results[:1], 2)
    assert not judge(Expectation("", "", frozenset({"server/7.13/not-joined"})), results, len(results))
