"""A server made of octets: what a case lets a client talk to.

It says what it is told and knows no states: a case writes each frame, well-formed or literal. It keeps all that
the client sends until the case takes it, and a `Invariants` sees everything.
"""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterable

from conformance.client.invariants import CaseInvariants, Invariants
from conformance.harness.connection import F, RawConnection, reset
from conformance.harness.verdicts import Failed, HarnessFault
from conformance.wire.log import WireLog
from conformance.wire.octets import HEADER, decode, encode, read_header, split_frames
from conformance.wire.text import code_name, frame_line
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import Frame, Goaway, Ping, Pong, Unknown, Welcome
from protocol.registry import MAGIC, PREFACE_SIZE, Code

SERVER_PREFACE = bytes.fromhex("F5525750 01 00 0000")


class RawServer(RawConnection):
    """One connection that the client made."""

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
        self.at = time.monotonic()
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
        """Sends octets in the place of the preface."""
        self._declared(breaks)
        self._log.add(self.label, "S", octets, f"breaks {breaks}" if breaks else "preface", framed=False)
        self.invariants.prefaced = True
        self.write(octets)

    def send(self, *frames: Frame | Unknown, breaks: str = "") -> None:
        """Sends frames that are valid, or that declare the requirement that they break."""
        try:
            octets = b"".join(map(encode, frames))
        except LocalProtocolError as error:
            raise HarnessFault(f"cannot encode {frames}: {error}") from error
        self.send_octets(octets, breaks=breaks)

    def send_octets(self, octets: bytes, *, breaks: str = "") -> None:
        """Sends octets as they are: valid frames, or such as declare what they break."""
        self._declared(breaks)
        frames, rest = split_frames(octets)
        if not breaks:
            self._hold_valid(frames, rest)
        self._log.add(self.label, "S", octets, f"breaks {breaks}" if breaks else "")
        self._note(frames)
        self._half_sent = self._half_sent or bool(rest)
        self.write(octets)

    def note_valid(self, octets: bytes) -> None:
        """Takes note of valid frames that `write` sends in pieces."""
        frames, rest = split_frames(octets)
        self._hold_valid(frames, rest)
        self._log.add(self.label, "S", octets, "in pieces")
        self._note(frames)

    async def send_cut(self, octets: bytes, pieces: Iterable[bytes]) -> None:
        """Sends valid frames in pieces, each a segment of its own as far as the kernel allows."""
        frames, rest = split_frames(octets)
        self._hold_valid(frames, rest)
        self._log.add(self.label, "S", octets, "in pieces")
        self._note(frames)
        for piece in pieces:
            self.write(piece)
            await self.flush()
            await asyncio.sleep(0)

    async def flush(self) -> None:
        """Waits until the transport has room again."""
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.drain(), self.timeout)

    def _hold_valid(self, frames: list[bytes], rest: bytes) -> None:
        if rest:
            raise HarnessFault(f"sends half a frame that breaks nothing: {rest.hex()}")
        for octets in frames:
            try:
                frame = decode(read_header(octets), octets[HEADER.size :], "S")
            except RemoteProtocolError as error:
                raise HarnessFault(f"sends a frame that breaks something: {error}") from error
            if isinstance(frame, Unknown) and frame.type < 0x8000:
                raise HarnessFault(f"sends an unknown frame that may not be ignored: {frame_line(frame)}")

    def _note(self, frames: list[bytes]) -> None:
        for octets in frames:
            with contextlib.suppress(RemoteProtocolError):
                frame = decode(read_header(octets), octets[HEADER.size :], "S")
                self._said_goaway = self._said_goaway or (isinstance(frame, Goaway) and frame.code != Code.DRAINING)
                self.invariants.sent(frame)
                if isinstance(frame, Ping):
                    self._pings.add(frame.opaque)

    # Receiving.

    @staticmethod
    def now() -> float:
        """The clock of `Received.at`, in seconds."""
        return time.monotonic()

    def pause(self, paused: bool = True) -> None:
        """Stops reading what the client sends, or goes on."""
        if paused:
            self._may_read.clear()
            self._writer.transport.pause_reading()  # type: ignore[attr-defined]
        else:
            self._writer.transport.resume_reading()  # type: ignore[attr-defined]
            self._may_read.set()

    async def _hold(self) -> None:
        await self._may_read.wait()

    def _came(self, data: bytes) -> None:
        self.octet_times.append(time.monotonic())
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
            self._breach("RW-PREFACE-1", "nothing behind the preface before the server's", self._buffer.hex())
        self._frames()

    def _may_answer(self, ping: Ping) -> bool:
        # A PING of the suite that comes back as it was is an echo, and its PONG would come back too.
        return ping.opaque not in self._pings and not (self._said_goaway or self._half_sent)

    async def expect(
        self,
        kind: type[F],
        requirement: str = "",
        test: Callable[[F], bool] = lambda frame: True,
        within: float | None = None,
    ) -> F:
        """The first frame of a kind that was not taken yet. Raises Failed."""
        return await self.wait(lambda: self.find(kind, test), kind.__name__.upper(), requirement, within)

    async def expect_preface(self) -> bytes:
        """The client's preface."""
        return await self.wait(lambda: self.preface or None, "the client's preface", "RW-PREFACE-1")

    async def fence(self, requirement: str = "RW-PING-1") -> None:
        """PING, and the PONG to it: the client has read all that was sent before."""
        opaque = os.urandom(8)
        self.send(Ping(opaque))
        await self.expect(Pong, requirement, lambda pong: pong.opaque == opaque)

    async def expect_goaway(self, *codes: int, requirement: str = "RW-CLOSE-2") -> Goaway:
        """The client's GOAWAY. Raises Failed if it has another code."""
        wanted = " or ".join(map(code_name, codes))
        goaway = await self.wait(lambda: self.find(Goaway), f"GOAWAY({wanted})", requirement)
        if goaway.code not in codes:
            raise Failed(f"GOAWAY({wanted})", frame_line(goaway), requirement)
        return goaway

    async def expect_end(self, requirement: str, within: float | None = None) -> None:
        """The end of the client's stream."""
        await self.wait(lambda: self.ended or None, "the client to close the connection", requirement, within)

    async def close(self, *, abort: bool = False) -> None:
        """Ends the connection from this side; with `abort` by a reset."""
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
        """The WELCOME that was sent on this connection."""
        assert self.invariants.welcome, "no WELCOME was sent"
        return self.invariants.welcome


class Listener:
    """Listens on a port of its own for one case. `wires` are the connections, in the order in which they came."""

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
        self.tls: ssl.SSLContext | None = None  # of `start`; None: clear text

    async def start(self) -> None:
        """Begins to listen; `port` is known from then on."""
        self._server = await asyncio.start_server(self._connected, self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop_listening(self) -> None:
        """Refuses connections from now on; `start` listens again at the same port."""
        assert self._server
        self._server.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closed:  # it was accepted while the case ended
            writer.transport.abort()
            return
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        label = chr(ord("A") + len(self.connections) % 26)
        self._log.event(label, "the client connects")
        self.connections.append(RawServer(label, reader, writer, self._log, self._timeout, self.case_invariants))
        self.news.set()

    async def accept(self, within: float, requirement: str = "") -> RawServer:
        """The next connection. Raises Failed when none comes in time, in seconds."""
        deadline = time.monotonic() + within
        while len(self.connections) <= self._taken:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Failed("the client to connect", f"nothing within {within:g} s", requirement)
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.news.wait(), left)
        self._taken += 1
        return self.connections[self._taken - 1]

    async def close(self) -> None:
        """Ends all connections, and listens no more."""
        self._closed = True
        if self._server:
            self._server.close()
        for wire in self.connections:
            await wire.close(abort=True)
