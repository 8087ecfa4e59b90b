"""Plays a script at a client: the suite is its server and its application, and holds what it does against the promise.

The server is right, except for frames that say which rule they break. The client is judged by what it sends and by what
it reports, as CONTRACT.md has it. The steps are functions in modules by subject (`command_steps`, `room_steps`,
`connection_steps`), which the package imports.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from conformance.client.raw_server import Listener, RawServer
from conformance.client.target import ClientTarget, Launch, Report
from conformance.fuzz.client.model import NOW_MS, ClientRoom, Entry
from conformance.fuzz.client.steps import ClientStep
from conformance.fuzz.failure import Failure, Said, fail
from conformance.fuzz.stats import Stats
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.verdicts import Crashed, Failed
from conformance.wire import clock
from conformance.wire.log import WireLog
from conformance.wire.octets import encode
from conformance.wire.text import frame_line
from protocol.fields import extension, extensions
from protocol.frames import (
    Ack,
    Error,
    Field,
    Frame,
    Goaway,
    Hello,
    History,
    HistoryEnd,
    Join,
    Leave,
    Ok,
    Ping,
    Pong,
    Publish,
    Roster,
    RosterEntry,
    Unknown,
    Welcome,
)
from protocol.registry import GREASE, MAGIC, Code, Flag

MEMBER = 0x1122334455667788
NAME = "\u00c4da"
RETRY_MS = 40
HASTY_MS = 1_000
"""The heartbeat where a script waits for its end."""
_LATE = 0.01  # seconds that a clock may be off
_READY = 15.0  # seconds that a client may take until its first line
_READ_WITHIN = 1.0  # seconds in which a client sends what it can send


@dataclass
class Command:
    """What the client was told to do, until it has answered."""

    id: int
    op: str
    room: ClientRoom
    payload: bytes = b""
    ids: tuple[bytes, ...] = ()  # of its PUBLISH, as seen on the wire
    lost: bool = False  # it was under way when a connection ended
    unknown: bool = False  # a copy was never answered
    fails: bool = False  # it was refused for good
    waits_until: float = 0.0  # no copy may come before


Take: TypeAlias = Callable[["ClientPlayer", ClientStep], Awaitable[None]]
STEPS: dict[str, Take] = {}
"""What takes a step, by its name. A step that makes no sense at the moment is passed over."""

Handshake: TypeAlias = Callable[["ClientPlayer", RawServer, str], Awaitable[None]]
HANDSHAKES: dict[str, Handshake] = {}
"""What becomes of a connection that is never open, by name."""

AtHello: TypeAlias = Callable[["ClientPlayer", RawServer, Hello], Awaitable[None]]
AT_HELLO: dict[str, AtHello] = {}
"""What the server says between HELLO and WELCOME, by name."""


def step(name: str) -> Callable[[Take], Take]:
    """Registers a function that takes the steps of a name."""

    def register(take: Take) -> Take:
        STEPS[name] = take
        return take

    return register


class ClientPlayer:
    """One run of one script, with a client of its own. The same `seed` gives the same octets.

    `timeout` is how long an answer may take, in seconds. `gate` limits how many clients start at the same time.
    """

    def __init__(self, launch: Launch, seed: int, stats: Stats, timeout: float, gate: asyncio.Semaphore) -> None:
        self.random = Random(seed)
        self.stats = stats
        self.timeout = timeout
        self.log = WireLog()
        self.listener = Listener(self.log, timeout)
        self.at = -1
        self.last = False  # the step at hand is the script's last one
        self.over = False  # the client will not come back, or was told to quit

        self.rooms: dict[int, ClientRoom] = {}
        self.commands: dict[int, Command] = {}
        self.granted = NAME
        self.dedupe_ms = self.random.choice((600_000, 600_000, 600_000, 0))
        self.heartbeat_ms = 30_000
        self.texts = 0  # payloads that were made

        self.server: RawServer | None = None  # the connection that is open
        self.handshake = ""  # what becomes of the next connection
        self.may_end = False  # the client may end the connection
        self.failures = 0  # connections that were lost since one was open in good order
        self.said_goaway_at = 0.0
        self.pongs: set[bytes] = set()

        self.queue: deque[Frame] = deque()  # requests that are not answered yet
        self.held = False  # requests are not answered at the moment
        self.refusals: deque[Code] = deque()  # for the next PUBLISHes
        self.join_refusals: deque[Code] = deque()

        self._launch = launch
        self._gate = gate
        self._client: ClientTarget | None = None
        self._news = asyncio.Event()
        self._taken = 0  # frames of the open connection
        self._read = 0  # reports
        self._connections = 0
        self._connected = 0  # reports `connected` that have not come
        self._not_before = 0.0  # no connection may come before
        self._delay = 0.0
        self._repeats: dict[str, list[bytes]] = {}  # by room: ids that this connection has to bring first

    @property
    def client(self) -> ClientTarget:
        """The client under test."""
        assert self._client, "not begun"
        return self._client

    def has(self, *features: str) -> bool:
        """Whether the client names all these features in its first line."""
        return set(features) <= self.client.features

    def visit(self, state: str, event: str) -> None:
        """Counts a transition of the client."""
        self.stats.visit("client", state, event)

    # --- the script

    async def play(self, steps: Sequence[ClientStep]) -> Failure | None:
        """Takes all steps, then waits for all that is owed. Returns what went wrong, if anything did."""
        try:
            await self._begin(steps)
            for self.at, step in enumerate(steps):
                if self.over:
                    break
                self.stats.steps += 1
                self.last = self.at == len(steps) - 1
                await self.take(step)
            self.at = len(steps)
            if not self.over:
                self.held = False
                self.refusals.clear()
                await self.settle()
                await self.take(ClientStep("quit"))
        except Failed as failed:
            return self._failure(failed)
        except Crashed as crashed:
            stderr = self._client.program.stderr[-500:] if self._client else ""
            return self._failure(Failed("a client that goes on", f"{crashed}; {stderr}"))
        finally:
            if self._client:
                await self._client.stop()
            await self.listener.close()
        self.stats.scripts += 1
        return None

    def _failure(self, failed: Failed) -> Failure:
        said = [
            Said(entry.peer, entry.sender, entry.octets or entry.line.encode())
            for entry in self.log.entries
            if entry.octets or entry.line
        ]
        return Failure(failed.requirement, failed.expected, failed.got, self.at, tuple(said))

    async def _begin(self, steps: Sequence[ClientStep]) -> None:
        await self.listener.start()
        self.listener.news = self._news
        try:
            async with self._gate:  # programs that start are busy: a few at a time
                program = await self._launch(self.listener.host, self.listener.port)
                self._client = ClientTarget(program, self.timeout, self.log)
                self._client.news = self._news
                await self._client.start(_READY)
        except (Unreachable, Unstartable) as error:
            raise Crashed(f"{error}") from None
        self.heartbeat_ms = HASTY_MS if any(step.do == "silent" for step in steps) else 30_000
        if steps and steps[0].do == "handshake":
            self.handshake = steps[0].what
        self.client.tell("connect", name=NAME)
        await self.open()
        if not self.over:
            await self.settle()

    async def take(self, step: ClientStep) -> None:
        """Takes one step, and waits for what it must lead to. Raises Failed."""
        await STEPS[step.do](self, step)
        if not self.over:
            await self.settle()

    # --- connections

    async def open(self) -> None:
        """Accepts the client's connections until WELCOME is sent on one. Raises Failed."""
        while not self.over:
            server = await self._accept()
            how, self.handshake = self.handshake, ""
            if how in HANDSHAKES:
                await HANDSHAKES[how](self, server, how)
                continue
            reserved = self.random.choice((bytes(3), self.random.randbytes(3)))
            server.send_preface(MAGIC + b"\x01" + reserved)  # RW-PREFACE-7
            hello = await server.expect(Hello, "RW-HELLO-1")
            if hello.name != NAME:
                fail("RW-NAME-7", f"the name {NAME!r}, as it was told", frame_line(hello))
            self.visit("PREFACE", "preface")
            if how in AT_HELLO:
                await AT_HELLO[how](self, server, hello)
                if self.over:
                    return
            self._welcome(server, hello)
            return

    async def _accept(self) -> RawServer:
        """Accepts the client's next connection, and waits for its preface."""
        within = self._delay + 2.0**self.failures + self.timeout
        server = await self.listener.accept(within, "RW-RECONNECT-1" if self._connections else "")
        server.news = self._news
        if server.at < self._not_before - _LATE:
            fail("RW-RECONNECT-2", f"no connection for {self._delay:.2f} s", "one before")
        self._connections += 1
        self.stats.connections += 1
        self.visit("CONNECTING", "transport up")
        await server.expect_preface()
        return server

    def _welcome(self, server: RawServer, hello: Hello) -> None:
        fields: tuple[Field, ...] = (extension("history"),) if "history" in extensions(hello) else ()
        if self.random.random() < 0.3:
            fields = (*fields, Field(self.random.choice(GREASE), b"grease"))
        window = self.random.choice((1, 2, 8, 32))
        if self.random.random() < 0.3:
            fields = (*fields, Field(0x8003, (7).to_bytes(8, "big") + b"\x09somewhere"))
        self.granted = self.random.choice((hello.name, f"~{hello.name}"))
        welcome = Welcome(
            member=MEMBER, name=self.granted, now_ms=NOW_MS, max_body=65_536, heartbeat_ms=self.heartbeat_ms,
            dedupe_ms=self.dedupe_ms, window=window, max_rooms=256, auth=b"", fields=fields, request=hello.request,
        )  # fmt: skip
        server.send(welcome)
        self.visit("HELLO_SENT", "WELCOME")
        self.stats.sent += 1
        self.server, self._taken, self.may_end, self.held = server, len(server.received), False, False
        self._connected += 1
        self._not_before = self._delay = 0.0
        self._repeats = {}
        for room in self.rooms.values() if self.dedupe_ms else ():
            lost = [c.ids[-1] for c in self.publishes(room) if c.ids and c.lost and not c.fails]
            self._repeats[room.name] = lost

    def say_goaway(self, server: RawServer, code: Code) -> None:
        """Sends GOAWAY."""
        flags, retry = (Flag.RETRY, RETRY_MS) if code.retry else (0, 0)
        self.stats.codes["G", code] += 1
        self.stats.sent += 1
        self.said_goaway_at = clock.now()
        server.send(Goaway(code, retry, 0, "the end", flags=flags))

    async def expect_goaway_none(self, server: RawServer) -> None:
        """Waits for GOAWAY(NONE) and the end of the connection (RW-CLOSE-4). Raises Failed."""
        await server.expect_end("RW-CLOSE-4")
        goaway = server.observer.goaway
        if goaway is None or goaway.code != Code.NONE:
            fail("RW-CLOSE-4", "GOAWAY(NONE) before the end", server.last_words())

    async def lost(
        self, server: RawServer, *, retry_ms: int = 0, final: bool = False, orderly: bool = False, abort: bool = False
    ) -> None:
        """Ends a connection on this side. With `final` the client must not come back by itself (RW-RECONNECT-4).

        `orderly`: its end is not counted as a failure, so the client may come back at once. With `retry_ms` it may come
        back no earlier than that after GOAWAY.
        """
        await server.close(abort=abort)
        self.server = None
        self.pongs.clear()
        for room in self.rooms.values():
            room.ref, room.refused = 0, False
        for command in self.commands.values():
            unanswered = self.is_queued(command) or (bool(command.ids) and not command.waits_until)
            command.lost = command.lost or bool(command.ids)
            command.unknown = command.unknown or unanswered
        self.queue.clear()
        self.failures += not orderly
        self._delay = retry_ms / 1000
        self._not_before = self.said_goaway_at + self._delay if retry_ms else 0.0
        self.refusals.clear()
        if final or not self.has("reconnect"):
            await self._stays_away(must=final)

    async def _stays_away(self, *, must: bool) -> None:
        """Waits for the report `closed`. With `must` no connection may follow."""
        self.over = True
        await self.until_closed("RW-RECONNECT-4")
        if must and len(self.listener.connections) > self._connections:
            fail("RW-RECONNECT-4", "no connection", "a connection")

    async def until_closed(self, requirement: str) -> None:
        """Waits for the client's report `closed`. Raises Failed."""
        await self.client.wait(
            lambda: self.client.find(lambda report: report.get("event") == "closed"), "closed", requirement
        )

    # --- waiting

    async def settle(self) -> None:
        """Waits until the client owes nothing, and has done all that it does by itself now. Raises Failed."""
        while not self.over:
            await self._until(self._owed)
            before = self._taken, self._read
            await self._fence()
            if (self._taken, self._read) == (before[0] + len(self.pongs), before[1]) or not self._owed():
                return

    async def _fence(self) -> None:
        """Sends a PING and an unknown command. Both are answered after all that came before them."""
        asked = self.client.tell("no-such-command")
        opaque = self.random.randbytes(8)
        if self.server and not self.may_end:
            self.pongs.add(opaque)
            self.say(Ping(opaque))

        def owed() -> str:
            if not any(r.get("id") == asked for r in self.client.reports[-200:] if "unsupported" in r):
                return " an answer to a command"
            return "RW-PING-1 a PONG" if opaque in self.pongs else ""

        await self._until(owed)

    async def _until(self, owed: Callable[[], str]) -> None:
        """Waits until `owed()` is "": it returns a requirement and what is owed. Raises Failed after `timeout`."""
        deadline = clock.now() + self.timeout
        while True:
            self.absorb()
            missing = owed()
            if not missing:
                return
            if deadline <= clock.now():
                requirement, _, expected = missing.partition(" ")
                words = self.server.last_words() if self.server else "no connection"
                fail(requirement, expected, f"nothing within {self.timeout:g} s, {words}")
            await self.wait_until(deadline)

    async def wait_until(self, deadline: float) -> None:
        """Waits until something may have come from the client, or until the deadline."""
        self._news.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), deadline - clock.now())

    async def until_read(self) -> None:
        """Waits a while until all that was to be published has come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self.timeout, _READ_WITHIN)):
                while self.server and not all(command.ids for command in self.publishes()):
                    self._news.clear()
                    self.absorb()
                    if not all(command.ids for command in self.publishes()):
                        await self._news.wait()

    def absorb(self) -> None:
        """Reads what the client has sent and reported, and answers it. Raises Failed."""
        client, server = self.client, self.server
        self.absorb_reports()
        if server is not None:
            while self._taken < len(server.received):
                self._taken += 1
                self._heard(server.received[self._taken - 1].frame)
            server.raise_breach()
            if server.ended and not self.may_end:
                fail("RW-CLOSE-4", "a connection that goes on", server.last_words())
            while self.queue and not self.held:
                self._answer(self.queue.popleft())
        if client.broken:
            raise client.broken
        if client.ended and not self.over:
            raise Crashed(f"the client {client.program.died or 'closed its output'}")

    def absorb_reports(self) -> None:
        """Reads what the client has reported. Raises Failed."""
        while self._read < len(self.client.reports):
            self._read += 1
            self._reported(self.client.reports[self._read - 1])

    @property
    def has_heard(self) -> bool:
        """Whether a frame has come on the open connection."""
        return self._taken > 0

    def _owed(self) -> str:
        """What the client owes at the moment, with the requirement in front, or ""."""
        if self.server is None:
            return ""
        if self._connected:
            return "RW-WELCOME-6 `connected`"
        for room in self.rooms.values():
            if owed := self._owed_in(room):
                return owed
        for command in self.commands.values() if self.held else ():
            entry = command.room.ids.get(command.ids[-1]) if command.ids else None
            if entry and command.room.ref and entry.seq <= command.room.sent:
                return f"RW-RECOVER-2 `published` of message {entry.seq} in {command.room.name!r}, which came"
        for command in self.commands.values() if not self.held else ():
            if not command.lost or self.has("repeat"):
                rule = "RW-ORDER-3" if command.lost else "RW-REQUEST-7"
                return f"{rule} an answer to {command.op} {command.id} in {command.room.name!r}"
        return ""

    def _owed_in(self, room: ClientRoom) -> str:
        if room.owed:
            return room.owed
        if room.wanted and not room.ref and not self.held and self.has("rejoin"):
            return f"RW-RECOVER-1 JOIN of {room.name!r}"
        if not (self.has("presence") and room.ref and room.roster):
            return ""
        if room.quiet:
            return f"RW-QUIET-3 no roster of {room.name!r}, which is quiet, not {room.shown}" if room.shown else ""
        people = {str(member): name for member, name in room.people.items()}
        return f"RW-ROSTER-5 a roster {people} of {room.name!r}, not {room.shown}" if room.shown != people else ""

    # --- what the client sends

    def publishes(self, room: ClientRoom | None = None) -> list[Command]:
        """The publishes that the client has not answered, of all rooms or one."""
        return [c for c in self.commands.values() if c.op == "publish" and room in (None, c.room)]

    def is_queued(self, command: Command) -> bool:
        """Whether a PUBLISH of this command has come and is not answered."""
        return any(isinstance(frame, Publish) and frame.payload == command.payload for frame in self.queue)

    def _heard(self, frame: Frame | Unknown) -> None:
        self.stats.received += 1
        match frame:
            case Pong():
                self.pongs.discard(frame.opaque)
            case Goaway():
                self.stats.codes["G", frame.code] += 1
                if not self.may_end:
                    fail("RW-CHECK-3", "a client that goes on", frame_line(frame))
            case Publish():
                self._heard_publish(frame)
                self.queue.append(frame)
            case Join() | Leave() | History():
                self.queue.append(frame)

    def _heard_publish(self, publish: Publish) -> None:
        """Compares a PUBLISH with the command that it stems from. Raises Failed."""
        room = self._room_of(publish)
        command = next((c for c in self.publishes(room) if c.payload == publish.payload), None)
        if command is None:
            entry = room.ids.get(publish.id)
            if entry is None or entry.payload != publish.payload:
                fail("RW-PROMISE-5", "only what was to be published, and is not answered", frame_line(publish))
            return
        if command.ids and publish.id not in command.ids:
            fail("RW-PROMISE-5", f"the id {command.ids[0].hex()} again", frame_line(publish))
        if clock.now() < command.waits_until - _LATE:
            fail("RW-ERROR-2", f"no repeat for {RETRY_MS} ms", frame_line(publish))
        if command.lost and command.unknown and not self.dedupe_ms:
            fail("RW-DEDUPE-7", "no repeat of a publish whose outcome is unknown", frame_line(publish))
        first = self._repeats.get(room.name, [])
        if publish.id in first:
            if first[0] != publish.id and not _has_come(room, first[0]):
                fail("RW-ORDER-3", f"the repeat of {first[0].hex()} first", frame_line(publish))
            del first[: first.index(publish.id) + 1]
        elif not command.ids and any(not _has_come(room, id) for id in first):
            fail("RW-ORDER-3", f"the repeats of {[id.hex() for id in first]} first", frame_line(publish))
        command.ids = (publish.id,)

    def _room_of(self, frame: Publish | Leave | History) -> ClientRoom:
        for room in self.rooms.values():
            if room.ref == frame.room:
                return room
        return fail("RW-MODEL-8", "the ref of a room that it is in", frame_line(frame))

    # --- what the server says

    def say(self, *frames: Frame | Unknown, cut: int = 0) -> None:
        """Sends frames, in `cut` pieces if it is above 1."""
        assert self.server
        self.stats.sent += len(frames)
        self.stats.octets += 1
        if cut > 1 and frames:
            octets = b"".join(map(encode, frames))
            size = max(1, -(-len(octets) // cut))
            self.server.note_valid(octets)
            for at in range(0, len(octets), size):
                self.server.write(octets[at : at + size])
            return
        self.server.send(*frames)
        if not self.may_end:
            self.visit("OPEN", "frame")

    def _answer(self, request: Frame) -> None:
        match request:
            case Join():
                self._answer_join(request)
            case Publish():
                self.answer_publish(request)
            case Leave():
                room = self._room_of(request)
                room.ref = 0
                self.stats.visit("membership", "LEAVING", "OK")
                self.say(Ok(request=request.request, room=request.room))
            case History():
                self._answer_history(request)

    def _answer_history(self, history: History) -> None:
        room = self._room_of(history)
        low = min(max(history.start, room.oldest), room.head + 1)
        high = max(low, min(history.end or room.head + 1, room.head + 1))
        entries = [e for e in room.log if low <= e.seq < high][: history.limit or 100]
        entries = [e for e in entries if not e.ignorable]
        end = entries[-1].seq + 1 if entries else low
        flags = Flag.MORE if end != high else 0
        last = HistoryEnd(low, end, room.oldest, flags=flags, request=history.request, room=room.ref)
        self.say(*(e.frame(room.ref, history.request) for e in entries), last)

    def _error(self, request: Frame, code: Code) -> None:
        flags, retry = (Flag.RETRY, RETRY_MS) if code.retry else (0, 0)
        self.stats.codes["E", code] += 1
        self.say(Error(code, retry, "no", flags=flags, request=request.request, room=request.room))

    def _answer_join(self, join: Join) -> None:
        room = next((r for r in self.rooms.values() if r.name == join.name), None)
        if room is None or not room.wanted or room.ref:
            fail("RW-LAG-5", "no JOIN that the application did not ask for", frame_line(join))
        if self.join_refusals:
            code = self.join_refusals.popleft()
            self._error(join, code)
            self.stats.visit("membership", "JOINING", "ERROR")
            if not code.retry:
                room.wanted = False
                for command in list(self.commands.values()):
                    command.fails = command.fails or command.room is room
            return
        ref = 5 + 40 * self._connections + [*self.rooms.values()].index(room)
        room.people = {MEMBER: self.granted, **{m: n for m, n in room.people.items() if m != MEMBER}}
        joined = room.answer(join, ref)
        self.stats.visit("membership", "JOINING", "JOINED")
        self.say(joined)
        if room.roster and not room.quiet:
            self.send_roster(room)
        self.stream(room)

    def send_roster(self, room: ClientRoom) -> None:
        """Sends the roster of a room in one frame or two."""
        entries = [RosterEntry(member, 0, name) for member, name in room.people.items()]
        at = self.random.randrange(len(entries))
        if at:
            self.say(Roster(tuple(entries[:at]), flags=Flag.RESET | Flag.MORE, room=room.ref))
            self.say(Roster(tuple(entries[at:]), room=room.ref))
        else:
            self.say(Roster(tuple(entries), flags=Flag.RESET, room=room.ref))

    def stream(self, room: ClientRoom, cut: int = 0) -> None:
        """Sends what the stream of a room owes the client."""
        if not room.ref or self.server is None:
            return
        frames = [entry.frame(room.ref) for entry in room.log if entry.seq > room.sent]
        if frames:
            self.say(*frames, cut=cut)
            self.stats.visit("membership", "IN", "stream frame")
        room.sent = room.head
        room.reached[room.epoch] = max(room.reached.get(room.epoch, 0), room.head)

    def answer_publish(self, publish: Publish, *, silently: bool = False) -> None:
        """Carries a PUBLISH out, or refuses it. With `silently` it is carried out and gets no reply. Raises Failed."""
        room = self._room_of(publish)
        entry = room.ids.get(publish.id)
        code = Code.NONE if silently or entry else self._refusal(room, publish)
        room.refused = code != Code.NONE
        if code:
            self._refuse(publish, room, code)
            return
        flags = Flag.DUPLICATE if entry else 0
        if entry is None:
            if any(e.payload == publish.payload and e.sender == MEMBER for e in room.log):
                fail("RW-PROMISE-5", "no second message", frame_line(publish))
            entry = room.append(publish.id, MEMBER, publish.ctype, publish.payload)
            self._expect_order(room, entry)
        if silently:
            return
        self.say(Ack(entry.seq, NOW_MS + entry.seq, flags=flags, request=publish.request, room=room.ref))
        self.stream(room)

    def _refusal(self, room: ClientRoom, publish: Publish) -> Code:
        if self.refusals:
            return self.refusals.popleft()
        return Code.PRECEDED if room.refused and publish.flags & Flag.ORDERED else Code.NONE

    def _refuse(self, publish: Publish, room: ClientRoom, code: Code) -> None:
        self._error(publish, code)
        command = next((c for c in self.publishes(room) if publish.id in c.ids), None)
        if command is None:
            return
        command.unknown = False  # unless an earlier copy was lost
        if not code.retry:
            command.fails = True
        else:
            command.waits_until = clock.now() + (RETRY_MS / 1000 if code != Code.PRECEDED else 0)

    def _expect_order(self, room: ClientRoom, entry: Entry) -> None:
        """Judges that what a client that keeps order publishes is in the log in that order (RW-ORDER-2)."""
        if not self.has("ordered"):
            return
        behind = [int(e.payload.split()[1]) for e in room.log if e.sender == MEMBER and e.seq < entry.seq]
        mine = int(entry.payload.split()[1])
        if behind and max(behind) > mine:
            fail("RW-ORDER-2", f"message {mine} before message {max(behind)}", "the other order")

    # --- what the client reports

    def _reported(self, report: Report) -> None:
        event, id = report.get("event"), report.get("id")
        room = next((r for r in self.rooms.values() if r.name == report.get("room")), None)
        if event == "connected":
            self._connected -= 1
            if report.get("name") != self.granted or report.get("member") != str(MEMBER):
                fail("RW-WELCOME-6", f"the name and the number of WELCOME, {self.granted} and {MEMBER}", f"{report}")
            return
        if room is None:
            return
        command = self.commands.get(id) if isinstance(id, int) else None
        match event:
            case "joined":
                room.told_joined(report)
                self._done(command)
            case "message":
                room.told_message(report)
            case "gap":
                room.told_gap(report)
            case "presence":
                room.shown = {entry["member"]: entry["name"] for entry in report.get("roster", [])}
            case "left" | "history":
                self._done(command)
            case "published":
                self._published(room, command, report)
            case "error":
                self._error_reported(command, report)

    def _done(self, command: Command | None) -> None:
        if command:
            self.commands.pop(command.id, None)

    def _published(self, room: ClientRoom, command: Command | None, report: Report) -> None:
        if command is None:
            fail("RW-REQUEST-7", "each command answered once", f"{report}")
        entry = next((e for e in room.log if e.payload == command.payload), None)
        place = (str(room.epoch), str(entry.seq)) if entry else None
        if place is None and room.oldest == 1:
            fail("RW-REQUEST-7", "no `published` of what was not", f"{report}")
        if place and (report.get("epoch"), report.get("seq")) != place and report.get("epoch") == str(room.epoch):
            fail("RW-REQUEST-7", f"epoch and seq {place}", f"{report}")
        self._done(command)

    def _error_reported(self, command: Command | None, report: Report) -> None:
        if command is None:
            return
        if command.op == "join":
            command.room.wanted = False  # it has given up
        if command.op == "publish":
            if command.lost and command.unknown and report.get("unknown") is not True:
                fail("RW-PROMISE-6", "`unknown` of a publish of which a copy was not answered", f"{report}")
            if not (command.fails or command.lost or self.over or not command.room.wanted):
                fail("RW-ERROR-3", "an error only where it was refused for good", f"{report}")
            entry = next((e for e in command.room.log if e.payload == command.payload), None)
            if entry and command.room.wanted and not self.over and not command.fails:
                fail("RW-DEDUPE-8", f"`published`, as message {entry.seq} is there", f"{report}")
            if not command.lost and report.get("unknown") is True:
                fail("RW-PROMISE-6", "no `unknown` where each copy was refused", f"{report}")
        self._done(command)


def _has_come(room: ClientRoom, id: bytes) -> bool:
    """Whether the stream has brought the message with this id, so that it needs no repeat (RW-RECOVER-2)."""
    entry = room.ids.get(id)
    return entry is not None and entry.seq <= room.sent
