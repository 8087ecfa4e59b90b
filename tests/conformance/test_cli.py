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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["codec/7.7/decode", "codec/7.6/decode/pign"], "no case is named codec/7.6/decode/pign; did you mean codec/"),
        (["codec/7.6", "codec/7.6/", "codec/7.66"], "no case is named codec/7.66"),
        (["--requirement", "RW-FRAME-7", "--requirement", "RW-PROMISE-1"], "no case is about requirement RW-PROMISE-1"),
        (["--section", "7.6", "--section", "8.6"], "no case is in section 8.6"),
        (["--level", "MUST", "--level", "SHOULD NOT"], "no case is about a SHOULD NOT"),
        (["codec/7.6", "codec/7.7", "--section", "7.6"], "codec/7.7 selects no case together with the other options"),
        (["codec/7.6", "-k", "ping or pnig"], "-k: no case has the word pnig"),
        (["codec/7.6", "codec/7.66", "--last-failed"], "no case is named codec/7.66"),
    ],
)
def test_name_that_selects_nothing_beside_a_good_one(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip must not let a run pass that tried less than it was asked to. No program is started for it."""
    assert main(["codec", "--exec", "/no/such/codec", *arguments]) == USAGE
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["codec/7.6", "codec/7.7"], ["codec/7.6", "-k", "not pnig"]])
def test_names_that_all_select_something(arguments: list[str]) -> None:
    assert main(["list", *arguments]) == CONFORMS


def test_program_as_a_module() -> None:
    command = [sys.executable, "-m", "conformance", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.startswith("roomwire-check ")
    assert run.stdout.endswith(", Roomwire/1\n")
