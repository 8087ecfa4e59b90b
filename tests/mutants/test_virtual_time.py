"""The loop in which mutants run: time-outs cost nothing, and work is never taken for waiting."""

import asyncio
import threading

from tests.support import virtual_time


def test_time_out_costs_nothing() -> None:
    async def main() -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(10**6)
        return asyncio.get_running_loop().time() - began

    assert 10**6 <= virtual_time.run(main()) < 10**6 + 1


def test_timers_keep_their_order() -> None:
    async def main() -> list[int]:
        seen: list[int] = []

        async def after(seconds: int) -> None:
            await asyncio.sleep(seconds)
            seen.append(seconds)

        await asyncio.gather(*(after(seconds) for seconds in (30, 10, 20, 1000, 15)))
        return seen

    assert virtual_time.run(main()) == [10, 15, 20, 30, 1000]


def test_thread_at_work_stops_time() -> None:
    """A time-out of a second, and a thread that ends when the loop has turned a thousand times."""
    turned = threading.Event()

    async def turn() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)
        turned.set()

    async def main() -> bool:
        turning = asyncio.create_task(turn())
        done = await asyncio.wait_for(asyncio.to_thread(turned.wait), 1.0)
        await turning
        return done

    assert virtual_time.run(main())


def test_octets_under_way_stop_time() -> None:
    """A long talk over a socket comes to its end within a second of virtual time for each answer."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main() -> int:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        size = 2**18
        for _ in range(50):
            writer.write(bytes(size))
            assert await asyncio.wait_for(reader.readexactly(size), 1.0) == bytes(size)
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        return size

    assert virtual_time.run(main())


def test_endless_turns_meet_their_deadline() -> None:
    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    async def main() -> bool:
        try:
            await asyncio.wait_for(spin(), 0.5)
        except TimeoutError:
            return True
        return False

    assert virtual_time.run(main())
