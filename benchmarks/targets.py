"""The servers that are measured: how each is started, and what the load generator has to speak to it.

Another server is one more `Target`, and one more protocol in loadgen.c.
"""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.settings import Settings, cores, pinned

ROOT = Path(__file__).resolve().parent.parent

UNLIMITED = {
    "publish_rate": 2**32 - 1,
    "publish_burst": 2**32 - 1,
    "join_rate": 2**32 - 1,
    "history_rate": 2**32 - 1,
    "history_burst": 2**32 - 1,
    "join_burst": 2**32 - 1,
    "ids_per_room": 2**31 - 1,
    "window": 1024,
    "max_connections": 20_000,
    "heartbeat_ms": 600_000,
}
"""Settings of Roomwire's server: nothing is refused, and members that only read need no PING during a run."""


class ServerFailed(Exception):
    """A server did not start. `str()` is what it said."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts connections."""

    pid: int
    port: int
    protocol: str

    def resident_octets(self) -> int:
        """RSS of the server's process; what the kernel holds for its sockets is not in it."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Target:
    """A server: its name in tables, what loadgen.c calls its protocol, its command for an empty directory, and the
    pattern by which its output tells the port."""

    name: str
    protocol: str
    command: Callable[[Path], list[str]]
    environment: dict[str, str]
    listening: re.Pattern[str]


def _roomwire(name: str, store: Callable[[Path], list[str]]) -> Target:
    def command(directory: Path) -> list[str]:
        base = [sys.executable, "-m", "reference_server", "--host", "127.0.0.1", "--port", "0", "--log-level", "error"]
        return base + store(directory)

    environment = {f"ROOMWIRE_{name.upper()}": str(value) for name, value in UNLIMITED.items()}
    return Target(name, "roomwire", command, environment, re.compile(r"listening on [^ ]+:(\d+)"))


MEMORY = _roomwire("Roomwire, memory", lambda _: ["--memory"])
SQLITE = _roomwire("Roomwire, SQLite", lambda directory: ["--data", str(directory)])


@contextmanager
def serve(target: Target, settings: Settings) -> Iterator[Running]:
    """Run `target` on its core, with a new and empty directory. Raises ServerFailed."""
    with (
        tempfile.TemporaryDirectory(prefix="roomwire-bench-", dir=settings.directory) as name,
        tempfile.TemporaryFile(mode="w+") as errors,
    ):
        with pinned(cores().server):
            process = subprocess.Popen(
                target.command(Path(name)),
                cwd=ROOT,
                env=os.environ | target.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            assert process.stdout is not None
            yield Running(process.pid, _port(target, process.stdout, errors), target.protocol)
        finally:
            process.kill()  # what it keeps goes with the directory
            process.communicate()


def _port(target: Target, output: IO[str], errors: IO[str]) -> int:
    said = ""
    for line in output:
        said += line
        if found := target.listening.search(line):
            return int(found[1])
    errors.seek(0)
    raise ServerFailed(f"{target.name} does not start: {(said + errors.read()).strip()}")
