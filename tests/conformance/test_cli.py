"""Exit statuses of the command, its version, and what it says about a name that does not exist."""

import subprocess
import sys

import pytest

from conformance.cli import main
from conformance.harness.exit_status import CONFORMS, NOTHING, UNREACHABLE, USAGE
from tests.support.suite import CODEC


def test_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["codec", "--exec", CODEC, "codec/7.6"]) == CONFORMS
    assert main(["codec", "--exec", CODEC, "no-such-case"]) == NOTHING
    assert main(["codec", "--exec", CODEC, "--section", "99"]) == USAGE
    assert main(["server", "--connect", "127.0.0.1:1"]) == UNREACHABLE
    assert main(["server", "--connect", "127.0.0.1"]) == USAGE
    assert main(["explain", "zzzz"]) == USAGE
    for wrong in (["server"], ["--no-such-option"], ["server", "--connect", "a:1", "--jobs", "0"], []):
        with pytest.raises(SystemExit) as caught:
            main(wrong)
        assert caught.value.code == USAGE
    assert "Traceback" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["sever", "--connect", "a:1"], "no command sever; did you mean server?"),
        (["discribe"], "did you mean describe?"),
        (["qqqq"], "no command qqqq\n"),
        (["server", "--connect", "a:1", "--sede", "3"], "unrecognized arguments: --sede; did you mean --seed?"),
    ],
)
def test_hint_for_a_wrong_word(arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == USAGE
    assert hint in capsys.readouterr().err


def test_case_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """The others run, and the message names what might be meant."""
    assert main(["codec", "--exec", CODEC, "codec/7.7/decode", "codec/7.6/decode/pign"]) == CONFORMS
    assert "no case is named codec/7.6/decode/pign; did you mean codec/" in capsys.readouterr().err


def test_program_as_a_module() -> None:
    command = [sys.executable, "-m", "conformance", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.startswith("roomwire-check ")
    assert run.stdout.endswith(", Roomwire/1\n")
