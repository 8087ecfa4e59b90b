"""Programs under test as child processes."""

import asyncio
import sys

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
