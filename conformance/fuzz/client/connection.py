"""The connections of a client under test, from its first octet to its last, and waiting for what it owes."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from conformance.client.raw_server import Listener, RawServer
from conformance.client.target import ClientTarget, Launch, Report
from conformance.fuzz.client.model import NOW_MS, ClientRoom
from conformance.fuzz.failure import fail
from conformance.fuzz.stats import Stats
from conformance.harness.verdicts import Crashed
from conformance.wire import clock
from conformance.wire.log import WireLog
from conformance.wire.octets import encode
from conformance.wire.text import frame_line
from protocol.fields import extension, extensions
from protocol.frames import Auth, Error, Field, Frame, Goaway, Hello, Ping, Presence, Publish, Unknown, Welcome
from protocol.registry import GREASE, MAGIC, Code, Flag

MEMBER = 0x1122334455667788
NAME = "\u00c4da"
RETRY_MS = 40
HASTY_MS = 1_000
"""The heartbeat where a script waits for its end."""
LATE = 0.01  # seconds that a clock may be off
_PREFACES = {
    "magic": (b"\xf5RX", "RW-PREFACE-5"),  # an octet of it differs: that is enough
    "version-0": (bytes.fromhex("F552575000000000"), "RW-PREFACE-4"),
    "version-9": (bytes.fromhex("F552575009000000"), "RW-PREFACE-3"),
    "close": (b"", ""),
}
_SHORT_WELCOME = bytes.fromhex("00000001 0002 0000 00000001 00000000 00")


@dataclass
class Command:
    """What the client was told to do, until it has answered."""

    id: int
    op: str
    room: ClientRoom
    payload: bytes = b""
    ids: tuple[bytes, ...] = ()  # of its PUBLISH, as seen on the wire
    lost: bool = False  # it was on its way when a connection ended
    unknown: bool = False  # some copy was never answered
    fails: bool = False  # it was refused for good
    waits_until: float = 0.0  # no copy may come before


class ClientLink(ABC):
    """One run of one script, with a client of its own. The same `seed` gives the same octets."""

    def __init__(self, launch: Launch, seed: int, stats: Stats, timeout: float, gate: asyncio.Semaphore) -> None:
        self.random = Random(seed)
        self.stats = stats
        self.timeout = timeout
        self.log = WireLog()
        self.server = Listener(self.log, timeout)
        self.rooms: dict[int, ClientRoom] = {}
        self.commands: dict[int, Command] = {}
        self.at = -1
        self.wire: RawServer | None = None
        self.granted = NAME
        self._dedupe_ms = self.random.choice((600_000, 600_000, 600_000, 0))
        self._heartbeat_ms = 30_000
        self.last = False  # the step at hand is the script's last one
        self.over = False  # the client will not come back, or was told to quit
        self._launch = launch
        self._gate = gate
        self._client: ClientTarget | None = None
        self._news = asyncio.Event()
        self._taken = self._read = self._connections = self._failures = 0
        self._queue: deque[Frame] = deque()
        self._held = False
        self._refusals: deque[Code] = deque()
        self._join_refusals: deque[Code] = deque()
        self._handshake = ""
        self._connected = 0  # reports that have not come
        self._not_before = 0.0
        self._delay = self._said_at = 0.0
        self._pongs: set[bytes] = set()
        self._asked = 0
        self._ends = False  # the connection at hand may end
        self._texts = 0
        self._repeats: dict[str, list[bytes]] = {}  # by room: ids that this connection has to bring first

    @property
    def client(self) -> ClientTarget:
        """The client under test."""
        assert self._client, "not begun"
        return self._client

    @property
    def _stderr(self) -> str:
        return self._client.program.stderr[-500:] if self._client else ""

    def _has(self, *features: str) -> bool:
        return set(features) <= self.client.features

    def _visit(self, state: str, event: str) -> None:
        self.stats.visit("client", state, event)

    async def _open(self) -> None:
        """The client's next connection, until WELCOME is sent."""
        while not self.over:
            within = self._delay + 2.0**self._failures + self.timeout
            wire = await self.server.accept(within, "RW-RECONNECT-1" if self._connections else "")
            wire.news = self._news
            if wire.at < self._not_before - LATE:
                fail("RW-RECONNECT-2", f"no connection for {self._delay:.2f} s", "one before")
            self._connections += 1
            self.stats.connections += 1
            self._visit("CONNECTING", "transport up")
            await wire.expect_preface()
            how, self._handshake = self._handshake, ""
            if how and await self._spoilt(wire, how):
                continue
            wire.send_preface(
                MAGIC + b"\x01" + self.random.choice((bytes(3), self.random.randbytes(3)))
            )  # RW-PREFACE-7
            hello = await wire.expect(Hello, "RW-HELLO-1")
            if hello.name != NAME:
                fail("RW-NAME-7", f"the name {NAME!r}, as it was told", frame_line(hello))
            self._visit("PREFACE", "preface")
            if how in ("auth", "grease"):
                await self._strange(wire, hello, how)
                if self.over:
                    return
            self._welcome(wire, hello)
            return

    def _welcome(self, wire: RawServer, hello: Hello) -> None:
        fields: tuple[Field, ...] = (extension("history"),) if "history" in extensions(hello) else ()
        if self.random.random() < 0.3:
            fields = (*fields, Field(self.random.choice(GREASE), b"grease"))
        window = self.random.choice((1, 2, 8, 32))
        if self.random.random() < 0.3:
            fields = (*fields, Field(0x8003, (7).to_bytes(8, "big") + b"\x09somewhere"))
        self.granted = self.random.choice((hello.name, f"~{hello.name}"))
        wire.send(
            Welcome(
                MEMBER,
                self.granted,
                NOW_MS,
                65_536,
                self._heartbeat_ms,
                self._dedupe_ms,
                window,
                256,
                b"",
                fields=fields,
                flags=0,
                request=hello.request,
            )
        )
        self._visit("HELLO_SENT", "WELCOME")
        self.stats.sent += 1
        self.wire, self._taken, self._ends, self._held = wire, len(wire.received), False, False
        self._connected += 1
        self._not_before = self._delay = 0.0
        self._repeats = (
            {}
            if not self._dedupe_ms
            else {
                room.name: [c.ids[-1] for c in self._publishes(room) if c.ids and c.lost and not c.fails]
                for room in self.rooms.values()
            }
        )

    async def _spoilt(self, wire: RawServer, how: str) -> bool:
        """A connection that comes to nothing; False if it is still to be opened."""
        if how in _PREFACES:
            await self._without_preface(wire, how)
            return True
        if how.startswith("quit"):
            await self._quits_early(wire, how)
            return True
        if how not in ("error-retry", "error-last", "goaway-retry", "early", "malformed", "half"):
            return False
        wire.send_preface()
        hello = await wire.expect(Hello, "RW-HELLO-1")
        self._visit("PREFACE", "preface")
        if how.startswith("error"):
            last = self.random.choice([Code.NAME_INVALID, Code.TLS_REQUIRED, Code.AUTH_FAILED])
            code = Code.SERVER_FULL if how == "error-retry" else last
            self._refused_hello(wire, hello, code)
            await wire.expect_end("RW-CLOSE-4")
            self._visit("HELLO_SENT", "ERROR")
            await self._lost(wire, retry_ms=RETRY_MS if code.retry else 0, final=not code.retry)
        elif how == "goaway-retry":
            self._say_goaway(wire, Code.SHUTDOWN)
            await self._answers_goaway(wire)
            self._visit("HELLO_SENT", "GOAWAY")
            await self._lost(wire, retry_ms=RETRY_MS, orderly=True)
        elif how == "half":
            welcome = Welcome(1, "ada", 1, 65536, 30_000, 0, 32, 9, b"", request=hello.request)
            wire.write(encode(welcome)[:30])
            self._visit("any", "end of stream")
            await self._lost(wire)
        else:
            rule = "RW-CHECK-3" if how == "early" else "RW-FRAME-7"
            octets = encode(Presence(1, 5, "x", room=9)) if how == "early" else _SHORT_WELCOME
            codes = (Code.UNEXPECTED,) if how == "early" else (Code.MALFORMED, Code.UNEXPECTED)
            wire.send_octets(octets, breaks=rule)
            self.stats.broken[rule] += 1
            await wire.expect_goaway(*codes, requirement=rule)
            self._visit("HELLO_SENT", "fatal error")
            await self._lost(wire)
        return True

    async def _quits_early(self, wire: RawServer, how: str) -> None:
        """The application ends it before it has begun."""
        if how == "quit-hello":
            wire.send_preface()
            await wire.expect(Hello, "RW-HELLO-1")
        self.over = True
        self.client.tell("quit")
        if how == "quit-hello":
            goaway = await wire.wait(lambda: wire.find(Goaway), "GOAWAY(NONE)", "RW-CLOSE-2")
            if goaway.code != Code.NONE:
                fail("RW-CLOSE-2", "GOAWAY(NONE)", frame_line(goaway))
            wire.send(Goaway(Code.NONE))
        await wire.expect_end("RW-CLOSE-5")
        self._visit("HELLO_SENT" if how == "quit-hello" else "PREFACE", "close")
        await wire.close()

    async def _without_preface(self, wire: RawServer, how: str) -> None:
        """A preface that a client must not take, or none."""
        octets, rule = _PREFACES[how]
        if octets:
            self.stats.broken[rule] += how != "version-0"
            wire.send_preface(octets, breaks=rule)
            await wire.expect_end("RW-PREFACE-5" if how == "magic" else "RW-PREFACE-8")
            self._visit("PREFACE", "wrong preface")
        else:
            self._visit("any", "end of stream")
        if wire.received:
            fail("RW-PREFACE-8", "nothing more from the client", frame_line(wire.received[0].frame))
        await self._lost(wire, final=how == "version-0")

    async def _strange(self, wire: RawServer, hello: Hello, how: str) -> None:
        """What a client has to bear while it waits for WELCOME, or may end the connection for."""
        if how == "grease":
            wire.send(Unknown(self.random.choice(GREASE), b"grease"), Unknown(0xFFFF, b""))
            return
        wire.send(Auth(b"what?", request=hello.request))
        self._visit("HELLO_SENT", "AUTH")
        goaway = await wire.wait(
            lambda: wire.find(Goaway) or wire.find(Auth), "AUTH, or GOAWAY(AUTH_FAILED)", "RW-AUTH-1"
        )
        if isinstance(goaway, Goaway):
            if goaway.code != Code.AUTH_FAILED:
                fail("RW-AUTH-1", "GOAWAY(AUTH_FAILED)", frame_line(goaway))
            self.stats.codes["G", goaway.code] += 1
            await self._lost(wire, final=True)

    def _refused_hello(self, wire: RawServer, hello: Hello, code: Code) -> None:
        flags, retry = (Flag.RETRY, RETRY_MS) if code.retry else (0, 0)
        self.stats.codes["E", code] += 1
        wire.send(Error(code, retry, "no", flags=flags, request=hello.request))
        self._say_goaway(wire, code)

    def _say_goaway(self, wire: RawServer, code: Code) -> None:
        flags, retry = (Flag.RETRY, RETRY_MS) if code.retry else (0, 0)
        self.stats.codes["G", code] += 1
        self.stats.sent += 1
        self._said_at = clock.now()
        wire.send(Goaway(code, retry, 0, "the end", flags=flags))

    async def _answers_goaway(self, wire: RawServer) -> None:
        """RW-CLOSE-4: GOAWAY(NONE), and the end."""
        await wire.expect_end("RW-CLOSE-4")
        goaway = wire.observer.goaway
        if goaway is None or goaway.code != Code.NONE:
            fail("RW-CLOSE-4", "GOAWAY(NONE) before the end", wire.last_words())

    async def _lost(
        self, wire: RawServer, *, code: Code | None = None, retry_ms: int = 0, final: bool = False,
        orderly: bool = False, abort: bool = False,
    ) -> None:  # fmt: skip
        """The connection is over; `final`: the client must not come back by itself (RW-RECONNECT-4)."""
        await wire.close(abort=abort)
        self.wire = None
        self._pongs.clear()
        for room in self.rooms.values():
            room.ref, room.refused = 0, False
        for command in self.commands.values():
            unanswered = any(isinstance(f, Publish) and f.payload == command.payload for f in self._queue)
            command.lost = command.lost or bool(command.ids)
            command.unknown = command.unknown or unanswered or (bool(command.ids) and not command.waits_until)
        self._queue.clear()
        self._failures += not orderly
        self._delay = retry_ms / 1000
        self._not_before = self._said_at + self._delay if retry_ms else 0.0
        self._refusals.clear()
        if final or not self._has("reconnect"):
            await self._stays_away(must=final)

    async def _stays_away(self, *, must: bool) -> None:
        """`closed` is reported, and nobody connects."""
        self.over = True
        await self.client.wait(
            lambda: self.client.find(lambda report: report.get("event") == "closed"), "closed", "RW-RECONNECT-4"
        )
        if must and len(self.server.connections) > self._connections:
            fail("RW-RECONNECT-4", "no connection", "a connection")

    async def settle(self) -> None:
        """Waits until nothing is owed, and the client has done all that it does by itself now. Raises Failed."""
        while not self.over:
            await self._until(self._owed)
            before = self._taken, self._read
            await self._fence()
            if (self._taken, self._read) == (before[0] + len(self._pongs), before[1]) or not self._owed():
                return

    async def _fence(self) -> None:
        """A PING, and a command that nobody knows: both are answered when all before them is dealt with."""
        asked = self.client.tell("no-such-command")
        opaque = self.random.randbytes(8)
        if self.wire and not self._ends:
            self._pongs.add(opaque)
            self._say(Ping(opaque))

        def owed() -> str:
            if not any(r.get("id") == asked for r in self.client.reports[-200:] if "unsupported" in r):
                return " an answer to a command"
            return "RW-PING-1 a PONG" if opaque in self._pongs else ""

        await self._until(owed)

    async def _until(self, owed: Callable[[], str]) -> None:
        """Waits until nothing is owed; what is has its requirement in front. Raises Failed if it takes too long."""
        deadline = clock.now() + self.timeout
        while True:
            self.absorb()
            missing = owed()
            if not missing:
                return
            left = deadline - clock.now()
            if left <= 0:
                requirement, _, expected = missing.partition(" ")
                words = self.wire.last_words() if self.wire else "no connection"
                fail(requirement, expected, f"nothing within {self.timeout:g} s, {words}")
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    def absorb(self) -> None:
        """Takes in what the client has said on the wire and reported, and answers it. Raises Failed."""
        client, wire = self.client, self.wire
        while self._read < len(client.reports):
            self._read += 1
            self._reported(client.reports[self._read - 1])
        if wire is not None:
            while self._taken < len(wire.received):
                self._taken += 1
                self._heard(wire.received[self._taken - 1].frame)
            wire.raise_breach()
            if wire.ended and not self._ends:
                fail("RW-CLOSE-4", "a connection that goes on", wire.last_words())
            while self._queue and not self._held:
                self._answer(self._queue.popleft())
        if client.broken:
            raise client.broken
        if client.ended and not self.over:
            raise Crashed(f"the client {client.program.died or 'closed its output'}")

    def _owed(self) -> str:
        if self.wire is None:
            return ""
        if self._connected:
            return "RW-WELCOME-6 `connected`"
        for room in self.rooms.values():
            if room.owed:
                return room.owed
            if room.wanted and not room.ref and not self._held and self._has("rejoin"):
                return f"RW-RECOVER-1 JOIN of {room.name!r}"
            if self._has("presence") and room.ref and room.roster and room.quiet and room.shown:
                return f"RW-QUIET-3 no roster of {room.name!r}, which is quiet, not {room.shown}"
            if self._has("presence") and room.ref and room.roster and not room.quiet:
                people = {str(member): name for member, name in room.people.items()}
                if room.shown != people:
                    return f"RW-ROSTER-5 a roster {people} of {room.name!r}, not {room.shown}"
        for command in self.commands.values() if self._held else ():
            entry = command.room.ids.get(command.ids[-1]) if command.ids else None
            if entry and command.room.ref and entry.seq <= command.room.sent:
                return f"RW-RECOVER-2 `published` of message {entry.seq} in {command.room.name!r}, which came"
        if not self._held:
            for command in self.commands.values():
                if not command.lost or self._has("repeat"):
                    rule = "RW-ORDER-3" if command.lost else "RW-REQUEST-7"
                    return f"{rule} an answer to {command.op} {command.id} in {command.room.name!r}"
        return ""

    def _say(self, *frames: Frame | Unknown, cut: int = 0) -> None:
        assert self.wire
        self.stats.sent += len(frames)
        self.stats.octets += 1
        if cut > 1 and frames:
            octets = b"".join(map(encode, frames))
            size = max(1, -(-len(octets) // cut))
            self.wire.note_valid(octets)
            for at in range(0, len(octets), size):
                self.wire.write(octets[at : at + size])
            return
        self.wire.send(*frames)
        if not self._ends:
            self._visit("OPEN", "frame")

    # --- what the server makes of it: `client_serving.Serving`

    @abstractmethod
    def _heard(self, frame: Frame | Unknown) -> None: ...

    @abstractmethod
    def _answer(self, request: Frame) -> None: ...

    @abstractmethod
    def _reported(self, report: Report) -> None: ...

    @abstractmethod
    def _publishes(self, room: ClientRoom) -> list[Command]: ...
