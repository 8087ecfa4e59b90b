"""What a client case is given: the client, the server that it talks to, and the usual steps.

The steps that lead up to what a case is about are its control: when one of them fails, the case is
inconclusive and does not judge its requirement. Only what a client does wrong unasked counts everywhere.
"""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

from conformance.client.raw_server import Listener, RawServer
from conformance.client.target import ClientTarget, Launch, Report
from conformance.harness.options import Options
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.tls import authority
from conformance.harness.verdicts import Crashed, Failed, Inconclusive, Unsupported
from conformance.wire.log import WireLog
from protocol.fields import extension, extensions
from protocol.frames import Ack, Error, Field, Hello, Join, Joined, Message, Publish, Unknown, Welcome
from protocol.registry import Code, Flag

NOW_MS = 1_700_000_000_000
"""The clock of the scripted server: some day in 2023, so that no client's own clock fits by chance."""

WELCOME = Welcome(0x1122334455667788, "ada", NOW_MS, 65536, 30_000, 600_000, 32, 256, b"", request=1)
RECONNECTS_WITHIN = 1.0
"""Seconds in which a client has connected again after its first failure, if the server asks for no more."""


@dataclass
class Room:
    """A room as the scripted server has it; `next` is the seq of its next message."""

    name: str
    ref: int
    epoch: int
    next: int

    def message(self, payload: bytes = b"x", **values: Any) -> Message:
        """The room's next message."""
        self.next += 1
        return self.again(self.next - 1, payload, **values)

    def again(self, seq: int, payload: bytes = b"x", **values: Any) -> Message:
        """A message with a seq of its own."""
        values = {"sender": 77, "id": os.urandom(16), "ctype": 1, "name": "bob", **values}
        return Message(seq, NOW_MS + seq % 10**6, payload=payload, room=self.ref, **values)


class Context:
    """One case under way. Its client, server and connections end with it."""

    def __init__(self, launch: Launch, options: Options, gate: asyncio.Semaphore | None = None) -> None:
        self.options = options
        self.log = WireLog()
        self.server = Listener(self.log, options.timeout)
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
        """The last commands and reports."""
        return tuple(self._client.said[-12:]) if self._client else ()

    @property
    def stderr(self) -> str:
        """The end of what the client wrote to its standard error."""
        return self._client.program.stderr if self._client else ""

    async def start(self) -> None:
        """Launches the client and waits until it is ready. Raises Unreachable or Unstartable."""
        if self.options.tls:
            self.server.tls = authority().server()
        await self.server.start()
        # Programs that start are busy: a few at a time, so that those under way keep their times.
        async with self._gate:
            program = await self._launch(self.server.host, self.server.port)
            self._client = ClientTarget(program, self.options.timeout, self.log)
            await self._client.start(self.options.ready)

    async def begin(self) -> None:
        """As `start`, for a case: a client that does not start any more has crashed."""
        try:
            await self.start()
        except (Unreachable, Unstartable) as reason:
            raise Crashed(str(reason)) from None

    async def close(self) -> None:
        """Ends everything that the case began."""
        if self._client:
            await self._client.stop()
        await self.server.close()

    def finish(self) -> None:
        """Raises Failed for what a client did wrong unasked."""
        for wire in self.server.connections:
            if wire.breaches:
                raise wire.breaches[0]

    # Connections.

    async def secure(self, tls: ssl.SSLContext) -> None:
        """Listens with TLS from now on; the client is told to trust `tls.authority`."""
        await self.server.stop_listening()
        self.server.tls = tls
        await self.server.start()

    def connect(self, name: str = "ada", **login: str) -> None:
        """Tells the client to connect; `login` may be the `password` of an account."""
        if self.server.tls:
            login["ca"] = str(authority().ca)
        self._connect = self.client.tell("connect", name=name, **login)

    async def accept(self, requirement: str = "", within: float = 0.0) -> RawServer:
        """The client's next connection, on which nothing was sent yet. With reconnecting, after the usual time."""
        return await self.server.accept(within or self.options.timeout, requirement)

    async def dialled(self, name: str = "ada", **login: str) -> RawServer:
        """The client's first connection, with its preface."""
        self.connect(name, **login)
        async with self.control("connecting"):
            wire = await self.accept()
            await wire.expect_preface()
        return wire

    async def greeted(self, name: str = "ada", **login: str) -> tuple[RawServer, Hello]:
        """A connection on which the prefaces and HELLO were exchanged, and no WELCOME yet."""
        wire = await self.dialled(name, **login)
        return wire, await self.hello(wire)

    async def hello(self, wire: RawServer) -> Hello:
        """The server's preface, and the client's HELLO."""
        async with self.control("the preface and HELLO"):
            await wire.expect_preface()
            wire.send_preface()
            return await wire.expect(Hello, "RW-HELLO-1")

    async def waiting(self, name: str = "ada") -> tuple[RawServer, Hello]:
        """As `greeted`, with a client that was seen to wait for its WELCOME and to go on past what it may ignore."""
        wire, hello = await self.greeted(name)
        wire.send(Unknown(0x8021, b"to be ignored"))
        await self.alive()
        if wire.invariants.goaway or wire.ended:
            raise Inconclusive(f"the client does not wait for WELCOME: {wire.last_words()}")
        return wire, hello

    def welcome(self, hello: Hello, **limits: Any) -> Welcome:
        """The WELCOME to a HELLO, with the extension `history` where it was asked for."""
        fields: tuple[Field, ...] = (extension("history"),) if "history" in extensions(hello) else ()
        values = {"name": hello.name, "fields": fields, **limits}
        return replace(WELCOME, request=hello.request, **values)

    async def opened(self, wire: RawServer, **limits: Any) -> Hello:
        """Goes through the handshake on a connection, until the client reports that it is connected."""
        hello = await self.hello(wire)
        wire.send(self.welcome(hello, **limits))
        async with self.control("WELCOME"):
            await self.report("connected")
        return hello

    async def open(self, name: str = "ada", **limits: Any) -> RawServer:
        """The client's first connection, open; `limits` are fields of WELCOME."""
        wire = await self.dialled(name)
        await self.opened(wire, **limits)
        return wire

    async def reopened(self, within: float = 0.0, **limits: Any) -> RawServer:
        """The client comes back by itself, and is welcomed."""
        async with self.control("connecting again"):
            wire = await self.accept(within=within or self.options.timeout + RECONNECTS_WITHIN)
        await self.opened(wire, **limits)
        return wire

    # Rooms.

    def room(self, name: str = "lobby", next: int = 1, epoch: int = 7) -> Room:
        """A room with a ref that no other has."""
        self._ref += 1
        return Room(name, self._ref, epoch, next)

    def joined(self, room: Room, join: Join, *, flags: int = 0, head: int | None = None, oldest: int = 1) -> Joined:
        """The JOINED to a JOIN: the stream begins with the room's next message."""
        head = room.next - 1 if head is None else head
        return Joined(
            room.epoch, head, room.next, oldest, 1, room.name, flags=flags, request=join.request, room=room.ref
        )

    async def join(self, wire: RawServer, room: Room, **values: Any) -> Join:
        """Tells the client to join, and lets it in."""
        id = self.client.tell("join", room=room.name, **values)
        async with self.control(f"joining {room.name}"):
            join = await wire.expect(Join, "", lambda join: join.name == room.name)
            wire.send(self.joined(room, join))
            await self.report("joined", lambda report: report.get("id") == id)
        return join

    async def rejoin(self, wire: RawServer, room: Room, **values: Any) -> Join:
        """Lets the client in, which joins by itself."""
        async with self.control(f"joining {room.name} again"):
            join = await wire.expect(Join, "", lambda join: join.name == room.name)
            wire.send(self.joined(room, join, **values))
            await self.report("joined")
        return join

    async def member(self, next: int = 1, **limits: Any) -> tuple[RawServer, Room]:
        """A fresh connection that is in a room, whose next message has the seq `next`."""
        wire = await self.open(**limits)
        room = self.room(next=next)
        await self.join(wire, room)
        return wire, room

    def publish(self, room: Room, payload: bytes = b"x") -> int:
        """Tells the client to publish; the command's id."""
        return self.client.tell("publish", room=room.name, payload=payload.hex(), ctype=1)

    async def published(self, wire: RawServer, room: Room, payload: bytes = b"x") -> Publish:
        """Tells the client to publish, and acknowledges it."""
        id = self.publish(room, payload)
        async with self.control("PUBLISH and ACK"):
            publish = await wire.expect(Publish, "", lambda frame: frame.payload == payload)
            wire.send(self.ack(room, publish))
            await self.report("published", lambda report: report.get("id") == id)
        return publish

    def ack(self, room: Room, publish: Publish, *, flags: int = 0) -> Ack:
        """The ACK of a publish, which takes the room's next seq."""
        room.next += 1
        return Ack(room.next - 1, NOW_MS + room.next - 1, flags=flags, request=publish.request, room=publish.room)

    def echo(self, room: Room, publish: Publish, seq: int, **values: Any) -> Message:
        """The MESSAGE of a publish."""
        return room.again(seq, publish.payload, id=publish.id, ctype=publish.ctype, sender=WELCOME.member, **values)

    def refusal(self, request: Publish | Join, code: int, retry_ms: int = 0, **values: Any) -> Error:
        """An ERROR to a request, with RETRY where there is a time."""
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
        """The first report of an event that was not taken yet. Raises Failed."""

        def find() -> Report | None:
            return self.client.find(lambda report: report.get("event") == event and test(report))

        return await self.client.wait(find, event, requirement, within)

    async def answer(self, id: int, *events: str, requirement: str = "") -> Report:
        """The report that answers a command."""

        def find() -> Report | None:
            return self.client.find(lambda report: report.get("id") == id and report.get("event") in events)

        return await self.client.wait(find, f"{' or '.join(events)} with id {id}", requirement)

    async def marker(self, wire: RawServer, room: Room, requirement: str = "") -> list[Report]:
        """Sends one more message and waits until it is reported: all reports of the room's messages, that one last."""
        payload = os.urandom(8)
        wire.send(room.message(payload))
        await self.report("message", lambda report: report.get("payload") == payload.hex(), requirement)
        return self.messages(room)

    def messages(self, room: Room) -> list[Report]:
        """All reports of a room's messages up to now."""
        return [report for report in self.client.of("message") if report.get("room") == room.name]

    def seqs(self, room: Room) -> list[str]:
        """The seqs of all messages of a room that were reported."""
        return [str(report.get("seq")) for report in self.messages(room)]

    async def alive(self) -> None:
        """The client still answers commands."""
        id = self.client.tell("no-such-command")
        await self.client.wait(
            lambda: self.client.find(lambda report: report.get("id") == id and "unsupported" in report),
            "unsupported, to a command that does not exist",
        )

    @staticmethod
    async def idle(wire: RawServer, seconds: float) -> None:
        """Lets time pass, in which the client may do what it must not."""
        deadline = wire.now() + seconds
        while (left := deadline - wire.now()) > 0 and not wire.breaches:
            await asyncio.sleep(left)

    async def quiet(self, seconds: float, requirement: str, what: str) -> None:
        """The client does not connect for a while. Raises Failed."""
        try:
            await self.server.accept(seconds)
        except Failed:
            return
        raise Failed(what, "a connection", requirement)

    # Judging.

    def needs(self, *features: str) -> None:
        """Raises Unsupported unless the client says that it has these features."""
        missing = sorted(set(features) - self.client.features)
        if missing:
            raise Unsupported(f"the client does not name {', '.join(missing)} among its features")

    @contextlib.asynccontextmanager
    async def control(self, what: str) -> AsyncIterator[None]:
        """What happens inside leads up to the test: its failure leaves the case inconclusive."""
        try:
            yield
        except Failed as failure:
            if failure.passive or type(failure) is not Failed:
                raise
            raise Inconclusive(f"{what}: {failure}") from None

    def require(self, holds: bool, expected: str, got: object, requirement: str = "") -> None:
        """Raises Failed unless it holds."""
        if not holds:
            raise Failed(expected, str(got), requirement)
