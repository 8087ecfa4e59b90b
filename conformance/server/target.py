"""The server under test: one that runs already, or one that the suite starts, stops, kills and starts again."""

import asyncio
import contextlib
import random
import signal
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from conformance.harness.process import Program, Unreachable, arguments, placeholders
from conformance.harness.tls import Trust, authority
from conformance.harness.verdicts import CaseEnd, Informative
from conformance.server.rates import Rates
from conformance.server.raw_client import RawClient
from conformance.wire import clock
from conformance.wire.log import WireLog
from protocol.frames import Welcome
from protocol.registry import Flag

OFFERED: Mapping[str, int] = MappingProxyType(
    {
        "heartbeat_ms": 5_000,
        "preface_ms": 4_000,
        "handshake_ms": 5_000,
        "frame_ms": 4_000,
        "stall_ms": 4_000,
        "publish_rate": 10_000,
        "publish_burst": 10_000,
        "join_rate": 10_000,
        "join_burst": 10_000,
        "history_rate": 10_000,
        "history_burst": 10_000,
        "room_rate": 1_000_000,
        "address_connections": 10_000,
        "account_connections": 10_000,
    }
)
"""Limits of SPEC.md, section 15, that the suite offers in the environment to each program that it starts. A server that
heeds them saves waiting. The time-outs are long enough for a busy machine."""

SHORT = ("heartbeat_ms", "preface_ms", "handshake_ms", "frame_ms", "stall_ms")
"""Time-outs that are not offered to a server of a case's own, where no case waits for them."""

_PORTS = (15_000, 32_000)
_TAKEN: set[int] = set()
_RETRY = 0.05  # seconds between attempts to connect to a program that is starting


class ServerTarget:
    """A server that already runs at an address. `ready` is the time for its first WELCOME, in seconds."""

    def __init__(self, host: str, port: int, ready: float, trust: Trust | None = None) -> None:
        self.trust = trust  # for TLS; None stands for clear text
        self.host = host
        self.port = port
        self.ready = ready
        self.rates = Rates()

    @property
    def address(self) -> str:
        """HOST:PORT, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def died(self) -> str:
        """How the process ended, if the suite started it and it did; else ""."""
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

    def another(self, **limits: int) -> "LaunchedServer":
        """A server for one case alone, not started yet, to which these limits are offered besides.

        Raises Informative if the suite does not start servers.
        """
        raise Informative("this needs a server that the suite starts (--exec)")

    def _greeted(self, welcome: Welcome) -> None:
        """Is called with the first WELCOME."""

    async def _until_ready(self, *, retrying: bool) -> None:
        deadline = clock.now() + self.ready
        reason = ""
        while (left := deadline - clock.now()) > 0 and not self.died:
            reason = await self._probe(left)
            if not reason:
                return
            if not retrying:
                break
            await asyncio.sleep(min(_RETRY, left))
        if self.died:
            reason = f"the program {self.died}"
        raise Unreachable(f"no WELCOME from {self.address}: {reason}", self.stderr)

    async def answers(self, seconds: float) -> bool:
        """Whether the server answers a new connection with WELCOME within so many seconds."""
        return not await self._probe(seconds)

    async def _probe(self, seconds: float) -> str:
        """Connects and says HELLO; returns what went wrong, or ""."""
        try:
            tls = self.trust.context() if self.trust else None
            connecting = asyncio.open_connection(self.host, self.port, ssl=tls)
            reader, writer = await asyncio.wait_for(connecting, seconds)
        except (OSError, TimeoutError) as error:
            return str(error) or "no connection in time"
        client = RawClient("probe", reader, writer, WireLog(), seconds)
        try:
            client.send_preface()
            await client.expect_preface()
            self._greeted(await client.hello("probe"))
        except CaseEnd as end:
            return str(end)
        finally:
            await client.close()
        return ""


class LaunchedServer(ServerTarget):
    """A server that the suite starts from a command with `{port}`, and perhaps `{host}` and `{dir}`.

    `{dir}` is an empty directory of the server's own that survives restarts. `limits` are passed in its environment,
    heartbeat_ms as ROOMWIRE_HEARTBEAT_MS.
    """

    def __init__(
        self, command: str, ready: float, limits: Mapping[str, int] = OFFERED, trust: Trust | None = None
    ) -> None:
        super().__init__("127.0.0.1", 0, ready, trust)
        self.command = command
        self.limits = limits
        self._program: Program | None = None
        self._durable = True
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    @property
    def side_by_side(self) -> bool:
        """Whether two of them can run at the same time: each has its own directory, or stores nothing."""
        return "dir" in placeholders(self.command) or not self._durable

    @property
    def died(self) -> str:
        return self._program.died if self._program else ""

    @property
    def stderr(self) -> str:
        return self._program.stderr if self._program else ""

    @property
    def program(self) -> Program:
        """The process, once it was started."""
        assert self._program, "start it first"
        return self._program

    async def start(self) -> None:
        """Starts the program and waits for its first WELCOME. Raises Unreachable, Unstartable or CommandError.

        What is left of an earlier start, such as helpers of a program that has died, is ended first.
        """
        if self._program:
            await self._program.stop(kill=True)
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="roomwire-check-", ignore_cleanup_errors=True)
        self.port = _free_port()
        values = {"port": self.port, "host": self.host, "dir": Path(self._directory.name), **tls_values(self.trust)}
        environment = {
            "ROOMWIRE_HOST": self.host,
            "ROOMWIRE_PORT": str(self.port),
            "ROOMWIRE_DIR": self._directory.name,
            **{f"ROOMWIRE_TLS_{name.upper()}": value for name, value in tls_values(self.trust).items()},
            **{f"ROOMWIRE_{name.upper()}": str(value) for name, value in self.limits.items()},
        }
        self._program = await Program.start(arguments(self.command, values), environment)
        try:
            await self._until_ready(retrying=True)
        except BaseException as error:
            await self._program.stop(kill=True)
            if isinstance(error, Unreachable):
                error.stderr = self.stderr  # all of it has arrived now
            raise

    def _greeted(self, welcome: Welcome) -> None:
        self._durable = bool(welcome.flags & Flag.DURABLE)

    async def stop(self) -> None:
        if self._program:
            await self._program.stop()
        if self._directory:
            with contextlib.suppress(OSError):
                self._directory.cleanup()

    async def crash(self) -> None:
        """Kills the program, as a loss of power would."""
        await self.program.stop(kill=True)

    def drain(self) -> None:
        """Tells the server to drain (SPEC.md, section 8.6)."""
        self.program.send_signal(signal.SIGTERM)

    def another(self, **limits: int) -> "LaunchedServer":
        kept = {name: value for name, value in self.limits.items() if name not in SHORT}
        return LaunchedServer(self.command, self.ready, {**kept, **limits}, self.trust)


def tls_values(trust: Trust | None) -> dict[str, str]:
    """The placeholders for TLS in the command of a server that the suite starts: paths by name."""
    return {"cert": str(authority().cert), "key": str(authority().key)} if trust else {}


def _free_port() -> int:
    """A free port that is new to this run and that systems do not use for outgoing connections.

    So only the program that is told the port can listen on it.
    """
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            if port not in _TAKEN:
                probe.bind(("127.0.0.1", port))
                _TAKEN.add(port)
                return port
