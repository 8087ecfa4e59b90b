"""A server of one room on a real socket, whose behaviour tests change."""

import asyncio
from collections.abc import Callable
from typing import Self, cast

from protocol import frames
from protocol.connection import error_frame
from protocol.events import ConnectionTerminated
from protocol.registry import Code, Flag
from protocol.server import ServerConnection, ServerTimes

EPOCH = 7
REF = 1
NOW_MS = 1_700_000_000_000

Hook = Callable[["Peer", frames.Frame], bool]


class Peer(asyncio.Protocol):
    """One client."""

    def __init__(self, server: "TinyServer") -> None:
        self.server = server
        self.wire = ServerConnection(server.now(), ServerTimes())
        self.transport: asyncio.Transport | None = None
        self.member = len(server.peers) + 1
        self.name = ""
        self.joined = False
        server.peers.append(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for event in self.wire.receive_data(data, self.server.now()):
            if isinstance(event, ConnectionTerminated):
                self.server.farewells.append(event)
            elif not (self.server.hook and self.server.hook(self, cast(frames.Frame, event))):
                self.answer(cast(frames.Frame, event))
        self.write()

    def write(self) -> None:
        assert self.transport is not None
        self.transport.write(self.wire.data_to_send(self.server.now()))
        if self.wire.should_close:
            self.transport.close()

    def cut(self) -> None:
        assert self.transport is not None
        self.transport.abort()

    def answer(self, frame: frames.Frame) -> None:
        match frame:
            case frames.Hello():
                self.name = frame.name
                self.wire.welcome(
                    frames.Welcome(self.member, frame.name, NOW_MS, 65536, 30000, 600000, 32, 256, b"", request=1)
                )
            case frames.Join():
                self.joined = True
                log = self.server.log
                start = len(log) + 1 if not frame.epoch else frame.since + 1
                self.wire.send(frames.Joined(EPOCH, len(log), start, 1, 1, frame.name, request=frame.request, room=REF))
                for message in log[start - 1 :]:
                    self.wire.send(message)
            case frames.Leave():
                self.joined = False
                self.wire.send(frames.Ok(request=frame.request, room=REF))
            case frames.Publish():
                self.acknowledge(frame)
                self.server.deliver()
            case _:
                self.refuse(frame, Code.UNKNOWN_REQUEST)

    def acknowledge(self, frame: frames.Publish) -> None:
        seq = self.server.append(self, frame)
        self.wire.send(frames.Ack(seq, NOW_MS, request=frame.request, room=REF))

    def refuse(self, frame: frames.Frame, code: Code, retry_ms: int = 0) -> None:
        self.wire.send(error_frame(code, frame.request, frame.room, retry_ms=retry_ms))


class TinyServer:
    """A server. `hook` gets each request first, and returns whether it has handled it."""

    def __init__(self) -> None:
        self.hook: Hook | None = None
        self.log: list[frames.Message] = []
        self.peers: list[Peer] = []
        self.farewells: list[ConnectionTerminated] = []
        self.port = 0
        self._delivered = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.now = loop.time
        self._server = await loop.create_server(lambda: Peer(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for peer in self.peers:
            peer.cut()

    def append(self, peer: Peer, frame: frames.Publish) -> int:
        for message in self.log:
            if message.id == frame.id:
                return message.seq
        seq = len(self.log) + 1
        self.log.append(
            frames.Message(
                seq, NOW_MS, peer.member, frame.id, frame.ctype, peer.name, frame.payload, flags=Flag.SEQ, room=REF
            )
        )
        return seq

    def deliver(self) -> None:
        """Send the new messages of the log to all members."""
        for message in self.log[self._delivered :]:
            for peer in self.peers:
                if peer.joined and peer.wire.state == "OPEN":
                    peer.wire.send(message)
                    peer.write()
        self._delivered = len(self.log)
