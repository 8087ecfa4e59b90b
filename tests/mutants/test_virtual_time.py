"""The event loop of mutants: it skips the waiting for time-outs, and never the time of work."""

import asyncio
import socket
import threading

import pytest

from tests.support import virtual_time


def test_time_out_takes_no_real_time() -> None:
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


def test_working_thread_stops_time() -> None:
    """A thread that ends after a thousand iterations of the loop meets a time-out of a second."""
    finished = threading.Event()

    async def iterate() -> None:
        for _ in range(1000):
            await asyncio.sleep(0)
        finished.set()

    async def main() -> bool:
        running = asyncio.create_task(iterate())
        done = await asyncio.wait_for(asyncio.to_thread(finished.wait), 1.0)
        await running
        return done

    assert virtual_time.run(main())


def test_octets_in_flight_stop_time() -> None:
    """Each answer of a long exchange over a socket comes within a second of virtual time."""

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


def test_endless_loop_meets_its_deadline() -> None:
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


def test_connection_looks_like_tcp() -> None:
    """Both ends know the same addresses, and a client that connects with a small buffer is sent no more than that."""

    async def main() -> tuple[list[object], list[object], int]:
        accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        with socket.socket() as own:
            own.setblocking(False)
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.get_running_loop().sock_connect(own, address)
            _, client = await asyncio.open_connection(sock=own)
        client.transport.pause_reading()  # type: ignore[attr-defined]
        writer = await accepted.get()
        writer.write(bytes(100_000))
        unsent = writer.transport.get_write_buffer_size()
        ends = [[end.get_extra_info(name) for name in ("peername", "sockname")] for end in (writer, client)]
        for end in (writer, client):
            end.transport.abort()
        server.close()
        return ends[0], [*reversed(ends[1])], unsent

    server_sees, client_sees, unsent = virtual_time.run(main())
    assert server_sees == client_sees
    assert unsent > 90_000


def test_connection_to_a_server_that_is_closed() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        server.close()
        await asyncio.open_connection(*address)

    with pytest.raises(ConnectionRefusedError):
        virtual_time.run(main())
