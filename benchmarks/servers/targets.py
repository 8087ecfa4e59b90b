"""Targets: how to start each server, and which protocol the load generator speaks to it.

To add a server, add a `Target` here or in peers.py, and its protocol to loadgen/ if that is new.
"""

from __future__ import annotations

import os
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.settings import Settings, cores, pinned

LISTENING = re.compile(r"listening on [^ ]+:(\d+)")
START_SECONDS = 20.0

ROOT = Path(__file__).resolve().parent.parent.parent

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
    "max_body": 131_072,
    "heartbeat_ms": 600_000,
}
"""Settings of Roomwire's server with which it refuses nothing, and needs no PING during a run."""


class ServerFailed(Exception):
    """A server did not start. `str()` is its output."""


def resident_octets(pid: int) -> int:
    """The resident memory (RSS) of a process, in octets."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Running:
    """A server that accepts connections."""

    pid: int
    port: int
    protocol: str

    def resident_octets(self) -> int:
        """The RSS of the server's process, without the kernel's memory for its sockets."""
        return resident_octets(self.pid)


@dataclass(frozen=True, slots=True)
class Target:
    """A server to measure.

    `name` is its name in tables, `protocol` its protocol in loadgen/. `command` makes the command line from an empty
    directory and a free port. `listening` matches the line in which the server reports its port; None if it reports
    none. `missing` says what it lacks on this machine, or "".
    """

    name: str
    protocol: str
    command: Callable[[Path, int], list[str]]
    environment: dict[str, str]
    listening: re.Pattern[str] | None
    missing: Callable[[], str] = str


def _roomwire(name: str, store: Callable[[Path], list[str]]) -> Target:
    def command(directory: Path, _: int) -> list[str]:
        base = [sys.executable, "-m", "reference_server", "--host", "127.0.0.1", "--port", "0", "--log-level", "error"]
        return base + store(directory)

    environment = {f"ROOMWIRE_{name.upper()}": str(value) for name, value in UNLIMITED.items()}
    return Target(name, "roomwire", command, environment, LISTENING)


MEMORY = _roomwire("Roomwire, memory", lambda _: ["--memory"])
SQLITE = _roomwire("Roomwire, SQLite", lambda directory: ["--data", str(directory)])


@contextmanager
def serve(target: Target, settings: Settings) -> Iterator[Running]:
    """Run `target` on the server's core, in a new and empty directory. Raises ServerFailed."""
    with (
        tempfile.TemporaryDirectory(prefix="roomwire-bench-", dir=settings.directory) as name,
        tempfile.TemporaryFile(mode="w+") as errors,
    ):
        with pinned(cores().server):
            process = subprocess.Popen(
                target.command(Path(name), port := _free_port()),
                cwd=ROOT,
                env=os.environ | target.environment,
                stdout=subprocess.PIPE if target.listening else subprocess.DEVNULL,
                stderr=errors,
                text=True,
            )
        try:
            if target.listening:
                assert process.stdout is not None
                port = _port(target, target.listening, process.stdout, errors)
            else:
                _await_port(target, process, port, errors)
            yield Running(process.pid, port, target.protocol)
        finally:
            process.kill()  # its files go with the directory
            process.communicate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _port(target: Target, listening: re.Pattern[str], output: IO[str], errors: IO[str]) -> int:
    said = ""
    for line in output:
        said += line
        if found := listening.search(line):
            return int(found[1])
    errors.seek(0)
    raise ServerFailed(f"{target.name} does not start: {(said + errors.read()).strip()}")


def _await_port(target: Target, process: subprocess.Popen[str], port: int, errors: IO[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)  # it does not report that it is ready
        else:
            return
    errors.seek(0)
    raise ServerFailed(f"{target.name} does not start: {errors.read().strip()}")
