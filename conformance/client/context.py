"""What a client case is given: the client, the server that it talks to, and the usual steps.

The steps that lead up to what a case is about are its control: if one of them fails, the case is inconclusive and does
not judge its requirement. Breaches of the invariants count in every step.
"""

import asyncio
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from conformance.client.raw_server import Listener, RawServer
from conformance.client.target import ClientTarget, Launch, Report
from conformance.harness.options import Options
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.tls import authority
from conformance.harness.verdicts import Crashed, Failed, Inconclusive, Unsupported, control, require
from conformance.wire.log import WireLog
from protocol.fields import extension, extensions
from protocol.frames import Ack, Error, Field, Hello, Join, Joined, Message, Publish, Unknown, Welcome
from protocol.registry import Code, Flag

_PREFACE_CASE = "client/5.1/waits-for-preface"
_HELLO_CASE = _WELCOME_CASE = "client/7.1/hello"
_JOIN_CASE = "client/9.1/cursor-is-set"
_REJOIN_CASE = "client/11/cursor"
_RECONNECT_CASE = "client/8.7/by-itself"
_PUBLISH_CASE = "client/7.15/content"
"""The cases that try for themselves what many cases need."""

NOW_MS = 1_700_000_000_000
"""The clock of the suite's server in milliseconds: a day in 2023, so that no client's own clock agrees by chance."""

WELCOME = Welcome(0x1122334455667788, "ada", NOW_MS, 65536, 30_000, 600_000, 32, 256, b"", request=1)
RECONNECTS_WITHIN = 1.0
"""Seconds in which a client connects again after its first failure, unless the server asks for a longer wait."""


@dataclass
class Room:
    """A room of the suite's server; `next` is the seq of its next message."""

    name: str
    ref: int
    epoch: int
    next: int

    def message(self, payload: bytes = b"x", **values: Any) -> Message:
        """The room's next message."""
        self.next += 1
        return self.again(self.next - 1, payload, **values)

    def again(self, seq: int, payload: bytes = b"x", **values: Any) -> Message:
        """A message of the room with this seq."""
        values = {"sender": 77, "id": os.urandom(16), "ctype": 1, "name": "bob", **values}
        return Message(seq, NOW_MS + seq % 10**6, payload=payload, room=self.ref, **values)


class Context:
    """One run of one case. `close` ends its client, its listener and its connections."""

    def __init__(self, launch: Launch, options: Options, gate: asyncio.Semaphore | None = None) -> None:
        self.options = options
        self.log = WireLog()
        self.listener = Listener(self.log, options.timeout)
        self._launch = launch
        self._gate = gate or asyncio.Semaphore(1)
        self._client: ClientTarget | None = None
        self._connect = 0
        self._ref = 4

    @property
    def client(self) -> ClientTarget:
        """The client under test."""
        assert self._client, "start it first"
        return self._client

    @property
    def said(self) -> tuple[str, ...]:
        """The last commands and reports, a line each."""
        return tuple(self._client.said[-12:]) if self._client else ()

    @property
    def stderr(self) -> str:
        """The end of what the client wrote to its standard error."""
        return self._client.program.stderr if self._client else ""

    async def start(self) -> None:
        """Launches the client and waits until it is ready. Raises Unreachable or Unstartable."""
        if self.options.tls:
            self.listener.tls = authority().server()
        await self.listener.start()
        # Starting a program takes much of the machine: only a few start at a time, so that running cases keep theirs.
        async with self._gate:
            program = await self._launch(self.listener.host, self.listener.port)
            self._client = ClientTarget(program, self.options.timeout, self.log)
            await self._client.start(self.options.ready)

    async def begin(self) -> None:
        """As `start`, for a case. Raises Crashed if the client does not start any more."""
        try:
            await self.start()
        except (Unreachable, Unstartable) as reason:
            raise Crashed(str(reason)) from None

    async def close(self) -> None:
        """Ends everything that the case began."""
        if self._client:
            await self._client.stop()
        await self.listener.close()

    def finish(self) -> None:
        """Raises Failed for the first breach of the invariants on any connection."""
        for server in self.listener.connections:
            server.raise_breach()

    # Connections.

    async def secure(self, tls: ssl.SSLContext) -> None:
        """Listens with TLS from now on; `connect` tells the client to trust the suite's authority."""
        await self.listener.stop_listening()
        self.listener.tls = tls
        await self.listener.start()

    def connect(self, name: str = "ada", **login: str) -> None:
        """Tells the client to connect; `login` may hold the `password` of an account."""
        if self.listener.tls:
            login["ca"] = str(authority().ca)
        self._connect = self.client.tell("connect", name=name, **login)

    async def accept(self, requirement: str = "", within: float = 0.0) -> RawServer:
        """The client's next connection, on which nothing was sent yet. Raises Failed."""
        return await self.listener.accept(within or self.options.timeout, requirement)

    async def dialled(self, name: str = "ada", **login: str) -> RawServer:
        """The client's first connection, after its preface."""
        self.connect(name, **login)
        async with self.control("connecting", _PREFACE_CASE):
            server = await self.accept()
            await server.expect_preface()
        return server

    async def greeted(self, name: str = "ada", **login: str) -> tuple[RawServer, Hello]:
        """The client's first connection after the prefaces and HELLO, before WELCOME."""
        server = await self.dialled(name, **login)
        return server, await self.hello(server)

    async def hello(self, server: RawServer) -> Hello:
        """Sends the server's preface and takes the client's HELLO."""
        async with self.control("the preface and HELLO", _HELLO_CASE):
            await server.expect_preface()
            server.send_preface()
            return await server.expect(Hello, "RW-HELLO-1")

    async def waiting(self, name: str = "ada") -> tuple[RawServer, Hello]:
        """As `greeted`, with a client that goes on past a frame to be ignored and waits for its WELCOME."""
        server, hello = await self.greeted(name)
        server.send(Unknown(0x8021, b"to be ignored"))
        await self.alive()
        if server.invariants.goaway or server.ended:
            raise Inconclusive(f"the client does not wait for WELCOME: {server.last_words()}")
        return server, hello

    def welcome(self, hello: Hello, **limits: Any) -> Welcome:
        """The WELCOME to a HELLO, with the extension `history` if HELLO offers it; `limits` are other fields."""
        fields: tuple[Field, ...] = (extension("history"),) if "history" in extensions(hello) else ()
        values = {"name": hello.name, "fields": fields, **limits}
        return replace(WELCOME, request=hello.request, **values)

    async def opened(self, server: RawServer, **limits: Any) -> Hello:
        """Goes through the handshake until the client reports that it is connected."""
        hello = await self.hello(server)
        server.send(self.welcome(hello, **limits))
        async with self.control("WELCOME", _WELCOME_CASE):
            await self.report("connected")
        return hello

    async def open(self, name: str = "ada", **limits: Any) -> RawServer:
        """The client's first connection, open; `limits` are fields of WELCOME."""
        server = await self.dialled(name)
        await self.opened(server, **limits)
        return server

    async def reopened(self, within: float = 0.0, **limits: Any) -> RawServer:
        """The client's next connection, which it makes by itself, open."""
        async with self.control("connecting again", _RECONNECT_CASE):
            server = await self.accept(within=within or self.options.timeout + RECONNECTS_WITHIN)
        await self.opened(server, **limits)
        return server

    # Rooms.

    def room(self, name: str = "lobby", next: int = 1, epoch: int = 7) -> Room:
        """A room with a ref that no other has."""
        self._ref += 1
        return Room(name, self._ref, epoch, next)

    def joined(self, room: Room, join: Join, *, flags: int = 0, head: int | None = None, oldest: int = 1) -> Joined:
        """The JOINED to a JOIN; the stream begins with the room's next message."""
        head = room.next - 1 if head is None else head
        return Joined(
            room.epoch, head, room.next, oldest, 1, room.name, flags=flags, request=join.request, room=room.ref
        )

    async def join(self, server: RawServer, room: Room, **values: Any) -> Join:
        """Tells the client to join, and answers its JOIN."""
        id = self.client.tell("join", room=room.name, **values)
        async with self.control(f"joining {room.name}", _JOIN_CASE):
            join = await server.expect(Join, "", lambda join: join.name == room.name)
            server.send(self.joined(room, join))
            await self.report("joined", lambda report: report.get("id") == id)
        return join

    async def rejoin(self, server: RawServer, room: Room, **values: Any) -> Join:
        """Answers a JOIN that the client sends by itself."""
        async with self.control(f"joining {room.name} again", _REJOIN_CASE):
            join = await server.expect(Join, "", lambda join: join.name == room.name)
            server.send(self.joined(room, join, **values))
            await self.report("joined")
        return join

    async def member(self, next: int = 1, **limits: Any) -> tuple[RawServer, Room]:
        """The client's first connection, and a room that it is in; the room's next message has the seq `next`."""
        server = await self.open(**limits)
        room = self.room(next=next)
        await self.join(server, room)
        return server, room

    def publish(self, room: Room, payload: bytes = b"x") -> int:
        """Tells the client to publish; returns the command's id."""
        return self.client.tell("publish", room=room.name, payload=payload.hex(), ctype=1)

    async def published(self, server: RawServer, room: Room, payload: bytes = b"x") -> Publish:
        """Tells the client to publish, and answers its PUBLISH with ACK."""
        id = self.publish(room, payload)
        async with self.control("PUBLISH and ACK", _PUBLISH_CASE):
            publish = await server.expect(Publish, "", lambda frame: frame.payload == payload)
            server.send(self.ack(room, publish))
            await self.report("published", lambda report: report.get("id") == id)
        return publish

    def ack(self, room: Room, publish: Publish, *, flags: int = 0) -> Ack:
        """The ACK of a PUBLISH, which takes the room's next seq."""
        room.next += 1
        return Ack(room.next - 1, NOW_MS + room.next - 1, flags=flags, request=publish.request, room=publish.room)

    def echo(self, room: Room, publish: Publish, seq: int, **values: Any) -> Message:
        """The MESSAGE of a PUBLISH."""
        return room.again(seq, publish.payload, id=publish.id, ctype=publish.ctype, sender=WELCOME.member, **values)

    def refusal(self, request: Publish | Join, code: int, retry_ms: int = 0, **values: Any) -> Error:
        """An ERROR to a request, with RETRY if it has a time or the code wants it."""
        flags = Flag.RETRY if retry_ms or code == Code.PRECEDED else 0
        return Error(code, retry_ms, "no", flags=flags, request=request.request, room=request.room, **values)

    # Reports.

    async def report(
        self,
        event: str,
        test: Callable[[Report], bool] = lambda report: True,
        requirement: str = "",
        within: float | None = None,
    ) -> Report:
        """Takes the first report of an event that passes a test. Raises Failed."""

        def find() -> Report | None:
            return self.client.find(lambda report: report.get("event") == event and test(report))

        return await self.client.wait(find, event, requirement, within)

    async def answer(self, id: int, *events: str, requirement: str = "") -> Report:
        """Takes the report that answers a command. Raises Failed."""

        def find() -> Report | None:
            return self.client.find(lambda report: report.get("id") == id and report.get("event") in events)

        return await self.client.wait(find, f"{' or '.join(events)} with id {id}", requirement)

    async def marker(self, server: RawServer, room: Room, requirement: str = "") -> list[Report]:
        """Sends a message and waits for its report; all reports of the room's messages, of which it is the last."""
        payload = os.urandom(8)
        server.send(room.message(payload))
        await self.report("message", lambda report: report.get("payload") == payload.hex(), requirement)
        return self.messages(room)

    def messages(self, room: Room) -> list[Report]:
        """All reports of a room's messages up to now."""
        return [report for report in self.client.of("message") if report.get("room") == room.name]

    def seqs(self, room: Room) -> list[str]:
        """The seqs of all reported messages of a room."""
        return [str(report.get("seq")) for report in self.messages(room)]

    async def alive(self) -> None:
        """Checks that the client still answers commands. Raises Failed."""
        id = self.client.tell("no-such-command")
        await self.client.wait(
            lambda: self.client.find(lambda report: report.get("id") == id and "unsupported" in report),
            "unsupported, to a command that does not exist",
        )

    @staticmethod
    async def idle(server: RawServer, seconds: float) -> None:
        """Waits so that the client has time to break an invariant."""
        deadline = server.now() + seconds
        while (left := deadline - server.now()) > 0 and not server.breaches:
            await asyncio.sleep(left)

    async def quiet(self, seconds: float, requirement: str, what: str) -> None:
        """Checks that the client does not connect for so many seconds. Raises Failed."""
        try:
            await self.listener.accept(seconds)
        except Failed:
            return
        raise Failed(what, "a connection", requirement)

    # Judging.

    def needs(self, *features: str) -> None:
        """Raises Unsupported unless the client names these features."""
        missing = sorted(set(features) - self.client.features)
        if missing:
            raise Unsupported(f"the client does not name {', '.join(missing)} among its features")

    control = staticmethod(control)
    require = staticmethod(require)
