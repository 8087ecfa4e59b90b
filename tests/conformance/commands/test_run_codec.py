"""The command `codec`, against the reference codec as a program, and programs that cannot be run."""

import json

import pytest

from conformance.cli import main
from conformance.harness.exit_status import CONFORMS, UNREACHABLE, USAGE
from tests.support.suite import CODEC


def test_reference_codec(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["codec", "--exec", CODEC, "--format", "json"]) == CONFORMS
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == {"PASS": document["selected"]}
    assert document["selected"] > 500


def test_command_that_cannot_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["codec", "--exec", "./there-is-no-such-program"]) == UNREACHABLE
    assert main(["codec", "--exec", "'"]) == USAGE
    assert main(["codec", "--exec", "x {port}"]) == USAGE
    assert "there-is-no-such-program" in capsys.readouterr().out
