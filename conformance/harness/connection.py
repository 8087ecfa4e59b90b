"""One connection of the suite, as far as it is the same on both sides: octets in, frames kept, expectations.

It keeps all that comes until a case takes it, so that legal interleavings need no thought, and a watch sees everything.
`server.raw_client.RawClient` is a client of it, `client.raw_server.RawServer` a server.
"""

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from conformance.harness.verdicts import Failed, HarnessFault
from conformance.spec.tables import load
from conformance.wire.log import WireLog
from conformance.wire.octets import HEADER, Header, decode, read_header
from conformance.wire.text import code_name, frame_line, quoted
from protocol.errors import RemoteProtocolError
from protocol.frames import Frame, Goaway, Ping, Pong, Unknown, Welcome
from protocol.registry import HELLO_MAX_BODY, Code, Sender

T = TypeVar("T")
F = TypeVar("F", bound=Frame)

_BROKEN_BY = {Code.MALFORMED: "RW-FRAME-7", Code.BAD_HEADER: "RW-FRAME-6", Code.UNKNOWN_FIELD: "RW-EXT-1"}


@dataclass(slots=True)
class Received:
    """A frame of the other end; `taken` once a case has used it. `at` is a time of time.monotonic()."""

    frame: Frame | Unknown
    at: float
    size: int
    taken: bool = False


class Observer(Protocol):
    """What judges the frames of a connection: the invariants of either role."""

    welcome: Welcome | None
    goaway: Goaway | None

    def received(self, frame: Frame | Unknown) -> None:
        """Judges a frame of the other end."""


class RawConnection(ABC):
    """`label` names it in logs, `timeout` bounds each expectation, in seconds; `OTHER` is whose octets come in."""

    OTHER: Sender
    MOST: int
    """Frames after which no more are read."""

    def __init__(
        self,
        label: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log: WireLog,
        timeout: float,
    ) -> None:
        self.label = label
        self.timeout = timeout
        self.received: list[Received] = []
        self.preface = b""
        self.ended = ""
        self.answers_pings = True
        self.breaches: list[Failed] = []
        self._reader = reader
        self._writer = writer
        self._log = log
        self._buffer = bytearray()
        self._first = 0  # of `received` that is not taken
        self._half_sent = False
        self.news = asyncio.Event()
        self.tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")  # a transport that is closed has none
        self._reading = asyncio.create_task(self._read())

    @property
    @abstractmethod
    def observer(self) -> Observer:
        """What judges this connection's frames."""

    @property
    def limit(self) -> int:
        """The limit for bodies that is in force, in octets."""
        welcome = self.observer.welcome
        return welcome.max_body if welcome else HELLO_MAX_BODY

    # Sending.

    @abstractmethod
    def send(self, frame: Frame | Unknown, *, breaks: str = "") -> None:
        """Sends a frame that is valid, or that declares the requirement that it breaks."""

    def write(self, octets: bytes) -> None:
        """Writes octets past all checks and the log: parts of what was declared before."""
        if not self.ended and not self._writer.is_closing():
            self._writer.write(octets)

    @staticmethod
    def _declared(breaks: str) -> None:
        if breaks and breaks not in load().requirements:
            raise HarnessFault(f"breaks {breaks}, which SPEC.md does not have")

    # Receiving.

    @abstractmethod
    def _came(self, data: bytes) -> None:
        """Takes in what came: the preface, then `_frames`."""

    @abstractmethod
    async def _hold(self) -> None:
        """Waits until there is room for more."""

    async def _read(self) -> None:
        who = {"S": "server", "C": "client"}[self.OTHER]
        try:
            while data := await self._reader.read(65536):
                await self._hold()
                self._came(data)
                self.news.set()
                if self.breaches or len(self.received) > self.MOST:
                    return  # what is wrong is known, and more of it says nothing new
                await asyncio.sleep(0)  # one that never stops must not keep others from their turn
            self.ended = self.ended or "closed"
        except OSError:
            self.ended = self.ended or "reset"
        if self._buffer:
            self._log.add(self.label, self.OTHER, bytes(self._buffer), "and no more", framed=False)
        self._log.event(self.label, f"connection {self.ended} by the {who}")
        self.news.set()

    def _frames(self) -> None:
        """Takes whole frames out of the buffer."""
        while len(self._buffer) >= HEADER.size and not self.ended and not self.breaches:
            header = read_header(self._buffer)
            if header.length > self.limit:
                self._breach("RW-FRAME-3", f"a body of at most {self.limit} octets", f"a length of {header.length}")
                return
            size = HEADER.size + header.length
            if len(self._buffer) < size:
                return
            octets = bytes(self._buffer[:size])
            del self._buffer[:size]
            self._log.add(self.label, self.OTHER, octets)
            self._frame(header, octets[HEADER.size :])

    def _frame(self, header: Header, body: bytes) -> None:
        try:
            frame = decode(header, body, self.OTHER)
        except RemoteProtocolError as error:
            self._breach(self._broken_by(error, header), "a well-formed frame", str(error))
            return
        self.received.append(Received(frame, time.monotonic(), HEADER.size + len(body)))
        self.observer.received(frame)
        if isinstance(frame, Ping) and self.answers_pings and self._may_answer(frame):
            self.send(Pong(frame.opaque))

    def _broken_by(self, error: RemoteProtocolError, header: Header) -> str:
        return _BROKEN_BY.get(error.code, "RW-FRAME-7")

    @abstractmethod
    def _may_answer(self, ping: Ping) -> bool:
        """Whether a PONG may be sent now."""

    # Judging.

    def _breach(self, requirement: str, expected: str, got: str) -> None:
        self.breaches.append(Failed(expected, got, requirement, passive=True))

    def raise_breach(self) -> None:
        """Raises Failed for the first thing that the other end did wrong unasked."""
        if self.breaches:
            raise self.breaches[0]

    async def wait(
        self, find: Callable[[], T | None], expected: str, requirement: str = "", within: float | None = None
    ) -> T:
        """Waits until `find` finds something. Raises Failed when the time is over or the stream has ended."""
        seconds = self.timeout if within is None else within
        deadline = time.monotonic() + seconds
        while True:
            self.raise_breach()
            found = find()
            if found is not None:
                return found
            if self.ended:
                raise Failed(expected, self.last_words(), requirement)
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failed(expected, f"nothing within {seconds:g} s{self._instead()}", requirement)
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), left)

    def last_words(self) -> str:
        """How the connection ended, with the GOAWAY if there was one."""
        goaway = self.observer.goaway
        said = f"GOAWAY({code_name(goaway.code)}) {quoted(goaway.text)}, then " if goaway else ""
        return f"{said}connection {self.ended or 'open'}"

    def _instead(self) -> str:
        others = [frame_line(item.frame) for item in self.received[-3:] if not item.taken]
        return f", but {'; '.join(others)}" if others else ""

    def find(self, kind: type[F], test: Callable[[F], bool] = lambda frame: True) -> F | None:
        """Takes the first frame of a kind that nobody has taken, if it is there."""
        while self._first < len(self.received) and self.received[self._first].taken:
            self._first += 1
        for item in itertools.islice(self.received, self._first, None):
            if not item.taken and isinstance(item.frame, kind) and test(item.frame):
                self._take(item)
                return item.frame
        return None

    def _take(self, item: Received) -> None:
        item.taken = True

    def left_over(self, *kinds: type[F]) -> list[F]:
        """Frames of some kinds that nobody has taken."""
        return [item.frame for item in self.received if not item.taken and isinstance(item.frame, kinds)]


def reset(transport: asyncio.WriteTransport) -> None:
    """Closes with RST instead of FIN."""
    with contextlib.suppress(OSError, AttributeError):  # it may be closed, and without a socket or TLS
        socket_: socket.socket = transport.get_extra_info("socket")
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
