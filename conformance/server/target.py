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
"""Limits of SPEC.md, section 15, that a program which the suite starts is offered in its environment. It may heed them:
then nobody has to wait. Time-outs are long enough for a machine that does much else at the same time."""

_SHORT = ("heartbeat_ms", "preface_ms", "handshake_ms", "frame_ms", "stall_ms")
"""Those that a server of a case's own is not offered: where no case waits for a time-out, none should be near."""

_PORTS = (15_000, 32_000)
_TAKEN: set[int] = set()
_PORT_TRIES = 0.05  # seconds between attempts to connect to a program that is starting


class ServerTarget:
    """A server that runs already, at an address."""

    def __init__(self, host: str, port: int, ready: float, trust: Trust | None = None) -> None:
        self.trust = trust  # over TLS; None: in clear text
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

    def another(self, **limits: int) -> "LaunchedServer":
        """A server of its own for one case, which starts it, with limits that it is offered besides.

        Raises Informative where the suite starts none.
        """
        raise Informative("needs a server that the suite starts (--exec)")

    def _greeted(self, welcome: Welcome) -> None:
        """The first WELCOME has come."""

    async def _until_ready(self, *, retrying: bool) -> None:
        deadline = clock.now() + self.ready
        reason = ""
        while (left := deadline - clock.now()) > 0 and not self.died:
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
            tls = self.trust.context() if self.trust else None
            connecting = asyncio.open_connection(self.host, self.port, ssl=tls)
            reader, writer = await asyncio.wait_for(connecting, seconds)
        except (OSError, TimeoutError) as error:
            return str(error) or "no connection in time"
        peer = RawClient("probe", reader, writer, WireLog(), seconds)
        try:
            peer.send_preface()
            await peer.expect_preface()
            self._greeted(await peer.hello("probe"))
        except CaseEnd as end:
            return str(end)
        finally:
            await peer.close()
        return ""


class LaunchedServer(ServerTarget):
    """A server that the suite starts from a command with `{port}`, and perhaps `{host}` and `{dir}`.

    `{dir}` is an empty directory that is the server's own and stays over restarts. `limits` are in its environment:
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
        """Whether two of it can run at the same time: each in a directory of its own, or without anything stored."""
        return "dir" in placeholders(self.command) or not self._durable

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
        except BaseException:
            await self._program.stop(kill=True)
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
        """Kills the program as a loss of power would, without a word."""
        await self.program.stop(kill=True)

    def drain(self) -> None:
        """Tells the server to end (8.6)."""
        self.program.send_signal(signal.SIGTERM)

    def another(self, **limits: int) -> "LaunchedServer":
        kept = {name: value for name, value in self.limits.items() if name not in _SHORT}
        return LaunchedServer(self.command, self.ready, {**kept, **limits}, self.trust)


def tls_values(trust: Trust | None) -> dict[str, str]:
    """The files that a server which the suite starts is offered for TLS."""
    return {"cert": str(authority().cert), "key": str(authority().key)} if trust else {}


def _free_port() -> int:
    """A port that nobody listens on, that systems do not take for outgoing connections, and that is new to this run.

    So what listens on it when it answers is the program that was told it.
    """
    while True:
        port = random.randrange(*_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            if port not in _TAKEN:
                probe.bind(("127.0.0.1", port))
                _TAKEN.add(port)
                return port
