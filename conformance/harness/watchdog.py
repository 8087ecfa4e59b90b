"""Ends the programs under test, with their helpers, when the suite itself ends without having done so.

A small process holds the other end of a pipe. The pipe ends with the suite, however that ends: by a second Ctrl-C, by
SIGKILL, or by a fault. Then the process kills the groups that are still there.
"""

import atexit
import contextlib
import subprocess
import sys
from functools import cache

_SOURCE = """
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


def watch(group: int) -> None:
    """Has a process group killed when the suite ends, until `forget`."""
    _tell(b"+%d\n" % group)


def forget(group: int) -> None:
    """No longer has a process group killed."""
    _tell(b"-%d\n" % group)


def _tell(line: bytes) -> None:
    watchdog = _started()
    if watchdog and watchdog.stdin:
        with contextlib.suppress(OSError):
            watchdog.stdin.write(line)


@cache
def _started() -> "subprocess.Popen[bytes] | None":
    """The process, which starts with the first program; None where it cannot be started."""
    command = [sys.executable, "-I", "-S", "-c", _SOURCE]
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
