"""The load generator, compiled when it is needed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers.targets import Running
from benchmarks.settings import compiler, cores, pinned

SOURCES = Path(__file__).parent


class LoadFailed(Exception):
    """A check failed under load, or the generator could not run. `str()` is one line."""


@dataclass(frozen=True, slots=True)
class Load:
    """The counts of a run. Times are in seconds.

    Counts and times are those of the measured part; `all_...` are those of the whole run. Latencies are in microseconds
    and belong to a run at a fixed rate; they are 0 otherwise. `resident_...` are octets.
    """

    seconds: float
    deliveries: int
    publishes: int
    server_cpu: float
    server_waited: float
    own_cpu: float
    all_deliveries: int
    all_publishes: int
    resident_before: int
    resident_after: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    most_us: float


class Generator:
    """The compiled load generator."""

    def __init__(self, directory: Path) -> None:
        """Compile into `directory`. Raises LoadFailed."""
        found = compiler()
        if found is None:
            raise LoadFailed("no C compiler")
        self._program = directory / "loadgen"
        command = [found, "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(self._program)]
        command += sorted(map(str, SOURCES.glob("*.c")))
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise LoadFailed(f"{found} does not compile {SOURCES.name}: {done.stderr.strip()}")

    def _start(self, server: Running, options: dict[str, int]) -> subprocess.Popen[str]:
        values = {"port": server.port, "server_pid": server.pid} | options
        command = [str(self._program), server.protocol, *(f"{name}={value}" for name, value in values.items())]
        with pinned(cores().generator):
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )

    def load(self, server: Running, options: dict[str, int]) -> Load:
        """Publish and receive, with the options of loadgen/main.c. Raises LoadFailed if a check fails."""
        process = self._start(server, options)
        output, errors = process.communicate()
        if process.returncode:
            raise LoadFailed(errors.strip())
        return Load(**json.loads(output))

    @contextmanager
    def connections(self, server: Running, options: dict[str, int]) -> Iterator[None]:
        """Hold idle connections; all of them are open in this context. Raises LoadFailed."""
        process = self._start(server, options | {"idle": 1})
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise LoadFailed(process.communicate()[1].strip())
            yield
        finally:
            process.communicate()  # closes its standard input, which ends it
