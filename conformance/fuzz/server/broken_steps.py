"""How connections end that do something wrong, or never begin: what must follow, and nothing else."""

from conformance.fuzz.failure import fail
from conformance.fuzz.server.broken_frames import BROKEN, HANDSHAKES, Bench, Breakage, header_promises
from conformance.fuzz.server.mutations import burst
from conformance.fuzz.server.play import Waiting
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.requests import expect_error
from conformance.fuzz.server.steps import Step
from conformance.harness.verdicts import Crashed
from conformance.wire.octets import encode, read_header
from conformance.wire.text import code_name, frame_line
from protocol.frames import Frame, Goaway, Pong
from protocol.registry import MAGIC, Code, FrameType, PresenceKind


class Endings(Waiting):
    """The steps "break", "handshake" and "octets"."""

    def _fence(self, end: RawClient) -> None:
        if end.open and not end.paused:
            end.write(self.requests.make(end, Step("send"), "ping"))

    def _bench(self, end: RawClient, room: int) -> Bench:
        ref = self.model.room(room).ref
        id = self.requests.new_id(end) if end.welcome else bytes(16)
        return Bench(self.random, end.next_request(), ref if ref in end.streams else 0, id, end.limit)

    def _break(self, end: RawClient, step: Step) -> None:
        breakage = BROKEN.get(step.what)
        if breakage is None or not end.open:
            return
        bench = self._bench(end, step.room)
        octets = breakage.make(bench)
        header = read_header(octets)
        self.stats.broken[breakage.requirement] += 1
        if not breakage.fatal:
            [code] = breakage.codes
            stream = end.streams.get(header.room) if breakage.publish else None

            def judge(reply: Frame) -> None:
                expect_error(reply, header.room, code, breakage.requirement)
                if header.type == FrameType.LEAVE and header.room in end.streams:
                    self.stats.visit("membership", "LEAVING", "ERROR")
                if stream:
                    stream.refused = True

            end.note_octets(octets)
            end.ask(bench.request, judge)
            end.write(octets, step.cut)
            self._fence(end)
            return
        end.intact = not header_promises(octets, end.limit)
        if end.intact:
            end.note_octets(octets)
        end.half = True
        del self.clients[step.client]
        self.others.append(end)
        end.write(octets, step.cut)
        self._until_goaway(end, breakage)

    def _until_goaway(self, end: RawClient, breakage: Breakage) -> None:
        end.expects_end = True
        names = " or ".join(code.name for code in breakage.codes)
        self.until(lambda: end.goaway_ends or end.wire.ended, f"GOAWAY({names})", breakage.requirement, end)
        if end.goaway is None:
            fail("RW-CLOSE-2", f"GOAWAY({names}) for {breakage.name}", end.last_words())
        if end.goaway.code not in breakage.codes:
            got = f"GOAWAY({code_name(end.goaway.code)})"
            fail(breakage.requirement, f"GOAWAY({names}) for {breakage.name}", got)
        self.stats.visit("server", "OPEN", "fatal error")
        self._after_goaway(end)
        end.ended(PresenceKind.LOST, seen=True)
        end.wire.close()

    def _after_goaway(self, end: RawClient) -> None:
        """The server reads on for a while; it closes when this side has ended (RW-CLOSE-5)."""
        end.due.clear()
        if self.random.random() < 0.5 and end.intact:
            end.write(encode(Pong(bytes(8))) + encode(Goaway(Code.NONE)))
            self.stats.visit("server", "CLOSING", "GOAWAY")
        else:
            end.write(bytes(40))
            self.stats.visit("server", "CLOSING", "frame")
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
        self.stats.broken[handshake.requirement] += 1
        end.expects_end = True
        if octets.startswith(MAGIC) and octets[8:]:
            end.intact = not header_promises(octets[8:], end.limit)
            if end.intact:
                end.note_octets(octets[8:])
            end.write(octets[:8])
            self.until(lambda: bool(end.preface), "the server's preface", "RW-PREFACE-2", end)
            octets = octets[8:]
        end.errors.clear()
        end.write(octets, step.cut)
        self.stats.sent += 1
        self.until(lambda: end.wire.ended or end.goaway_ends, f"the end after {handshake.name}", "RW-CLOSE-2", end)
        if handshake.silent:
            if end.preface or end.received:
                fail(handshake.requirement, "no octet before the end", end.preface.hex())
            self.stats.visit("server", "WAIT_PREFACE", "wrong preface")
        elif handshake.version0:
            if end.preface[4:5] != b"\0":
                fail(handshake.requirement, "a preface with version 0", end.preface.hex() or end.last_words())
            self.stats.visit("server", "WAIT_PREFACE", "no common version")
        else:
            self._refused(end, handshake.code or Code.NONE, handshake.requirement, refused=handshake.refused)
        if not end.wire.ended:
            self._after_goaway(end)
        end.wire.close()
        self.stats.visit("server", "any", "end of stream")

    def _octets(self, step: Step) -> None:
        failure = burst(self.network, [step], self.stats, self.timeout)
        if failure is not None:
            self.log += failure.log
            if failure.crashed:
                raise Crashed(failure.got)
            fail(failure.requirement, failure.expected, failure.got)

    def _refused(self, end: RawClient, code: Code, requirement: str, *, refused: bool) -> None:
        if not end.goaway:
            fail("RW-CLOSE-2", f"GOAWAY({code.name})", end.last_words())
        if refused:
            if not end.errors:
                fail("RW-HELLO-2", f"ERROR({code.name})", end.last_words())
            error = end.errors[0]
            if error.code != code:
                fail(requirement, f"ERROR({code.name})", frame_line(error))
            if code == Code.UNSUPPORTED_MECHANISM and not error.fields:
                fail("RW-SASL-1", "the mechanisms that are offered in fields MECHANISM", frame_line(error))
            if end.goaway.code != error.code:
                fail("RW-HELLO-3", f"GOAWAY({code.name}) behind the ERROR", end.last_words())
        elif end.goaway.code != code:
            fail(requirement, f"GOAWAY({code.name})", end.last_words())
        event = "refused" if refused else "GOAWAY" if code == Code.NONE else "fatal error"
        self.stats.visit("server", "WAIT_HELLO", event)
