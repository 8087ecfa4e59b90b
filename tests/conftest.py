"""Shared by all tests: the profile of hypothesis, a cache that is theirs, and the end of an event loop.

The end of a loop closes all of its sockets.
"""

import asyncio.runners
import atexit
import os
import shutil
import tempfile

from hypothesis import settings

# No test depends on the speed of the machine. On CI hypothesis chooses its own, reproducible profile.
settings.register_profile("roomwire", deadline=None, print_blob=True)
if not os.environ.get("CI"):
    settings.load_profile("roomwire")

# Commands and programs that tests start leave nothing in the user's cache.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="roomwire-cache-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

_cancel_all_tasks = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]


def _end_of_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Ends tasks, and then sockets, as the end of a process does.

    Mutants that run in the process of a test leave some open, and the garbage collector would report them in a later
    test. Tests that look for leaks check for them before.
    """
    _cancel_all_tasks(loop)
    for transport in list(getattr(loop, "_transports", {}).values()):
        transport.abort()
    for _ in range(2):  # transports close their sockets in the next iteration of the loop
        loop.run_until_complete(asyncio.sleep(0))


asyncio.runners._cancel_all_tasks = _end_of_loop  # type: ignore[attr-defined]
