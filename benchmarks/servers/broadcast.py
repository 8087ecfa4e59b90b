"""A typical server on `websockets`: it broadcasts each message to all connections of its path.

`python -m benchmarks.servers.broadcast` prints "listening on 127.0.0.1:PORT".
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

from websockets.asyncio.server import ServerConnection, broadcast, serve

rooms: defaultdict[str, set[ServerConnection]] = defaultdict(set)


async def attend(connection: ServerConnection) -> None:
    """Serve one client until it leaves."""
    assert connection.request is not None
    room = rooms[connection.request.path]
    room.add(connection)
    try:
        async for message in connection:
            broadcast(room, message)
    finally:
        room.discard(connection)


async def main() -> None:
    """Serve for ever, without compression and pings, which would only cost time."""
    async with serve(attend, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        print(f"listening on 127.0.0.1:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
