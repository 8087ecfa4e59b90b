"""Shared by all tests: the profile of hypothesis, a cache that is theirs, signals, and the end of an event loop.

The end of a loop closes all of its sockets.
"""

import asyncio.runners
import asyncio.selector_events
import atexit
import gc
import os
import shutil
import signal
import socket
import tempfile
from typing import Any

from hypothesis import settings

# No test depends on the speed of the machine. On CI hypothesis chooses its own, reproducible profile.
settings.register_profile("roomwire", deadline=None, print_blob=True)
if not os.environ.get("CI"):
    settings.load_profile("roomwire")

# Commands and programs that tests start leave nothing in the user's cache.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="roomwire-cache-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# A shell starts background jobs with SIGINT ignored, and nohup with SIGHUP: programs that tests start and send a signal
# would inherit that.
for _signal, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)


def pytest_collection_finish() -> None:
    """Tells the garbage collector that what was imported stays. Tests that call it need not wait for that each time."""
    gc.collect()
    gc.freeze()


_cancel_all_tasks = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]


def _end_of_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Ends tasks, and then sockets, as the end of a process does.

    Mutants that run in the process of a test leave some open, and a connection may be accepted in the last iteration.
    The garbage collector would report them in a later test. Tests that look for leaks check for them before.
    """
    internals: Any = loop
    for key in list(internals._selector.get_map().values()):
        reader, _ = key.data
        if reader is not None and reader._callback == internals._accept_connection:
            internals._remove_reader(key.fileobj)  # a listening socket accepts nothing more
    _iterate(loop)  # what was accepted gets its transport
    _cancel_all_tasks(loop)
    for transport in list(internals._transports.values()):
        transport.abort()
    _iterate(loop)  # transports close their sockets


def _iterate(loop: asyncio.AbstractEventLoop) -> None:
    for _ in range(4):
        loop.run_until_complete(asyncio.sleep(0))


asyncio.runners._cancel_all_tasks = _end_of_loop  # type: ignore[attr-defined]

_close = asyncio.selector_events.BaseSelectorEventLoop.close


def _close_with_sockets(loop: asyncio.selector_events.BaseSelectorEventLoop) -> None:
    """Closes what was opened after the end of the tasks, or in a loop that has no runner."""
    for transport in () if loop.is_running() else list(getattr(loop, "_transports", {}).values()):
        transport._closing = True
        if transport._sock is not None:
            transport._sock.close()
            transport._sock = None
    _close(loop)


asyncio.selector_events.BaseSelectorEventLoop.close = _close_with_sockets  # type: ignore[assignment,method-assign]

_accept: Any = asyncio.selector_events.BaseSelectorEventLoop._accept_connection2  # type: ignore[attr-defined]


async def _accept_unless_closed(
    loop: Any, factory: Any, sock: socket.socket, extra: Any, tls: Any, server: Any, *rest: Any
) -> None:
    """Closes what was accepted in the iteration before the one in which the server closed.

    asyncio leaves it open, and forgets it: only the garbage collector closes it.
    """
    if server.sockets:
        await _accept(loop, factory, sock, extra, tls, server, *rest)
    else:
        sock.close()


asyncio.selector_events.BaseSelectorEventLoop._accept_connection2 = _accept_unless_closed  # type: ignore[attr-defined]
