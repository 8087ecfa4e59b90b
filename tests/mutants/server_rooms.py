"""Servers that break one rule about rooms, presence, draining, history and names (SPEC.md, 3, 7.9 to 7.19, 9, 12)."""

import asyncio
import itertools
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol.errors import NameInvalid
from protocol.frames import (
    Ack,
    Goaway,
    Hello,
    HistoryEnd,
    Join,
    Joined,
    Leave,
    Message,
    Ping,
    Pong,
    Presence,
    Publish,
    Roster,
    Welcome,
)
from protocol.names import normalise
from protocol.registry import (
    Code,
    Flag,
    PresenceKind,
)
from reference_server.core.handlers import join as joiner
from reference_server.core.peer import Pending
from reference_server.net.listener import Listener
from reference_server.store.base import Retention
from reference_server.store.id_index import IdIndex
from reference_server.store.memory import MemoryStore
from tests.mutants.server_changes import (
    broken,
    never,
    of,
    pretends,
    recoded,
    stream,
    without,
)
from tests.mutants.servers import Alteration, Heard, Hears, Piece, fresh_id

# --- the model


def _one_more(a: Alteration, said: Piece) -> list[Piece]:
    match said:
        case Ack() | Message():
            return [replace(said, seq=said.seq + 1)]
        case Joined():
            return [replace(said, head=said.head + 1, start=said.start + 1, oldest=said.oldest + 1)]
    return [said]


def _as_asked(a: Alteration, heard: Heard) -> list[Piece]:
    if isinstance(heard, Join):
        a.notes["asked"] = heard.name
    return [heard]


def _own_refs(a: Alteration) -> int:
    number: int = a.notes.setdefault("own", next(a.world.setdefault("numbers", itertools.count(1)))) * 1000
    return number


def _shifted_in(a: Alteration, heard: Heard) -> list[Piece]:
    if isinstance(heard, (Publish, Leave)):
        return [replace(heard, room=max(heard.room - _own_refs(a), 1))]
    return [heard]


def _shifted_out(a: Alteration, said: Piece) -> list[Piece]:
    room = getattr(said, "room", 0)
    return [replace(said, room=room + _own_refs(a))] if room else [said]  # type: ignore[type-var]


def _one_ref(a: Alteration, said: Piece) -> list[Piece]:
    return [replace(said, room=5)] if getattr(said, "room", 0) else [said]  # type: ignore[type-var]


def _has_cursor(a: Alteration, heard: Heard) -> list[Piece]:
    if isinstance(heard, Join):
        a.notes["cursor"] = heard.epoch != 0
    return [heard]


def _no_head(a: Alteration, said: Piece) -> list[Piece]:
    """A log that was trimmed altogether begins anew."""
    if isinstance(said, Joined) and a.notes["cursor"] and said.oldest == said.head + 1:
        return [replace(said, head=0, start=1, oldest=1)]
    return [said]


def _at_the_head(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, Joined):
        a.notes["head"] = said.head
        return [replace(said, start=said.head + 1)]
    return [] if isinstance(said, Message) and not said.request and said.seq <= a.notes["head"] else [said]


_EPOCHS = itertools.count(1)

broken("counts from 2", "RW-MODEL-1", "RW-PROMISE-1", says=_one_more)
broken(
    "tells each member something else", "RW-MODEL-2",
    says=stream(lambda a, f: replace(f, payload=f.payload + b"%d" % a.notes.get("member", 0))),
)  # fmt: skip
broken("has one epoch for all rooms", "RW-MODEL-3", says=of(Joined, lambda f: replace(f, epoch=7)))
broken("has an epoch 0", "RW-MODEL-3", says=of(Joined, lambda f: replace(f, epoch=0)))
broken("has an epoch for each JOIN", "RW-MODEL-6", says=of(Joined, lambda f: replace(f, epoch=next(_EPOCHS))))
broken("has refs for each member", "RW-MODEL-7", hears=_shifted_in, says=_shifted_out)
broken("has one ref for all rooms", "RW-MODEL-7", says=_one_ref)
broken(
    "spells rooms as they were asked for", "RW-MODEL-7", "RW-NAME-4", "RW-JOIN-4",
    hears=_as_asked, says=lambda a, f: [replace(f, name=a.notes["asked"]) if isinstance(f, Joined) else f],
)  # fmt: skip
broken("forgets the head", "RW-MODEL-9", hears=_has_cursor, says=_no_head)
broken("keeps back what is retained", "RW-PROMISE-9", says=_at_the_head)


# --- stores that are not what they say


class Durable(MemoryStore):
    """Survives what the tests do to it."""

    durable = True
    _largest = 0

    def raise_max_body(self, max_body: int) -> int:
        self._largest = max(self._largest, max_body)
        return self._largest

    def close(self) -> None:
        """Keeps everything."""


def durable(old: MemoryStore | None, retention: Retention) -> MemoryStore:
    """The same store after each start."""
    return old or Durable(retention)


class Late(Durable):
    """What was committed is stable a while later; what is not stable yet is gone in a crash."""

    starts = 0

    def commit(self, done: Callable[[], None]) -> None:
        tails, starts = [(log, log.tail) for log in self._unstable], self.starts
        self._unstable.clear()

        def stable() -> None:
            if starts == self.starts:
                for log, tail in tails:
                    log.head = tail
                done()

        asyncio.get_running_loop().call_later(0.2, stable)

    def start_again(self) -> None:
        """Forgets what was not stable."""
        self.starts += 1
        for log in self._logs.values():
            del log._records[log.head + 1 - log.oldest :]
            log._ids = IdIndex()


def _late(old: MemoryStore | None, retention: Retention) -> MemoryStore:
    store = old or Late(retention)
    assert isinstance(store, Late)
    store.start_again()
    return store


def _answers_repeats_at_once(patch: pytest.MonkeyPatch) -> None:
    ready: Any = vars(Pending)["ready"]
    patch.setattr(Pending, "ready", property(lambda p: bool(p.flags & Flag.DUPLICATE) or ready.fget(p)))


def _after(change: Callable[[MemoryStore], None]) -> Callable[[MemoryStore | None, Retention], MemoryStore]:
    def boot(old: MemoryStore | None, retention: Retention) -> MemoryStore:
        if old is None:
            return Durable(retention)
        change(old)
        return old

    return boot


def _forget_last(store: MemoryStore) -> None:
    for log in store._logs.values():
        del log._records[-1:]
        log.head = log.tail


def _hole(store: MemoryStore) -> None:
    for log in store._logs.values():
        log._records[2:] = [record._replace(seq=record.seq + 1) for record in log._records[2:]]


def _forget_ids(store: MemoryStore) -> None:
    for log in store._logs.values():
        log.forget(2**48)


def _new_epochs(store: MemoryStore) -> None:
    for log in store._logs.values():
        log.epoch ^= 2


def _nothing_left(old: MemoryStore | None, retention: Retention) -> MemoryStore:
    return Durable(retention)


def _same_epochs(old: MemoryStore | None, retention: Retention) -> MemoryStore:
    return MemoryStore(retention, lambda size: bytes(size))


def _clock_back(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, Welcome):
        back = 100_000 * a.world["starts"] + 1000 * next(a.world.setdefault("welcomes", itertools.count()))
        return [replace(said, now_ms=said.now_ms - back)]
    return [said]


broken("loses the last message in a crash", "RW-PROMISE-1", "RW-PROMISE-2", "RW-PROMISE-3", boot=_after(_forget_last))
broken("loses a message in the middle", "RW-PROMISE-3", boot=_after(_hole))
broken("loses everything in a crash", "RW-PROMISE-2", "RW-MODEL-5", boot=_nothing_left)
broken("has new epochs after a crash", "RW-MODEL-5", boot=_after(_new_epochs))
broken("forgets ids in a crash", "RW-DEDUPE-3", "RW-DEDUPE-1", boot=_after(_forget_ids))
broken("answers repeats at once", "RW-DEDUPE-5", boot=_late, patch=_answers_repeats_at_once)
broken("begins logs again in their epochs", "RW-MODEL-4", boot=_same_epochs)
broken(
    "shrinks its limit over a restart", "RW-WELCOME-5", boot=durable,
    says=lambda a, f: [replace(f, max_body=4096) if isinstance(f, Welcome) and a.world["starts"] > 1 else f],
)  # fmt: skip
broken("sets its clock back", "RW-ID-4", "RW-ACK-1", boot=durable, says=_clock_back)


# --- joining, presence, draining


def _stops_after_replay(a: Alteration, f: Message) -> Message | None:
    return None if f.seq > a.notes["head"] and a.notes["head"] else f


def _before_joined(a: Alteration, said: list[Piece]) -> list[Piece]:
    joined = next((f for f in said if isinstance(f, Joined)), None)
    if joined is None:
        return said
    message = Presence(PresenceKind.JOINED, 99, "early", room=joined.room)
    return [message, *said]


def _of_itself(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, Welcome):
        a.notes["member"] = said.member
    if isinstance(said, Joined):
        return [said, Presence(PresenceKind.JOINED, a.notes["member"], "me", room=said.room)]
    return [said]


def _skips_one(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, HistoryEnd):
        a.notes["skip"] = True
    if isinstance(said, Message) and not said.request and a.notes.get("skip"):
        return []
    return [said]


def _spoken(a: Alteration, said: list[Piece]) -> list[Piece]:
    return [f for f in said if not (a.notes.get("draining") and isinstance(f, (Ack, Pong, Message)))]


def _notes_drain(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, Joined):
        a.notes["room"] = said.room
    if isinstance(said, Goaway) and said.code == Code.DRAINING:
        a.notes["draining"] = True
    return [said]


def _told_of_the_end(a: Alteration, heard: Heard) -> list[Piece]:
    if isinstance(heard, Ping) and a.notes.get("draining"):
        a.extra.append(Presence(PresenceKind.LEFT, 99, "gone", room=a.notes["room"]))
    return [heard]


def _still_listening(patch: pytest.MonkeyPatch) -> None:
    drain = Listener.drain

    def drain_open(listener: Listener) -> None:
        server, listener._server = listener._server, None
        drain(listener)
        listener._server = server
        listener.hub.draining = False

    patch.setattr(Listener, "drain", drain_open)


def _key_of(name: str) -> str:
    return name


def _names(change: Callable[[str], str]) -> Hears:
    def hears(a: Alteration, heard: Heard) -> list[Piece]:
        if isinstance(heard, (Join, Hello)):
            return [replace(heard, name=change(heard.name))]
        return [heard]

    return hears


def _any_name(name: str) -> str:
    try:
        normalise(name)
    except NameInvalid:
        return f"named {fresh_id().hex()}"
    return name if name != "\u115f\u115f" else f"named {fresh_id().hex()}"


def _plain_names(name: str) -> str:
    return name if name.startswith(("rw-", "u-")) or name in ("ada", "probe") else "\x07"


def _decomposed(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, (Joined, Welcome)):
        return [replace(said, name=unicodedata.normalize("NFD", said.name))]
    return [said]


def _other_name(a: Alteration, said: Piece) -> list[Piece]:
    return [replace(said, name=f"x{said.name[1:]}")] if isinstance(said, (Joined, Welcome)) else [said]


broken("joins twice", "RW-JOIN-1", "RW-CHECK-1", says=recoded({Code.ALREADY_JOINED: Code.FORBIDDEN}))
broken("has no number for its limit", "RW-JOIN-2", says=recoded({Code.TOO_MANY_ROOMS: Code.FORBIDDEN}))
broken("turns GAP round", "RW-CURSOR-1", says=of(Joined, lambda f: replace(f, flags=f.flags ^ Flag.GAP)))
broken(
    "starts elsewhere",
    "RW-CURSOR-1",
    says=of(Joined, lambda f: replace(f, start=f.head + 1 if f.start <= f.head else max(f.head, 1))),
)
broken(
    "replays something else",
    "RW-CURSOR-2",
    says=stream(lambda a, f: replace(f, payload=b"?") if f.seq <= a.notes["head"] else f),
)
broken("stops after the replay", "RW-CURSOR-2", "RW-CURSOR-3", "RW-CURSOR-5", says=stream(_stops_after_replay))
broken("loses its place by HISTORY", "RW-CURSOR-2", says=_skips_one)
broken("leaves out one message", "RW-CURSOR-2", says=stream(lambda a, f: None if f.seq == a.notes["head"] + 1 else f))
broken("sends presence before JOINED", "RW-CURSOR-5", batch=_before_joined)
broken("tells of nobody who joins", "RW-PRESENCE-2", "RW-ROSTER-4", says=without(Presence, lambda f: f.kind == 1))
broken("tells of nobody who goes", "RW-PRESENCE-2", "RW-CLOSE-6", says=without(Presence, lambda f: f.kind != 1))
broken("tells a wrong name", "RW-PRESENCE-2", "RW-PRESENCE-3", says=of(Presence, lambda f: replace(f, name="x")))
broken("calls everybody lost", "RW-PRESENCE-3", says=of(Presence, lambda f: replace(f, kind=3) if f.kind == 2 else f))
broken(
    "calls nobody lost",
    "RW-PRESENCE-3",
    "RW-CLOSE-6",
    says=of(Presence, lambda f: replace(f, kind=2) if f.kind == 3 else f),
)
broken("tells a member of itself", "RW-PRESENCE-4", says=_of_itself)
broken("does not count who joins", "RW-PRESENCE-5", says=of(Joined, lambda f: replace(f, members=f.members + 1)))
broken(
    "does not list who joins", "RW-PRESENCE-5", "RW-ROSTER-1",
    says=of(Roster, lambda f: replace(f, entries=f.entries[:-1])),
)  # fmt: skip
broken("has no roster", "RW-ROSTER-1", says=of(Roster, never))
broken("has a roster without RESET", "RW-ROSTER-2", says=of(Roster, lambda f: replace(f, flags=0)))
broken("lists members twice", "RW-ROSTER-2", says=of(Roster, lambda f: replace(f, entries=f.entries * 2)))
broken("ends no roster", "RW-ROSTER-2", says=of(Roster, lambda f: replace(f, flags=f.flags | Flag.MORE)))
broken("has an old roster", "RW-ROSTER-4", says=of(Roster, lambda f: replace(f, entries=f.entries[1:])))
broken("does not answer while it drains", "RW-DRAIN-2", says=_notes_drain, batch=_spoken)
broken("ends a drain with NONE", "RW-DRAIN-3", "RW-DRAIN-5", says=recoded({Code.SHUTDOWN: Code.NONE}))
broken("never ends a drain", "RW-DRAIN-3", config={"drain_ms": 10**9})
broken("tells of those who go while it drains", "RW-DRAIN-5", says=_notes_drain, hears=_told_of_the_end)
broken("takes new connections while it drains", "RW-DRAIN-6", patch=_still_listening)

# --- history


def _pairs(change: Callable[[list[Piece]], list[Piece]]) -> Callable[[Alteration, list[Piece]], list[Piece]]:
    """Changes the order of the MESSAGEs of a reply to HISTORY."""

    def batch(a: Alteration, said: list[Piece]) -> list[Piece]:
        mine = [f for f in said if isinstance(f, Message) and f.request]
        turned = iter(change(list(mine)))
        return [next(turned) if isinstance(f, Message) and f.request else f for f in said]

    return batch


broken("turns history round", "RW-HISTORY-1", batch=_pairs(lambda said: said[::-1]))
broken("has no history", "RW-HISTORY-2", says=lambda a, f: [] if isinstance(f, Message) and f.request
       else [replace(f, end=f.start)] if isinstance(f, HistoryEnd) else [f])  # fmt: skip
broken("reads ranges backwards", "RW-HISTORY-4", "RW-CHECK-1", says=pretends(Code.RANGE_INVALID))
broken("turns MORE round", "RW-HISTORY-5", says=of(HistoryEnd, lambda f: replace(f, flags=f.flags ^ Flag.MORE)))
broken(
    "tells a wrong range", "RW-HISTORY-6", says=of(HistoryEnd, lambda f: replace(f, start=f.start + 1, end=f.end + 1))
)
broken(
    "remembers history otherwise", "RW-HISTORY-1", "RW-MODEL-2",
    says=of(Message, lambda f: replace(f, time_ms=f.time_ms + 1) if f.request else f),
)  # fmt: skip

# --- names

broken("leaves names as they are", "RW-NAME-1", "RW-NAME-2", says=_decomposed)
broken("calls people and rooms otherwise", "RW-NAME-1", says=_other_name)
broken("takes any name", "RW-NAME-2", "RW-NAME-3", "RW-NAME-4", "RW-HELLO-3", hears=_names(_any_name))
broken("takes plain names only", "RW-NAME-1", "RW-NAME-3", "RW-NAME-4", hears=_names(_plain_names))
broken("compares names letter by letter", "RW-NAME-4", "RW-JOIN-1", patch=lambda p: p.setattr(joiner, "key", _key_of))
