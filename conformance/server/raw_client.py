"""A client made of octets: what a case drives against a server.

It sends what it is told, checks nothing that a case does not ask for, and keeps every frame of the server until a
case takes it. So a case waits for its reply or for its room's stream, and other frames may come in between.
The invariants see every frame all the same.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from conformance.harness.connection import F, RawConnection, Received, Sent, reset
from conformance.harness.verdicts import Failed, HarnessFault, Undeclared, usual
from conformance.server.invariants import Invariants
from conformance.wire import clock
from conformance.wire.log import WireLog
from conformance.wire.octets import CLIENT_PREFACE, HEADER, Header
from conformance.wire.text import frame_line
from protocol.errors import NameInvalid, RemoteProtocolError
from protocol.frames import (
    FINAL_REPLIES,
    Error,
    Field,
    Frame,
    Goaway,
    Hello,
    Join,
    Message,
    Ping,
    Pong,
    Presence,
    Unknown,
    Welcome,
)
from protocol.names import normalise
from protocol.registry import MAGIC, PREFACE_SIZE, Code, PresenceKind, is_ignorable

HELLO_CASE = "server/7.1/welcome"
PREFACE_CASE = "server/5.1/answered"
PING_CASE = "server/7.7/same-opaque"
"""The cases that try for themselves what many cases need: WELCOME for HELLO, the server's preface, PONG for PING."""

_UNREAD = 32 * 2**20  # octets of frames that were not taken, beyond which a client stops reading


class RawClient(RawConnection):
    """One connection to a server."""

    OWN = "C"
    OTHER = "S"
    MOST = 200_000

    def __init__(
        self,
        label: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log: WireLog,
        timeout: float,
    ) -> None:
        super().__init__(label, reader, writer, log, timeout)
        self.octets = 0
        self.last_octet = clock.now()
        self.said_goaway = False
        self.capture: bytearray | None = None
        self.invariants = Invariants(self._breach)
        self._unread = 0
        self._request = 0
        self._beyond_ascii: set[int] = set()  # requests with a valid name that is not ASCII
        self._opened = clock.now()

    @property
    def observer(self) -> Invariants:
        return self.invariants

    # Sending.

    def _fault(self, sent: Sent) -> str:
        if sent.error:
            # A name or a number out of range is refused by an ERROR, so a request with one breaks nothing.
            return "" if sent.error.code in (Code.NAME_INVALID, Code.RANGE_INVALID) else f"a frame that is {sent.error}"
        if isinstance(sent.frame, Unknown) and (sent.frame.request or not is_ignorable(sent.frame.type)):
            return f"an unknown frame that the server must not ignore: {frame_line(sent.frame)}"
        return f"a body above {self.limit} octets" if sent.header.length > self.limit else ""

    def _note(self, sent: Sent) -> None:
        self.invariants.sent(sent.frame)
        if isinstance(sent.frame, Hello | Join) and not sent.error and not sent.frame.name.isascii():
            self._note_name(sent.frame)
        self.said_goaway = self.said_goaway or isinstance(sent.frame, Goaway)
        self._half_sent = self._half_sent or sent.header.length > self.limit

    def _note_name(self, frame: Hello | Join) -> None:
        with contextlib.suppress(NameInvalid):
            normalise(frame.name)
            self._beyond_ascii.add(frame.request)

    def send_preface(self, octets: bytes = CLIENT_PREFACE, *, breaks: str = "") -> None:
        """Sends octets in place of the preface."""
        self._declared(breaks)
        self._log.add(self.label, "C", octets, "preface" if not breaks else f"breaks {breaks}", framed=False)
        self.write(octets)

    def next_request(self) -> int:
        """A request number that is new on this connection."""
        self._request += 1
        return self._request

    def ask(self, frame: F, *, breaks: str = "") -> int:
        """Sends a request and returns its number."""
        request = self.next_request()
        self.send(cast(Frame, replace(frame, request=request)), breaks=breaks)
        return request

    async def flush(self, within: float | None = None) -> None:
        """Waits until the transport has room again. Raises Failed if the server reads nothing for too long."""
        seconds = self.timeout if within is None else within
        try:
            await asyncio.wait_for(self._writer.drain(), seconds)
        except TimeoutError:
            raise Failed("the server to read", f"nothing read for {seconds:g} s") from None
        except OSError:
            self.ended = self.ended or "reset"

    # Receiving.

    async def _hold(self) -> None:
        while self._unread > _UNREAD:
            self.news.clear()
            await self.news.wait()

    def _came(self, data: bytes) -> None:
        self.last_octet = clock.now()
        self.octets += len(data)
        if self.ended:
            return
        if self.capture is not None:
            self.capture += data
            return
        self._buffer += data
        if not self.preface:
            if len(self._buffer) < PREFACE_SIZE:
                return
            self.preface = bytes(self._buffer[:PREFACE_SIZE])
            del self._buffer[:PREFACE_SIZE]
            self._log.add(self.label, "S", self.preface, "preface", framed=False)
            if not self.preface.startswith(MAGIC):
                self.ended = "not Roomwire"
        self._frames()

    def _frame(self, header: Header, body: bytes) -> None:
        self._unread += HEADER.size + len(body)
        opening = self.invariants.welcome is None
        super()._frame(header, body)
        if opening and self.invariants.welcome:
            self._keep_alive(self.invariants.welcome.heartbeat_ms)

    def _may_beat(self) -> bool:
        return not (self.invariants.goaway or self.said_goaway or self._half_sent)

    def _broken_by(self, error: RemoteProtocolError, header: Header) -> str:
        in_stream = header.room in self.invariants.rooms and not header.request
        if error.code == Code.UNKNOWN_FIELD and in_stream:
            return "RW-EXT-2"
        return super()._broken_by(error, header)

    def _may_answer(self, ping: Ping) -> bool:
        return not (self.invariants.goaway or self._half_sent)

    def _take(self, item: Received) -> None:
        super()._take(item)
        self._unread -= item.size
        self.news.set()

    async def expect_preface(self, requirement: str = "RW-PREFACE-2") -> bytes:
        """Takes the server's 8 octets with the right magic. Raises Failed."""
        with usual(PREFACE_CASE):
            preface = await self.wait(lambda: self.preface or None, "the server's preface", requirement)
            if not preface.startswith(MAGIC):
                raise Failed("a preface that begins with f5525750", preface.hex(), requirement)
        return preface

    async def expect_frame(
        self,
        kind: type[F],
        test: Callable[[F], bool] = lambda frame: True,
        what: str = "",
        requirement: str = "",
        within: float | None = None,
    ) -> F:
        """Takes the first frame of a kind that passes a test. Raises Failed."""
        name = kind.TYPE.name
        return await self.wait(lambda: self.find(kind, test), what or name, requirement, within)

    async def reply(self, request: int, requirement: str = "", within: float | None = None) -> Frame:
        """Takes the final reply to a request, of any kind. Raises Failed.

        Raises Undeclared for NAME_INVALID to a valid name beyond ASCII.
        """

        def find() -> Frame | None:
            for item in self._untaken():
                frame = item.frame
                if isinstance(frame, Frame) and frame.request == request and frame.TYPE in FINAL_REPLIES:
                    self._take(item)
                    return frame
            return None

        frame = await self.wait(find, f"a reply to request {request}", requirement, within)
        if request in self._beyond_ascii and isinstance(frame, Error) and frame.code == Code.NAME_INVALID:
            raise Undeclared(
                "a valid name beyond ASCII accepted, or --declare ascii-names for a server that refuses all of these",
                frame_line(frame),
                "RW-NAME-6",
            )
        return frame

    async def expect(self, request: int, kind: type[F], requirement: str = "") -> F:
        """Takes the final reply to a request, which is of this kind. Raises Failed."""
        frame = await self.reply(request, requirement)
        if not isinstance(frame, kind):
            raise Failed(f"{kind.TYPE.name} for request {request}", frame_line(frame), requirement)
        return frame

    async def expect_error(self, request: int, code: Code, requirement: str = "", room: int | None = None) -> Error:
        """Takes the ERROR with this code in reply to a request, with this `room` if given. Raises Failed."""
        frame = await self.reply(request, requirement)
        if not isinstance(frame, Error) or frame.code != code:
            raise Failed(f"ERROR({code.name}) for request {request}", frame_line(frame), requirement)
        if room is not None and frame.room != room:
            raise Failed(f"ERROR({code.name}) about room {room}", frame_line(frame), "RW-ERROR-4")
        return frame

    async def expect_goaway(
        self, code: Code, requirement: str = "", within: float | None = None, *, closed: bool = True
    ) -> Goaway:
        """Takes a GOAWAY with this code; then the server closes, unless `closed` is False. Raises Failed."""
        expected = f"GOAWAY({code.name})"
        frame = await self.wait(lambda: self.find(Goaway), expected, requirement, within)
        if frame.code != code:
            raise Failed(expected, frame_line(frame), requirement)
        if closed:
            await self.expect_closed("RW-CLOSE-2" if code != Code.NONE else "RW-CLOSE-3")
        return frame

    async def expect_closed(self, requirement: str = "", within: float | None = None) -> None:
        """Waits for the end of the server's stream, and answers its GOAWAY as a client must. Raises Failed."""
        if self._half_sent:
            self.send_eof()  # the server would read a GOAWAY as the rest of a body
        elif self.invariants.goaway and not self.said_goaway:
            self.send(Goaway(Code.NONE))
        await self.wait(lambda: self.ended or None, "the server to close", requirement, within)

    async def expect_silent_close(self, requirement: str, within: float | None = None) -> None:
        """Waits for the end of the stream, with no octet before it. Raises Failed."""
        await self.wait(lambda: self.ended or None, "the connection closed", requirement, within)
        if self.octets:
            raise Failed("no octet before the end", f"{self.octets} octets", requirement)

    async def fence(self, requirement: str = "RW-PING-1") -> None:
        """Sends a PING and waits for its PONG: then the server has answered all earlier requests. Raises Failed."""
        opaque = bytes(f"{self.next_request():08d}", "ascii")[:8]
        self.send(Ping(opaque))
        with usual(PING_CASE):
            await self.expect_frame(Pong, lambda pong: pong.opaque == opaque, "the PONG to a PING", requirement)

    async def until(self, room: int, id: bytes, requirement: str = "") -> list[Message]:
        """Takes the room's stream up to the message with this id, which is the last one returned. Raises Failed."""
        seen: list[Message] = []

        def find() -> bool | None:
            while message := self.find(Message, lambda m: m.room == room and not m.request):
                seen.append(message)
                if message.id == id:
                    return True
            return None

        await self.wait(find, f"MESSAGE {id.hex()} in room {room}", requirement)
        return seen

    async def expect_presence(
        self, room: int, member: int, kinds: tuple[int, ...], requirement: str = "RW-PRESENCE-2"
    ) -> Presence:
        """Takes the next PRESENCE of a member in a room that is of one of these kinds. Raises Failed."""
        names = " or ".join(PresenceKind(kind).name.lower() for kind in kinds)
        return await self.expect_frame(
            Presence,
            lambda frame: frame.room == room and frame.member == member and frame.kind in kinds,
            f"PRESENCE({names}) of {member} in room {room}",
            requirement,
        )

    # The connection.

    async def hello(self, name: str, fields: tuple[Field, ...] = (), auth: bytes = b"") -> Welcome:
        """Sends HELLO with ANONYMOUS and takes its WELCOME. Raises Failed."""
        request = self.ask(Hello(name, "ANONYMOUS", auth, fields=fields))
        with usual(HELLO_CASE):
            return await self.expect(request, Welcome, "RW-HELLO-2")

    @property
    def welcome(self) -> Welcome:
        """The server's WELCOME. Raises HarnessFault before it has come."""
        if self.invariants.welcome is None:
            raise HarnessFault("reads WELCOME before it has come")
        return self.invariants.welcome

    def now_ms(self) -> int:
        """The server's clock in milliseconds, as WELCOME told it."""
        came = next((item.at for item in self.received if isinstance(item.frame, Welcome)), self._opened)
        return self.welcome.now_ms + int((clock.now() - came) * 1000)

    def pause(self, paused: bool = True) -> None:
        """Stops or resumes reading."""
        transport = cast(asyncio.ReadTransport, self._writer.transport)
        with contextlib.suppress(RuntimeError):
            transport.pause_reading() if paused else transport.resume_reading()

    def send_eof(self) -> None:
        """Ends this side's stream and goes on reading."""
        with contextlib.suppress(OSError, RuntimeError):
            if not self._writer.is_closing():
                self._writer.write_eof()

    async def close(self, *, abort: bool = False) -> None:
        """Ends the connection without a GOAWAY; with `abort` by a reset of the transport."""
        self._no_longer_alive()
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        self._log.event(self.label, "closed by the suite")
        transport = self._writer.transport
        if abort:
            reset(transport)
        else:
            self._writer.close()
        # Not `wait_for`: it would cancel the future that all waiters of this transport share.
        closed = asyncio.create_task(self._writer.wait_closed())
        closed.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([closed], timeout=0.2)
        transport.abort()
