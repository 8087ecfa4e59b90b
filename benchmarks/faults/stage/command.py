"""The commands of roomwire-server, as processes."""

from __future__ import annotations

import asyncio
import json
import os
import sys

from benchmarks.servers.targets import ROOT

_SEVERAL = """
import json, sys
from reference_server.cli import main
for arguments in json.loads(sys.argv[1]):
    if status := main(arguments):
        sys.exit(status)
"""


async def command(*arguments: str, said: str = "") -> tuple[int, str]:
    """The exit status of a command, and what it printed; `said` is its standard input."""
    return await _python("-m", "reference_server", *arguments, said=said)


async def commands(*each: list[str]) -> tuple[int, str]:
    """The exit status of several commands in one process, which ends with the first that fails."""
    return await _python("-c", _SEVERAL, json.dumps(each))


async def _python(*arguments: str, said: str = "") -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("ROOMWIRE_")},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    output, _ = await process.communicate(said.encode())
    return await process.wait(), output.decode("utf-8", "replace")
