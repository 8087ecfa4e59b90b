"""Targets whose event loop runs in a thread of its own."""

import asyncio
import gc
import socket
import warnings

from conformance.fuzz.server.network import Hosted
from conformance.server.target import ServerTarget


class _Accepts(ServerTarget):
    """A server in the target's loop, which keeps its connections open."""

    async def start(self) -> None:
        self.accepted = asyncio.Event()
        self.server = await asyncio.start_server(lambda reader, writer: self.accepted.set(), "127.0.0.1")
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.server.close()


def test_hosted_target_leaves_no_socket() -> None:
    """Otherwise a later test is blamed for it, when the garbage collector comes by."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        target = _Accepts("127.0.0.1", 0, 60.0)
        hosted = Hosted(target)
        hosted.start()
        with socket.create_connection((target.host, target.port)):
            hosted.run(target.accepted.wait())
            hosted.stop()
        del hosted, target
        gc.collect()
    assert [str(each.message) for each in caught] == []
