"""The commands of roomwire-server, as processes."""

from __future__ import annotations

import asyncio
import os
import sys

from benchmarks.servers.targets import ROOT


async def command(*arguments: str, said: str = "") -> tuple[int, str]:
    """The exit status of a command, and what it printed; `said` is its standard input."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reference_server", *arguments),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("ROOMWIRE_")},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    output, _ = await process.communicate(said.encode())
    return await process.wait(), output.decode("utf-8", "replace")
