"""The reference server without I/O as a network for the fuzzer, in one process and on a virtual clock.

Octets arrive when they are written, ticks end when the script waits, and time passes only in `sleep`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from random import Random
from types import MappingProxyType
from typing import Any

from conformance.fuzz.server.fuzzer import TIGHT
from protocol.names import key
from protocol.scram import MIN_ITERATIONS, StoredKeys, stored_keys
from reference_server.accounts import Account, Accounts
from reference_server.config import Config
from reference_server.core.hub import Hub
from reference_server.core.peer import Peer
from reference_server.core.room import TAIL_OCTETS
from reference_server.store.base import Retention
from reference_server.store.memory import MemoryStore
from tests.mutants.servers import SERVER, UNCHANGED, ServerMutant

HIGH_WATER = 64 * 1024
"""Unread octets of a client above which its link says that it is full."""

WALL_MS = 1_800_000_000_000

OPEN: dict[str, Any] = {
    "publish_rate": 10**6, "publish_burst": 10**6, "join_rate": 10**6, "join_burst": 10**6, "room_rate": 10**6,
    "memory": True, "address_connections": 10**6,
}  # fmt: skip
"""Settings without rate limits."""


_NO_ACCOUNTS: Mapping[str, str] = MappingProxyType({})


@lru_cache(maxsize=8)
def _keys(password: str) -> StoredKeys:
    return stored_keys(password, b"sixteen octets..", MIN_ITERATIONS)


def _accounts(passwords: Mapping[str, str]) -> Accounts:
    made = [Account(name, key(name), _keys(password)) for name, password in passwords.items()]
    return Accounts(b"secret", MIN_ITERATIONS, made)


class HubWire:
    """One connection: the fuzzer's `Wire`, and the work of the server's `_Link`."""

    def __init__(self, network: HubNetwork) -> None:
        self.ended = False
        self._network = network
        self._unread = bytearray()
        self._undelivered: list[bytes] = []
        self._closed = False  # by the server
        self._gone = False  # by the client
        self._paused = False
        self._server_paused = False  # the server does not read
        self._full = False
        self._ends = False
        assert network.hub is not None
        self.peer: Peer = network.hub.accept(_Link(self), "")

    # --- the fuzzer's side

    def write(self, octets: bytes) -> None:
        if not self._gone:
            self._undelivered.append(octets)
            self._deliver()

    def read(self) -> bytes:
        if self._paused or self.ended:
            return b""
        got = bytes(self._unread)
        self._unread.clear()
        if self._full and not self._closed:
            self._full = False
            self.peer.unblocked(self._network.time)
        if self._closed:
            self.ended = True
        return got

    def pause(self, paused: bool) -> None:
        self._paused = paused

    def eof(self) -> None:
        self._ends = True
        self._deliver()

    def close(self, *, abort: bool = False) -> None:
        if not self._gone:
            self._ends = True
            self._deliver()
            self._lost()
        self.ended = True

    def _lost(self) -> None:
        self._gone = True
        self._network.wires.discard(self)
        if not self._closed:
            self._closed = True
            self.peer.lost(self._network.time)

    def _deliver(self) -> None:
        while self._undelivered and not self._server_paused and not self._closed:
            octets = self._undelivered.pop(0)
            if octets:
                self.peer.receive(octets, self._network.time)
                self._network.tick()
        if self._ends and not self._undelivered and not self._closed:
            self._lost()

    # --- the server's side: peer.Link

    def out(self, octets: bytes) -> None:
        if not self._gone:
            self._unread += octets
            if not self._full and len(self._unread) > HIGH_WATER:
                self._full = True
                self.peer.blocked(self._network.time)

    def pause_reading(self) -> None:
        self._server_paused = True

    def resume_reading(self) -> None:
        self._server_paused = False
        self._network.resumed.append(self)

    def waiting(self) -> int:
        return len(self._unread)


class _Link:
    """The server's link. Some names of `peer.Link` mean something else on the fuzzer's side of `HubWire`."""

    def __init__(self, wire: HubWire) -> None:
        self._wire = wire
        self.write = wire.out
        self.pause_reading = wire.pause_reading
        self.resume_reading = wire.resume_reading
        self.waiting = wire.waiting

    def close(self) -> None:
        self._wire._closed = True


class _Host:
    """The hub's host: the clock of the network, and the end of a tick."""

    def __init__(self, network: HubNetwork) -> None:
        self._network = network

    def now(self) -> float:
        return self._network.time

    def wall_ms(self) -> int:
        return WALL_MS + int(self._network.time * 1000)

    def schedule_flush(self) -> None:
        self._network.schedule_flush()

    def schedule_credit(self) -> None:
        self._network.schedule_credit()

    def drain(self) -> None:
        self._network.drain()


class HubNetwork:
    """A server that can be crashed: the reference server, or a mutant inside of `servers.mutated`."""

    settled = True
    waits = True

    def __init__(
        self,
        seed: int = 1,
        mutant: ServerMutant | None = None,
        accounts: Mapping[str, str] = _NO_ACCOUNTS,
        **settings: Any,
    ) -> None:
        self.accounts = accounts
        self.time = 1000.0
        self.mutant = mutant or UNCHANGED
        self.config = Config(port=0, **{**OPEN, **settings, **self.mutant.config})
        self.limits: Mapping[str, int] = {
            name: getattr(self.config, name)
            for name in (
                "replay_messages", "history_messages", "quiet_members", "retention_messages", "preface_ms",
                "handshake_ms", "frame_ms", "heartbeat_ms", "linger_ms", "drain_ms", "stall_ms",
            )
        }  # fmt: skip
        self.world: dict[str, Any] = {"starts": 0}
        self.buffers = 2 * TAIL_OCTETS
        self.wires: set[HubWire] = set()
        self.resumed: list[HubWire] = []
        self.hub: Hub | None = None
        self._due = self._credit_due = False
        self._drained_at = 0.0
        self._random = Random(seed)
        self._store: MemoryStore | None = None
        self._start()

    def _start(self) -> None:
        retention = Retention(
            messages=self.config.retention_messages,
            age_ms=self.config.retention_ms,
            remember_ids=self.config.dedupe_ms > 0,
        )
        self._store = self.mutant.store(self._store, retention)
        self.world["starts"] += 1
        SERVER.set(self)  # type: ignore[arg-type]
        self.hub = Hub(self.config, self._store, _Host(self), lambda: self._random.getrandbits(64), "simulated")
        if self.accounts:
            self.hub.use_accounts(_accounts(self.accounts))

    def schedule_flush(self) -> None:
        """Makes `tick` flush the hub."""
        self._due = True

    def schedule_credit(self) -> None:
        """Makes `tick` give credit."""
        self._credit_due = True

    def tick(self) -> None:
        """Ends ticks until nothing is due."""
        assert self.hub is not None
        while self._due or self._credit_due or self.resumed:
            if self._credit_due:
                self._credit_due = False
                self.hub.give_credit()
            if self._due:
                self._due = False
                self.hub.flush()
            resumed, self.resumed = self.resumed, []
            for wire in resumed:
                wire._deliver()

    # --- the fuzzer's network

    def now(self) -> float:
        return self.time

    def connect(self) -> HubWire:
        wire = HubWire(self)
        self.wires.add(wire)
        return wire

    def wait(self, seconds: float) -> bool:
        before = self._due
        self.tick()
        return before

    def sleep(self, seconds: float) -> bool:
        assert self.hub is not None
        until = self.time + seconds
        while self.time < until:
            self.time = min(until, self.time + 0.25)
            for _ in self.hub.sweep():
                pass
            if self.hub.state.draining and self.time >= self._drained_at:
                self.hub.finish_drain()
            self.tick()
        return True

    def restart(self) -> bool:
        self._cut_all()
        self._start()
        return True

    def _cut_all(self) -> None:
        for wire in list(self.wires):
            if not wire._closed:
                wire._closed = True
                wire.peer.lost(self.time)
        self.wires.clear()
        self._due = self._credit_due = False

    def drain(self) -> bool:
        assert self.hub is not None
        self._drained_at = self.time + self.config.drain_ms / 1000
        self.hub.drain()
        self.tick()
        return True

    def operate(self, what: str) -> bool:
        assert self.hub is not None
        if what == "fail":
            self.hub.fail(OSError("the disk is full"))
        elif not self.accounts:
            return False
        else:
            self.hub.use_accounts(_accounts({} if what == "revoke" else self.accounts))
        self.tick()
        return True

    def fault(self) -> str:
        return ""


def tight(seed: int = 1) -> HubNetwork:
    """A server with the small limits that `fuzz server` offers a second server."""
    limits: dict[str, Any] = dict(TIGHT)
    return HubNetwork(seed, None, **limits)
