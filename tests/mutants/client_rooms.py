"""More clients that break one requirement each: rooms, publishing, recovery, and how connections end."""

import itertools
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from protocol.client import ClientConnection
from protocol.connection import Connection
from protocol.errors import (
    Malformed,
    SequenceBroken,
    Unexpected,
)
from protocol.frames import (
    Ack,
    Error,
    Evicted,
    Frame,
    Goaway,
    Joined,
    Leave,
    Message,
    Ping,
    Presence,
    Publish,
    Roster,
    Welcome,
)
from protocol.registry import Code, Flag
from reference_client.events import Gap
from reference_client.session import session as session_module
from reference_client.session.backoff import Backoff
from reference_client.session.membership import RoomState
from reference_client.session.outbox import Outbox, Pace
from reference_client.session.requests import Requests
from reference_client.session.session import Session
from reference_client.transport import Transport
from tests.mutants.clients import (
    BROKEN,
    Patch,
    add,
    as_is,
    breaks,
    each,
    hears,
    only,
    refuses,
    replaces,
    reports,
    sends,
    swallows,
)

__all__ = ["BROKEN"]

# Rooms, sections 7.12, 7.18 and 9.

add("old_ref", "RW-MODEL-8", sends(each(Publish, lambda f: replace(f, room=5))))
add("epochs_are_one", "RW-MODEL-10", reports(lambda r: {**r, "epoch": "7"} if r.get("event") == "message" else r))
add("plain_names", "RW-MODEL-10", reports(lambda r: {**r, "name": "?"} if "payload" in r else r), "client/9.1/content")
add("leaves_another", "RW-MODEL-8", sends(each(Leave, lambda f: replace(f, room=f.room + 1))), "client/7.13/leave")
add("another_room", "RW-MODEL-8", sends(each(Publish, lambda f: replace(f, room=f.room + 1))), "client/7.15/content")
add("silent", "RW-PROMISE-10", reports(lambda r: None if r.get("event") == "gap" else r))


@breaks("RW-PROMISE-10")
def only_by_the_flag(patch: Patch) -> None:
    plain = RoomState.joined
    patch.setattr(
        RoomState,
        "joined",
        lambda self, frame, membership: (
            plain(self, frame, membership) if frame.flags & Flag.GAP else (plain(self, frame, membership) and None)
        ),
    )


@breaks("RW-CURSOR-4")
def cursor_from_one(patch: Patch) -> None:
    plain = ClientConnection._membership_replied

    def replied(self: ClientConnection, membership: Any, frame: Frame) -> None:
        plain(self, membership, frame)
        if isinstance(frame, Joined):
            membership.cursor = 0

    patch.setattr(ClientConnection, "_membership_replied", replied)


add("overlooked", "RW-CURSOR-6", swallows("_membership_replied", Malformed))


def _sequenced(judge: Callable[[int, int], bool]) -> Callable[[Patch], None]:
    """A stream of which each message is taken as `judge(seq, cursor)` says."""

    def sequenced(self: ClientConnection, ref: int, seq: int, frame: str) -> bool:
        membership = self._member(ref, frame)
        taken = judge(seq, membership.cursor)
        membership.cursor = max(seq, membership.cursor)
        return taken

    return replaces(ClientConnection, "_sequenced", sequenced)


@breaks("RW-STREAM-1")
def everything_is_shown(patch: Patch) -> None:
    _sequenced(lambda seq, cursor: True)(patch)
    patch.setattr(RoomState, "shows", lambda self, seq: True)


@breaks("RW-STREAM-1")
def old_is_fatal(patch: Patch) -> None:
    def judge(seq: int, cursor: int) -> bool:
        if seq <= cursor:
            raise SequenceBroken("MESSAGE")
        return True

    _sequenced(judge)(patch)


add("holes", "RW-STREAM-2", _sequenced(lambda seq, cursor: seq > cursor))
add("overlooked", "RW-STREAM-3", swallows("_interpret", Unexpected))


@breaks("RW-HISTORY-3")
def history_moves_the_cursor(patch: Patch) -> None:
    plain = ClientConnection._replied

    def replied(self: ClientConnection, frame: Frame) -> Any:
        if isinstance(frame, Message) and frame.room in self.memberships:
            self.memberships[frame.room].cursor = frame.seq
        return plain(self, frame)

    patch.setattr(ClientConnection, "_replied", replied)


_KINDS = (1, 2, 3, 4)
add("fatal", "RW-PRESENCE-1", refuses(lambda f: isinstance(f, Presence) and f.kind not in _KINDS, Malformed))
add("kinds", "RW-PRESENCE-1", hears(only(Presence, lambda f: f if f.kind in _KINDS else replace(f, kind=2))))
add("fatal", "RW-PRESENCE-6", refuses(lambda f: isinstance(f, Presence) and f.member >= 98, Unexpected))
add("grows", "RW-ROSTER-5", hears(only(Roster, lambda f: replace(f, flags=f.flags & ~Flag.RESET))))
add("kept", "RW-QUIET-3", hears(only(Presence, lambda f: replace(f, kind=9) if f.kind == 4 else f)))
add("gives_up", "RW-LAG-4", hears(only(Evicted, lambda f: replace(f, flags=0))))


@breaks("RW-LAG-4")
def old_is_new(patch: Patch) -> None:
    plain = RoomState.shows

    def shows(self: RoomState, seq: int) -> bool:
        self.lagged = 0
        return plain(self, seq)

    patch.setattr(RoomState, "shows", shows)


add("insists", "RW-LAG-5", hears(only(Evicted, lambda f: replace(f, flags=Flag.RETRY))))
add(
    "gives_up",
    "RW-LAG-6",
    hears(only(Error, lambda f: replace(f, code=Code.FORBIDDEN) if f.code == Code.NOT_JOINED else f)),
)


# Publishing and recovery, sections 4, 10 and 11.


@breaks("RW-PROMISE-5")
def new_ids(patch: Patch) -> None:
    plain = Outbox.take

    def take(self: Outbox, request: int) -> None:
        plain(self, request)
        self.sent[request].id = b""

    patch.setattr(Outbox, "take", take)


@breaks("RW-PROMISE-5", "client/7.4/waits")
def other_content(patch: Patch) -> None:
    plain = Outbox.refused

    def refused(self: Outbox, request: int, *, repeat: bool) -> Any:
        self.sent[request].payload += b"!"
        return plain(self, request, repeat=repeat)

    patch.setattr(Outbox, "refused", refused)


add("certain", "RW-PROMISE-6", reports(lambda r: {**r, "unknown": False} if "unknown" in r else r))
add("own_clock", "RW-ID-1", replaces(Requests, "_new_id", lambda self, now: _ulid(time.time() * 1000)))
add("guessable", "RW-ID-1", replaces(Requests, "_new_id", lambda self, now: _ulid(self._welcome.now_ms, _next())))
_COUNT = itertools.count(1)


def _next() -> bytes:
    return next(_COUNT).to_bytes(10, "big")


def _ulid(now_ms: float, tail: bytes = b"") -> bytes:
    return int(now_ms).to_bytes(6, "big") + (tail or random.randbytes(10))


add("blindly", "RW-DEDUPE-7", hears(only(Welcome, lambda f: replace(f, dedupe_ms=600_000))))
add("early", "RW-DEDUPE-8", replaces(RoomState, "caught_up", property(lambda self: self.state == "IN")))


@breaks("RW-ORDER-2")
def at_once(patch: Patch) -> None:
    def next_(self: Outbox) -> Any:
        self.waiting.extendleft(reversed(self._refused))
        self._refused.clear()
        return self.waiting[0] if self.waiting else None

    patch.setattr(Outbox, "next", next_)


add("always_ordered", "RW-ORDER-2", replaces(Outbox, "ordered", property(lambda self: True)))


@breaks("RW-ORDER-3")
def new_ones_first(patch: Patch) -> None:
    plain = Outbox.disconnected

    def disconnected(self: Outbox) -> None:
        plain(self)
        self.waiting.reverse()

    patch.setattr(Outbox, "disconnected", disconnected)


add("all_at_once", "RW-ORDER-4", replaces(Pace, "allows", lambda self, under_way: True))


@breaks("RW-ORDER-4")
def the_rest_at_once(patch: Patch) -> None:
    plain = Outbox.take

    def take(self: Outbox, request: int) -> None:
        plain(self, request)
        self.pace._limit = 1 << 16

    patch.setattr(Outbox, "take", take)


add("from_nowhere", "RW-RECOVER-1", replaces(RoomState, "where", property(lambda self: (0, 0))))
add("blind", "RW-RECOVER-2", replaces(Outbox, "found", lambda self, id: None))
add("twice", "RW-RECOVER-3", replaces(RoomState, "shows", lambda self, seq: True))


# Connections, section 8.

add("silent", "RW-HEARTBEAT-1", replaces(Connection, "_keep_alive", lambda self, now: None))


@breaks("RW-HEARTBEAT-2")
def waits_for_ever(patch: Patch) -> None:
    def timeout(self: ClientConnection, now: float) -> None:
        if self.state in ("OPEN", "DRAINING"):
            self._keep_alive(now)

    patch.setattr(ClientConnection, "handle_timeout", timeout)


@breaks("RW-HEARTBEAT-4")
def reads_nothing_while_it_writes(patch: Patch) -> None:
    plain = Transport.write

    def write(self: Transport, data: bytes) -> None:
        plain(self, data)
        if self.unwritten:
            assert self._inner
            self._inner.pause_reading()

    patch.setattr(Transport, "write", write)


add("ping", "RW-CLOSE-1", sends(each(Goaway, as_is, lambda f: Ping(bytes(8)))))
add("without_a_word", "RW-CLOSE-4", sends(each(Goaway)))


@breaks("RW-CLOSE-5")
def closes_at_once(patch: Patch) -> None:
    plain = Connection._begin_closing

    def begin(self: Connection, now: float) -> None:
        plain(self, now)
        self.should_close = True

    patch.setattr(Connection, "_begin_closing", begin)


_deaf_to_draining = hears(only(Goaway, lambda f: None if f.code == Code.DRAINING else f))
add("goes_on", "RW-DRAIN-1", _deaf_to_draining)
add("stays", "RW-DRAIN-4", _deaf_to_draining)
add(
    "stays_away",
    "RW-RECONNECT-1",
    replaces(Session, "reconnect_at", property(lambda self: None if self._been_connected else 0.0)),
)
add("at_once", "RW-RECONNECT-2", replaces(Backoff, "ended", lambda self, farewell, **values: random.uniform(0, 0.2)))
add("at_once", "RW-RECONNECT-3", replaces(Backoff, "ended", lambda self, farewell, **values: 0.0))
add("late", "RW-RECONNECT-3", replaces(Backoff, "ended", lambda self, farewell, **values: 1.8))
add("insists", "RW-RECONNECT-4", replaces(session_module, "_is_final", lambda farewell: False))


@breaks("RW-PROMISE-10")
def always_a_gap(patch: Patch) -> None:
    plain = RoomState.joined

    def joined(self: RoomState, frame: Joined, membership: Any) -> Any:
        return plain(self, frame, membership) or Gap(self.name, 0, 0, frame.epoch, frame.start)

    patch.setattr(RoomState, "joined", joined)


@breaks("RW-HEARTBEAT-2")
def counts_frames(patch: Patch) -> None:
    plain = ClientConnection.receive_data

    def receive_data(self: ClientConnection, data: bytes, now: float) -> Any:
        before = self.last_received
        events = plain(self, data, now)
        if len(data) < 16:
            self.last_received = before
        return events

    patch.setattr(ClientConnection, "receive_data", receive_data)


@breaks("RW-RECONNECT-4")
def after_version_0(patch: Patch) -> None:
    plain = ClientConnection._receive_preface

    def receive(self: ClientConnection, data: bytes) -> bytes:
        rest = plain(self, data)
        self.version = self.version or None
        return rest

    patch.setattr(ClientConnection, "_receive_preface", receive)


add("no_duplicates", "RW-PROMISE-5", refuses(lambda f: isinstance(f, Ack) and bool(f.flags), Unexpected))
