"""The client under test, which is launched, driven by commands, and reports what it sees.

Commands and reports are lines of JSON, as CONTRACT.md says. Each case launches a client of its own.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from conformance.harness.contract import greeting, parse, short
from conformance.harness.process import Program, Unreachable, arguments
from conformance.harness.verdicts import ContractBroken, Crashed, Failed
from conformance.wire import clock
from conformance.wire.log import WireLog

EVENTS = frozenset(
    [
        "connected",
        "disconnected",
        "closed",
        "joined",
        "left",
        "evicted",
        "message",
        "presence",
        "gap",
        "published",
        "history",
        "error",
    ]
)
FEATURES = frozenset(["accounts", "history", "ordered", "presence", "reconnect", "rejoin", "repeat", "tls"])
"""What a client may offer. It leaves a feature out by not naming it in its first line."""

_MOST_LINES = 20_000  # of one client in one case, after which the suite reads no more

Report = dict[str, Any]


class Running(Protocol):
    """A client that was launched: a process, or what tests put in its place."""

    @property
    def died(self) -> str: ...

    @property
    def stderr(self) -> str: ...

    @property
    def stdin(self) -> "Sink": ...

    @property
    def unread(self) -> int:
        """Octets of commands that wait until the client reads."""

    @property
    def stdout(self) -> asyncio.StreamReader: ...

    async def wait(self, seconds: float) -> bool: ...

    async def stop(self, *, kill: bool = False) -> None: ...


class Sink(Protocol):
    """Where commands are written."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def close(self) -> None: ...


Launch = Callable[[str, int], Awaitable[Running]]
"""Starts a client for the server at this host and port. Raises Unstartable."""


def launcher(command: str) -> Launch:
    """What launches processes of a command with `{host}` and `{port}`. Raises CommandError."""
    arguments(command, {"host": "", "port": 0})

    async def launch(host: str, port: int) -> Running:
        environment = {"ROOMWIRE_HOST": host, "ROOMWIRE_PORT": str(port)}
        return await Program.start(arguments(command, {"host": host, "port": port}), environment, pipes=True)

    return launch


class ClientTarget:
    """One launched client. `timeout` bounds each expectation, in seconds."""

    def __init__(self, program: Running, timeout: float, log: WireLog) -> None:
        self._log = log
        self.program = program
        self.timeout = timeout
        self.greeting: Report = {}
        self.features: frozenset[str] = frozenset()
        self.reports: list[Report] = []
        self.taken: set[int] = set()
        self.said: list[str] = []
        self.ended = False
        self._broken: ContractBroken | None = None
        self._commands = 0
        self._lines = 0
        self.news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    async def start(self, ready: float) -> None:
        """Waits `ready` seconds for the first line. Raises Unreachable."""
        try:
            self.greeting = greeting(await self._first_line(ready))
        except ValueError as error:
            await self.stop()  # then all of its standard error has arrived
            raise Unreachable(f"the client did not get ready: {error}", self.program.stderr) from None
        features = self.greeting.get("features")
        named = features if isinstance(features, list) else []
        self.features = frozenset(name for name in named if isinstance(name, str)) & FEATURES
        self._reading = asyncio.create_task(self._read())

    async def _first_line(self, ready: float) -> bytes:
        program = self.program
        try:
            line = await asyncio.wait_for(program.stdout.readline(), ready)
        except TimeoutError:
            raise ValueError(f"no first line within {ready:g} s") from None
        except ValueError:
            raise ValueError("its first line does not end") from None
        if not line:
            await program.wait(1.0)
            raise ValueError(f"it {program.died or 'closed its output'}")
        return line

    async def stop(self) -> None:
        """Kills the program."""
        if self._reading:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        with contextlib.suppress(OSError):
            self.program.stdin.close()
        await self.program.stop(kill=True)

    @property
    def broken(self) -> ContractBroken | None:
        """How the client broke its contract, or None."""
        return self._broken

    # Commands.

    def tell(self, op: str, **values: Any) -> int:
        """Sends a command and returns its id."""
        self._commands += 1
        line = json.dumps({"id": self._commands, "op": op, **values})
        self.said.append(f"-> {short(line)}")
        self._log.said("client", "S", line)
        with contextlib.suppress(OSError, RuntimeError):
            self.program.stdin.write(line.encode() + b"\n")
        return self._commands

    async def flush(self) -> None:
        """Waits until the client has read its commands, however slowly.

        Raises ContractBroken if it takes no octet of them within `timeout` seconds.
        """
        draining = asyncio.ensure_future(self.program.stdin.drain())
        try:
            while not draining.done():
                before = self.program.unread
                await asyncio.wait([draining], timeout=self.timeout)
                if not draining.done() and self.program.unread >= before:
                    raise ContractBroken("the client to read its commands", f"nothing read for {self.timeout:g} s")
            draining.result()
        except OSError:
            self.ended = True
        finally:
            draining.cancel()

    # Reports.

    async def _read(self) -> None:
        try:
            while line := await self.program.stdout.readline():
                self._lines += 1
                self.said.append(f"<- {short(line.rstrip())}")
                self._log.said("client", "C", line.decode(errors="replace"))
                self._take_in(line)
                self.news.set()
                if self._broken:
                    break
                if self._lines % 64 == 0:
                    await asyncio.sleep(0)  # other cases run even if this client never stops
                    del self.said[:-200]
        except (ValueError, OSError) as error:
            self._broken = ContractBroken("a line of JSON", short(error))
        if not self._broken:
            self.ended = True
        self.news.set()

    def _take_in(self, line: bytes) -> None:
        if self._lines > _MOST_LINES:
            self._broken = ContractBroken("reports of what happens", f"more than {_MOST_LINES} lines")
            return
        try:
            report = parse(line)
        except ValueError:
            self._broken = ContractBroken("a line of JSON", short(line))
            return
        known = isinstance(report, dict) and (report.get("event") in EVENTS or "unsupported" in report)
        if known:
            self.reports.append(report)
        elif not isinstance(report, dict) or "event" not in report:
            self._broken = ContractBroken("a report with a name in `event`", short(line))

    async def wait(
        self, find: Callable[[], Report | None], expected: str, requirement: str = "", within: float | None = None
    ) -> Report:
        """Waits until `find` finds a report. Raises Failed at the end of the time, Crashed if the client has ended."""
        seconds = self.timeout if within is None else within
        deadline = clock.now() + seconds
        while True:
            found = find()
            if found is not None:
                return found
            if self._broken:
                raise self._broken
            if self.ended:
                await self.program.wait(1.0)
                raise Crashed(f"the client {self.program.died or 'closed its output'}")
            left = deadline - clock.now()
            if left <= 0:
                raise Failed(f"the report {expected}", self._instead(seconds), requirement)
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), left)

    def _instead(self, seconds: float) -> str:
        others = [short(json.dumps(r)) for at, r in enumerate(self.reports) if at not in self.taken]
        return f"nothing within {seconds:g} s" + (f", but {'; '.join(others[-3:])}" if others else "")

    def find(self, test: Callable[[Report], bool]) -> Report | None:
        """Takes the first report that passes the test and was not taken; None if there is none yet."""
        for at, report in enumerate(self.reports):
            if at not in self.taken and test(report):
                self.taken.add(at)
                return report
        return None

    def of(self, *events: str) -> list[Report]:
        """All reports of these events in their order, taken or not."""
        return [report for report in self.reports if report.get("event") in events]
