"""Programs under test as child processes."""

import asyncio
import sys

import pytest

from conformance.harness.process import Program


def test_standard_error_of_a_program() -> None:
    async def run() -> tuple[str, str]:
        source = "import sys; sys.stderr.write('x' * 100000 + 'the end'); sys.exit(3)"
        program = await Program.start([sys.executable, "-c", source], {})
        assert await program.wait(10)
        await program.stop()
        return program.died, program.stderr

    died, stderr = asyncio.run(run())
    assert died == "ended with status 3"
    assert stderr == "" or stderr.endswith("the end")


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nprint('ready', flush=True)\nwhile True: sys.stdout.write('x' * 65536)",
        "import os, time\nif os.fork() == 0: os.setsid(); print('ready', flush=True)\ntime.sleep(60)",
    ],
    ids=["unread output", "child in a session of its own"],
)
def test_stop_of_a_program_whose_pipes_stay_open(source: str) -> None:
    async def run() -> str:
        program = await Program.start([sys.executable, "-c", source], {}, pipes=True)
        assert await program.stdout.readline() == b"ready\n"
        await asyncio.wait_for(program.stop(kill=True), 50)
        return program.died

    assert asyncio.run(run()) == "ended by SIGKILL"
