"""One connection of the suite, as far as both roles need the same: octets out and in, frames kept, expectations.

It keeps every received frame until a case takes it, so cases need not think of legal interleavings. The role's
invariants see every frame. `server.raw_client.RawClient` and `client.raw_server.RawServer` are the two ends.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

from conformance.harness.verdicts import Failed, HarnessFault
from conformance.spec.tables import load
from conformance.wire import clock
from conformance.wire.log import WireLog
from conformance.wire.octets import HEADER, Header, decode, encode, read_header, split_frames
from conformance.wire.text import code_name, frame_line, quoted
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import Frame, Goaway, Ping, Pong, Unknown, Welcome
from protocol.registry import HELLO_MAX_BODY, Code, Sender

T = TypeVar("T")
F = TypeVar("F", bound=Frame)

_ALIVE = encode(Pong(b"I live.."))
_BROKEN_BY = {Code.MALFORMED: "RW-FRAME-7", Code.BAD_HEADER: "RW-FRAME-6", Code.UNKNOWN_FIELD: "RW-EXT-1"}


@dataclass(slots=True)
class Received:
    """A frame of the other end. `taken` is set once a case has used it; `at` is a time of clock.now()."""

    frame: Frame | Unknown
    at: float
    size: int
    taken: bool = False


class Sent(NamedTuple):
    """A frame that the suite sends, read back once from its octets.

    `error` says why a receiver has to refuse it; `frame` is then an Unknown with its header and no body.
    """

    header: Header
    frame: Frame | Unknown
    error: RemoteProtocolError | None


class Observer(Protocol):
    """What judges the frames of a connection: the invariants of either role."""

    welcome: Welcome | None
    goaway: Goaway | None

    def received(self, frame: Frame | Unknown) -> None:
        """Judges a frame of the other end."""


class RawConnection(ABC):
    """One end of a connection. `label` names it in logs; `timeout` bounds each expectation, in seconds."""

    OWN: Sender
    """The role that the suite plays."""
    OTHER: Sender
    """The role of the program under test."""
    MOST: int
    """The number of received frames after which the connection reads no more."""

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
        self._written_at = clock.now()
        self._beat: asyncio.TimerHandle | None = None
        self.news = asyncio.Event()
        self.tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")  # now, since a closed transport has none
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

    def send(self, *frames: Frame | Unknown, breaks: str = "") -> None:
        """Sends frames. They are valid, or `breaks` names the requirement that they break.

        Raises HarnessFault for frames that cannot be encoded or break something else than they declare.
        """
        self._send([_encoded(frame) for frame in frames], b"", breaks)

    def send_octets(self, octets: bytes, *, breaks: str = "", slices: Iterable[bytes] = ()) -> None:
        """Sends octets as they are, in one write or in `slices`.

        They are whole valid frames, or `breaks` names the requirement that they break. Raises HarnessFault as `send`.
        """
        self._send(*split_frames(octets), breaks, slices)

    def _send(self, frames: Sequence[bytes], rest: bytes, breaks: str, slices: Iterable[bytes] = ()) -> None:
        """Sends whole frames and the octets after them; every frame of a case goes through here."""
        octets = self._account(frames, rest, breaks, f"breaks {breaks}" if breaks else "")
        for piece in slices or (octets,):
            self.write(piece)

    def _account(self, frames: Sequence[bytes], rest: bytes, breaks: str, note: str) -> bytes:
        """Checks, logs and remembers what is about to be sent, and returns it in one. Raises HarnessFault."""
        self._declared(breaks)
        sent = [_read_back(octets, self.OWN) for octets in frames]
        if not breaks:
            if rest:
                raise HarnessFault(f"sends half a frame but declares nothing: {rest.hex()}")
            for item in sent:
                if fault := self._fault(item):
                    raise HarnessFault(f"sends {fault} but declares nothing")
        whole = b"".join((*frames, rest))
        self._log.add(self.label, self.OWN, whole, note)
        for item in sent:
            self._note(item)
        self._half_sent = self._half_sent or bool(rest)
        return whole

    @abstractmethod
    def _fault(self, sent: Sent) -> str:
        """What is wrong with a frame that declares nothing; "" if it is valid."""

    @abstractmethod
    def _note(self, sent: Sent) -> None:
        """Remembers a frame, since later frames of the other end are judged by it."""

    def write(self, octets: bytes) -> None:
        """Writes octets without checks and without the log: parts of frames that were declared before."""
        self._written_at = clock.now()
        if not self.ended and not self._writer.is_closing():
            self._writer.write(octets)

    @staticmethod
    def _declared(breaks: str) -> None:
        if breaks and breaks not in load().requirements:
            raise HarnessFault(f"breaks {breaks}, which SPEC.md does not have")

    @property
    def unsent(self) -> int:
        """The number of octets that wait because the other end does not read."""
        return self._writer.transport.get_write_buffer_size()

    def _keep_alive(self, heartbeat_ms: int) -> None:
        """Sends an octet in every H from now on (RW-HEARTBEAT-1), whatever the case does meanwhile.

        A connection that ends, does not answer PINGs, has sent half a frame, or has octets that wait, sends none.
        """
        period = heartbeat_ms / 3000
        left = self._written_at + period - clock.now()
        if left <= 0:
            if self.answers_pings and self._may_beat() and not self.unsent:
                RawConnection.write(self, _ALIVE)  # not a step of the case, so no log and no recording has it
            left = period
        if not (self.ended or self._writer.is_closing()):
            self._beat = asyncio.get_running_loop().call_later(left, self._keep_alive, heartbeat_ms)

    def _no_longer_alive(self) -> None:
        if self._beat:
            self._beat.cancel()

    @abstractmethod
    def _may_beat(self) -> bool:
        """Whether a PONG that nobody asked for is valid now."""

    # Receiving.

    @abstractmethod
    def _came(self, data: bytes) -> None:
        """Handles received octets: the preface, then `_frames`."""

    @abstractmethod
    async def _hold(self) -> None:
        """Waits until the connection may read more."""

    async def _read(self) -> None:
        who = {"S": "server", "C": "client"}[self.OTHER]
        try:
            while data := await self._reader.read(65536):
                await self._hold()
                self._came(data)
                self.news.set()
                if self.breaches or len(self.received) > self.MOST:
                    return  # the breach is known, and more octets say nothing new
                await asyncio.sleep(0)  # other cases run even if this program never stops sending
            self.ended = self.ended or "closed"
        except OSError:
            self.ended = self.ended or "reset"
        if self._buffer:
            self._log.add(self.label, self.OTHER, bytes(self._buffer), "the stream ends here", framed=False)
        self._log.event(self.label, f"connection {self.ended} by the {who}")
        self.news.set()

    def _frames(self) -> None:
        """Takes the whole frames out of the buffer."""
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
        self.received.append(Received(frame, clock.now(), HEADER.size + len(body)))
        self.observer.received(frame)
        if isinstance(frame, Ping) and self.answers_pings and self._may_answer(frame):
            self.send(Pong(frame.opaque))

    def _broken_by(self, error: RemoteProtocolError, header: Header) -> str:
        return _BROKEN_BY.get(error.code, "RW-FRAME-7")

    @abstractmethod
    def _may_answer(self, ping: Ping) -> bool:
        """Whether the suite may send a PONG now."""

    # Judging.

    def _breach(self, requirement: str, expected: str, got: str) -> None:
        self.breaches.append(Failed(expected, got, requirement, passive=True))

    def raise_breach(self) -> None:
        """Raises Failed for the first breach of the role's invariants."""
        if self.breaches:
            raise self.breaches[0]

    async def wait(
        self, find: Callable[[], T | None], expected: str, requirement: str = "", within: float | None = None
    ) -> T:
        """Waits until `find` finds something. Raises Failed after a breach, at the end of the stream or of the time."""
        seconds = self.timeout if within is None else within
        deadline = clock.now() + seconds
        while True:
            self.raise_breach()
            found = find()
            if found is not None:
                return found
            if self.ended:
                raise Failed(expected, self.last_words(), requirement)
            left = deadline - clock.now()
            if left <= 0:
                raise Failed(expected, f"nothing within {seconds:g} s{self._instead()}", requirement)
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), left)

    def last_words(self) -> str:
        """How the connection ended, with its GOAWAY if one came."""
        goaway = self.observer.goaway
        said = f"GOAWAY({code_name(goaway.code)}) {quoted(goaway.text)}, then " if goaway else ""
        return f"{said}connection {self.ended or 'open'}"

    def _instead(self) -> str:
        others = [frame_line(item.frame) for item in self.received[-3:] if not item.taken]
        return f", but {'; '.join(others)}" if others else ""

    def find(self, kind: type[F], test: Callable[[F], bool] = lambda frame: True) -> F | None:
        """Takes the first frame of a kind that passes the test and was not taken; None if there is none yet."""
        for item in self._untaken():
            if isinstance(item.frame, kind) and test(item.frame):
                self._take(item)
                return item.frame
        return None

    def _untaken(self) -> Iterator[Received]:
        """The frames that were not taken, without a look at those before the first of them."""
        while self._first < len(self.received) and self.received[self._first].taken:
            self._first += 1
        for at in range(self._first, len(self.received)):
            if not self.received[at].taken:
                yield self.received[at]

    def _take(self, item: Received) -> None:
        item.taken = True

    def arrivals(self, *kinds: type[F]) -> list[float]:
        """When the frames of these kinds that were not taken came, by the suite's clock."""
        return [item.at for item in self.received if not item.taken and isinstance(item.frame, kinds)]

    def seen(self, *kinds: type[F]) -> list[F]:
        """The frames of these kinds that have come, taken or not."""
        return [item.frame for item in self.received if isinstance(item.frame, kinds)]

    def left_over(self, *kinds: type[F]) -> list[F]:
        """The frames of these kinds that were not taken."""
        return [item.frame for item in self.received if not item.taken and isinstance(item.frame, kinds)]


def reset(transport: asyncio.WriteTransport) -> None:
    """Closes with RST instead of FIN."""
    with contextlib.suppress(OSError, AttributeError):  # a closed transport may have no socket any more
        socket_: socket.socket = transport.get_extra_info("socket")
        socket_.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _encoded(frame: Frame | Unknown) -> bytes:
    try:
        return encode(frame)
    except LocalProtocolError as error:
        raise HarnessFault(f"cannot encode {frame_line(frame)}: {error}") from error


def _read_back(octets: bytes, sender: Sender) -> Sent:
    header = read_header(octets)
    try:
        return Sent(header, decode(header, octets[HEADER.size :], sender), None)
    except RemoteProtocolError as error:
        return Sent(header, Unknown(header.type, b"", header.flags, header.request, header.room), error)
