"""The end of an event loop in a test (conftest.py)."""

import asyncio
import gc
import signal
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


@pytest.mark.parametrize("iterations", range(6))
def test_connection_to_a_server_that_closes_leaves_no_socket(iterations: int) -> None:
    """asyncio accepts a connection in one iteration, and gives it to the server in the next, even if that is closed."""
    with socket.socket() as client, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        async def close_the_server() -> None:
            server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1")
            client.connect(server.sockets[0].getsockname())
            for _ in range(iterations):
                await asyncio.sleep(0)
            server.close()
            for _ in range(6):
                await asyncio.sleep(0)

        asyncio.run(close_the_server())
        gc.collect()
    assert [str(each.message) for each in caught] == []


@pytest.mark.parametrize("run", [asyncio.run, virtual_time.run])
def test_loop_ends_after_threads_and_processes(run: Run) -> None:
    """The end of the loop still hears of threads that end, and of programs that a cancelled task ends."""
    ended: list[int] = []
    tasks: list[asyncio.Task[None]] = []

    async def hold_a_program(started: asyncio.Event) -> None:
        process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            process.kill()
            ended.append(await process.wait())

    async def main() -> None:
        started = asyncio.Event()
        tasks.append(asyncio.create_task(hold_a_program(started)))
        await started.wait()
        await asyncio.to_thread(tasks[0].done)

    run(main())
    assert ended == [-signal.SIGKILL]


def test_loop_without_a_runner_leaves_no_connection() -> None:
    """Also a connection that was made after the end of all tasks is closed with its loop."""
    loop = asyncio.new_event_loop()
    with socket.create_server(("127.0.0.1", 0)) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.run_until_complete(loop.create_connection(asyncio.Protocol, *server.getsockname()))
        loop.close()
        del loop
        gc.collect()
    assert [str(each.message) for each in caught] == []
