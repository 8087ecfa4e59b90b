"""A server made of octets: what a case lets a client talk to.

It sends what it is told and has no states: a case chooses each frame, well-formed or literal. It keeps every frame of
the client until the case takes it, and the invariants see them all.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable, Iterable

from conformance.client.invariants import CaseInvariants, Invariants
from conformance.harness.connection import F, RawConnection, Sent, reset
from conformance.harness.verdicts import Failed
from conformance.wire import clock
from conformance.wire.log import WireLog
from conformance.wire.octets import split_frames
from conformance.wire.text import code_name, frame_line
from protocol.frames import Goaway, Ping, Pong, Unknown, Welcome
from protocol.registry import MAGIC, PREFACE_SIZE, Code, is_ignorable

SERVER_PREFACE = bytes.fromhex("F5525750 01 00 0000")


class RawServer(RawConnection):
    """One connection that the client made."""

    OWN = "S"
    OTHER = "C"
    MOST = 50_000

    def __init__(
        self,
        label: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log: WireLog,
        timeout: float,
        case_invariants: CaseInvariants,
    ) -> None:
        super().__init__(label, reader, writer, log, timeout)
        self.at = clock.now()
        self.octet_times: list[float] = []
        self.invariants = Invariants(self._breach, case_invariants)
        self._said_goaway = False
        self._pings: set[bytes] = set()
        self._may_read = asyncio.Event()
        self._may_read.set()

    @property
    def observer(self) -> Invariants:
        return self.invariants

    # Sending.

    def send_preface(self, octets: bytes = SERVER_PREFACE, *, breaks: str = "") -> None:
        """Sends octets in place of the preface."""
        self._declared(breaks)
        self._log.add(self.label, "S", octets, f"breaks {breaks}" if breaks else "preface", framed=False)
        self.invariants.prefaced = True
        self.write(octets)

    def note_valid(self, octets: bytes) -> None:
        """Remembers valid frames that the case sends in pieces by `write`. Raises HarnessFault."""
        self._account(*split_frames(octets), "", "in pieces")

    async def send_cut(self, octets: bytes, pieces: Iterable[bytes]) -> None:
        """Sends valid frames in pieces, each in a segment of its own as far as the kernel allows."""
        self.note_valid(octets)
        for piece in pieces:
            self.write(piece)
            await self.flush()
            await asyncio.sleep(0)

    async def flush(self) -> None:
        """Waits until the transport has room again."""
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.drain(), self.timeout)

    def _fault(self, sent: Sent) -> str:
        if sent.error:
            return f"a frame that is {sent.error}"
        if isinstance(sent.frame, Unknown) and not is_ignorable(sent.frame.type):
            return f"an unknown frame that the client must not ignore: {frame_line(sent.frame)}"
        return ""

    def _note(self, sent: Sent) -> None:
        if sent.error:
            return
        frame = sent.frame
        self._said_goaway = self._said_goaway or (isinstance(frame, Goaway) and frame.code != Code.DRAINING)
        opening = self.invariants.welcome is None
        self.invariants.sent(frame)
        if isinstance(frame, Ping):
            self._pings.add(frame.opaque)
        if opening and self.invariants.welcome:
            self._keep_alive(self.invariants.welcome.heartbeat_ms)

    def _may_beat(self) -> bool:
        return not (self.invariants.goaway or self._said_goaway or self._half_sent)

    # Receiving.

    @staticmethod
    def now() -> float:
        """The clock of `Received.at`, in seconds."""
        return clock.now()

    def pause(self, paused: bool = True) -> None:
        """Stops or resumes reading."""
        if paused:
            self._may_read.clear()
            self._writer.transport.pause_reading()  # type: ignore[attr-defined]
        else:
            self._writer.transport.resume_reading()  # type: ignore[attr-defined]
            self._may_read.set()

    async def _hold(self) -> None:
        await self._may_read.wait()

    def _came(self, data: bytes) -> None:
        self.octet_times.append(clock.now())
        self._buffer += data
        if not self.preface:
            if not MAGIC.startswith(bytes(self._buffer[: len(MAGIC)])):
                self._breach("RW-PREFACE-1", "the client's preface first", bytes(self._buffer[:16]).hex())
                return
            if len(self._buffer) < PREFACE_SIZE:
                return
            self.preface = bytes(self._buffer[:PREFACE_SIZE])
            del self._buffer[:PREFACE_SIZE]
            self._log.add(self.label, "C", self.preface, "preface", framed=False)
            self.invariants.preface(self.preface)
        if self._buffer and not self.invariants.prefaced:
            self._breach("RW-PREFACE-1", "no octet after the preface before the server's", self._buffer.hex())
        self._frames()

    def _may_answer(self, ping: Ping) -> bool:
        # A PING of the suite that comes back is an echo, and its PONG would come back as well.
        return ping.opaque not in self._pings and not (self._said_goaway or self._half_sent)

    async def expect(
        self,
        kind: type[F],
        requirement: str = "",
        test: Callable[[F], bool] = lambda frame: True,
        within: float | None = None,
    ) -> F:
        """Takes the first frame of a kind that passes a test. Raises Failed."""
        return await self.wait(lambda: self.find(kind, test), kind.__name__.upper(), requirement, within)

    async def expect_preface(self) -> bytes:
        """Waits for the client's preface. Raises Failed."""
        return await self.wait(lambda: self.preface or None, "the client's preface", "RW-PREFACE-1")

    async def fence(self, requirement: str = "RW-PING-1") -> None:
        """Sends a PING and waits for its PONG: then the client has read all earlier frames. Raises Failed."""
        opaque = os.urandom(8)
        self.send(Ping(opaque))
        await self.expect(Pong, requirement, lambda pong: pong.opaque == opaque)

    async def expect_goaway(self, *codes: int, requirement: str = "RW-CLOSE-2") -> Goaway:
        """Takes the client's GOAWAY with one of these codes. Raises Failed."""
        wanted = " or ".join(map(code_name, codes))
        goaway = await self.wait(lambda: self.find(Goaway), f"GOAWAY({wanted})", requirement)
        if goaway.code not in codes:
            raise Failed(f"GOAWAY({wanted})", frame_line(goaway), requirement)
        return goaway

    async def expect_end(self, requirement: str, within: float | None = None) -> None:
        """Waits for the end of the client's stream. Raises Failed."""
        await self.wait(lambda: self.ended or None, "the client to close the connection", requirement, within)

    async def close(self, *, abort: bool = False) -> None:
        """Ends the connection; with `abort` by a reset of the transport."""
        self._no_longer_alive()
        if abort:
            reset(self._writer.transport)
        else:
            self._writer.close()
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self._reading
        if abort:
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        self.ended = self.ended or "ended by the suite"

    @property
    def welcome(self) -> Welcome:
        """The WELCOME that the suite sent on this connection."""
        assert self.invariants.welcome, "the case has sent no WELCOME"
        return self.invariants.welcome


class Listener:
    """Listens on a port of its own for one case. `connections` are in the order in which the client made them."""

    def __init__(self, log: WireLog, timeout: float) -> None:
        self.connections: list[RawServer] = []
        self.host = "127.0.0.1"
        self.port = 0
        self.case_invariants = CaseInvariants()
        self._log = log
        self._timeout = timeout
        self._taken = 0
        self.news = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._closed = False
        self.tls: ssl.SSLContext | None = None  # for `start`; None stands for clear text

    async def start(self) -> None:
        """Listens, and sets `port` the first time."""
        self._server = await asyncio.start_server(self._connected, self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop_listening(self) -> None:
        """Refuses connections; `start` listens again on the same port."""
        assert self._server
        self._server.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:  # the connection was accepted while the case ended
            writer.transport.abort()
            return
        label = chr(ord("A") + len(self.connections) % 26)
        self._log.event(label, "the client connects")
        self.connections.append(RawServer(label, reader, writer, self._log, self._timeout, self.case_invariants))
        self.news.set()

    async def accept(self, within: float, requirement: str = "") -> RawServer:
        """The client's next connection. Raises Failed if there is none `within` so many seconds."""
        deadline = clock.now() + within
        while len(self.connections) <= self._taken:
            left = deadline - clock.now()
            if left <= 0:
                raise Failed("the client to connect", f"nothing within {within:g} s", requirement)
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), left)
        self._taken += 1
        return self.connections[self._taken - 1]

    async def close(self) -> None:
        """Ends all connections and stops listening."""
        self._closed = True
        if self._server:
            self._server.close()
        for wire in self.connections:
            await wire.close(abort=True)
