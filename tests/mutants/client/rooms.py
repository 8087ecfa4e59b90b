"""Client mutants about rooms, joining, the stream, presence and members that lag (SPEC.md, 3, 9)."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from protocol.client import ClientConnection
from protocol.errors import (
    Malformed,
    SequenceBroken,
    Unexpected,
)
from protocol.frames import (
    Error,
    Evicted,
    Frame,
    Join,
    Joined,
    Leave,
    Message,
    Presence,
    Publish,
    Roster,
)
from protocol.registry import Code, Flag
from reference_client.events import Gap
from reference_client.session.membership import RoomState
from tests.mutants.client.changes import Change, changes, each, fatal_if, ignores_in, receives, replaces, reports, sends
from tests.mutants.clients import ClientMutant, Patch


def _gap_only_by_flag(patch: Patch) -> None:
    plain = RoomState.joined

    def joined(self: RoomState, frame: Joined, membership: Any) -> Any:
        gap = plain(self, frame, membership)
        return gap if frame.flags & Flag.GAP else None

    patch.setattr(RoomState, "joined", joined)


def _cursor_not_from_joined(patch: Patch) -> None:
    plain = ClientConnection._membership_replied

    def replied(self: ClientConnection, membership: Any, frame: Frame) -> None:
        plain(self, membership, frame)
        if isinstance(frame, Joined):
            membership.cursor = 0

    patch.setattr(ClientConnection, "_membership_replied", replied)


def _sequenced(judge: Callable[[int, int], bool]) -> Change:
    """Accepts a message of the stream if `judge(seq, cursor)` says so."""

    def sequenced(self: ClientConnection, ref: int, seq: int, frame: str) -> bool:
        membership = self._member(ref, frame)
        taken = judge(seq, membership.cursor)
        membership.cursor = max(seq, membership.cursor)
        return taken

    return replaces(ClientConnection, "_sequenced", sequenced)


def _old_message_reported(patch: Patch) -> None:
    _sequenced(lambda seq, cursor: True)(patch)
    patch.setattr(RoomState, "shows", lambda self, seq: True)


def _old_message_fatal(patch: Patch) -> None:
    def judge(seq: int, cursor: int) -> bool:
        if seq <= cursor:
            raise SequenceBroken("MESSAGE")
        return True

    _sequenced(judge)(patch)


def _history_moves_cursor(patch: Patch) -> None:
    plain = ClientConnection._replied

    def replied(self: ClientConnection, frame: Frame) -> Any:
        if isinstance(frame, Message) and frame.room in self.memberships:
            self.memberships[frame.room].cursor = frame.seq
        return plain(self, frame)

    patch.setattr(ClientConnection, "_replied", replied)


_KNOWN_KINDS = (1, 2, 3, 4)


def _evicted_twice_same_cursor(patch: Patch) -> None:
    plain = RoomState.shows

    def shows(self: RoomState, seq: int) -> bool:
        self.lagged = 0
        return plain(self, seq)

    patch.setattr(RoomState, "shows", shows)


def _gap_always_reported(patch: Patch) -> None:
    plain = RoomState.joined

    def joined(self: RoomState, frame: Joined, membership: Any) -> Any:
        return plain(self, frame, membership) or Gap(self.name, 0, 0, frame.epoch, frame.start)

    patch.setattr(RoomState, "joined", joined)


MUTANTS: tuple[ClientMutant, ...] = (
    # 3 Model
    ClientMutant(
        "publish-to-unknown-ref",
        "Sends PUBLISH with a ref that it did not receive.",
        ("RW-MODEL-8",),
        sends(each(Publish, lambda f: replace(f, room=5))),
    ),
    ClientMutant(
        "leave-of-other-ref",
        "Sends LEAVE with the ref of another room.",
        ("RW-MODEL-8",),
        sends(each(Leave, lambda f: replace(f, room=f.room + 1))),
        only=("client/7.13/leave",),
    ),
    ClientMutant(
        "publish-to-other-ref",
        "Sends PUBLISH with the ref of another room.",
        ("RW-MODEL-8",),
        sends(each(Publish, lambda f: replace(f, room=f.room + 1))),
        only=("client/7.15/content",),
    ),
    ClientMutant(
        "epoch-not-reported",
        "Reports the same epoch for all messages.",
        ("RW-MODEL-10",),
        reports(lambda r: {**r, "epoch": "7"} if r.get("event") == "message" else r),
    ),
    ClientMutant(
        "sender-not-reported",
        "Reports the same sender for all messages.",
        ("RW-MODEL-10",),
        reports(lambda r: {**r, "name": "?"} if "payload" in r else r),
        only=("client/9.1/content",),
    ),
    # 9.1 Joining
    ClientMutant(
        "room-name-case-folded",
        "Folds the case of a room's name in JOIN.",
        ("RW-NAME-7",),
        sends(each(Join, lambda f: replace(f, name=f.name.casefold()))),
    ),
    ClientMutant(
        "cursor-not-from-joined", "Sets its cursor to 0 at JOINED.", ("RW-CURSOR-4",), _cursor_not_from_joined
    ),
    ClientMutant(
        "invalid-joined-ignored",
        "Ignores a JOINED whose epoch or start is 0.",
        ("RW-CURSOR-6",),
        ignores_in("_membership_replied", Malformed),
    ),
    ClientMutant(
        "unprintable-room-name-fatal",
        "Ends the connection over a room's name that it cannot print.",
        ("RW-NAME-7",),
        fatal_if(lambda f: isinstance(f, Joined) and not f.name.isprintable(), Malformed),
    ),
    ClientMutant(
        "gap-not-reported",
        "Reports no gaps.",
        ("RW-PROMISE-10",),
        reports(lambda r: None if r.get("event") == "gap" else r),
    ),
    ClientMutant("gap-only-by-flag", "Reports a gap only when JOINED says GAP.", ("RW-PROMISE-10",), _gap_only_by_flag),
    ClientMutant("gap-always-reported", "Reports a gap at every JOINED.", ("RW-PROMISE-10",), _gap_always_reported),
    # 9.2 The stream
    ClientMutant(
        "old-message-reported",
        "Reports messages that are not above its cursor.",
        ("RW-STREAM-1",),
        _old_message_reported,
    ),
    ClientMutant(
        "old-message-fatal",
        "Ends the connection over a message that is not above its cursor.",
        ("RW-STREAM-1",),
        _old_message_fatal,
    ),
    ClientMutant(
        "hole-ignored", "Ignores a hole in the stream.", ("RW-STREAM-2",), _sequenced(lambda seq, cursor: seq > cursor)
    ),
    ClientMutant(
        "stream-of-unknown-room-ignored",
        "Ignores stream frames of a room that it is not in.",
        ("RW-STREAM-3",),
        ignores_in("_interpret", Unexpected),
    ),
    ClientMutant(
        "history-moves-cursor",
        "Moves its cursor for a MESSAGE that answers HISTORY.",
        ("RW-HISTORY-3",),
        _history_moves_cursor,
    ),
    # 9.3 Presence and roster
    ClientMutant(
        "unknown-presence-fatal",
        "Ends the connection over a PRESENCE of unknown kind.",
        ("RW-PRESENCE-1",),
        fatal_if(lambda f: isinstance(f, Presence) and f.kind not in _KNOWN_KINDS, Malformed),
    ),
    ClientMutant(
        "unknown-presence-as-left",
        "Treats a PRESENCE of unknown kind as (left).",
        ("RW-PRESENCE-1",),
        receives(changes(Presence, lambda f: f if f.kind in _KNOWN_KINDS else replace(f, kind=2))),
    ),
    ClientMutant(
        "presence-of-stranger-fatal",
        "Ends the connection over PRESENCE of a member that it does not know.",
        ("RW-PRESENCE-6",),
        fatal_if(lambda f: isinstance(f, Presence) and f.member >= 98, Unexpected),
    ),
    ClientMutant(
        "roster-reset-ignored",
        "Adds a new roster to the old one.",
        ("RW-ROSTER-5",),
        receives(changes(Roster, lambda f: replace(f, flags=f.flags & ~Flag.RESET))),
    ),
    ClientMutant(
        "roster-kept-when-quiet",
        "Keeps its roster when the room becomes quiet.",
        ("RW-QUIET-3",),
        receives(changes(Presence, lambda f: replace(f, kind=9) if f.kind == 4 else f)),
    ),
    # 9.4 Members that lag
    ClientMutant(
        "evicted-retry-ignored",
        "Does not join again after an EVICTED with RETRY.",
        ("RW-LAG-4",),
        receives(changes(Evicted, lambda f: replace(f, flags=0))),
    ),
    ClientMutant(
        "evicted-twice-same-cursor",
        "Never joins with epoch 0 after EVICTED(LAGGED).",
        ("RW-LAG-4",),
        _evicted_twice_same_cursor,
    ),
    ClientMutant(
        "evicted-without-retry-rejoins",
        "Joins again after an EVICTED without RETRY.",
        ("RW-LAG-5",),
        receives(changes(Evicted, lambda f: replace(f, flags=Flag.RETRY))),
    ),
    ClientMutant(
        "not-joined-publish-dropped",
        "Does not repeat a publish that earned NOT_JOINED after an eviction.",
        ("RW-LAG-6",),
        receives(changes(Error, lambda f: replace(f, code=Code.FORBIDDEN) if f.code == Code.NOT_JOINED else f)),
    ),
)
