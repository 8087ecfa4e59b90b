"""One run: its exit status, its formats, its seed, and its end by a signal."""

import json
import os
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.harness.case import Case
from conformance.harness.exit_status import CONFORMS, FAILS, FAULT, INTERRUPTED, UNREACHABLE
from conformance.server.cases import server_cases
from tests.support.suite import CODEC, PYTHON, SERVER


def test_program_that_dies_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    source = "import sys; print('no port for me', file=sys.stderr); sys.exit(7)"
    command = f"{PYTHON} -c {shlex.quote(source)}"
    assert main(["server", "--exec", command]) == UNREACHABLE
    out, err = capsys.readouterr()
    assert "ended with status 7" in out
    assert "no port for me" in err


def test_fault_of_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(context: object) -> None:
        """Never runs."""

    wrong = Case("codec/7.6/wrong", "7.6", ("RW-NOT-1",), "Names what does not exist.", run)
    monkeypatch.setattr("conformance.commands.run_codec.codec_cases", lambda: (wrong,))
    assert main(["codec", "--exec", CODEC]) == FAULT


def test_formats(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["codec", "--exec", CODEC, "codec/7.6"]
    monkeypatch.setenv("NO_COLOR", "1")
    assert main([*arguments, "-v"]) == CONFORMS
    out, err = capsys.readouterr()
    assert "PASS" in out
    assert "\x1b" not in out
    assert err == ""
    main([*arguments, "--format", "ndjson"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["type"] == "summary"
    assert len(lines) == lines[-1]["selected"] + 1
    assert {line["verdict"] for line in lines[:-1]} == {"PASS"}


def test_run_without_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["codec", "--exec", CODEC, "codec/7.6", "--max-time", "1e-9", "--format", "json"]) == FAILS
    assert set(json.loads(capsys.readouterr().out)["counts"]) == {"INCONCLUSIVE"}


def test_seed_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["server", "--exec", f"{SERVER} --memory", "server/10.3/generated-order", "--seed", "12"]) == CONFORMS
    assert "seed 12" in capsys.readouterr().out


_WITH_A_HELPER = """
import subprocess, sys
from reference_server.cli import main
alive = open(sys.argv[1], "w")
subprocess.Popen(["sleep", "600"], pass_fds=[alive.fileno()])
sys.exit(main(["--memory", "--port", sys.argv[2]]))
"""


_IN_BACKGROUND = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]  # as `command &` in a script: Ctrl-C is ignored


@pytest.mark.parametrize(
    ("start", "number"),
    [([], signal.SIGINT), (_IN_BACKGROUND, signal.SIGTERM), ([], signal.SIGKILL)],
    ids=["SIGINT", "SIGTERM-in-background", "SIGKILL"],
)
def test_run_that_is_interrupted(start: list[str], number: signal.Signals, tmp_path: Path) -> None:
    """No target is left behind, nor what it has started, which hold the other end of a FIFO."""
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    held = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    target = [sys.executable, "-c", _WITH_A_HELPER, str(alive), "{port}"]
    command = [*start, sys.executable, "-m", "conformance.cli", "server", "--exec", shlex.join(target)]
    arguments = ["--report", str(tmp_path / "report"), "--jobs", "1", "--format", "ndjson"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        while json.loads(run.stdout.readline()).get("verdict") != "PASS":  # the end of the output is not JSON
            pass
        run.send_signal(number)
        run.stdout.read()
        assert run.wait(60) == (-signal.SIGKILL if number == signal.SIGKILL else INTERRUPTED)
    os.set_blocking(held, True)
    readable, _, _ = select.select([held], [], [], 60)
    assert readable, "a target or its helper still runs"
    assert os.read(held, 1) == b""
    os.close(held)
    if number != signal.SIGKILL:
        results = json.loads((tmp_path / "report" / "results.json").read_text("utf-8"))["results"]
        assert 0 < len(results) < len(server_cases())
