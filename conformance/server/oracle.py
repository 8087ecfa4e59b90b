"""A random plan of joins, publishes, repeats, leaves and drops, and a model that judges what comes of it.

`plan` chooses the same steps for the same seed. `Ledger` is told of each reply and each message that any connection
gets, and raises as soon as two of them contradict each other. The module has no I/O.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from conformance.harness.verdicts import Failed

Kind = Literal["connect", "join", "publish", "repeat", "leave", "drop", "goaway", "pause", "resume", "settle"]

ROOMS = 2


@dataclass(frozen=True)
class Step:
    """A step of one client. `room` is a number below ROOMS.

    publish: `count` messages at once; `flag`: ORDERED; `bad`: the index of a message that is refused, or -1
    drop: `count` messages first, without waiting for replies; `flag`: only half of the last one
    join: `flag`: with the cursor, if there is one; otherwise for the newest `count` messages
    """

    kind: Kind
    client: int
    room: int = 0
    count: int = 0
    flag: bool = False
    bad: int = -1


_DOWN: Mapping[Kind, int] = {"connect": 1}
_UP: Mapping[Kind, int] = {
    "join": 4,
    "publish": 8,
    "repeat": 3,
    "leave": 1,
    "drop": 2,
    "goaway": 1,
    "pause": 2,
    "resume": 3,
    "settle": 2,
}
_IN_A_ROOM = frozenset({"publish", "repeat", "leave"})


def plan(random: Random, clients: int, steps: int, *, without: Iterable[Kind] = ()) -> list[Step]:
    """Steps that are possible one after the other, independent of what the server answers."""
    up: set[int] = set()
    inside: set[tuple[int, int]] = set()
    paused: set[int] = set()
    left_out = set(without)
    planned: list[Step] = []
    while len(planned) < steps:
        client, room = random.randrange(clients), random.randrange(ROOMS)
        weights = {kind: weight for kind, weight in (_UP if client in up else _DOWN).items() if kind not in left_out}
        kind = random.choices(list(weights), list(weights.values()))[0]
        member = (client, room) in inside
        if (kind == "join" and member) or (kind in _IN_A_ROOM and not member):
            continue
        if (kind == "pause" and client in paused) or (kind == "resume" and client not in paused):
            continue
        count = random.randint(1, 6) if kind == "publish" else random.randint(0, 3)
        bad = random.randrange(count) if kind == "publish" and random.random() < 0.25 else -1
        planned.append(Step(kind, client, room, count, random.random() < 0.5, bad))
        if kind == "connect":
            up.add(client)
        elif kind in ("drop", "goaway"):
            up.discard(client)
            paused.discard(client)
            inside -= {(client, number) for number in range(ROOMS)}
        elif kind in ("join", "leave"):
            inside ^= {(client, room)}
            paused.discard(client)  # a client that waits for a reply reads
        elif kind == "pause":
            paused.add(client)
        elif kind in ("resume", "settle"):
            paused.discard(client)
    return planned


@dataclass
class Fate:
    """What is known of one id in one room. `unanswered` counts the copies without a reply."""

    payload: bytes
    seq: int = 0
    time_ms: int = 0
    unanswered: int = 0
    acknowledged: bool = False
    sender: int = 0


@dataclass
class Ledger:
    """The logs of all rooms, as far as clients were told. Each method raises Failed for a contradiction."""

    fates: dict[tuple[int, bytes], Fate] = field(default_factory=dict)
    logs: dict[int, dict[int, tuple[bytes, bytes, int, int]]] = field(default_factory=lambda: defaultdict(dict))

    def sent(self, room: int, id: bytes, payload: bytes) -> None:
        """Notes that a client sends a copy of a publish."""
        self.fates.setdefault((room, id), Fate(payload)).unanswered += 1

    def known(self, room: int, id: bytes) -> bool:
        """Whether an ACK for this id has come, so that each further copy is a repeat."""
        return self.fates[room, id].acknowledged

    def certain(self, room: int, id: bytes) -> bool:
        """Whether only the copy whose reply has just come can have made a message."""
        return self.fates[room, id].unanswered == 1

    def top(self, room: int) -> int:
        """The greatest seq that any client was told of."""
        return max(self.logs[room], default=0)

    def acknowledged(self, room: int, id: bytes, seq: int, time_ms: int, *, duplicate: bool) -> None:
        """Notes an ACK."""
        fate = self.fates[room, id]
        if fate.acknowledged or duplicate:
            if fate.acknowledged and not duplicate:
                raise Failed(f"DUPLICATE for an id that was acknowledged as seq {fate.seq}", "none", "RW-DEDUPE-1")
            if fate.acknowledged and (fate.seq, fate.time_ms) != (seq, time_ms):
                raise Failed(f"the place of the first copy, seq {fate.seq}", f"seq {seq}", "RW-DEDUPE-1")
            if duplicate and not fate.acknowledged and fate.unanswered < 2:
                raise Failed("DUPLICATE only where an earlier copy was sent", f"seq {seq}", "RW-DEDUPE-1")
        if fate.seq and fate.seq != seq:
            raise Failed(f"ACK with the seq of its message, {fate.seq}", f"seq {seq}", "RW-PROMISE-1")
        fate.unanswered -= 1
        fate.acknowledged = True
        fate.seq, fate.time_ms = seq, time_ms
        self._place(room, seq, id)

    def refused(self, room: int, id: bytes) -> None:
        """Notes an ERROR."""
        fate = self.fates[room, id]
        fate.unanswered -= 1
        if fate.seq and not fate.acknowledged and not fate.unanswered:
            raise Failed("no message of a publish that was refused", f"seq {fate.seq}", "RW-PROMISE-4")

    def message(self, room: int, seq: int, time_ms: int, sender: int, id: bytes, payload: bytes) -> None:
        """Notes a MESSAGE to any client."""
        fate = self.fates.get((room, id))
        if fate is None:
            raise Failed("only messages that were published", f"seq {seq} with id {id.hex()}", "RW-MODEL-1")
        if payload != fate.payload:
            raise Failed("the payload that was published", payload[:32].hex(), "RW-PUBLISH-4")
        if not fate.acknowledged and not fate.unanswered:
            raise Failed("no message of a publish that was refused", f"seq {seq}", "RW-PROMISE-4")
        if fate.acknowledged and (fate.seq, fate.time_ms) != (seq, time_ms):
            raise Failed(f"the place of the ACK, seq {fate.seq}", f"MESSAGE with seq {seq}", "RW-ACK-2")
        if fate.seq and fate.seq != seq:
            raise Failed(f"one message with id {id.hex()}, seq {fate.seq}", f"seq {seq} too", "RW-DEDUPE-1")
        fate.seq = seq
        self._place(room, seq, id)
        said = (id, payload, sender, time_ms)
        if self.logs[room][seq][2] and self.logs[room][seq] != said:
            raise Failed(f"the same message {seq} for every member", f"{said[2:]}", "RW-MODEL-2")
        self.logs[room][seq] = said

    def _place(self, room: int, seq: int, id: bytes) -> None:
        log = self.logs[room]
        if seq in log and log[seq][0] != id:
            raise Failed(f"one message at seq {seq}", f"{log[seq][0].hex()} and {id.hex()}", "RW-MODEL-2")
        log.setdefault(seq, (id, b"", 0, 0))

    def whole(self, room: int, first: int, last: int) -> None:
        """Notes that all retained messages were read from `first` to `last`, so that none may be missing."""
        missing = [seq for seq in range(first, last + 1) if not self.logs[room].get(seq, (b"", b"", 0, 0))[2]]
        if missing:
            raise Failed(f"messages {first} to {last}", f"none with seq {missing}", "RW-PROMISE-9")
        beyond = [seq for seq in self.logs[room] if seq > last]
        if beyond:
            raise Failed(f"nothing beyond {last}", f"seq {beyond}", "RW-PROMISE-1")
        for (place, id), fate in self.fates.items():
            if place == room and fate.acknowledged and fate.seq >= first and self.logs[room][fate.seq][0] != id:
                raise Failed(f"the acknowledged message {fate.seq}", "another one", "RW-PROMISE-1")
