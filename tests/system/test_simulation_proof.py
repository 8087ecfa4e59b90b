"""The simulation can fail: each of these mutants breaks one rule of the promise, and the oracle notices."""

from collections.abc import Callable

import pytest

from protocol.frames import Publish
from protocol.registry import Flag
from reference_server.config import Config
from reference_server.core.handlers import HANDLERS, publish
from reference_server.core.handlers.publish import Publication
from reference_server.core.peer import Peer
from reference_server.core.room import Room
from reference_server.store.id_index import IdIndex
from reference_server.store.memory import MemoryLog, MemoryStore
from tests.support.oracle import check_end, check_views
from tests.support.simulation import CrashingStore, World, keep_ids
from tests.system.test_simulation import heal, killed_between_steps

Mutant = Callable[[pytest.MonkeyPatch], None]


def forget_ids(patch: pytest.MonkeyPatch) -> None:
    """RW-DEDUPE-1."""
    patch.setattr(IdIndex, "get", lambda self, id: None)
    patch.setattr(IdIndex, "add", lambda self, id, known: None)


def acknowledge_early(patch: pytest.MonkeyPatch) -> None:
    """RW-PROMISE-1."""
    patch.setattr(Publication, "ready", property(lambda self: self.outcome[0] <= self.chain.room.log.tail))


def ignore_refusals(patch: pytest.MonkeyPatch) -> None:
    """RW-ORDER-1."""

    def unordered(peer: Peer, frame: Publish, now: float) -> None:
        member = peer.memberships.get(frame.room)
        if member is not None and frame.flags & Flag.ORDERED:
            member.refused = False
        publish.publish(peer, frame, now)

    patch.setitem(HANDLERS, Publish, unordered)


def skip_one(patch: pytest.MonkeyPatch) -> None:
    """RW-CURSOR-2."""
    patch.setattr(Room, "_portion", lambda self, cursor, head: (head, self._tail[-1]))


def tell_no_one(patch: pytest.MonkeyPatch) -> None:
    """RW-PRESENCE-2."""
    detach = Room.detach
    patch.setattr(Room, "detach", lambda self, member, kind: detach(self, member, None))


def lose_last_message(patch: pytest.MonkeyPatch) -> None:
    """RW-PROMISE-2."""
    crash = CrashingStore.crash

    def lossy(self: CrashingStore) -> None:
        for log, head in self.on_disk.items():
            self.on_disk[log] = max(0, head - 1)
        crash(self)

    patch.setattr(CrashingStore, "crash", lossy)


def publish_before_commit(patch: pytest.MonkeyPatch) -> None:
    """RW-PROMISE-1: messages are acknowledged and delivered before they are on disk."""

    def early(self: CrashingStore, heads: list[tuple[MemoryLog, int]]) -> None:
        MemoryStore.make_stable(self, heads)
        self.write(lambda: self.on_disk.update(heads), 0.05)

    patch.setattr(CrashingStore, "make_stable", early)


def lose_last_id(patch: pytest.MonkeyPatch) -> None:
    """RW-DEDUPE-3: a message and its id are not in one transaction."""
    crash = CrashingStore.crash

    def lossy(self: CrashingStore) -> None:
        crash(self)
        for log in self._logs.values():
            keep_ids(log, log.head - 1)

    patch.setattr(CrashingStore, "crash", lossy)


def disturbed() -> None:
    """Publishes, crashes, lost connections, refusals, joins and leaves."""
    for seed in range(6):
        world = World(seed, 3, Config(publish_burst=2, publish_rate=60))
        for client in world.clients:
            client.join("red")
        world.run(1.0)
        for turn in range(8):
            for _ in range(8):
                world.clients[turn % 3].publish("red", 1)
                world.run(0.004 * turn)
            if turn % 3 == 0:
                world.crash()
            elif (connection := world.clients[turn % 3].connection) is not None:
                connection.cut()
            world.run(2.0)
            if turn == 5:
                world.clients[2].leave("red")
        check_views(world)
        heal(world)
        check_end(world)


def test_unchanged_server_passes() -> None:
    disturbed()


@pytest.mark.parametrize(
    "mutant", [forget_ids, acknowledge_early, ignore_refusals, skip_one, tell_no_one, lose_last_message]
)
def test_server_mutant_is_noticed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        disturbed()


@pytest.mark.parametrize("mutant", [publish_before_commit, lose_last_id, lose_last_message])
def test_store_mutant_is_noticed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        killed_between_steps()
