"""What a server case is given: connections, fresh names, and the usual steps.

The steps that lead up to what a case is about are its control: if one of them fails, the case is inconclusive and does
not judge its requirement. Breaches of the invariants count in every step.
"""

import asyncio
import os
import random
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from conformance.harness.options import Options
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.verdicts import (
    Crashed,
    Failed,
    Inconclusive,
    Informative,
    Unsupported,
    control,
    require,
    usual,
)
from conformance.server.rates import Rate, TooLong
from conformance.server.raw_client import HELLO_CASE, PREFACE_CASE, RawClient
from conformance.server.recording import Recording, RecordingClient
from conformance.server.target import LaunchedServer, ServerTarget
from conformance.wire import clock
from conformance.wire.log import WireLog
from conformance.wire.text import frame_line
from protocol.fields import extension, extensions
from protocol.frames import Ack, Error, Field, Frame, History, Join, Joined, Message, Publish, Welcome
from protocol.registry import LIMITS, Code, Flag

T = TypeVar("T")

_JOIN_CASE = "server/7.9/fresh"
_PUBLISH_CASE = "server/7.15/echo"
"""The cases that try for themselves what many cases need: JOINED for JOIN, ACK for PUBLISH."""

_ROOM_RATE_MS = 1_000
"""A retry_ms above this is not of `join_rate`, which is 1 a second at least, but of `room_rate`."""


class Context:
    """One run of one case. `close` ends its connections, and its own server."""

    def __init__(self, target: ServerTarget, options: Options) -> None:
        self.target = target
        self.options = options
        self.log = WireLog()
        self.clients: list[RawClient] = []
        self.timeout = options.timeout
        """Seconds for each answer, of connections from now on."""
        self.random = random.Random(options.seed)
        self.fresh = os.urandom(5).hex()
        self.recording = Recording(self.fresh) if options.replay_dir else None
        self.bound: asyncio.Timeout | None = None  # of the whole case, without the time in which it waits for its turn
        self._count = 0
        self._waited = 0.0
        self._own: LaunchedServer | None = None
        self._rates = target.rates  # of the server that all cases share
        self._fresh_rooms: set[str] = set()
        self._lasting: list[str] = []  # rooms for other cases: they have messages, so the server keeps them

    def bounded_by(self, bound: asyncio.Timeout) -> None:
        """Says what ends the case if it takes too long."""
        self.bound = bound

    # Names.

    def room(self) -> str:
        """A name of a room that no other case and no other run uses."""
        self._count += 1
        name = f"{self.options.room_prefix}{self.fresh}-{self._count}"
        self._fresh_rooms.add(name)
        return name

    async def any_room(self) -> str:
        """A name of a room that no other case uses now, and that may have messages from before.

        It is fresh unless the server limits how many rooms may be made.
        """
        rates = self.target.rates
        if not rates.rooms.scarce:
            return self.room()
        if not rates.used:
            client, joined = await self.member()
            await self.publish(client, joined.room)  # a room with a message lasts
            await client.close()
            return joined.name
        self._lasting.append(rates.used.pop())
        return self._lasting[-1]

    def leave_rooms(self) -> None:
        """Lets other cases have the rooms of this one, once it has passed and its connections are closed."""
        self._rates.used += dict.fromkeys(self._lasting)

    def name(self) -> str:
        """A name of a person that no other case and no other run uses."""
        self._count += 1
        return f"u-{self.fresh}-{self._count}"

    def id(self, client: RawClient, offset_ms: int = 0) -> bytes:
        """A fresh id of a publish, with the time of the server's clock plus an offset in milliseconds."""
        return (client.now_ms() + offset_ms).to_bytes(6, "big") + os.urandom(10)

    # Connections.

    async def dial(self, *, receive_buffer: int = 0) -> RawClient:
        """A connection on which nothing was sent. `receive_buffer` is the size of the socket's buffer in octets.

        Raises Crashed.
        """
        try:
            return await self._dial(receive_buffer, self.target.trust.context() if self.target.trust else None)
        except (OSError, TimeoutError) as error:
            raise Crashed(f"no connection to {self.target.address}: {str(error) or 'time-out'}") from None

    async def dial_tls(self, tls: ssl.SSLContext) -> RawClient:
        """A connection with TLS as the case wants it. Raises OSError if the server refuses."""
        return await self._dial(0, tls)

    async def dial_clear(self) -> RawClient:
        """A connection in clear text. Raises OSError if the server refuses."""
        return await self._dial(0, None)

    async def _dial(self, receive_buffer: int, tls: ssl.SSLContext | None) -> RawClient:
        connecting = _connect(self.target.host, self.target.port, receive_buffer, tls)
        reader, writer = await asyncio.wait_for(connecting, max(self.options.timeout, self.options.ready))
        label = chr(ord("A") + len(self.clients)) if len(self.clients) < 26 else f"P{len(self.clients)}"
        kind = RecordingClient if self.recording else RawClient
        client = kind(label, reader, writer, self.log, self.timeout)
        if isinstance(client, RecordingClient) and self.recording:
            client.recording = self.recording
            self.recording.add("connect", peer=label, buffer=receive_buffer)
        self.clients.append(client)
        return client

    async def greet(self, *, receive_buffer: int = 0) -> RawClient:
        """A connection after the exchange of prefaces."""
        client = await self.dial(receive_buffer=receive_buffer)
        async with self.control("the prefaces", PREFACE_CASE):
            client.send_preface()
            preface = await client.expect_preface()
            if preface[4] != 1:
                raise Failed("version 1", f"version {preface[4]}")
        return client

    async def open(
        self,
        name: str = "",
        extension_names: Sequence[str] = (),
        fields: Sequence[Field] = (),
        *,
        receive_buffer: int = 0,
    ) -> RawClient:
        """An open connection. HELLO offers the extensions; `needs` asks whether they are in use."""
        offered = (*(extension(item) for item in extension_names), *fields)
        for _ in range(20):
            client = await self.greet(receive_buffer=receive_buffer)
            try:
                async with self.control("HELLO and WELCOME", HELLO_CASE):
                    await client.hello(name or self.name(), offered)
            except Inconclusive:
                refusal = self._refused(client)
                if refusal is None or refusal.code != Code.SERVER_FULL:
                    raise
                await self.wait_ms(refusal.retry_ms or 100)
                continue
            return client
        raise Inconclusive("the server is full")

    @staticmethod
    def _refused(client: RawClient) -> Error | None:
        frames = (item.frame for item in client.received)
        return next((frame for frame in frames if isinstance(frame, Error)), None)

    async def join(self, client: RawClient, room: str, *, epoch: int = 0, since: int = 0, flags: int = 0) -> Joined:
        """Joins a room, and waits while the server limits the rate."""
        async with self.control(f"joining {room}", _JOIN_CASE):
            frame = await self.patiently(client, Join(room, epoch, since, flags=flags))
            if not isinstance(frame, Joined):
                raise Failed("JOINED", frame_line(frame))
        return frame

    async def member(
        self,
        room: str = "",
        *,
        fresh: bool = True,
        epoch: int = 0,
        since: int = 0,
        flags: int = 0,
        extension_names: Sequence[str] = (),
        receive_buffer: int = 0,
    ) -> tuple[RawClient, Joined]:
        """A fresh connection that is in a room, which is fresh as well unless it is named.

        Without `fresh` it is `any_room`, which may have messages.
        """
        room = room or (self.room() if fresh else await self.any_room())
        client = await self.open(extension_names=extension_names, receive_buffer=receive_buffer)
        return client, await self.join(client, room, epoch=epoch, since=since, flags=flags)

    async def publish(
        self,
        client: RawClient,
        room: int,
        payload: bytes = b"x",
        *,
        id: bytes = b"",
        ctype: int = 0,
        fields: Sequence[Field] = (),
        flags: int = 0,
    ) -> Ack:
        """Publishes, and waits while the server limits the rate."""
        async with self.control("PUBLISH", _PUBLISH_CASE):
            frame = await self.patiently(
                client, Publish(id or self.id(client), ctype, payload, fields=tuple(fields), flags=flags, room=room)
            )
            if not isinstance(frame, Ack):
                raise Failed("ACK", frame_line(frame))
        self._lasts(client.invariants.refs.get(room, ""))
        return frame

    def _lasts(self, name: str) -> None:
        """Notes that a room has a message, so that the server keeps it without a member."""
        if name in self._fresh_rooms and self.target.rates is self._rates:
            self._fresh_rooms.discard(name)
            self._lasting.append(name)

    async def marker(self, publisher: RawClient, *readers: RawClient, room: int) -> list[list[Message]]:
        """Publishes a message and waits for it at all readers; the streams that they saw, which end with it."""
        id = self.id(publisher)
        await self.publish(publisher, room, b"marker", id=id)
        with usual(_PUBLISH_CASE):
            return [await reader.until(room, id, "RW-MESSAGE-1") for reader in readers or (publisher,)]

    async def patiently(self, client: RawClient, frame: History | Join | Publish) -> Frame:
        """The reply to a request, which is repeated while the server limits the rate."""

        async def ask() -> Frame:
            return await client.reply(client.ask(frame))

        return await self.until_allowed(ask)

    async def until_allowed(self, ask: Callable[[], Awaitable[Frame]]) -> Frame:
        """What `ask` returns: the reply to a request that it sends, again while the server limits the rate.

        Raises TooLong.
        """

        async def again() -> tuple[Frame, int]:
            reply = await ask()
            return reply, _limited(reply)

        while (answer := await again())[1]:
            if answer[1] > _ROOM_RATE_MS:
                return await self.in_turn(self.target.rates.rooms, again, answer[1])
            await self.wait_ms(answer[1])
        return answer[0]

    async def in_turn(self, rate: Rate, ask: Callable[[], Awaitable[tuple[T, int]]], retry_ms: int) -> T:
        """As `Rate.until`, within the run's patience; the case has so much more time. Raises TooLong."""
        began, end = clock.now(), self.bound.when() if self.bound else None
        if self.bound:
            self.bound.reschedule(None)
        try:
            return await rate.until(ask, retry_ms, self.options.patience)
        finally:
            if self.bound and end is not None:
                self.bound.reschedule(end + clock.now() - began)

    async def wait_ms(self, duration: int) -> None:
        """Waits as retry_ms of the server demands. Raises TooLong beyond the run's patience, over the whole case."""
        self._waited += max(duration, 1) / 1000
        if self._waited > self.options.patience:
            raise TooLong(f"the server asks to wait longer than {self.options.patience:g} s")
        await asyncio.sleep(max(duration, 1) / 1000)

    # A server of the case's own.

    async def own_server(self, **limits: int) -> None:
        """Starts a server for this case alone with these limits; all further connections go to it.

        Raises Inconclusive if it does not start.
        """
        self._own = self.target.another(**limits)
        if self.recording:
            self.recording.add("server", limits=limits)
        try:
            await self._own.start()
        except (Unreachable, Unstartable) as reason:
            raise Inconclusive(f"a server of its own: {reason}") from None
        self.target = self._own

    async def with_limits(self, **limits: int) -> None:
        """Starts a server with these limits if the suite can; otherwise the target's own limits have to do."""
        if isinstance(self.target, LaunchedServer):
            await self.own_server(**limits)

    def drain(self) -> None:
        """Tells the case's own server to drain."""
        assert self._own, "the case has no server of its own"
        if self.recording:
            self.recording.add("drain")
        self._own.drain()

    async def crash_and_restart(self, **limits: int) -> None:
        """Kills the case's own server and starts it again with these limits besides. Raises Failed."""
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

    control = staticmethod(control)
    require = staticmethod(require)

    async def alive(self) -> None:
        """Checks that the server serves another connection. Raises Failed."""
        try:
            client = await self.open()
            await client.fence()
        except (Inconclusive, Failed) as failure:
            if isinstance(failure, Failed) and failure.passive:
                raise
            raise Failed("the server to serve another connection", str(failure), "RW-CLOSE-7") from None

    def needs(
        self, client: RawClient, *extension_names: str, rooms: int = 1, window: int = 1, dedupe: bool = False
    ) -> None:
        """Raises Unsupported unless WELCOME offers all of this."""
        welcome: Welcome = client.welcome
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
        """Raises Unsupported if the target was declared to leave this out."""
        if name in self.options.declared:
            raise Unsupported(f"declared: {name}")

    @property
    def replay_cap(self) -> int:
        """The replay cap that the target is declared to have; otherwise its default."""
        return self.options.limits.get("replay_messages", LIMITS["replay_messages"].default)

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
        """Raises Informative unless it holds, where the document requires nothing."""
        if not holds:
            raise Informative(otherwise)

    def not_quiet(self, joined: Joined) -> None:
        """Raises Informative in a quiet room, which has no presence and no roster."""
        self.observe(not joined.flags & Flag.QUIET, f"the room is quiet already with {joined.members} members")

    async def finish(self, check: Callable[[RawClient], None] = RawClient.raise_breach) -> None:
        """Raises Failed for the first breach of the invariants on any connection."""
        for client in self.clients:
            check(client)

    @property
    def lost(self) -> bool:
        """Whether the server ended a connection, or there is none."""
        return not self.clients or any(client.ended for client in self.clients)

    async def close(self) -> None:
        """Ends all connections and the case's own server."""
        await asyncio.gather(*(client.close() for client in self.clients))
        if self._own:
            await self._own.stop()


def _limited(reply: Frame) -> int:
    """The retry_ms of a reply that is RATE_LIMITED, at least 1; otherwise 0."""
    return max(reply.retry_ms, 1) if isinstance(reply, Error) and reply.code == Code.RATE_LIMITED else 0


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
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)  # before TCP negotiates the window
        await loop.sock_connect(own, address)
        return await asyncio.open_connection(sock=own, ssl=tls, server_hostname=host if tls else None)
    except BaseException:
        own.close()
        raise
