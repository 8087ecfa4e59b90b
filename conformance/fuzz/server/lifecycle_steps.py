"""How the server itself ends, time passes, and connections end with it: restarts, drains, time-outs."""

from conformance.fuzz.failure import fail
from conformance.fuzz.server.broken_frames import BROKEN
from conformance.fuzz.server.idle import KINDS as IDLE
from conformance.fuzz.server.idle import Idle
from conformance.fuzz.server.login_steps import Logins
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.steps import Step
from conformance.wire.octets import CLIENT_PREFACE
from protocol.frames import Goaway
from protocol.registry import LIMITS, Code, PresenceKind

_LEAVES = {"": 6, "broken": 1, "waits": 1, "silent": 1}
"""How a client behaves when it learns that the server drains, and how often."""


class Draining(Logins):
    """The steps "restart", "drain", "operator", "idle" and "time"."""

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

    def _all_read(self) -> None:
        self.settle()
        for end in list(self.clients.values()):
            if end.paused:
                end.paused = False
                end.wire.pause(False)
        self.settle()

    def _operator(self, step: Step) -> None:
        """The server fails, or whatever its operator can do to it."""
        self._all_read()
        waiting = self._not_open_yet()
        if not self.network.operate(step.what):
            return
        self.model.draining = True  # nobody is told of anybody any more
        for end in self.clients.values():
            end.expects_end = True
        self._closed_before_open(waiting, Code.INTERNAL)
        for end in self.clients.values():
            self._ended_by_server(end, (Code.INTERNAL,), "OPEN", "close", "RW-PROMISE-7")
        self._begin_again()

    def _begin_again(self) -> None:
        self.clients.clear()
        self.network.restart()
        self.model.restarts()

    # --- draining

    def _drain(self) -> None:
        self._all_read()
        waiting = self._not_open_yet()
        if not self.network.drain():
            return
        self.model.draining = True
        for end in self.clients.values():
            self.until(lambda end=end: end.goaway is not None, "GOAWAY(DRAINING)", "RW-DRAIN-3", end)  # type: ignore[misc]
            if end.goaway and end.goaway.code != Code.DRAINING:
                fail("RW-DRAIN-3", "GOAWAY(DRAINING)", end.last_words())
            self.stats.visit("server", "OPEN", "drain")
        self._closed_before_open(waiting, Code.SHUTDOWN)
        stay = []
        for number, end in list(self.clients.items()):
            # A request that was under way when the client learned of the drain (RW-DRAIN-2).
            for stream in end.streams.values():
                end.write(self.requests.make(end, Step("send", number, stream.room.number), "text"))
                break
            how = self.random.choices(list(_LEAVES), list(_LEAVES.values()))[0]
            if how == "broken":
                self._break_drained(end)
            elif how and self._drain_ms < 20_000:
                self.until(lambda end=end: not end.due, "replies", "RW-DRAIN-2", end)  # type: ignore[misc]
                stay.append((end, how == "silent"))
            else:
                self._goaway_drained(end)
        if stay and self.random.random() < 0.2 and self.network.operate("fail"):
            for end, _ in stay:
                end.expects_end = True
            for end, _ in stay:
                self._ended_by_server(end, (Code.INTERNAL,), "DRAINING", "close", "RW-PROMISE-7")
        else:
            self._wait_for_the_end([end for end, _ in stay], {id(end) for end, silent in stay if silent})
        self._begin_again()

    @property
    def _drain_ms(self) -> int:
        return self.network.limits.get("drain_ms", LIMITS["drain_ms"].default)

    def _not_open_yet(self) -> list[RawClient]:
        """Connections that have not come as far as WELCOME."""
        ends = [self.dial() for _ in range(2)]
        if self.network.accounts:
            account = min(self.network.accounts)
            ends.append(self.hello(account, Step("login", what="right")))
            ends[2].aside = True
            self.until(lambda: bool(ends[2].challenges or ends[2].errors), "AUTH", "RW-HELLO-2", ends[2])
        for end in ends[:2]:
            end.expects_end = end.aside = True
            self.others.append(end)
        ends[0].write(CLIENT_PREFACE[:3])
        ends[1].write(CLIENT_PREFACE)
        self.until(lambda: bool(ends[1].preface), "the server's preface", "RW-PREFACE-2", ends[1])
        return ends

    def _closed_before_open(self, ends: list[RawClient], code: Code) -> None:
        rule = "RW-DRAIN-3" if code == Code.SHUTDOWN else "RW-PROMISE-7"
        for end, state in zip(ends, ("WAIT_PREFACE", "WAIT_HELLO", "AUTHENTICATING"), strict=False):
            if end.errors:
                continue  # it was refused for having tried too often
            self.until(lambda end=end: end.wire.ended or end.goaway_ends, "the connection closed", rule, end)  # type: ignore[misc]
            if state == "WAIT_PREFACE" and end.preface:
                fail(rule, "no octet before the end", end.preface.hex())
            if state != "WAIT_PREFACE" and (not end.goaway or end.goaway.code != code):
                fail(rule, f"GOAWAY({code.name})", end.last_words())
            self.stats.visit("server", state, "close")
            end.wire.close()

    def _goaway_drained(self, end: RawClient) -> None:
        end.expects_end = True
        end.write(end.note(Goaway(Code.NONE)))
        self.until(lambda: end.goaway_ends or end.wire.ended, "GOAWAY(SHUTDOWN)", "RW-DRAIN-3", end)
        if end.due:
            fail("RW-DRAIN-2", f"the reply to request {end.due[0].request}", end.last_words())
        if not end.goaway or end.goaway.code != Code.SHUTDOWN:
            fail("RW-DRAIN-3", "GOAWAY(SHUTDOWN)", end.last_words())
        self.stats.visit("server", "DRAINING", "GOAWAY")
        end.ended(PresenceKind.LEFT, seen=True)
        end.wire.close()

    def _break_drained(self, end: RawClient) -> None:
        breakage = BROKEN["unknown-critical"]
        end.half = True
        end.write(breakage.make(self._bench(end, 0)))
        self._ended_by_server(end, tuple(breakage.codes), "DRAINING", "fatal error", breakage.requirement)

    def _ended_by_server(self, end: RawClient, codes: tuple[Code, ...], state: str, event: str, rule: str) -> None:
        end.expects_end = True
        names = " or ".join(code.name for code in codes)
        self.until(lambda: end.goaway_ends or end.wire.ended, f"GOAWAY({names})", rule, end)
        if not end.goaway or end.goaway.code not in codes:
            fail(rule, f"GOAWAY({names})", end.last_words())
        self.stats.visit("server", state, event)
        end.ended(PresenceKind.LOST, seen=True)
        end.wire.close()

    def _wait_for_the_end(self, ends: list[RawClient], silent: set[int]) -> None:
        """Those who do not go are sent away when the drain time is over; who says nothing for 2 H may be before."""
        for end in ends:
            self.until(lambda end=end: not end.due, "replies", "RW-DRAIN-2", end)  # type: ignore[misc]
            end.expects_end = True
            end.half = id(end) in silent
        for end in ends:
            assert end.welcome
            early = end.half and 2 * end.welcome.heartbeat_ms < self._drain_ms
            codes = (Code.TIMEOUT,) if early else (Code.SHUTDOWN,)
            limit = self.network.now() + self._drain_ms / 1000 + self.timeout
            while not (end.goaway_ends or end.wire.ended) and self.network.now() < limit:
                if self.network.settled:
                    self.network.sleep(0.25)
                    self.read()
                else:
                    left = max(self.timeout, limit - self.network.now())
                    self.until(lambda end=end: end.goaway_ends, "GOAWAY(SHUTDOWN)", "RW-DRAIN-3", end, left)  # type: ignore[misc]
            self._ended_by_server(end, codes, "DRAINING", "time-out" if early else "drained", "RW-DRAIN-3")

    # --- time

    def _idle(self, step: Step) -> None:
        """Waits for the end of a connection that says nothing more, where waiting costs nothing."""
        known = step.what in IDLE and (step.what != "login" or self.network.accounts)
        if not (known and self.network.waits):
            return
        self.settle()
        alone = type(self)(self.network, self.random.getrandbits(32), self.stats, self.timeout)
        idle = Idle(alone, step.what)
        while not idle.poll():
            if self.network.settled:
                self._time(Step("time", number=250))
            elif not self.network.wait(0.1):
                self.read()
        alone.close()

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
            self.settle()
