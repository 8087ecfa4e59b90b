"""The end of an event loop in a test (conftest.py)."""

import asyncio
import gc
import socket
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.support import virtual_time

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.mark.parametrize("run", [asyncio.run, virtual_time.run])
@pytest.mark.parametrize("iterations", range(6))
def test_late_connection_leaves_no_socket(run: Run, iterations: int) -> None:
    """A connection that arrives in the loop's last iterations is not reported in a later test."""
    with socket.socket() as client, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        async def leave_a_connection() -> None:
            server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1")
            client.connect(server.sockets[0].getsockname())
            for _ in range(iterations):
                await asyncio.sleep(0)

        run(leave_a_connection())
        gc.collect()
    assert [str(each.message) for each in caught if "raddr" in str(each.message)] == []
