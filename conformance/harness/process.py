"""A program under test as a child process, which is started without a shell and whose standard error is kept."""

import asyncio
import atexit
import contextlib
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from string import Formatter

from conformance.harness.exit_status import UsageError
from conformance.harness.verdicts import Crashed
from conformance.wire import clock

_STDERR_KEPT = 16384  # octets of standard error that are remembered
_OF_TLS = {"cert", "key"}  # placeholders
_KILL_AFTER = 5.0  # seconds that a program has to end after SIGTERM
_LAST_WORDS = 2.0  # seconds that the rest of standard error has to arrive after the end of the program
_TICK = 0.01  # seconds between looks at whether a program has ended


class Unstartable(Exception):
    """The command cannot be run."""


class Unreachable(Exception):
    """The target does not start, cannot be reached, or sends no WELCOME; `stderr` is the end of its standard error."""

    def __init__(self, reason: str, stderr: str = "") -> None:
        super().__init__(reason)
        self.stderr = stderr


class CommandError(UsageError):
    """The template of a command is malformed or has an unknown placeholder."""


def arguments(template: str, values: Mapping[str, object]) -> list[str]:
    """Splits the template of a command and fills in its placeholders `{name}`. Raises CommandError."""
    try:
        parts = shlex.split(template)
    except ValueError as error:
        raise CommandError(f"{template}: {error}") from None
    if not parts:
        raise CommandError("the command is empty")
    unknown = placeholders(template) - set(values)
    if unknown:
        hint = "; a server has {cert} and {key} with --tls" if unknown & _OF_TLS else ""
        known = ", ".join(sorted(values)) or "none"
        raise CommandError(f"unknown placeholder {{{min(unknown)}}}, known are {known}{hint}")
    return [part.format_map(values) for part in parts]


def placeholders(template: str) -> set[str]:
    """The placeholders of a command. Raises CommandError for braces that do not match."""
    try:
        return {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise CommandError(f"{template}: {error}") from None


class Program:
    """A running child process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        _watch(process.pid)
        self._stderr = bytearray()
        self._stopped = False
        self._keeping = asyncio.create_task(self._keep_stderr())

    @classmethod
    async def start(cls, command: list[str], environment: Mapping[str, str], *, pipes: bool = False) -> "Program":
        """Starts a program, with `pipes` to its standard input and output if asked for. Raises Unstartable."""
        pipe = asyncio.subprocess.PIPE if pipes else asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=pipe,
                stdout=pipe,
                stderr=asyncio.subprocess.PIPE,
                env={**os.environ, **environment},
                start_new_session=True,
                limit=2**22,
            )
        except (OSError, ValueError) as error:
            raise Unstartable(f"cannot run {shlex.join(command)}: {error}") from None
        return cls(process)

    @property
    def stdin(self) -> asyncio.StreamWriter:
        """The program's standard input, if it has `pipes`."""
        assert self._process.stdin
        return self._process.stdin

    @property
    def unread(self) -> int:
        """Octets for its standard input that wait until it reads, beyond those in the pipe."""
        return self.stdin.transport.get_write_buffer_size()

    @property
    def stdout(self) -> asyncio.StreamReader:
        """The program's standard output, if it has `pipes`."""
        assert self._process.stdout
        return self._process.stdout

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def died(self) -> str:
        """How the program ended, or "" while it runs."""
        code = self._process.returncode
        if code is None:
            return ""
        return f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"

    @property
    def stderr(self) -> str:
        """The end of what the program wrote to its standard error."""
        return self._stderr.decode(errors="replace")

    async def _keep_stderr(self) -> None:
        assert self._process.stderr
        while data := await self._process.stderr.read(4096):
            self._stderr += data
            del self._stderr[:-_STDERR_KEPT]

    async def wait(self, seconds: float) -> bool:
        """Waits for the end of the program; False if it still runs after so many seconds."""
        # Not `wait` of the process: it does not return while output is unread or another process holds a pipe.
        until = clock.now() + seconds
        while self._process.returncode is None and clock.now() < until:
            await asyncio.sleep(_TICK)
        if self._process.returncode is None:
            return False
        await asyncio.wait([self._keeping], timeout=_LAST_WORDS)
        return True

    def send_signal(self, number: signal.Signals) -> None:
        """Sends a signal to the program. Raises Crashed if it has ended."""
        try:
            self._process.send_signal(number)
        except ProcessLookupError:
            raise Crashed(f"the program {self.died or 'has ended'}") from None

    async def stop(self, *, kill: bool = False) -> None:
        """Ends the program and its children, with SIGTERM first unless `kill`. A second call does nothing."""
        if self._stopped:
            return
        self._stopped = True
        if self._process.returncode is None and not kill:
            self._signal_group(signal.SIGTERM)
            await self.wait(_KILL_AFTER)
        self._signal_group(signal.SIGKILL)
        await self.wait(math.inf)
        self._keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeping
        _forget(self._process.pid)
        # asyncio has no public way to close the pipes of a process, and warns if they stay open.
        transport: asyncio.SubprocessTransport = self._process._transport  # type: ignore[attr-defined]
        transport.close()
        await asyncio.sleep(0)

    def _signal_group(self, number: signal.Signals) -> None:
        # The program has a session of its own, so the group holds its children alone.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


_WATCHDOG = """
import os, signal, sys
groups = set()
for line in sys.stdin.buffer:
    (groups.add if line.startswith(b"+") else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


def _watch(group: int) -> None:
    """Has a process group killed when the suite ends, until `_forget`."""
    _tell(b"+%d\n" % group)


def _forget(group: int) -> None:
    """No longer has a process group killed."""
    _tell(b"-%d\n" % group)


def _tell(line: bytes) -> None:
    watchdog = _started()
    if watchdog and watchdog.stdin:
        with contextlib.suppress(OSError):
            watchdog.stdin.write(line)


@cache
def _started() -> "subprocess.Popen[bytes] | None":
    """The watchdog, which starts with the first program; None where it cannot be started.

    It holds the other end of a pipe, which ends with the suite, however that ends: by a second Ctrl-C, by SIGKILL, or
    by a fault. Then it kills the groups that are still there.
    """
    command = [sys.executable, "-I", "-S", "-c", _WATCHDOG]
    null = subprocess.DEVNULL
    try:
        watchdog = subprocess.Popen(
            command, bufsize=0, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True
        )
    except OSError:
        return None
    atexit.register(_end, watchdog)
    return watchdog


def _end(watchdog: "subprocess.Popen[bytes]") -> None:
    if watchdog.stdin:
        watchdog.stdin.close()
    watchdog.wait()
