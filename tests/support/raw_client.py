"""A client on a real socket that sends the octets and frames of a test."""

import itertools
import os
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from protocol.codec import decode, encode
from protocol.fields import extension
from protocol.frames import Frame, Goaway, Hello, History, Join, Joined, Message, Publish, Unknown, Welcome
from protocol.framing import FrameReader
from protocol.registry import LIMITS, PREFACE_SIZE

PATIENCE = 20.0
"""Seconds after which a test that waits fails. Nothing is measured with it."""

PREFACE = bytes.fromhex("F5525750 0101 0000")

F = TypeVar("F")


class RawClient:
    """One connection. With `hello=False` it sends nothing yet; `buffer` limits the octets in the kernel."""

    def __init__(
        self,
        port: int,
        *,
        hello: bool = True,
        name: str = "ada",
        buffer: int = 0,
        history: bool = True,
        host: str = "127.0.0.1",
    ) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.settimeout(PATIENCE)
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.connect((host, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.reader = FrameReader(LIMITS["max_body"].high)
        self.unread: list[Frame | Unknown] = []  # received and skipped by `expect`
        self._numbers = itertools.count(2)
        if hello:
            self.send(PREFACE)
            assert self.octets(PREFACE_SIZE)[4] == 1
            fields = (extension("history"),) if history else ()
            self.send(Hello(name, "ANONYMOUS", b"", fields=fields, request=1))
            self.welcome = self.expect(Welcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, *what: bytes | Frame | Unknown) -> None:
        """Send octets and frames in one write."""
        self.socket.sendall(b"".join(item if isinstance(item, bytes) else encode(item) for item in what))

    def octets(self, count: int) -> bytes:
        """Exactly `count` octets, or fewer at the end of the stream."""
        got = b""
        while len(got) < count and (more := self.socket.recv(count - len(got))):
            got += more
        return got

    def frame(self) -> Frame | Unknown | None:
        """The next frame; None at the end of the stream. A reset raises ConnectionResetError."""
        if self.unread:
            return self.unread.pop(0)
        return self._next()

    def _next(self) -> Frame | Unknown | None:
        while (raw := self.reader.next_frame()) is None:
            data = self.socket.recv(1 << 16)
            if not data:
                return None
            self.reader.feed(data)
        return decode(raw, "S")

    def expect(self, kind: type[F], where: Callable[[F], bool] = lambda frame: True) -> F:
        """The next frame of this kind that fits. The frames before it are kept for `frame`."""
        for index, frame in enumerate(self.unread):
            if isinstance(frame, kind) and where(frame):
                del self.unread[index]
                return frame
        while (found := self._next()) is not None:
            if isinstance(found, kind) and where(found):
                return found
            self.unread.append(found)
        raise AssertionError(f"the stream ended without {kind.__name__}, after {len(self.unread)}: {self.unread[-5:]}")

    def rest(self) -> list[Frame | Unknown]:
        """Everything up to the end of the stream."""
        frames = []
        while (frame := self.frame()) is not None:
            frames.append(frame)
        return frames

    def goaway(self) -> Goaway:
        """The GOAWAY at the end of the stream, for which it waits."""
        last = self.rest()[-1]
        assert isinstance(last, Goaway), last
        return last

    def goaway_code(self) -> int:
        """The code of a GOAWAY, without waiting for the end of the stream."""
        return self.expect(Goaway).code

    def request(self) -> int:
        """A request number that was not used before."""
        return next(self._numbers)

    def id(self, age_ms: int = 0) -> bytes:
        """A new id of a message."""
        return (self.welcome.now_ms - age_ms).to_bytes(6, "big") + os.urandom(10)

    def join(self, name: str, *, epoch: int = 0, since: int = 0, flags: int = 0) -> Joined:
        """Join, and wait for JOINED."""
        request = self.request()
        self.send(Join(name, epoch, since, flags=flags, request=request))
        return self.expect(Joined, lambda joined: joined.request == request)

    def publish(self, room: int, payload: bytes = b"hi", *, flags: int = 0, id: bytes | None = None) -> Publish:
        """A PUBLISH, not yet sent."""
        return Publish(id or self.id(), 1, payload, flags=flags, request=self.request(), room=room)

    def history(self, room: int, start: int = 1, end: int = 0, limit: int = 0, flags: int = 0) -> History:
        """A HISTORY, not yet sent."""
        return History(start, end, limit, flags=flags, request=self.request(), room=room)

    def messages(self, count: int) -> list[Message]:
        """The next `count` messages of the streams."""
        return [self.expect(Message, lambda message: not message.request) for _ in range(count)]
