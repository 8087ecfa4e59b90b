"""Connections that say no more at some point, and what a server has to do about each when its time is over.

On a virtual clock a script waits for the end of one ("idle" steps). At a live server they stay open beside the scripts,
and are looked at in between. A time-out that nobody is known to have set is waited for as long as `PATIENCE`.
"""

from dataclasses import dataclass

from conformance.fuzz.failure import fail
from conformance.fuzz.server.login_steps import Logins
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.steps import Step
from conformance.wire.octets import CLIENT_PREFACE, HEADER, frame
from conformance.wire.text import code_name
from protocol.registry import Code, FrameType

PATIENCE = 75.0
"""Seconds."""


@dataclass(frozen=True)
class Kind:
    """Where a connection stays idle. `limits` are the times that may end it (SPEC.md, section 15), in which `code` is
    that of the GOAWAY, None for an end without a word. `state` and `event` are the transition that it makes.
    """

    requirement: str
    limits: tuple[str, ...]
    code: Code | None
    state: str
    event: str = "time-out"


KINDS = {
    "preface": Kind("RW-PREFACE-6", ("preface_ms", "handshake_ms"), None, "WAIT_PREFACE"),
    "hello": Kind("RW-HELLO-4", ("handshake_ms", "frame_ms"), Code.TIMEOUT, "WAIT_HELLO"),
    "login": Kind("RW-HELLO-4", ("handshake_ms", "frame_ms"), Code.TIMEOUT, "AUTHENTICATING"),
    "frame": Kind("RW-FRAME-5", ("frame_ms",), Code.TIMEOUT, "OPEN"),
    "silent": Kind("RW-HEARTBEAT-2", ("heartbeat_ms", "heartbeat_ms"), Code.TIMEOUT, "OPEN"),
    "lingering": Kind("RW-CLOSE-5", ("linger_ms",), None, "CLOSING"),
    "beating": Kind("RW-HEARTBEAT-1", ("heartbeat_ms",) * 4, None, "OPEN", "frame"),
}
"""By name; "beating" is the one that answers PINGs, and is let live."""


class Idle:
    """One of them, on a connection of `player`, which has no other. Begins it. Raises Failed."""

    def __init__(self, player: Logins, what: str) -> None:
        self.kind = KINDS[what]
        self.player = player
        self.what = what
        self._drip = b""
        self.end = self._begin()
        self.began = self._heard = player.network.now()
        self._octets = 0

    def _begin(self) -> RawClient:
        player, random = self.player, self.player.random
        if self.what in ("preface", "hello"):
            end = player.dial()
            player.others.append(end)
            end.expects_end = True
            if self.what == "preface":
                end.write(CLIENT_PREFACE[: random.randrange(len(CLIENT_PREFACE))])
                return end
            end.write(CLIENT_PREFACE)
            player.until(lambda: bool(end.preface), "the server's preface", "RW-PREFACE-2", end)
            half = frame(FrameType.HELLO, bytes(30), request=1)
            end.half = True
            end.write(half[: random.choice((0, 3, HEADER.size, 40))])
            return end
        if self.what == "login":
            end = player.hello(min(player.network.accounts), Step("login", what="right"))
            player.until(lambda: bool(end.challenges or end.errors), "AUTH", "RW-HELLO-2", end)
            end.half = True
            return end
        player.take(Step("connect"))
        if 0 not in player.clients:  # there was no room for it
            end = player.dial()
            end.wire.close()
            return end
        end = player.clients.pop(0)
        player.others.append(end)
        end.expects_end = True
        if self.what == "frame":
            end.half = True
            self._drip = frame(FrameType.PUBLISH, length=4_000, request=9, room=1) + bytes(3_000)
        elif self.what == "silent":
            end.half = True
        elif self.what == "lingering":
            end.half = True
            end.write(frame(0x0109, b""))
            player.until(lambda: end.goaway is not None, "GOAWAY(UNKNOWN_TYPE)", "RW-TYPE-3", end)
        return end

    @property
    def seconds(self) -> float:
        """How long the server may take, as far as that is known."""
        known = self.player.network.limits
        welcome = self.end.welcome
        if "heartbeat_ms" in self.kind.limits and welcome:
            known = {**known, "heartbeat_ms": welcome.heartbeat_ms}
        times = [known.get(name) for name in self.kind.limits]
        if None in times:
            return PATIENCE
        summed = self.what in ("silent", "beating")
        milliseconds = [time for time in times if time is not None]
        return (sum(milliseconds) if summed else max(milliseconds)) / 1000

    def poll(self) -> bool:
        """Looks at it, and says whether it has come to its end. Raises Failed."""
        end, kind, player = self.end, self.kind, self.player
        if self.what not in ("preface", "hello", "login") and end.welcome is None:
            return True
        player.read()
        now = player.network.now()
        if end.slow and self.what in ("frame", "beating"):  # the suite itself was late
            end.wire.close()
            return True
        if end.wire.ended or (end.goaway_ends and kind.code is not None):
            self._judge(now - self.began)
            end.wire.close()
            return True
        if self.what == "frame" and self._drip:  # every octet counts for the heartbeat, and none for the frame
            end.write(self._drip[:1])
            self._drip = self._drip[1:]
        if self.what == "beating":
            return self._beats(now)
        if now - self.began > self.seconds + 2 * player.timeout:
            wanted = f"GOAWAY({kind.code.name})" if kind.code else "the end of the connection"
            fail(kind.requirement, f"{wanted} within {self.seconds:g} s", f"nothing, {end.last_words()}")
        return False

    def _beats(self, now: float) -> bool:
        end = self.end
        assert end.welcome
        beat = end.welcome.heartbeat_ms / 1000
        if end.octets > self._octets:
            self._octets, self._heard = end.octets, now
        if now - self._heard > beat + self.player.timeout:
            fail("RW-HEARTBEAT-1", f"an octet within {beat:g} s", f"nothing for {now - self._heard:.1f} s")
        if now - self.began < self.seconds:
            return False
        end.wire.close()
        return True

    def _judge(self, lasted: float) -> None:
        end, kind = self.end, self.kind
        code = end.goaway.code if end.goaway and self.what != "lingering" else None
        if self.what == "preface" and end.preface:
            fail("RW-PREFACE-6", "no octet before the end", end.preface.hex())
        if code != kind.code or self.what == "beating":
            wanted = f"GOAWAY({kind.code.name})" if kind.code else "the end, without a word"
            wanted = "a connection that goes on" if self.what == "beating" else wanted
            got = f"GOAWAY({code_name(code)})" if code is not None else end.last_words()
            fail("RW-HEARTBEAT-2" if self.what == "beating" else kind.requirement, wanted, got)
        if self.what == "silent" and end.welcome and lasted < 1.8 * end.welcome.heartbeat_ms / 1000:
            fail("RW-HEARTBEAT-2", f"the end after 2 H of {end.welcome.heartbeat_ms} ms", f"after {lasted:.1f} s")
        self.player.stats.visit("server", kind.state, kind.event)
