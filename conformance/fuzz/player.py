"""Plays a script at a server: takes its steps, waits for what is due after each, and has everything judged.

Nothing here sleeps in order to wait: a PING fences the replies of a connection, and the streams of all members that
read are waited for up to the head that the model knows.
"""

from collections.abc import Sequence
from typing import cast

from conformance.fuzz.broken import BROKEN, HANDSHAKES, Bench, Breakage, header_promises
from conformance.fuzz.endpoint import Endpoint
from conformance.fuzz.octets import burst
from conformance.fuzz.refusals import Failure, refuse
from conformance.fuzz.requests import DROPPABLE, expect_error, normal
from conformance.fuzz.steps import Step
from conformance.fuzz.waiting import Waiting
from conformance.octets import CLIENT_PREFACE, HEADER, encode, read_header
from conformance.show import code_name, frame_line
from conformance.verdicts import Crashed, Failed
from protocol.frames import Error, Field, Frame, Goaway, Hello, Publish, Unknown, Welcome, extension, extensions
from protocol.frames import agent as agent_field
from protocol.registry import GREASE, MAGIC, Code, Flag, FrameType, PresenceKind

NAMES = ("ada", "Grace H\u00f6pper", "e\u0301douard", "\u6797", "x" * 60, "a b c")
"""Names of people: one each, in turn."""


class Player(Waiting):
    """One run of one script. See `Waiting` for what it is made of."""

    def play(self, steps: Sequence[Step], *, whole: bool = True) -> Failure | None:
        """Takes all steps, then holds the end against the promise. Gives back what went wrong, if anything did.

        A script that is not `whole` goes on with the next call: its connections stay.
        """
        try:
            for self.at, step in enumerate(steps):
                self.take(step)
            self.at = len(steps)
            if not whole:
                return None
            self.finish()
        except Failed as failed:
            return self._failure(failed)
        except (Crashed, OSError) as error:
            fault = self.network.fault() or f"{error}"
            return Failure("RW-CLOSE-7", "a server that goes on serving", fault, self.at, tuple(self.log), crashed=True)
        finally:
            if whole:
                self.close()
        self.tally.scripts += 1
        return None

    def _failure(self, failed: Failed) -> Failure:
        fault = self.network.fault()
        got = f"{failed.got}; the server: {fault}" if fault else failed.got
        return Failure(failed.requirement, failed.expected, got, self.at, tuple(self.log), bool(fault))

    def close(self) -> None:
        """Ends all connections without a word."""
        for end in [*self.clients.values(), *self.others]:
            end.wire.close()
        self.clients.clear()

    # --- steps

    def take(self, step: Step) -> None:
        """Takes one step, and waits until all that it must lead to is there. Raises Failed."""
        end = self.clients.get(step.client)
        self.tally.steps += 1
        if step.do == "connect":
            if end is None:
                self._connect(step)
        elif step.do == "handshake":
            self._handshake(step)
        elif step.do == "octets":
            self._octets(step)
        elif step.do == "restart":
            self._restart()
        elif step.do == "drain":
            self._drain()
        elif step.do == "time":
            self._time(step)
        elif end is not None and step.do == "resume":
            end.paused = False
            end.wire.pause(False)
        elif end is not None and not end.paused:
            if step.do == "send":
                self._send(end, step, step.items)
            elif step.do == "drop":
                self._drop(end, step)
            elif step.do == "goaway":
                self._goaway(end, step)
            elif step.do == "pause":
                end.paused = True
                end.wire.pause(True)
                for stream in end.streams.values():
                    stream.slow = True
            elif step.do == "break":
                self._break(end, step)
        self.settle()

    def _connect(self, step: Step) -> None:
        end = self.dial()
        end.cursors = self.cursors.setdefault(step.client, {})
        self.clients[step.client] = end
        name = self._name(step.number)
        grease = step.what == "grease"
        fields: tuple[Field, ...] = (extension("history"),)
        if grease:
            noise = Field(self.random.choice(GREASE), self.random.randbytes(7))
            more = (extension("grease-0a3f"), extension("org.example.x", b"\xde\xad"), agent_field("fuzz/1 \u2764"))
            fields = (*more, noise, *fields)
        preface = MAGIC + bytes([0, 9, 7, 7]) if grease else CLIENT_PREFACE
        end.write(preface, step.cut)
        self.until(lambda: bool(end.preface), "the server's preface", "RW-PREFACE-2", end)
        if end.preface[4] != 1:
            refuse("RW-PREFACE-3", "version 1", end.preface.hex())
        self.tally.visit("server", "WAIT_PREFACE", "preface")
        request = end.next_request()
        flags = 0x0FFF if grease else 0
        hello = Hello(name, "ANONYMOUS", b"ignored" if grease else b"", fields, flags, request)
        before = end.note(Unknown(GREASE[3], b"before HELLO")) if grease else b""
        end.ask(request, lambda reply: self._welcome(end, name, reply))
        end.write(before + end.note(hello), step.cut)
        self.until(lambda: end.welcome is not None or bool(end.errors), "WELCOME", "RW-HELLO-2", end)
        if end.welcome is None:  # RW-NAME-6
            del self.clients[step.client]
            self.others.append(end)
            end.expects_end = True
            self.until(lambda: end.goaway_ends or end.wire.ended, "GOAWAY(NAME_INVALID)", "RW-HELLO-3", end)
            self._refused(end, Code.NAME_INVALID, "RW-NAME-6", refused=True)
            end.wire.close()
            self._connect(step)

    def _name(self, number: int) -> str:
        names = [name for name in NAMES if name.isascii()] if self.model.ascii_only else NAMES
        return names[number % len(names)]

    def _welcome(self, end: Endpoint, name: str, reply: Frame) -> None:
        line = frame_line(reply)
        refused = isinstance(reply, Error) and reply.code == Code.NAME_INVALID
        if refused and not name.isascii() and self.model.ascii_only is not False:
            self.model.ascii_only = True
            end.errors.append(cast(Error, reply))
            end.expects_end = True
            return
        if not isinstance(reply, Welcome):
            refuse("RW-HELLO-2", "WELCOME", line)
        if not name.isascii():
            self.model.ascii_only = False
        end.welcome = reply
        end.welcomed = self.network.now()
        end.extended = "history" in extensions(reply)
        if reply.name not in (normal(name), "~" + normal(name)):
            refuse("RW-NAME-1", f"the name {normal(name)!r}", line)
        if reply.flags & Flag.VERIFIED:
            refuse("RW-SASL-4", "no VERIFIED for an anonymous client", line)
        model = self.model
        if reply.member in model.members_seen:
            refuse("RW-WELCOME-1", "a member number of its own", line)
        model.members_seen.add(reply.member)
        if reply.now_ms < model.clock_ms:
            refuse("RW-ID-4", f"a clock of at least {model.clock_ms}", line)
        model.clock_ms = reply.now_ms
        model.durable = bool(reply.flags & Flag.DURABLE)
        model.dedupe_ms = reply.dedupe_ms
        self.tally.visit("server", "WAIT_HELLO", "HELLO, complete")

    def _send(self, end: Endpoint, step: Step, items: Sequence[str]) -> None:
        if not end.open:
            return
        octets = b"".join(self.requests.make(end, step, item) for item in items)
        if octets:
            end.write(octets, step.cut)
        if step.do == "send" and end.open:
            self._fence(end)

    def _fence(self, end: Endpoint) -> None:
        if end.open and not end.paused:
            end.write(self.requests.make(end, Step("send"), "ping"))

    def _drop(self, end: Endpoint, step: Step) -> None:
        del self.clients[step.client]
        self._send(end, step, [item for item in step.items if item in DROPPABLE])
        if step.what == "half" and end.open:
            octets = encode(Publish(bytes(16), 1, bytes(40), request=end.next_request(), room=1))
            end.write(octets[: self.random.randrange(1, len(octets))])
        end.wire.close(abort=step.what == "reset")
        end.ended(PresenceKind.LOST, seen=False)

    def _goaway(self, end: Endpoint, step: Step) -> None:
        if not end.open:
            return
        del self.clients[step.client]
        self.others.append(end)
        octets = b"".join(self.requests.make(end, step, item) for item in step.items)
        state = end.state
        end.expects_end = True
        end.write(octets + end.note(Goaway(Code.NONE)), step.cut)
        self.until(lambda: end.goaway_ends or end.wire.ended, "GOAWAY", "RW-CLOSE-3", end)
        code = Code.SHUTDOWN if state == "DRAINING" else Code.NONE
        if end.due:
            refuse("RW-CLOSE-3", f"the reply to request {end.due[0].request} before the end", end.last_words())
        if not end.goaway or end.goaway.code != code:
            refuse("RW-CLOSE-3" if code == Code.NONE else "RW-DRAIN-3", f"GOAWAY({code.name})", end.last_words())
        self.tally.visit("server", state, "GOAWAY")
        self.until(lambda: end.wire.ended, "the connection closed", "RW-CLOSE-3", end)
        end.ended(PresenceKind.LEFT, seen=True)
        end.wire.close()

    # --- what is wrong on purpose

    def _bench(self, end: Endpoint, room: int) -> Bench:
        ref = self.model.room(room).ref
        id = self.requests.new_id(end) if end.welcome else bytes(16)
        return Bench(self.random, end.next_request(), ref if ref in end.streams else 0, id, end.limit)

    def _break(self, end: Endpoint, step: Step) -> None:
        breakage = BROKEN.get(step.what)
        if breakage is None or not end.open:
            return
        bench = self._bench(end, step.room)
        octets = breakage.make(bench)
        header = read_header(octets)
        self.tally.broken[breakage.requirement] += 1
        if not breakage.fatal:
            [code] = breakage.codes
            stream = end.streams.get(header.room) if breakage.publish else None

            def judge(reply: Frame) -> None:
                expect_error(reply, header.room, code, breakage.requirement)
                if stream:
                    stream.refused = True

            end.note_octets(octets)
            end.ask(bench.request, judge)
            end.write(octets, step.cut)
            self._fence(end)
            return
        if not header_promises(octets, end.limit):
            end.note_octets(octets)
        end.half = True
        del self.clients[step.client]
        self.others.append(end)
        end.write(octets, step.cut)
        self._until_goaway(end, breakage)

    def _until_goaway(self, end: Endpoint, breakage: Breakage) -> None:
        end.expects_end = True
        names = " or ".join(code.name for code in breakage.codes)
        self.until(lambda: end.goaway_ends or end.wire.ended, f"GOAWAY({names})", breakage.requirement, end)
        if end.goaway is None:
            refuse("RW-CLOSE-2", f"GOAWAY({names}) for {breakage.name}", end.last_words())
        if end.goaway.code not in breakage.codes:
            got = f"GOAWAY({code_name(end.goaway.code)})"
            refuse(breakage.requirement, f"GOAWAY({names}) for {breakage.name}", got)
        self.tally.visit("server", "OPEN", "fatal error")
        self._after_goaway(end)
        end.ended(PresenceKind.LOST, seen=True)
        end.wire.close()

    def _after_goaway(self, end: Endpoint) -> None:
        """The server reads on for a while; it closes when this side has ended (RW-CLOSE-5)."""
        end.due.clear()
        end.write(bytes(40))
        self.tally.visit("server", "CLOSING", "frame")
        end.wire.eof()
        self.until(lambda: end.wire.ended, "the connection closed after GOAWAY", "RW-CLOSE-5", end)

    def _handshake(self, step: Step) -> None:
        handshake = HANDSHAKES.get(step.what)
        if handshake is None:
            return
        end = self.dial()
        self.others.append(end)
        bench = self._bench(end, 0)
        octets = handshake.make(bench)
        self.tally.broken[handshake.requirement] += 1
        end.expects_end = True
        if octets.startswith(MAGIC) and octets[8:]:
            if not header_promises(octets[8:], end.limit):
                end.note_octets(octets[8:])
            end.write(octets[:8])
            self.until(lambda: bool(end.preface), "the server's preface", "RW-PREFACE-2", end)
            octets = octets[8:]
        end.errors.clear()
        end.write(octets, step.cut)
        self.tally.sent += 1
        self.until(lambda: end.wire.ended or end.goaway_ends, f"the end after {handshake.name}", "RW-CLOSE-2", end)
        if handshake.silent:
            if end.preface or end.received:
                refuse(handshake.requirement, "no octet before the end", end.preface.hex())
            self.tally.visit("server", "WAIT_PREFACE", "wrong preface")
        elif handshake.version0:
            if end.preface[4:5] != b"\0":
                refuse(handshake.requirement, "a preface with version 0", end.preface.hex() or end.last_words())
            self.tally.visit("server", "WAIT_PREFACE", "no common version")
        else:
            self._refused(end, handshake.code or Code.NONE, handshake.requirement, refused=handshake.refused)
        if not end.wire.ended:
            self._after_goaway(end)
        end.wire.close()
        self.tally.visit("server", "any", "end of stream")

    def _octets(self, step: Step) -> None:
        failure = burst(self.network, [step], self.tally, self.timeout)
        if failure is not None:
            self.log += failure.log
            if failure.crashed:
                raise Crashed(failure.got)
            refuse(failure.requirement, failure.expected, failure.got)

    def _refused(self, end: Endpoint, code: Code, requirement: str, *, refused: bool) -> None:
        if not end.goaway:
            refuse("RW-CLOSE-2", f"GOAWAY({code.name})", end.last_words())
        if refused:
            if not end.errors:
                refuse("RW-HELLO-2", f"ERROR({code.name})", end.last_words())
            error = end.errors[0]
            if error.code != code:
                refuse(requirement, f"ERROR({code.name})", frame_line(error))
            if code == Code.UNSUPPORTED_MECHANISM and not error.fields:
                refuse("RW-SASL-1", "the mechanisms that are offered in fields MECHANISM", frame_line(error))
            if end.goaway.code != error.code:
                refuse("RW-HELLO-3", f"GOAWAY({code.name}) behind the ERROR", end.last_words())
        elif end.goaway.code != code:
            refuse(requirement, f"GOAWAY({code.name})", end.last_words())
        event = "refused" if refused else "GOAWAY" if code == Code.NONE else "fatal error"
        self.tally.visit("server", "WAIT_HELLO", event)

    # --- the server's own end

    def _restart(self) -> None:
        self.settle()
        if not self.network.restart():
            return
        self._everybody_is_gone()
        self.model.restarts()

    def _everybody_is_gone(self) -> None:
        for end in self.clients.values():
            end.ended(PresenceKind.LOST, seen=True)
            end.wire.close()
        self.clients.clear()

    def _drain(self) -> None:
        self.settle()
        for end in list(self.clients.values()):
            if end.paused:
                end.paused = False
                end.wire.pause(False)
        self.settle()
        if not self.network.drain():
            return
        self.model.draining = True
        for end in self.clients.values():
            self.until(lambda end=end: end.goaway is not None, "GOAWAY(DRAINING)", "RW-DRAIN-3", end)  # type: ignore[misc]
            if end.goaway and end.goaway.code != Code.DRAINING:
                refuse("RW-DRAIN-3", "GOAWAY(DRAINING)", end.last_words())
            self.tally.visit("server", "OPEN", "drain")
        for number, end in list(self.clients.items()):
            # A request that was under way when the client learned of the drain (RW-DRAIN-2).
            for stream in end.streams.values():
                end.write(self.requests.make(end, Step("send", number, stream.room.number), "text"))
                break
            self._goaway_drained(end)
        self.clients.clear()
        self.network.restart()
        self.model.restarts()

    def _goaway_drained(self, end: Endpoint) -> None:
        end.expects_end = True
        end.write(end.note(Goaway(Code.NONE)))
        self.until(lambda: end.goaway_ends or end.wire.ended, "GOAWAY(SHUTDOWN)", "RW-DRAIN-3", end)
        if end.due:
            refuse("RW-DRAIN-2", f"the reply to request {end.due[0].request}", end.last_words())
        if not end.goaway or end.goaway.code != Code.SHUTDOWN:
            refuse("RW-DRAIN-3", "GOAWAY(SHUTDOWN)", end.last_words())
        self.tally.visit("server", "DRAINING", "GOAWAY")
        end.ended(PresenceKind.LEFT, seen=True)
        end.wire.close()

    def _time(self, step: Step) -> None:
        left = step.number / 1000
        while left > 0:
            beats = [end.welcome.heartbeat_ms for end in self.clients.values() if end.welcome]
            piece = min(left, min(beats, default=4000) / 4000)
            if not self.network.sleep(piece):
                return
            left -= piece
            self.read()
            for end in self.clients.values():
                if end.open and not end.paused and self.random.random() < 0.2:
                    self._fence(end)

    # --- the end of a script

    def finish(self) -> None:
        """Everybody reads again, publishes once more, and a newcomer reads all logs. Raises Failed."""
        for end in self.clients.values():
            if end.paused:
                end.paused = False
                end.wire.pause(False)
        self.settle()
        rooms = sorted(number for number, room in self.model.rooms.items() if room.epoch)
        for number, end in list(self.clients.items()):
            for stream in list(end.streams.values())[:1]:
                self.take(Step("send", number, stream.room.number, items=("text",)))
        reader = max(self.clients, default=0) + 1
        if not rooms:
            return
        self.take(Step("connect", reader))
        for room in rooms:
            self.take(Step("send", reader, room, items=("join-last",), number=30_000))
            if self.model.room(room).members:
                self.take(Step("send", reader, room, items=("text", "history")))
        for end in self.clients.values():
            self._fence(end)
        self.settle()


def last_frames(failure: Failure) -> str:
    """The requirement, what was expected and what came, in one line."""
    return f"{failure.requirement}: expected {failure.expected}, got {failure.got}"


__all__ = ["HEADER", "Failure", "FrameType", "Player", "last_frames"]
