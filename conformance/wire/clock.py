"""The one clock of the suite: that of the event loop, so that tests can give it a virtual one."""

import asyncio
import time


def now() -> float:
    """Seconds of the running loop's clock, or of the process's where no loop runs. Only differences mean something."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return time.monotonic()
