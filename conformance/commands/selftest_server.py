"""A small server for the cases of `selftest`, which can be made to misbehave in several ways.

It follows SPEC.md, 17.5 (a small server): it accepts every client, keeps nothing on disk and limits nothing.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from conformance.wire.octets import HEADER, decode, encode, read_header
from protocol.errors import RemoteProtocolError
from protocol.frames import (
    Ack,
    Error,
    Frame,
    Goaway,
    Hello,
    Join,
    Joined,
    Leave,
    Message,
    Ok,
    Ping,
    Pong,
    Presence,
    Publish,
    Unknown,
    Welcome,
)
from protocol.registry import CODES, HELLO_MAX_BODY, MAGIC, PREFACE_SIZE, Code, Flag, PresenceKind, is_ignorable

Quirk = Literal["", "wrong-code", "loses-messages", "echo-before-ack", "closes", "silent", "rubbish"]
"""What a server does wrong: nothing, one rule, or everything."""

_MAX_BODY = 65_536
_TO_ERROR = (Code.NAME_INVALID, Code.RANGE_INVALID, Code.UNKNOWN_FIELD)


@dataclass
class _Room:
    ref: int
    name: str
    epoch: int
    log: list[Message] = field(default_factory=list)
    members: "list[_Connection]" = field(default_factory=list)


class _Connection:
    """A connection to one client."""

    def __init__(self, server: "SmallServer", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.member = int.from_bytes(os.urandom(8), "big") | 1
        self.name = ""

    def send(self, frame: Frame) -> None:
        """Writes a frame."""
        self.writer.write(encode(frame))

    async def serve(self) -> None:
        """Serves until the end of the stream, a GOAWAY, or a fatal error."""
        preface = b""
        while len(preface) < PREFACE_SIZE:
            preface += await self.reader.readexactly(1)
            if not MAGIC.startswith(preface[: len(MAGIC)]):
                return
        version = int(preface[4] <= 1 <= preface[5])
        self.writer.write(MAGIC + bytes([version, 0, 0, 0]))
        while version:
            header = read_header(await self.reader.readexactly(HEADER.size))
            limit = _MAX_BODY if self.name else HELLO_MAX_BODY
            if header.length > limit:
                self._end(Code.FRAME_TOO_LARGE)
                return
            body = await self.reader.readexactly(header.length)
            try:
                frame = decode(header, body, "C")
            except RemoteProtocolError as error:
                if not header.request or error.code not in _TO_ERROR or not self.name:
                    self._end(error.code)
                    return
                self._refuse(header.request, header.room, error.code)
                continue
            if isinstance(frame, Goaway):
                self._left(PresenceKind.LEFT)
                self._end(Code.NONE)
                return
            if not self._handle(frame):
                return
            await self.writer.drain()

    def _handle(self, frame: Frame | Unknown) -> bool:
        """Handles a frame. Returns False if the connection must end."""
        room = next(
            (room for room in self.server.rooms.values() if room.ref == frame.room and self in room.members), None
        )
        fatal: Code | None = None
        match frame:
            case Unknown() if self.name and frame.request:
                self._refuse(frame.request, frame.room, Code.UNKNOWN_REQUEST)
            case Unknown():
                fatal = None if is_ignorable(frame.type) else Code.UNKNOWN_TYPE
            case Hello() if not self.name:
                self.name = frame.name
                now = time.time_ns() // 1_000_000
                self.send(
                    Welcome(self.member, frame.name, now, _MAX_BODY, 30_000, 0, 32, 256, b"", request=frame.request)
                )
            case _ if not self.name or isinstance(frame, Hello):
                fatal = Code.UNEXPECTED
            case Ping():
                self.send(Pong(frame.opaque))
            case Join():
                self._join(frame)
            case Leave() | Publish() if room is None:
                self._refuse(frame.request, frame.room, Code.NOT_JOINED)
            case Leave() if room:
                self.send(Ok(request=frame.request, room=room.ref))
                self._left(PresenceKind.LEFT, room)
            case Publish() if room:
                self._publish(frame, room)
            case _:
                pass
        if fatal is not None:
            self._end(fatal)
        return fatal is None

    def _refuse(self, request: int, room: int, code: Code) -> None:
        if self.server.quirk == "wrong-code":
            code = Code.FORBIDDEN
        flags = Flag.RETRY if CODES[code].retry else 0
        self.send(Error(code, 0, "refused", request=request, room=room, flags=flags))

    def _end(self, code: Code) -> None:
        self.send(Goaway(code, 0, 0, ""))

    def _join(self, frame: Join) -> None:
        room = self.server.room(frame.name)
        if self in room.members:
            self._refuse(frame.request, room.ref, Code.ALREADY_JOINED)
            return
        head = len(room.log)
        if frame.epoch == 0:
            start, gap = max(1, head + 1 - frame.since), False
        else:
            want = frame.since + 1 if frame.epoch == room.epoch else 1
            start = min(want, head + 1)
            gap = frame.epoch != room.epoch or start != frame.since + 1
        for member in room.members:
            member.send(Presence(PresenceKind.JOINED, self.member, self.name, room=room.ref))
        room.members.append(self)
        joined = Joined(room.epoch, head, start, 1, len(room.members), room.name, request=frame.request, room=room.ref)
        self.send(joined if not gap else _with_gap(joined))
        for message in room.log[start - 1 :]:
            self.send(message)

    def _publish(self, frame: Publish, room: _Room) -> None:
        if frame.ctype == 0 and not _is_text(frame.payload):
            self._refuse(frame.request, frame.room, Code.PAYLOAD_INVALID)
            return
        now = time.time_ns() // 1_000_000
        seq = len(room.log) + 1
        message = Message(
            seq, now, self.member, frame.id, frame.ctype, self.name, frame.payload, flags=Flag.SEQ, room=room.ref
        )
        room.log.append(message)
        ack = Ack(seq, now, request=frame.request, room=room.ref)
        if self.server.quirk != "echo-before-ack":
            self.send(ack)
        for member in room.members:
            if self.server.quirk != "loses-messages" or seq % 2:
                member.send(message)
        if self.server.quirk == "echo-before-ack":
            self.send(ack)

    def _left(self, kind: PresenceKind, only: _Room | None = None) -> None:
        for room in [only] if only else list(self.server.rooms.values()):
            if self in room.members:
                room.members.remove(self)
                for member in room.members:
                    member.send(Presence(kind, self.member, self.name, room=room.ref))

    def lost(self) -> None:
        """Removes the client from its rooms once the connection has ended."""
        self._left(PresenceKind.LOST)


def _with_gap(frame: Joined) -> Joined:
    return Joined(
        *(frame.epoch, frame.head, frame.start, frame.oldest, frame.members, frame.name),
        flags=Flag.GAP,
        request=frame.request,
        room=frame.room,
    )


def _is_text(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


class SmallServer:
    """Rooms, and the connections to them."""

    def __init__(self, quirk: Quirk = "") -> None:
        self.quirk = quirk
        self.rooms: dict[str, _Room] = {}

    def room(self, name: str) -> _Room:
        """The room of that name, created on first use."""
        epoch = int.from_bytes(os.urandom(8), "big") | 1
        return self.rooms.setdefault(name.casefold(), _Room(len(self.rooms) + 1, name, epoch))

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves a connection, as the quirk demands."""
        if self.quirk == "silent":
            await reader.read()
        elif self.quirk == "rubbish":
            writer.write(os.urandom(64))
            await reader.read(1)
        elif self.quirk != "closes":
            connection = _Connection(self, reader, writer)
            try:
                await connection.serve()
            finally:
                connection.lost()


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """Listens on a free local port and yields it. Leaving the context ends all connections."""
    tasks: set[asyncio.Task[None]] = set()
    writers: set[asyncio.StreamWriter] = set()

    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await handler(reader, writer)
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 2)
        except TimeoutError:
            pass
        finally:
            writer.transport.abort()
            writers.discard(writer)

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        tasks.add(task := asyncio.get_running_loop().create_task(served(reader, writer)))
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for _ in range(5):
            await asyncio.sleep(0)  # connections that are being accepted reach their handler
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()  # a task that was cancelled before it started has closed nothing
        await asyncio.sleep(0)
