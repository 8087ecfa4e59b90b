"""The server under test: one that runs already, or one that the suite starts, stops, kills and starts again."""

import asyncio
import contextlib
import signal
import socket
import tempfile
import time
from pathlib import Path

from conformance.peer import Peer
from conformance.process import Program, arguments, placeholders
from conformance.verdicts import CaseEnd, Informative
from conformance.wirelog import WireLog

_PORT_TRIES = 0.05  # seconds between attempts to connect to a program that is starting


class Unreachable(Exception):
    """The target did not start, cannot be reached, or never sent a WELCOME; `stderr` is what it said."""

    def __init__(self, reason: str, stderr: str = "") -> None:
        super().__init__(reason)
        self.stderr = stderr


class ServerTarget:
    """A server that runs already, at an address."""

    def __init__(self, host: str, port: int, ready: float) -> None:
        self.host = host
        self.port = port
        self.ready = ready

    @property
    def address(self) -> str:
        """Host and port in one."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def died(self) -> str:
        """How the process ended, where the suite started it; else ""."""
        return ""

    @property
    def stderr(self) -> str:
        """The end of what the process wrote to its standard error."""
        return ""

    async def start(self) -> None:
        """Makes sure that the server answers with WELCOME. Raises Unreachable."""
        await self._until_ready(retrying=False)

    async def stop(self) -> None:
        """Ends what `start` began."""

    def another(self) -> "LaunchedServer":
        """A server of its own for one case, which starts it. Raises Informative where the suite starts none."""
        raise Informative("needs a server that the suite starts (--exec)")

    async def _until_ready(self, *, retrying: bool) -> None:
        deadline = time.monotonic() + self.ready
        reason = ""
        while (left := deadline - time.monotonic()) > 0 and not self.died:
            reason = await self._probe(left)
            if not reason:
                return
            if not retrying:
                break
            await asyncio.sleep(min(_PORT_TRIES, left))
        if self.died:
            reason = f"the program {self.died}"
        raise Unreachable(f"no WELCOME from {self.address}: {reason}", self.stderr)

    async def _probe(self, seconds: float) -> str:
        """Connects and says HELLO; gives back what went wrong, or ""."""
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(self.host, self.port), seconds)
        except (OSError, TimeoutError) as error:
            return str(error) or "no connection in time"
        peer = Peer("probe", reader, writer, WireLog(), seconds)
        try:
            peer.send_preface()
            await peer.expect_preface()
            await peer.hello("probe")
        except CaseEnd as end:
            return str(end)
        finally:
            await peer.close()
        return ""


class LaunchedServer(ServerTarget):
    """A server that the suite starts from a command with `{port}`, and perhaps `{host}` and `{dir}`.

    `{dir}` is an empty directory that is the server's own and stays over restarts.
    """

    def __init__(self, command: str, ready: float) -> None:
        super().__init__("127.0.0.1", 0, ready)
        self.command = command
        self._program: Program | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    @property
    def own_directory(self) -> bool:
        """Whether two of it can run side by side, each in a directory of its own."""
        return "dir" in placeholders(self.command)

    @property
    def died(self) -> str:
        return self._program.died if self._program else ""

    @property
    def stderr(self) -> str:
        return self._program.stderr if self._program else ""

    @property
    def program(self) -> Program:
        """The running process."""
        assert self._program, "start it first"
        return self._program

    async def start(self) -> None:
        """Starts the program, and waits for its first WELCOME. Raises Unreachable, Unstartable or ValueError."""
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="roomwire-check-", ignore_cleanup_errors=True)
        self.port = _free_port()
        values = {"port": self.port, "host": self.host, "dir": Path(self._directory.name)}
        environment = {
            "ROOMWIRE_HOST": self.host,
            "ROOMWIRE_PORT": str(self.port),
            "ROOMWIRE_DIR": self._directory.name,
        }
        self._program = await Program.start(arguments(self.command, values), environment)
        try:
            await self._until_ready(retrying=True)
        except BaseException:
            await self._program.stop(kill=True)
            raise

    async def stop(self) -> None:
        if self._program:
            await self._program.stop()
        if self._directory:
            with contextlib.suppress(OSError):
                self._directory.cleanup()

    async def crash(self) -> None:
        """Kills the program as a loss of power would, without a word."""
        await self.program.stop(kill=True)

    def drain(self) -> None:
        """Tells the server to end (8.6)."""
        self.program.send_signal(signal.SIGTERM)

    def another(self) -> "LaunchedServer":
        return LaunchedServer(self.command, self.ready)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
