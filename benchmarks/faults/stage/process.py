"""A server process on a data directory, which can be killed and started again on the same port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from benchmarks.servers.targets import LISTENING, ROOT, resident_octets

SETTINGS = {
    "publish_rate": 2**32 - 1,
    "publish_burst": 2**32 - 1,
    "join_rate": 2**32 - 1,
    "join_burst": 2**32 - 1,
    "ids_per_room": 2**31 - 1,
    "window": 512,
    "max_connections": 15_000,
    "retention_messages": 2**31 - 1,
    "retention_octets": 2**31 - 1,
    "replay_messages": 2**31 - 1,
    "quiet_members": 10_000_000,
    "jitter_ms": 100,
    "drain_ms": 2_000,
    "linger_ms": 500,
}
"""The server refuses and trims nothing, so that anything missing is missing because of a fault."""

START_SECONDS = 30.0
ENDS_SECONDS = 60.0


class Refused(Exception):
    """The server did not start. `str()` is its output."""


class Server:
    """A `roomwire-server` process with SETTINGS, changed by `settings`, and with `environment`."""

    def __init__(
        self, data: Path, settings: dict[str, int] | None = None, environment: dict[str, str] | None = None
    ) -> None:
        self.data = data
        self.port = 0
        self._settings = SETTINGS | (settings or {})
        self._log = data.with_name(data.name + ".log")
        self._log_start = 0
        self.environment = environment or {}
        self.errors: int | None = None  # descriptor for standard error, in the place of the log
        self.level = "warning"
        self._process: asyncio.subprocess.Process | None = None

    def name_log(self, name: str) -> None:
        """Keep the log of a second server on the same data directory apart."""
        self._log = self.data.with_name(f"{self.data.name}-{name}.log")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the server, on its earlier port if it had one. Raises Refused."""
        environment = {f"ROOMWIRE_{name.upper()}": str(value) for name, value in self._settings.items()}
        command = [sys.executable, "-m", "reference_server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--data", str(self.data), "--log-level", self.level]
        with self._log.open("a", encoding="utf-8") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *command,
                cwd=ROOT,
                env=os.environ | environment | self.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log if self.errors is None else self.errors,
                start_new_session=True,  # Ctrl-C ends this program, which ends the server
            )
        assert self._process.stdout is not None
        said = ""
        while not (found := LISTENING.search(said)):
            line = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS)
            if not line:
                await self._process.wait()
                raise Refused((said + self.log()).strip())
            said += line.decode()
        self.port = int(found[1])

    async def metrics_port(self) -> int:
        """The port of the metrics of a server that was just started with the setting `metrics_port`."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS)
        return int(line.decode().rpartition(":")[2].partition("/")[0])

    def log(self) -> str:
        """The server's log since its last start."""
        with contextlib.suppress(FileNotFoundError):
            return self._log.read_bytes()[self._log_start :].decode("utf-8", "replace")
        return ""

    async def kill(self) -> None:
        """kill -9."""
        await self.signal(signal.SIGKILL)
        await self.wait()

    async def signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def wait(self) -> int:
        """Wait for the end, and return the exit status. Raises TimeoutError if the server does not end."""
        assert self._process is not None
        async with asyncio.timeout(ENDS_SECONDS):
            await self._process.communicate()  # reads all output, or the pipe would stay open
        return await self._process.wait()

    async def end(self) -> int:
        """Send SIGTERM, and return the exit status."""
        await self.signal(signal.SIGTERM)
        return await self.wait()

    def resident_octets(self) -> int:
        return resident_octets(self.pid)

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))
