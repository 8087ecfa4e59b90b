"""The connections of a script that is being played, and waiting for what they are due."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from random import Random

from conformance.fuzz.failure import Said, fail
from conformance.fuzz.server.model import Model
from conformance.fuzz.server.network import Network
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.requests import Requests
from conformance.fuzz.server.steps import Step
from conformance.fuzz.stats import Stats
from conformance.harness.verdicts import Crashed
from protocol.registry import Code, PresenceKind

_CODES_OF_THE_END = (Code.SLOW, Code.TIMEOUT, Code.SHUTDOWN, Code.DRAINING)
"""With which a connection may end that did not read, and so did not answer."""


class Waiting(ABC):
    """The state of one run of one script. `timeout` is how long an answer may take, in seconds of the network's clock.

    The same `seed` gives the same octets, but for what names the run: `fresh` is in the names of its rooms. With
    `ascii_only` the server is known to take no other names, with None it will show.
    """

    def __init__(
        self,
        network: Network,
        seed: int,
        stats: Stats,
        timeout: float,
        fresh: str = "",
        ascii_only: bool | None = None,
    ) -> None:
        self.network = network
        self.stats = stats
        self.timeout = timeout
        self.random = Random(seed)
        self.fresh = fresh or hashlib.sha256(f"{seed} {network.now()}".encode()).hexdigest()[:10]
        self.model = Model(dict(network.limits), network.settled, ascii_only=ascii_only)
        self.requests = Requests(self.model, self.random, self.fresh, network.now, network.buffers)
        self.log: list[Said] = []
        self.clients: dict[int, RawClient] = {}
        self.others: list[RawClient] = []
        self.cursors: dict[int, dict[int, tuple[int, int]]] = {}
        self.at = -1
        self._read_at = network.now()
        self._labels = 0

    def close(self) -> None:
        """Ends all connections without a word."""
        for end in [*self.clients.values(), *self.others]:
            end.wire.close()
        self.clients.clear()

    @abstractmethod
    def take(self, step: Step) -> None:
        """Takes one step, and waits until all that it must lead to is there. Raises Failed."""

    def dial(self) -> RawClient:
        try:
            wire = self.network.connect()
        except OSError as error:
            raise Crashed(f"no connection: {error}") from None
        self.stats.connections += 1
        self._labels += 1
        return RawClient(f"c{self._labels}", wire, self.model, self.stats, self.log, self.network.now())

    # --- waiting

    def settle(self) -> None:
        """Waits until everybody who reads has all that is known to be due. Raises Failed."""
        reading = [end for end in self.clients.values() if not end.paused and not end.wire.ended]
        for end in reading:
            self.until(lambda end=end: not (end.due or end.pongs), "replies", "RW-REQUEST-2", end)  # type: ignore[misc]
        for end in reading:
            if self.model.owed(end):
                self.until(lambda end=end: not self.model.owed(end), "", "", end)  # type: ignore[misc]

    def until(
        self, done: Callable[[], bool], expected: str, requirement: str, end: RawClient, within: float = 0.0
    ) -> None:
        """Waits until it is done, or the connection has ended that is expected to; `within` seconds, if given."""
        deadline = self.network.now() + (within or self.timeout)
        while True:
            self.read()
            if done() or (end.wire.ended and end.expects_end):
                return
            left = deadline - self.network.now()
            if left > 0 and self.network.wait(left):
                continue
            self.read()
            if done():
                return
            if not requirement:
                requirement, _, expected = self.model.owed(end).partition(" ")
            elif end.due and requirement == "RW-REQUEST-2":
                expected = f"the reply to request {end.due[0].request}"
            elif end.pongs and requirement == "RW-REQUEST-2":
                requirement, expected = "RW-PING-1", "the PONG to a PING"
            fail(requirement, expected, f"nothing within {self.timeout:g} s, {end.last_words()}")

    def read(self) -> None:
        """Takes in what has come on all connections, and judges it. Raises Failed."""
        ends = [*self.clients.values(), *self.others]
        now, before = self.network.now(), self._read_at
        self._read_at = now
        for end in ends if now - before > 1.0 else ():
            if end.welcome and now - before > end.welcome.heartbeat_ms / 2000:
                end.slow = True  # a standstill of the suite is not the server's
        for end in ends:
            if data := end.wire.read():
                end.inbox += data
        # Who waits for a reply is judged first: what others are told of it must not be a surprise to the model.
        busy = [end for end in ends if end.busy]
        for end in [*busy, *(end for end in ends if end.aside)] if busy else ends:
            if end.inbox:
                data, end.inbox = bytes(end.inbox), bytearray()
                end.take_in(data)
            if (end.wire.ended or end.goaway_ends) and not end.expects_end:
                self._cut_off(end)
        if self.others:
            self.others = [end for end in self.others if not end.wire.ended]

    def _cut_off(self, end: RawClient) -> None:
        """The server has ended a connection that nobody wanted ended."""
        end.expects_end = True
        if not (end.slow and (end.goaway is None or end.goaway.code in _CODES_OF_THE_END)):
            requirement = "RW-REQUEST-2" if end.due else "RW-CLOSE-7" if end.goaway is None else "RW-CLOSE-2"
            fail(requirement, "a connection that goes on", end.last_words())
        if end.goaway and end.goaway.code == Code.SLOW:
            self.stats.visit("server", "OPEN", "time-out")
        end.ended(PresenceKind.LOST, seen=True)
        end.wire.close()
        end.due.clear()
        end.pongs.clear()
        for number, other in list(self.clients.items()):
            if other is end:
                del self.clients[number]
