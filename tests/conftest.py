"""What all tests share: how hypothesis runs, and that no socket outlives the event loop that it is of."""

import asyncio.runners
import os

from hypothesis import settings

# No test depends on how fast the machine is. On CI hypothesis chooses its own profile, the same each time.
settings.register_profile("roomwire", deadline=None, print_blob=True)
if not os.environ.get("CI"):
    settings.load_profile("roomwire")

_cancel_all_tasks = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]


def _end_of_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Ends tasks, and then sockets, as the end of a process would: programs that are broken on purpose and run in the
    process of a test leave some open, and the collector would tell of them in whatever test came next. What must not be
    left open is held by tests that look at it."""
    _cancel_all_tasks(loop)
    for transport in list(getattr(loop, "_transports", {}).values()):
        transport.abort()
    for _ in range(2):  # transports close their sockets in the loop's next turn
        loop.run_until_complete(asyncio.sleep(0))


asyncio.runners._cancel_all_tasks = _end_of_loop  # type: ignore[attr-defined]
