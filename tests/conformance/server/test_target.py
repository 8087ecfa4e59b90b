"""Servers that the suite starts."""

import asyncio
import json
import os
import select
import shlex
import signal
from pathlib import Path

import pytest

from conformance.harness.process import Unreachable
from conformance.server.target import OFFERED, LaunchedServer
from tests.support.suite import PYTHON


def test_limits_in_the_environment(tmp_path: Path) -> None:
    source = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    path = tmp_path / "seen.json"
    server = LaunchedServer(f"{PYTHON} -c {shlex.quote(source)} {shlex.quote(str(path))} {{port}}", 5.0)
    own = server.another(max_rooms=4)

    async def start() -> None:
        try:
            with pytest.raises(Unreachable):
                await own.start()
        finally:
            await own.stop()

    asyncio.run(start())
    seen = json.loads(path.read_text())
    assert seen["ROOMWIRE_MAX_ROOMS"] == "4"
    assert int(seen["ROOMWIRE_PUBLISH_RATE"]) == OFFERED["publish_rate"]
    assert server.limits == OFFERED
    assert "preface_ms" not in own.limits  # no case waits for it at that server


_WITH_A_HELPER = """
import subprocess, sys
from reference_server.cli import main
alive = open(sys.argv[1], "w")
subprocess.Popen(["sleep", "600"], pass_fds=[alive.fileno()])
alive.close()
sys.exit(main(["--memory", "--port", sys.argv[2]]))
"""


def test_helpers_of_a_program_that_died(tmp_path: Path) -> None:
    """They end before it is started again, though nobody has stopped it. They hold the other end of a FIFO."""
    alive = [tmp_path / "1", tmp_path / "2"]
    for path in alive:
        os.mkfifo(path)
    held = [os.open(path, os.O_RDONLY | os.O_NONBLOCK) for path in alive]
    server = LaunchedServer(f"{PYTHON} -c {shlex.quote(_WITH_A_HELPER)} {shlex.quote(str(alive[0]))} {{port}}", 30.0)

    async def run() -> None:
        try:
            await server.start()
            os.kill(server.program.pid, signal.SIGKILL)
            assert await server.program.wait(60)
            server.command = server.command.replace(str(alive[0]), str(alive[1]))
            await server.start()
            _assert_ended(held[0])
        finally:
            await server.stop()
        _assert_ended(held[1])

    asyncio.run(run())


def _assert_ended(held: int) -> None:
    assert select.select([held], [], [], 60)[0], "a helper still runs"
    assert os.read(held, 1) == b""
    os.close(held)
