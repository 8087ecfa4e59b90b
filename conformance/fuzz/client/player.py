"""Plays a script at a client: the suite is its server and its application, and holds what it does against the promise.

The server is right, but for the frames that say which rule they break. The client is judged by what it puts on the
wire and by what it reports, as CONTRACT.md has it.
"""

import asyncio
import contextlib
from collections.abc import Sequence

from conformance.client.raw_server import RawServer
from conformance.client.target import ClientTarget
from conformance.fuzz.client.broken_frames import BROKEN, ClientBench
from conformance.fuzz.client.connection import HASTY_MS, MEMBER, NAME, RETRY_MS, Command
from conformance.fuzz.client.model import NOW_MS, ClientRoom
from conformance.fuzz.client.serving import Serving
from conformance.fuzz.client.steps import JOIN_REFUSALS, ClientStep
from conformance.fuzz.failure import Failure, Said, fail
from conformance.harness.process import Unreachable, Unstartable
from conformance.harness.verdicts import Crashed, Failed
from conformance.wire import clock
from conformance.wire.octets import encode
from conformance.wire.text import code_name
from protocol.fields import extensions
from protocol.frames import Ack, Evicted, Field, Goaway, Message, Ping, Pong, Presence, Publish, Unknown
from protocol.registry import GREASE, Code, Flag, PresenceKind

_READ_WITHIN = 1.0  # seconds in which a client says what it can say
_READY = 15.0  # seconds that a client may take until its first line


class ClientPlayer(Serving):
    """Takes the steps of `client_steps`."""

    async def play(self, steps: Sequence[ClientStep]) -> Failure | None:
        """Takes all steps, then waits for all that is owed. Gives back what went wrong, if anything did."""
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
                self._held = False
                self._refusals.clear()
                await self.settle()
                await self._quit("")
        except Failed as failed:
            return self._failure(failed)
        except Crashed as crashed:
            words = Failed("a client that goes on", f"{crashed}; {self._stderr}")
            return self._failure(words)
        finally:
            await self._close()
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
        await self.server.start()
        self.server.news = self._news
        try:
            async with self._gate:  # programs that start are busy: a few at a time
                program = await self._launch(self.server.host, self.server.port)
                self._client = ClientTarget(program, self.timeout, self.log)
                self._client.news = self._news
                await self._client.start(_READY)
        except (Unreachable, Unstartable) as error:
            raise Crashed(f"{error}") from None
        self._heartbeat_ms = HASTY_MS if any(step.do == "silent" for step in steps) else 30_000
        if steps and steps[0].do == "handshake":
            self._handshake = steps[0].what
        self._asked = self.client.tell("connect", name=NAME)
        await self._open()
        if not self.over:
            await self.settle()

    async def _close(self) -> None:
        if self._client:
            await self._client.stop()
        await self.server.close()

    async def take(self, step: ClientStep) -> None:
        """Takes one step, and waits for what it must lead to. Raises Failed."""
        room = self.rooms.get(step.room)
        if step.do in ("join", "publish", "leave", "history"):
            self._command(step, room)
        elif step.do in ("hold", "unhold", "refuse", "handshake"):
            self._set(step)
        elif step.do in ("drop", "goaway", "drain", "break", "silent"):
            await self._end(step, room)
        elif step.do == "quit":
            await self._quit(step.what)
        elif step.do == "ping":
            self._pongs.add(opaque := self.random.randbytes(8))
            self._say(Pong(self.random.randbytes(8)), Ping(opaque))
        elif room is not None and room.ref:
            getattr(self, f"_{step.do}")(step, room)
        if not self.over:
            await self.settle()

    def _command(self, step: ClientStep, room: ClientRoom | None) -> None:
        tell = self.client.tell
        if step.do == "join":
            if room is None:
                room = self.rooms[step.room] = ClientRoom(f"R\u00f6om {step.room}", self.random.getrandbits(63) | 1)
                for _ in range(self.random.randrange(4)):
                    self._text(room)
            if room.wanted or any(c.room is room for c in self.commands.values()):
                return
            room.wanted, room.newest, room.view, room.gap = True, step.number, None, None
            room.shown, room.lagged = None, 0
            self._add(tell("join", room=room.name, newest=step.number), "join", room)
        elif room is None or not room.wanted:
            return
        elif step.do == "publish":
            for _ in range(step.number):
                self._texts += 1
                payload = f"mine {self._texts}".encode()
                if step.what == "large":
                    payload += bytes(70_000)
                id = tell("publish", room=room.name, payload=payload.hex(), ctype=self.random.choice((0, 1, 9)))
                self._add(id, "publish", room, payload)
                self.commands[id].fails = step.what == "large"  # RW-FRAME-3: it cannot be said
        elif step.do == "leave":
            busy = any(c.room is room for c in self.commands.values()) or self._held or not room.ref
            if not busy:
                room.wanted = False
                self._add(tell("leave", room=room.name), "leave", room)
        elif self._has("history") and room.ref and self.wire and "history" in extensions(self.wire.welcome):
            self._add(tell("history", room=room.name, start=str(step.number), end="0"), "history", room)

    def _add(self, id: int, op: str, room: ClientRoom, payload: bytes = b"") -> None:
        self.commands[id] = Command(id, op, room, payload)

    def _text(self, room: ClientRoom) -> None:
        self._texts += 1
        payload = f"theirs {self._texts}".encode() + self.random.choice((b"", b"", b"\xff\xfe", bytes(9_000)))
        room.append(self.random.randbytes(16), 77, self.random.choice((0, 1, 200)), payload)

    def _set(self, step: ClientStep) -> None:
        if step.do == "hold":
            if step.what == "refuse-joins":
                self._join_refusals.append(Code[self.random.choice(JOIN_REFUSALS[:4])])
            else:
                self._held = True
        elif step.do == "unhold":
            self._held = False
        elif step.do == "refuse":
            self._refusals += [Code[step.what]] * step.number
        else:
            self._handshake = step.what

    def _others(self, step: ClientStep, room: ClientRoom) -> None:
        for _ in range(step.number):
            self._text(room)
        self._stream(room, step.cut)

    def _old(self, step: ClientStep, room: ClientRoom) -> None:
        """What the client has is sent once more (RW-STREAM-1)."""
        entry = room.at(max(room.oldest, room.sent - step.number))
        if entry and entry.seq <= room.sent:
            self._say(entry.frame(room.ref), cut=step.cut)

    def _ignorable(self, step: ClientStep, room: ClientRoom) -> None:
        if step.what == "sequenced":
            room.append(b"", 0, 0, b"extension", ignorable=True)
            self._stream(room, step.cut)
        elif step.what == "fields":
            entry = room.append(self.random.randbytes(16), 77, 1, f"field {self._texts} {room.head}".encode())
            frame = entry.frame(room.ref)
            assert isinstance(frame, Message)
            flags = frame.flags | (0x0F40 if step.number > 1 else 0)
            fields = (Field(0xC123, b"relayed"), Field(self.random.choice(GREASE), b"grease"))
            self._say(
                Message(frame.seq, frame.time_ms, frame.sender, frame.id, frame.ctype, frame.name, frame.payload,
                        fields=fields, flags=flags, request=0, room=room.ref), cut=step.cut)  # fmt: skip
            room.sent = room.reached[room.epoch] = room.head
        else:
            flags = 0x0F00 if step.what == "flags" else 0
            self._say(Unknown(self.random.choice([*GREASE[:20], 0xF000]), b"what", flags, 0, room.ref), cut=step.cut)

    def _presence(self, step: ClientStep, room: ClientRoom) -> None:
        if room.quiet:
            return
        others = [member for member in room.people if member != MEMBER]
        kinds = {"joined": PresenceKind.JOINED, "left": PresenceKind.LEFT, "lost": PresenceKind.LOST}
        if step.what == "unknown":
            self._say(Presence(9, self.random.choice([5, *others]), "x", room=room.ref), cut=step.cut)
        elif step.what == "roster" and room.roster:  # RW-ROSTER-3: it repairs what was left out
            if others:
                del room.people[others[0]]
            room.people[self.random.getrandbits(60) | 1] = "somebody new"
            self._roster(room)
        elif step.what == "quiet":
            room.quiet = True
            self._say(Presence(PresenceKind.QUIET, 0, "", room=room.ref), cut=step.cut)
        elif step.what in kinds:
            member = self.random.choice(others) if others and step.what != "joined" else self.random.getrandbits(60) | 1
            name = f"somebody {member % 97}"
            if step.what == "joined":
                room.people[member] = name
            else:
                name = room.people.pop(member, name)
            self._say(Presence(kinds[step.what], member, name, room=room.ref), cut=step.cut)

    def _trim(self, step: ClientStep, room: ClientRoom) -> None:
        """Old messages go; with the next JOIN this may be a gap."""
        room.trim(step.number)

    def _reset(self, step: ClientStep, room: ClientRoom) -> None:
        self._evict(ClientStep("evict", step.room, "LOG_RESET"), room)

    def _evict(self, step: ClientStep, room: ClientRoom) -> None:
        code = Code[step.what]
        waiting = [frame for frame in self._queue if isinstance(frame, Publish) and frame.room == room.ref]
        if len(waiting) < len(self._queue) or (self._publishes(room) and not (waiting and code == Code.LAGGED)):
            return
        if len(self._publishes(room)) > len(waiting):
            return
        flags, retry = (Flag.RETRY, RETRY_MS) if code.retry else (0, 0)
        self.stats.codes["V", code] += 1
        self._say(Evicted(code, retry, "go", flags=flags, room=room.ref))
        self.stats.visit("membership", "IN", "EVICTED")
        self._queue.clear()
        for publish in waiting:  # they were read before the eviction, and are answered behind it (RW-REQUEST-7)
            entry = room.append(publish.id, MEMBER, publish.ctype, publish.payload)
            self._say(Ack(entry.seq, NOW_MS + entry.seq, request=publish.request, room=publish.room))
        room.ref = 0
        room.people = {}
        room.quiet = False
        room.wanted = code.retry and self._has("rejoin")
        if code == Code.LAGGED:
            room.lagged += 1
            for _ in range(step.number):
                self._text(room)
            room.trim(0 if step.number == 2 else 1)
        elif code == Code.LOG_RESET:
            room.begin_anew(self.random.getrandbits(63) | 1)

    async def _end(self, step: ClientStep, room: ClientRoom | None) -> None:
        wire = self.wire
        if wire is None or (self._failures >= 4 and step.do != "drain"):
            return
        self.absorb()
        if step.do == "drop":
            await self._drop(step, wire)
        elif step.do == "break":
            if not await self._break(step, wire, room):
                return
        elif step.do == "silent":
            await self._silent(wire)
        elif step.do == "drain" and step.what and any(room.wanted and room.ref for room in self.rooms.values()):
            await self._drain_held(step.what, wire)
        elif step.do == "drain" or step.what == "DRAINING":
            await self._drain(wire)
        else:
            code = Code[step.what]
            self._ends = True
            self._say_goaway(wire, code)
            await self._answers_goaway(wire)
            self._visit("OPEN", "GOAWAY")
            final = not code.retry and (code == Code.ABUSE or code // 100 in (2, 3))
            orderly = code in (Code.NONE, Code.SHUTDOWN)
            await self._lost(wire, retry_ms=RETRY_MS if code.retry else 0, final=final, orderly=orderly)
        if self.last and step.do == "break":
            self.over = True  # how a client comes back costs time, and other scripts see it
        if not self.over:
            await self._open()

    async def _drop(self, step: ClientStep, wire: RawServer) -> None:
        if step.what == "unanswered":
            for frame in self._queue:
                if isinstance(frame, Publish):
                    self._answer_publish(frame, silently=True)
        for room in self.rooms.values():
            if step.what == "half" and room.ref:
                self._text(room)
                octets = encode(room.log[-1].frame(room.ref))
                wire.write(octets[: self.random.randrange(1, len(octets))])
                break
        self._visit("any", "end of stream")
        await self._lost(wire, abort=step.what == "reset")

    async def _break(self, step: ClientStep, wire: RawServer, room: ClientRoom | None) -> bool:
        breakage = BROKEN.get(step.what)
        if breakage is None or (breakage.member and not (room and room.ref)):
            return False
        next = room.sent + 1 if room else 1
        bench = ClientBench(self.random, room.ref if room else 0, next, 0x7000_0000, 65_536)
        self._ends = True
        self.stats.broken[breakage.requirement] += 1
        wire.send_octets(breakage.make(bench), breaks=breakage.requirement)
        await wire.expect_goaway(*breakage.codes, requirement=breakage.requirement)
        for code in breakage.codes:
            self.stats.codes["G", code] += 1
        self._visit("OPEN", "fatal error")
        if self.last and step.number == 6:  # nothing is said: the linger time ends it
            await wire.expect_end("RW-CLOSE-5", 60.0)
            self._visit("CLOSING", "time-out")
        elif self.random.random() < 0.5:
            wire.send(Pong(bytes(8)))
            self._visit("CLOSING", "frame")
            wire.send(Goaway(Code.NONE))
            self._visit("CLOSING", "GOAWAY")
            await wire.expect_end("RW-CLOSE-5")
        await self._lost(wire)
        return True

    async def _silent(self, wire: RawServer) -> None:
        """RW-HEARTBEAT-2: nothing comes for 2 H."""
        wire.answers_pings = False
        self._ends = True
        goaway = await wire.wait(
            lambda: wire.find(Goaway), "GOAWAY(TIMEOUT)", "RW-HEARTBEAT-2", 2 * HASTY_MS / 1000 + self.timeout + 5
        )
        self.stats.codes["G", goaway.code] += 1
        if goaway.code != Code.TIMEOUT:
            fail("RW-HEARTBEAT-2", "GOAWAY(TIMEOUT)", f"GOAWAY({code_name(goaway.code)})")
        self._visit("OPEN", "time-out")
        await self._lost(wire)

    async def _drain_held(self, how: str, wire: RawServer) -> None:
        """While a client waits for a reply behind GOAWAY(DRAINING), something else ends the connection."""
        self._held = True
        number = next(number for number, room in self.rooms.items() if room.wanted and room.ref)
        self._command(ClientStep("publish", number), self.rooms[number])
        await self._until_read()
        self._say_goaway(wire, Code.DRAINING)
        self._visit("OPEN", "GOAWAY(DRAINING)")
        self._ends = True
        if how == "quit":
            await self._quit("")
            self._visit("DRAINING", "close")
        elif how == "goaway":
            self._say_goaway(wire, Code.SHUTDOWN)
            await self._answers_goaway(wire)
            self._visit("DRAINING", "GOAWAY")
            await self._lost(wire, retry_ms=RETRY_MS, orderly=True)
        else:
            breakage = BROKEN["unknown-critical"]
            self.stats.broken[breakage.requirement] += 1
            bench = ClientBench(self.random, 0, 1, 0x7000_0000, 65_536)
            wire.send_octets(breakage.make(bench), breaks=breakage.requirement)
            await wire.expect_goaway(*breakage.codes, requirement=breakage.requirement)
            self._visit("DRAINING", "fatal error")
            await self._lost(wire)

    async def _drain(self, wire: RawServer) -> None:
        """RW-DRAIN-4: the client waits for its replies, says GOAWAY(NONE), and is answered with SHUTDOWN."""
        self._held = False
        self._say_goaway(wire, Code.DRAINING)
        said_at = self._said_at
        self._visit("OPEN", "GOAWAY(DRAINING)")
        self._ends = True
        deadline = clock.now() + self.timeout
        while True:
            self.absorb()
            if self._taken and not self._queue:
                self._visit("DRAINING", "frame")
            if wire.observer.goaway or wire.ended:
                break
            left = deadline - clock.now()
            if left <= 0:
                fail("RW-DRAIN-4", "GOAWAY(NONE) when all is answered", "nothing")
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)
        self.absorb()
        goaway = wire.observer.goaway
        if goaway is None or goaway.code != Code.NONE:
            fail("RW-DRAIN-4", "GOAWAY(NONE)", wire.last_words())
        self._visit("DRAINING", "all replied")
        if not wire.ended:
            self._say_goaway(wire, Code.SHUTDOWN)
        await wire.expect_end("RW-CLOSE-4")
        self._said_at = said_at  # it need not have read SHUTDOWN
        await self._lost(wire, retry_ms=RETRY_MS, orderly=True)

    async def _quit(self, how: str) -> None:
        """The application ends it: GOAWAY(NONE), and `closed`."""
        wire = self.wire
        self._held = False
        if how == "held" and any(room.wanted for room in self.rooms.values()):
            self._held = True
            number = next(number for number, room in self.rooms.items() if room.wanted)
            self._command(ClientStep("publish", number), self.rooms[number])
        if self._held:
            await self._until_read()
        for command in self._publishes_all():
            command.lost = command.lost or bool(command.ids)
            command.unknown = command.unknown or any(
                isinstance(f, Publish) and f.payload == command.payload for f in self._queue
            )
        self.over = self._ends = True
        self.client.tell("quit")
        if wire is not None:
            goaway = await wire.wait(lambda: wire.find(Goaway), "GOAWAY(NONE)", "RW-CLOSE-2", self.timeout + 3)
            if goaway.code != Code.NONE:
                fail("RW-CLOSE-2", "GOAWAY(NONE)", f"GOAWAY({code_name(goaway.code)})")
            self._visit("OPEN", "close")
            wire.send(Goaway(Code.NONE))
            self._visit("CLOSING", "GOAWAY")
            await wire.expect_end("RW-CLOSE-5")
            await wire.close()
        await self.client.wait(lambda: self.client.find(lambda report: report.get("event") == "closed"), "closed", "")
        while self._read < len(self.client.reports):
            self._read += 1
            self._reported(self.client.reports[self._read - 1])

    def _publishes_all(self) -> list[Command]:
        return [command for command in self.commands.values() if command.op == "publish"]

    async def _until_read(self) -> None:
        """All that was to be published has come, and waits."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self.timeout, _READ_WITHIN)):
                while self.wire and not all(command.ids for command in self._publishes_all()):
                    self._news.clear()
                    self.absorb()
                    if not all(command.ids for command in self._publishes_all()):
                        await self._news.wait()
