"""Plays a script at a server: takes its steps, waits for what each must lead to, and judges everything that comes.

Nothing here sleeps in order to wait. A PING fences the replies of a connection, and the streams of all members that
read are awaited up to the head that the model knows. The steps are functions in modules by subject (`login_steps`,
`broken_steps`, `lifecycle_steps`, `requests`), which the package imports.
"""

import hashlib
from collections.abc import Callable, Sequence
from random import Random
from typing import NoReturn, TypeAlias

from conformance.fuzz.failure import Failure, Said, fail
from conformance.fuzz.server.model import Model
from conformance.fuzz.server.network import Network
from conformance.fuzz.server.raw_client import RawClient
from conformance.fuzz.server.steps import Step
from conformance.fuzz.stats import Stats
from conformance.harness.verdicts import Crashed, Failed
from protocol.registry import Code, PresenceKind

_CODES_OF_SLOW = (Code.SLOW, Code.TIMEOUT, Code.SHUTDOWN, Code.DRAINING)
"""Codes that may end a connection that did not read, and so did not answer."""

Take: TypeAlias = Callable[["Player", Step], None]
STEPS: dict[str, Take] = {}
"""What takes a step, by its name. A step that makes no sense at the moment is passed over."""


def step(name: str) -> Callable[[Take], Take]:
    """Registers a function that takes the steps of a name."""

    def register(take: Take) -> Take:
        STEPS[name] = take
        return take

    return register


class Player:
    """One run of one script. `timeout` is how long an answer may take, in seconds of the network's clock.

    The same `seed` gives the same octets, except for `fresh`, which is in the names of the run's rooms. `ascii_only` is
    True for a server that takes only ASCII names, False for one that takes others, and None if that is not known.
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
        self.log: list[Said] = []
        self.clients: dict[int, RawClient] = {}
        self.others: list[RawClient] = []
        self.cursors: dict[int, dict[int, tuple[int, int]]] = {}
        self.publishes = 0
        self.at = -1
        self._read_at = network.now()
        self._labels = 0

    # --- the script

    def play(self, steps: Sequence[Step], *, whole: bool = True) -> Failure | None:
        """Takes all steps, then holds the end against the promise. Returns what went wrong, if anything did.

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

    def take(self, step: Step) -> None:
        """Takes one step, and waits for all that it must lead to. Raises Failed."""
        self.stats.steps += 1
        STEPS[step.do](self, step)
        self.settle()

    def finish(self) -> None:
        """Has all clients read and publish once more, and a newcomer read all logs. Raises Failed."""
        self.all_read()
        rooms = sorted(number for number, room in self.model.rooms.items() if room.epoch)
        for number, client in list(self.clients.items()):
            for stream in list(client.streams.values())[:1]:
                self.take(Step("send", number, stream.room.number, items=("text",)))
        reader = max(self.clients, default=0) + 1
        if not rooms:
            return
        self.take(Step("connect", reader))
        for room in rooms:
            self.take(Step("send", reader, room, items=("join-last",), number=30_000))
            if self.model.room(room).members:
                self.take(Step("send", reader, room, items=("text", "history")))
        for client in self.clients.values():
            self.fence(client)
        self.settle()

    def close(self) -> None:
        """Ends all connections without GOAWAY."""
        for client in [*self.clients.values(), *self.others]:
            client.wire.close()
        self.clients.clear()

    # --- connections

    def dial(self) -> RawClient:
        """Makes a connection. Raises Crashed."""
        try:
            wire = self.network.connect()
        except OSError as error:
            raise Crashed(f"no connection: {error}") from None
        self.stats.connections += 1
        self._labels += 1
        return RawClient(f"c{self._labels}", wire, self.model, self.stats, self.log, self.network.now())

    def dial_aside(self) -> RawClient:
        """Makes a connection that no step has a number for, and that may end. Raises Crashed."""
        client = self.dial()
        self.others.append(client)
        client.expects_end = True
        return client

    def reader(self, step: Step) -> RawClient | None:
        """The client of a step, if it is connected and reads."""
        client = self.clients.get(step.client)
        return client if client and not client.paused else None

    def new_id(self, client: RawClient, off_ms: int = 0) -> bytes:
        """An id whose time is that of the server's clock, or `off_ms` milliseconds behind or ahead of it."""
        assert client.welcome
        now = client.welcome.now_ms + int((self.network.now() - client.welcomed) * 1000) + off_ms
        return max(0, now).to_bytes(6, "big") + self.random.randbytes(10)

    def fence(self, client: RawClient) -> None:
        """Sends a PING, whose PONG comes after all replies that are due."""
        if client.open and not client.paused:
            client.write(client.ping(self.random.randbytes(8)))

    def all_read(self) -> None:
        """Has the clients that were paused read again, and waits for what they are due. Raises Failed."""
        for client in self.clients.values():
            if client.paused:
                client.pause(False)
        self.settle()

    # --- waiting

    def settle(self) -> None:
        """Waits until all clients that read have all that is known to be due. Raises Failed."""
        reading = [client for client in self.clients.values() if not client.paused and not client.wire.ended]
        for client in reading:
            self._until_replied(client)
        for client in reading:
            self._until_paid(client)

    def _until_replied(self, client: RawClient) -> None:
        self.until(lambda: not (client.due or client.pongs), "replies", "RW-REQUEST-2", client)

    def _until_paid(self, client: RawClient) -> None:
        if self.model.owed(client):
            self.until(lambda: not self.model.owed(client), "", "", client)

    def until_preface(self, client: RawClient) -> None:
        """Waits for the server's preface. Raises Failed."""
        self.until(lambda: bool(client.preface), "the server's preface", "RW-PREFACE-2", client)

    def until_goaway(self, client: RawClient, requirement: str, *codes: Code) -> None:
        """Waits for GOAWAY with one of the codes. Raises Failed for another end too."""
        expected = f"GOAWAY({' or '.join(code.name for code in codes)})"
        self.until(lambda: client.goaway_ends or client.wire.ended, expected, requirement, client)
        if not client.goaway or client.goaway.code not in codes:
            fail(requirement, expected, client.last_words())

    def until(
        self, done: Callable[[], bool], expected: str, requirement: str, client: RawClient, within: float = 0.0
    ) -> None:
        """Waits until `done()`, or until a connection ends that is expected to end.

        Raises Failed after `within` seconds, 0 standing for `timeout`. With no requirement the model names it.
        """
        deadline = self.network.now() + (within or self.timeout)
        while True:
            self.read()
            if done() or (client.wire.ended and client.expects_end):
                return
            left = deadline - self.network.now()
            if left > 0 and self.network.wait(left):
                continue
            self.read()
            if done():
                return
            self._overdue(expected, requirement, client)

    def _overdue(self, expected: str, requirement: str, client: RawClient) -> NoReturn:
        if not requirement:
            requirement, _, expected = self.model.owed(client).partition(" ")
        elif client.due and requirement == "RW-REQUEST-2":
            expected = f"the reply to request {client.due[0].request}"
        elif client.pongs and requirement == "RW-REQUEST-2":
            requirement, expected = "RW-PING-1", "the PONG to a PING"
        fail(requirement, expected, f"nothing within {self.timeout:g} s, {client.last_words()}")

    def read(self) -> None:
        """Reads what has come on all connections, and judges it. Raises Failed."""
        clients = [*self.clients.values(), *self.others]
        now, before = self.network.now(), self._read_at
        self._read_at = now
        for client in clients if now - before > 1.0 else ():
            if client.welcome and now - before > client.welcome.heartbeat_ms / 2000:
                client.slow = True  # the suite stood still, not the server
        for client in self.clients.values():
            client.keep_alive(now)
        for client in clients:
            if data := client.wire.read():
                client.inbox += data
        # Clients that wait for a reply are judged first: the model has to know what the others are told because of it.
        busy = [client for client in clients if client.busy]
        for client in [*busy, *(client for client in clients if client.aside)] if busy else clients:
            if client.inbox:
                data, client.inbox = bytes(client.inbox), bytearray()
                client.take_in(data)
            if (client.wire.ended or client.goaway_ends) and not client.expects_end:
                self._cut_off(client)
        if self.others:
            self.others = [client for client in self.others if not client.wire.ended]

    def _cut_off(self, client: RawClient) -> None:
        """The server has ended a connection that should have gone on."""
        client.expects_end = True
        goaway = client.goaway
        if not (client.slow and (goaway is None or goaway.code in _CODES_OF_SLOW)):
            requirement = "RW-REQUEST-2" if client.due else "RW-CLOSE-7" if goaway is None else "RW-CLOSE-2"
            fail(requirement, "a connection that goes on", client.last_words())
        if goaway and goaway.code == Code.SLOW:
            self.stats.visit("server", "OPEN", "time-out")
        client.ended(PresenceKind.LOST, seen=True)
        client.wire.close()
        client.due.clear()
        client.pongs.clear()
        for number, other in list(self.clients.items()):
            if other is client:
                del self.clients[number]
