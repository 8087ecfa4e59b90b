"""Connections that say no more at some point, and how a server has to end each when its time is over.

On a virtual clock a script waits for the end of one (the step "idle"). At a live server they stay open while
scripts run, and are polled between them. A time-out whose limit is not known is awaited for `PATIENCE`.
"""

from dataclasses import dataclass

from conformance.fuzz.failure import fail
from conformance.fuzz.server.login_steps import say_hello, until_challenge
from conformance.fuzz.server.player import Player
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.steps import Step
from conformance.wire.octets import CLIENT_PREFACE, HEADER, frame
from conformance.wire.text import code_name
from protocol.registry import Code, FrameType

PATIENCE = 75.0
"""Seconds."""


@dataclass(frozen=True)
class Kind:
    """A place where a connection stays idle.

    `limits` are the times that may end it (SPEC.md, section 15), and `code` that of the GOAWAY then, None for an end
    without GOAWAY. `state` and `event` are the transition that the server makes.
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
"""By name. A connection that is "beating" answers PINGs, and has to stay open."""


class Idle:
    """One idle connection, the only one of `player`. It begins when it is made, which may raise Failed."""

    def __init__(self, player: Player, what: str) -> None:
        self.kind = KINDS[what]
        self.player = player
        self.what = what
        self._drip = b""
        self.client = self._begin()
        self.began = self._heard = player.network.now()
        self._octets = 0

    def _begin(self) -> RawClient:
        player = self.player
        if self.what == "preface":
            client = player.dial_aside()
            client.write(CLIENT_PREFACE[: player.random.randrange(len(CLIENT_PREFACE))])
            return client
        if self.what == "hello":
            client = player.dial_aside()
            client.write(CLIENT_PREFACE)
            player.until_preface(client)
            half = frame(FrameType.HELLO, bytes(30), request=1)
            client.half = True
            client.write(half[: player.random.choice((0, 3, HEADER.size, 40))])
            return client
        if self.what == "login":
            client = say_hello(player, min(player.network.accounts), Step("login", what="right"))
            until_challenge(player, client)
            client.half = True
            return client
        return self._begin_open()

    def _begin_open(self) -> RawClient:
        player = self.player
        player.take(Step("connect"))
        if 0 not in player.clients:  # the server has no room for it
            client = player.dial()
            client.wire.close()
            return client
        client = player.clients.pop(0)
        player.others.append(client)
        client.expects_end = True
        client.half = self.what != "beating"
        if self.what == "frame":
            self._drip = frame(FrameType.PUBLISH, length=4_000, request=9, room=1) + bytes(3_000)
        elif self.what == "lingering":
            client.write(frame(0x0109, b""))
            player.until(lambda: client.goaway is not None, "GOAWAY(UNKNOWN_TYPE)", "RW-TYPE-3", client)
        return client

    @property
    def seconds(self) -> float:
        """How long the server may take, as far as that is known."""
        known = self.player.network.limits
        welcome = self.client.welcome
        if "heartbeat_ms" in self.kind.limits and welcome:
            known = {**known, "heartbeat_ms": welcome.heartbeat_ms}
        times = [known.get(name) for name in self.kind.limits]
        if None in times:
            return PATIENCE
        summed = self.what in ("silent", "beating")
        milliseconds = [time for time in times if time is not None]
        return (sum(milliseconds) if summed else max(milliseconds)) / 1000

    def poll(self) -> bool:
        """Looks at the connection, and returns whether it has come to its end. Raises Failed."""
        client, kind, player = self.client, self.kind, self.player
        if self.what not in ("preface", "hello", "login") and client.welcome is None:
            return True
        player.read()
        now = player.network.now()
        if client.slow and self.what in ("frame", "beating"):  # the suite itself was late
            client.wire.close()
            return True
        if client.wire.ended or (client.goaway_ends and kind.code is not None):
            self._judge(now - self.began)
            client.wire.close()
            return True
        if self.what == "frame" and self._drip:  # every octet counts for the heartbeat, none for the frame's time
            client.write(self._drip[:1])
            self._drip = self._drip[1:]
        if self.what == "beating":
            return self._beats(now)
        if now - self.began > self.seconds + 2 * player.timeout:
            expected = f"GOAWAY({kind.code.name})" if kind.code else "the end of the connection"
            fail(kind.requirement, f"{expected} within {self.seconds:g} s", f"nothing, {client.last_words()}")
        return False

    def _beats(self, now: float) -> bool:
        client = self.client
        assert client.welcome
        beat = client.welcome.heartbeat_ms / 1000
        if client.octets > self._octets:
            self._octets, self._heard = client.octets, now
        if now - self._heard > beat + self.player.timeout:
            fail("RW-HEARTBEAT-1", f"an octet within {beat:g} s", f"nothing for {now - self._heard:.1f} s")
        if now - self.began < self.seconds:
            return False
        client.wire.close()
        return True

    def _judge(self, lasted: float) -> None:
        client, kind = self.client, self.kind
        code = client.goaway.code if client.goaway and self.what != "lingering" else None
        if self.what == "preface" and client.preface:
            fail("RW-PREFACE-6", "no octet before the end", client.preface.hex())
        got = f"GOAWAY({code_name(code)})" if code is not None else client.last_words()
        if self.what == "beating":
            fail("RW-HEARTBEAT-2", "a connection that goes on", got)
        if code != kind.code:
            expected = f"GOAWAY({kind.code.name})" if kind.code else "the end, without GOAWAY"
            fail(kind.requirement, expected, got)
        if self.what == "silent" and client.welcome and lasted < 1.8 * client.welcome.heartbeat_ms / 1000:
            fail("RW-HEARTBEAT-2", f"the end after 2 H of {client.welcome.heartbeat_ms} ms", f"after {lasted:.1f} s")
        self.player.stats.visit("server", kind.state, kind.event)
