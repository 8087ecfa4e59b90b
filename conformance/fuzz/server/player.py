"""Plays a script at a server: takes its steps, waits for what is due after each, and has everything judged.

Nothing here sleeps in order to wait: a PING fences the replies of a connection, and the streams of all members that
read are waited for up to the head that the model knows.
"""

from collections.abc import Sequence

from conformance.fuzz.failure import Failure, fail
from conformance.fuzz.server.lifecycle_steps import Draining
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.requests import DROPPABLE, normal
from conformance.fuzz.server.steps import Step
from conformance.harness.verdicts import Crashed, Failed
from conformance.wire.octets import CLIENT_PREFACE, encode
from conformance.wire.text import frame_line
from protocol.fields import agent as agent_field
from protocol.fields import extension, extensions
from protocol.frames import Error, Field, Frame, Goaway, Hello, Publish, Unknown, Welcome
from protocol.registry import GREASE, MAGIC, Code, Flag, PresenceKind

NAMES = ("ada", "Grace H\u00f6pper", "e\u0301douard", "\u6797", "x" * 60, "a b c")
"""Names of people: one each, in turn."""


class Player(Draining):
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
        self.stats.scripts += 1
        return None

    def _failure(self, failed: Failed) -> Failure:
        fault = self.network.fault()
        got = f"{failed.got}; the server: {fault}" if fault else failed.got
        return Failure(failed.requirement, failed.expected, got, self.at, tuple(self.log), bool(fault))

    # --- steps

    def take(self, step: Step) -> None:
        """Takes one step, and waits until all that it must lead to is there. Raises Failed."""
        end = self.clients.get(step.client)
        self.stats.steps += 1
        if step.do == "connect":
            if end is None:
                self._connect(step)
        elif step.do == "handshake":
            self._handshake(step)
        elif step.do == "login":
            self._login(step)
        elif step.do == "octets":
            self._octets(step)
        elif step.do == "restart":
            self._restart()
        elif step.do == "drain":
            self._drain()
        elif step.do == "time":
            self._time(step)
        elif step.do == "operator":
            self._operator(step)
        elif step.do == "idle":
            self._idle(step)
        elif end is not None and step.do == "resume":
            if end.open:
                end.write(b"".join(self.requests.make(end, step, item) for item in step.items), step.cut)
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
                end.paused = end.slow = True
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
            fail("RW-PREFACE-3", "version 1", end.preface.hex())
        self.stats.visit("server", "WAIT_PREFACE", "preface")
        request = end.next_request()
        flags = 0x0FFF if grease else 0
        hello = Hello(name, "ANONYMOUS", b"ignored" if grease else b"", fields=fields, flags=flags, request=request)
        before = end.note(Unknown(GREASE[3], b"before HELLO")) if grease else b""
        end.ask(request, lambda reply: self._welcome(end, name, reply))
        end.write(before + end.note(hello), step.cut)
        self.until(lambda: end.welcome is not None or bool(end.errors), "WELCOME", "RW-HELLO-2", end)
        if end.welcome is None:  # RW-NAME-6, or no room for it
            del self.clients[step.client]
            self.others.append(end)
            code = Code(end.errors[0].code)
            self.until(lambda: end.goaway_ends or end.wire.ended, f"GOAWAY({code.name})", "RW-HELLO-3", end)
            self._refused(end, code, "RW-HELLO-3", refused=True)
            self._after_goaway(end)
            end.wire.close()
            if code == Code.NAME_INVALID:
                self._connect(step)

    def _name(self, number: int) -> str:
        names = [name for name in NAMES if name.isascii()] if self.model.ascii_only else NAMES
        return names[number % len(names)]

    def _welcome(self, end: RawClient, name: str, reply: Frame) -> None:
        line = frame_line(reply)
        if isinstance(reply, Error):
            named = reply.code == Code.NAME_INVALID and not name.isascii() and self.model.ascii_only is not False
            if named or reply.code in (Code.SERVER_FULL, Code.RATE_LIMITED):  # RW-CONN-3
                if named:
                    self.model.ascii_only = True
                else:
                    self.model.tolerate(reply.code)
                end.errors.append(reply)
                end.expects_end = True
                return
        if not isinstance(reply, Welcome):
            fail("RW-HELLO-2", "WELCOME", line)
        if not name.isascii():
            self.model.ascii_only = False
        end.welcome = reply
        end.welcomed = self.network.now()
        end.extended = "history" in extensions(reply)
        if reply.name not in (normal(name), "~" + normal(name)):
            fail("RW-NAME-1", f"the name {normal(name)!r}", line)
        if self.network.accounts and not reply.name.startswith("~"):
            fail("RW-SASL-5", f"~{normal(name)!r} for a guest", line)
        if reply.flags & Flag.VERIFIED:
            fail("RW-SASL-4", "no VERIFIED for an anonymous client", line)
        model = self.model
        if reply.member in model.members_seen:
            fail("RW-WELCOME-1", "a member number of its own", line)
        model.members_seen.add(reply.member)
        if reply.now_ms < model.clock_ms:
            fail("RW-ID-4", f"a clock of at least {model.clock_ms}", line)
        model.clock_ms = reply.now_ms
        model.durable = bool(reply.flags & Flag.DURABLE)
        model.dedupe_ms = reply.dedupe_ms
        self.stats.visit("server", "WAIT_HELLO", "HELLO, complete")

    def _send(self, end: RawClient, step: Step, items: Sequence[str]) -> None:
        if not end.open:
            return
        octets = b"".join(self.requests.make(end, step, item) for item in items)
        if octets:
            end.write(octets, step.cut)
        for _ in range(self.requests.floods(end) if octets and "flood" in items else 0):
            self._fence(end)
            self.settle()  # RW-LAG-1: who reads gets everything meanwhile
            if end.open:
                end.write(self.requests.make(end, step, "flood"))
        if step.do == "send" and end.open:
            self._fence(end)

    def _drop(self, end: RawClient, step: Step) -> None:
        del self.clients[step.client]
        self._send(end, step, [item for item in step.items if item in DROPPABLE])
        if step.what == "half" and end.open:
            octets = encode(Publish(bytes(16), 1, bytes(40), request=end.next_request(), room=1))
            end.write(octets[: self.random.randrange(1, len(octets))])
        end.wire.close(abort=step.what == "reset")
        end.ended(PresenceKind.LOST, seen=False)

    def _goaway(self, end: RawClient, step: Step) -> None:
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
            fail("RW-CLOSE-3", f"the reply to request {end.due[0].request} before the end", end.last_words())
        if not end.goaway or end.goaway.code != code:
            fail("RW-CLOSE-3" if code == Code.NONE else "RW-DRAIN-3", f"GOAWAY({code.name})", end.last_words())
        self.stats.visit("server", state, "GOAWAY")
        self.until(lambda: end.wire.ended, "the connection closed", "RW-CLOSE-3", end)
        end.ended(PresenceKind.LEFT, seen=True)
        end.wire.close()

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
