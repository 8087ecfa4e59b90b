"""What a server case is given: connections, fresh names, and the usual steps.

The steps that lead up to what a case is about are its control: when one of them fails, the case is
inconclusive and does not judge its requirement. Only what a server does wrong unasked counts everywhere.
"""

import asyncio
import contextlib
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence

from conformance.harness.options import Options
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.verdicts import Crashed, Failed, Inconclusive, Informative, Unsupported
from conformance.server.raw_client import RawClient
from conformance.server.recording import Recording, RecordingClient
from conformance.server.target import LaunchedServer, ServerTarget
from conformance.wire.log import WireLog
from conformance.wire.text import frame_line
from protocol.fields import extension, extensions
from protocol.frames import Ack, Error, Field, Frame, History, Join, Joined, Message, Publish, Welcome
from protocol.registry import Code


class TooLong(Inconclusive):
    """The server limits a rate so much that the run's patience does not suffice."""


class Context:
    """One case under way. Its connections end with it."""

    def __init__(self, target: ServerTarget, options: Options) -> None:
        self.target = target
        self.options = options
        self.log = WireLog()
        self.peers: list[RawClient] = []
        self.random = random.Random(options.seed)
        self.fresh = os.urandom(5).hex()
        self.recording = Recording(self.fresh) if options.replay_dir else None
        self._count = 0
        self._waited = 0.0
        self._own: LaunchedServer | None = None

    # Names that nobody else has.

    def room(self) -> str:
        """A room's name that no other case and no other run uses."""
        self._count += 1
        return f"rw-{self.fresh}-{self._count}"

    def name(self) -> str:
        """A person's name that nobody else uses."""
        self._count += 1
        return f"u-{self.fresh}-{self._count}"

    def id(self, peer: RawClient, offset_ms: int = 0) -> bytes:
        """A fresh id of a publish, of the server's clock plus an offset."""
        return (peer.now_ms() + offset_ms).to_bytes(6, "big") + os.urandom(10)

    # Connections.

    async def dial(self, *, receive_buffer: int = 0) -> RawClient:
        """A connection on which nothing was sent; if given, the transport's buffer has about so many octets."""
        try:
            return await self._dial(receive_buffer, self.target.trust.context() if self.target.trust else None)
        except (OSError, TimeoutError) as error:
            raise Crashed(f"no connection to {self.target.address}: {str(error) or 'time-out'}") from None

    async def dial_tls(self, tls: ssl.SSLContext) -> RawClient:
        """A connection with TLS as the case wants it. Raises OSError where the server refuses."""
        return await self._dial(0, tls)

    async def dial_clear(self) -> RawClient:
        """A connection without TLS."""
        return await self._dial(0, None)

    async def _dial(self, receive_buffer: int, tls: ssl.SSLContext | None) -> RawClient:
        connecting = _connect(self.target.host, self.target.port, receive_buffer, tls)
        reader, writer = await asyncio.wait_for(connecting, max(self.options.timeout, self.options.ready))
        label = chr(ord("A") + len(self.peers)) if len(self.peers) < 26 else f"P{len(self.peers)}"
        kind = RecordingClient if self.recording else RawClient
        peer = kind(label, reader, writer, self.log, self.options.timeout)
        if isinstance(peer, RecordingClient) and self.recording:
            peer.recording = self.recording
            self.recording.add("connect", peer=label, buffer=receive_buffer)
        self.peers.append(peer)
        return peer

    async def greet(self, *, receive_buffer: int = 0) -> RawClient:
        """A connection on which the prefaces were exchanged."""
        peer = await self.dial(receive_buffer=receive_buffer)
        async with self.control("the prefaces"):
            peer.send_preface()
            preface = await peer.expect_preface()
            if preface[4] != 1:
                raise Failed("version 1", f"version {preface[4]}")
        return peer

    async def open(
        self,
        name: str = "",
        extension_names: Sequence[str] = (),
        fields: Sequence[Field] = (),
        *,
        receive_buffer: int = 0,
    ) -> RawClient:
        """A connection that is open. Extensions are offered; `needs` asks whether they are in use."""
        offered = (*(extension(item) for item in extension_names), *fields)
        for _ in range(20):
            peer = await self.greet(receive_buffer=receive_buffer)
            try:
                async with self.control("HELLO and WELCOME"):
                    await peer.hello(name or self.name(), offered)
            except Inconclusive:
                refusal = self._refused(peer)
                if refusal is None or refusal.code != Code.SERVER_FULL:
                    raise
                await self.wait_ms(refusal.retry_ms or 100)
                continue
            return peer
        raise Inconclusive("the server is full")

    @staticmethod
    def _refused(peer: RawClient) -> Error | None:
        frames = (item.frame for item in peer.received)
        return next((frame for frame in frames if isinstance(frame, Error)), None)

    async def join(self, peer: RawClient, room: str, *, epoch: int = 0, since: int = 0, flags: int = 0) -> Joined:
        """Joins a room, waiting where the server limits the rate."""
        async with self.control(f"joining {room}"):
            frame = await self.patiently(peer, Join(room, epoch, since, flags=flags))
            if not isinstance(frame, Joined):
                raise Failed("JOINED", frame_line(frame))
        return frame

    async def member(
        self,
        room: str = "",
        *,
        epoch: int = 0,
        since: int = 0,
        flags: int = 0,
        extension_names: Sequence[str] = (),
        receive_buffer: int = 0,
    ) -> tuple[RawClient, Joined]:
        """A fresh connection that is in a room, a fresh one if none is named."""
        peer = await self.open(extension_names=extension_names, receive_buffer=receive_buffer)
        return peer, await self.join(peer, room or self.room(), epoch=epoch, since=since, flags=flags)

    async def publish(
        self,
        peer: RawClient,
        room: int,
        payload: bytes = b"x",
        *,
        id: bytes = b"",
        ctype: int = 0,
        fields: Sequence[Field] = (),
        flags: int = 0,
    ) -> Ack:
        """Publishes, waiting where the server limits the rate."""
        async with self.control("PUBLISH"):
            frame = await self.patiently(
                peer, Publish(id or self.id(peer), ctype, payload, fields=tuple(fields), flags=flags, room=room)
            )
            if not isinstance(frame, Ack):
                raise Failed("ACK", frame_line(frame))
        return frame

    async def marker(self, publisher: RawClient, *readers: RawClient, room: int) -> list[list[Message]]:
        """Publishes, and waits for that message at all readers: what each saw of the stream, the marker last."""
        id = self.id(publisher)
        await self.publish(publisher, room, b"marker", id=id)
        return [await reader.until(room, id, "RW-MESSAGE-1") for reader in readers or (publisher,)]

    async def patiently(self, peer: RawClient, frame: History | Join | Publish) -> Frame:
        """The reply to a request, which is repeated as long as the server limits the rate."""
        while True:
            reply = await peer.reply(peer.ask(frame))
            if not isinstance(reply, Error) or reply.code != Code.RATE_LIMITED:
                return reply
            await self.wait_ms(reply.retry_ms)

    async def wait_ms(self, duration: int) -> None:
        """Waits as a server demands with retry_ms; in all not longer than the run's patience."""
        self._waited += max(duration, 1) / 1000
        if self._waited > self.options.patience:
            raise TooLong(f"the server asks to wait longer than {self.options.patience:g} s")
        await asyncio.sleep(max(duration, 1) / 1000)

    # A server of the case's own.

    async def own_server(self, **limits: int) -> None:
        """Starts a server for this case alone, and offers it these limits; all further connections are to it."""
        self._own = self.target.another(**limits)
        if self.recording:
            self.recording.add("server", limits=limits)
        try:
            await self._own.start()
        except (Unreachable, Unstartable) as reason:
            raise Inconclusive(f"a server of its own: {reason}") from None
        self.target = self._own

    async def with_limits(self, **limits: int) -> None:
        """Starts a server with these limits where the suite can; else the target's own have to do."""
        if isinstance(self.target, LaunchedServer):
            await self.own_server(**limits)

    def drain(self) -> None:
        """Tells the case's own server to end."""
        assert self._own, "the case has no server of its own"
        if self.recording:
            self.recording.add("drain")
        self._own.drain()

    async def crash_and_restart(self, **limits: int) -> None:
        """Kills the case's own server, and starts it again; these limits are offered to it from now on."""
        assert self._own, "the case has no server of its own"
        if self.recording:
            self.recording.add("restart", limits=limits)
        await self._own.crash()
        self._own.limits = {**self._own.limits, **limits}
        try:
            await self._own.start()
        except (Unreachable, Unstartable) as reason:
            raise Failed("the server to start again after a crash", str(reason), "RW-PROMISE-2") from None

    # Judging.

    @contextlib.asynccontextmanager
    async def control(self, what: str) -> AsyncIterator[None]:
        """What happens inside leads up to the test: its failure leaves the case inconclusive."""
        try:
            yield
        except Failed as failure:
            if failure.passive:
                raise
            raise Inconclusive(f"{what}: {failure}") from None

    def require(self, holds: bool, expected: str, got: object, requirement: str = "") -> None:
        """Raises Failed unless it holds."""
        if not holds:
            raise Failed(expected, str(got), requirement)

    async def alive(self) -> None:
        """The server serves another connection."""
        try:
            peer = await self.open()
            await peer.fence()
        except (Inconclusive, Failed) as failure:
            if isinstance(failure, Failed) and failure.passive:
                raise
            raise Failed("the server to serve another connection", str(failure), "RW-CLOSE-7") from None

    def needs(
        self, peer: RawClient, *extension_names: str, rooms: int = 1, window: int = 1, dedupe: bool = False
    ) -> None:
        """Raises Unsupported unless WELCOME says that the server offers this."""
        welcome: Welcome = peer.welcome
        missing = [name for name in extension_names if name not in extensions(welcome)]
        if missing:
            raise Unsupported(f"WELCOME does not name the extension {missing[0]}")
        if welcome.max_rooms < rooms:
            raise Unsupported(f"WELCOME allows {welcome.max_rooms} rooms, this needs {rooms}")
        if welcome.window < window:
            raise Unsupported(f"WELCOME allows {welcome.window} requests, this needs {window}")
        if dedupe and not welcome.dedupe_ms:
            raise Unsupported("WELCOME has dedupe_ms 0")

    def unless_declared(self, name: str) -> None:
        """Raises Unsupported if the run declares that the target leaves this out."""
        if name in self.options.declared:
            raise Unsupported(f"declared: {name}")

    def time_out(self, name: str) -> float:
        """For how many seconds to wait for a time-out of the target.

        That is the run's patience, unless it was declared how long the time-out is: then that, or what this case has
        offered its own server, if that is longer. Raises Informative if it is longer than the run's patience.
        """
        declared = self.options.limits.get(name)
        if declared is None:
            return self.options.patience
        declared = max(declared, self._own.limits.get(name, 0) if self._own else 0)
        if declared / 1000 > self.options.patience:
            raise Informative(f"not tried: {name} is declared as {declared}, beyond the patience of this run")
        return declared / 1000 + self.options.timeout

    def observe(self, holds: bool, otherwise: str) -> None:
        """Raises Informative unless it holds: nothing is required here."""
        if not holds:
            raise Informative(otherwise)

    async def finish(self, check: Callable[[RawClient], None] = RawClient.raise_breach) -> None:
        """Judges what came unasked on all connections. Raises Failed."""
        for peer in self.peers:
            check(peer)

    async def close(self) -> None:
        """Ends all connections, and the case's own server."""
        await asyncio.gather(*(peer.close() for peer in self.peers))
        if self._own:
            await self._own.stop()


async def _connect(
    host: str, port: int, receive_buffer: int, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not receive_buffer:
        return await asyncio.open_connection(host, port, ssl=tls)
    loop = asyncio.get_running_loop()
    family, kind, number, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
    own = socket.socket(family, kind, number)
    try:
        own.setblocking(False)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # before the window is agreed on
        await loop.sock_connect(own, address)
        return await asyncio.open_connection(sock=own, ssl=tls, server_hostname=host if tls else None)
    except BaseException:
        own.close()
        raise
