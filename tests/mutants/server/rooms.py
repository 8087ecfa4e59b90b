"""Server mutants about rooms, joining, presence, history and names (SPEC.md, 3, 7.9 to 7.12, 7.18, 7.19, 9, 12)."""

import contextlib
import itertools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace

import pytest

from protocol.errors import NameInvalid
from protocol.frames import (
    Ack,
    Error,
    Hello,
    HistoryEnd,
    Join,
    Joined,
    Leave,
    Message,
    Pong,
    Presence,
    Publish,
    Roster,
    Welcome,
)
from protocol.names import BLANK, normalise
from protocol.registry import (
    Code,
    Flag,
    PresenceKind,
)
from reference_server.core.handlers import join
from reference_server.core.room import Room
from tests.mutants.server.changes import accepts, changes, changes_stream, recoded, without
from tests.mutants.servers import MutantConnection, Received, Receives, Sent, ServerMutant, fresh_id


def _seq_from_2(c: MutantConnection, sent: Sent) -> list[Sent]:
    match sent:
        case Ack() | Message():
            return [replace(sent, seq=sent.seq + 1)]
        case Joined():
            return [replace(sent, head=sent.head + 1, start=sent.start + 1, oldest=sent.oldest + 1)]
    return [sent]


def _room_name_as_asked(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Join):
        c.notes["asked"] = received.name
    return [received]


def _own_refs(c: MutantConnection) -> int:
    number: int = c.notes.setdefault("own", next(c.world.setdefault("numbers", itertools.count(1)))) * 1000
    return number


def _refs_in(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, (Publish, Leave)):
        return [replace(received, room=max(received.room - _own_refs(c), 1))]
    return [received]


def _refs_out(c: MutantConnection, sent: Sent) -> list[Sent]:
    room = getattr(sent, "room", 0)
    return [replace(sent, room=room + _own_refs(c))] if room else [sent]  # type: ignore[type-var]


def _ref_constant(c: MutantConnection, sent: Sent) -> list[Sent]:
    return [replace(sent, room=5)] if getattr(sent, "room", 0) else [sent]  # type: ignore[type-var]


def _notes_cursor(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Join):
        c.notes["cursor"] = received.epoch != 0
    return [received]


def _head_reset_by_trimming(c: MutantConnection, sent: Sent) -> list[Sent]:
    """Resets the head when no message is left."""
    if isinstance(sent, Joined) and c.notes["cursor"] and sent.oldest == sent.head + 1:
        return [replace(sent, head=0, start=1, oldest=1)]
    return [sent]


def _replay_missing(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Joined):
        c.notes["head"] = sent.head
        return [replace(sent, start=sent.head + 1)]
    return [] if isinstance(sent, Message) and not sent.request and sent.seq <= c.notes["head"] else [sent]


_EPOCHS = itertools.count(1)


def _stream_ends_after_replay(c: MutantConnection, f: Message) -> Message | None:
    return None if f.seq > c.notes["head"] and c.notes["head"] else f


def _presence_before_joined(c: MutantConnection, sent: list[Sent]) -> list[Sent]:
    joined = next((f for f in sent if isinstance(f, Joined)), None)
    if joined is None:
        return sent
    message = Presence(PresenceKind.JOINED, 99, "early", room=joined.room)
    return [message, *sent]


def _presence_of_itself(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Welcome):
        c.notes["member"] = sent.member
    if isinstance(sent, Joined):
        return [sent, Presence(PresenceKind.JOINED, c.notes["member"], "me", room=sent.room)]
    return [sent]


def _history_stops_stream(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, HistoryEnd):
        c.notes["skip"] = True
    if isinstance(sent, Message) and not sent.request and c.notes.get("skip"):
        return []
    return [sent]


def _names_compared_exactly(name: str) -> str:
    return name


def _renames(change: Callable[[str], str]) -> Receives:
    """Changes the names in HELLO and JOIN."""

    def receives(c: MutantConnection, received: Received) -> list[Sent]:
        if isinstance(received, (Join, Hello)):
            return [replace(received, name=change(received.name))]
        return [received]

    return receives


def _invalid_names_accepted(name: str) -> str:
    try:
        normalise(name)
    except NameInvalid:
        return f"named {fresh_id().hex()}"
    return name if name != "\u115f\u115f" else f"named {fresh_id().hex()}"


_FILLERS = "\u115f\u1160\u3164"  # of Hangul


def _blank_names_accepted(name: str) -> str:
    """A valid name in the place of one that looks empty, or ends in what does."""
    try:
        normalise(name)
    except NameInvalid:
        with contextlib.suppress(NameInvalid):
            normalise(re.sub(f"[{BLANK}{_FILLERS}]", "x", name))  # it would be valid if one saw these
            if name.strip(_FILLERS):
                return f"named {fresh_id().hex()}"
    return name


def _non_ascii_names_refused(name: str) -> str:
    return name if name.startswith(("rw-", "u-")) or name in ("ada", "probe") else "\x07"


def _names_in_nfd(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, (Joined, Welcome)):
        return [replace(sent, name=unicodedata.normalize("NFD", sent.name))]
    return [sent]


def _names_changed(c: MutantConnection, sent: Sent) -> list[Sent]:
    return [replace(sent, name=f"x{sent.name[1:]}")] if isinstance(sent, (Joined, Welcome)) else [sent]


def _history_reversed(c: MutantConnection, sent: list[Sent]) -> list[Sent]:
    replies = [f for f in sent if isinstance(f, Message) and f.request]
    return [replies.pop() if isinstance(f, Message) and f.request else f for f in sent]


def _roster_not_repaired(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Room, "_repair_roster", lambda room, member: setattr(member, "roster_stale", False))


def _quiet_flag_once(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Joined) and sent.flags & Flag.QUIET:
        if c.world.get("quiet sent"):
            return [replace(sent, flags=sent.flags & ~Flag.QUIET)]
        c.world["quiet sent"] = True
    return [sent]


def _quiet_flag_for_ever(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Joined):
        if sent.flags & Flag.QUIET:
            c.world["quiet"] = True
        if c.world.get("quiet"):
            return [replace(sent, flags=sent.flags | Flag.QUIET)]
    return [sent]


def _presence_in_quiet_room(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Pong) and c.notes.get("quiet"):
        return [Presence(PresenceKind.LEFT, 99, "somebody", room=c.notes["quiet"]), sent]
    if isinstance(sent, Presence) and sent.kind == PresenceKind.QUIET:
        c.notes["quiet"] = sent.room
    return [sent]


def _range_error_then_forbidden(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Error) and sent.code == Code.RANGE_INVALID:
        c.notes["range error"] = True
    if isinstance(sent, Joined) and c.notes.get("range error"):
        return [Error(Code.FORBIDDEN, 0, "", fields=(), flags=0, request=sent.request, room=0)]
    return [sent]


def _replay_limit_plus_one(patch: pytest.MonkeyPatch) -> None:
    formula = join.join_point
    patch.setattr(
        join,
        "join_point",
        lambda head, oldest, epoch, mine, since, cap: formula(head, oldest, epoch, mine, since, cap + 1),
    )


MUTANTS: tuple[ServerMutant, ...] = (
    # 3 Model
    ServerMutant(
        "seq-from-2", "Numbers the messages of a room from 2.", ("RW-MODEL-1", "RW-PROMISE-1"), sends=_seq_from_2
    ),
    ServerMutant(
        "payload-per-member",
        "Sends each member another payload.",
        ("RW-MODEL-2",),
        sends=changes_stream(lambda c, f: replace(f, payload=f.payload + b"%d" % c.notes.get("member", 0))),
    ),
    ServerMutant(
        "epoch-constant",
        "Gives all rooms the same epoch.",
        ("RW-MODEL-3",),
        sends=changes(Joined, lambda f: replace(f, epoch=7)),
    ),
    ServerMutant(
        "epoch-zero", "Gives rooms the epoch 0.", ("RW-MODEL-3",), sends=changes(Joined, lambda f: replace(f, epoch=0))
    ),
    ServerMutant(
        "epoch-per-join",
        "Gives a room another epoch with each JOIN.",
        ("RW-MODEL-6",),
        sends=changes(Joined, lambda f: replace(f, epoch=next(_EPOCHS))),
    ),
    ServerMutant(
        "ref-per-connection",
        "Gives a room another ref on each connection.",
        ("RW-MODEL-7",),
        receives=_refs_in,
        sends=_refs_out,
    ),
    ServerMutant("ref-constant", "Gives all rooms the same ref.", ("RW-MODEL-7",), sends=_ref_constant),
    ServerMutant(
        "head-reset-by-trimming",
        "Starts at seq 1 again after all messages were trimmed.",
        ("RW-MODEL-9",),
        receives=_notes_cursor,
        sends=_head_reset_by_trimming,
    ),
    # 7.9 JOIN, 9.1 Joining
    ServerMutant(
        "already-joined-other-code",
        "Answers FORBIDDEN where ALREADY_JOINED is due.",
        ("RW-JOIN-1", "RW-CHECK-1"),
        sends=recoded({Code.ALREADY_JOINED: Code.FORBIDDEN}),
    ),
    ServerMutant(
        "too-many-rooms-other-code",
        "Answers FORBIDDEN where TOO_MANY_ROOMS is due.",
        ("RW-JOIN-2",),
        sends=recoded({Code.TOO_MANY_ROOMS: Code.FORBIDDEN}),
    ),
    ServerMutant(
        "room-name-as-asked",
        "Sends the room's name in JOINED as the JOIN spelled it.",
        ("RW-NAME-4", "RW-JOIN-4"),
        receives=_room_name_as_asked,
        sends=lambda c, f: [replace(f, name=c.notes["asked"]) if isinstance(f, Joined) else f],
    ),
    ServerMutant(
        "range-error-then-forbidden",
        "Refuses every JOIN after a RANGE_INVALID.",
        ("RW-CHECK-2",),
        sends=_range_error_then_forbidden,
        only=("server/6.2/range-since-then-joined",),
    ),
    ServerMutant(
        "gap-flag-inverted",
        "Inverts the flag GAP of JOINED.",
        ("RW-CURSOR-1",),
        sends=changes(Joined, lambda f: replace(f, flags=f.flags ^ Flag.GAP)),
    ),
    ServerMutant(
        "joined-wrong-start",
        "Sends a wrong start in JOINED.",
        ("RW-CURSOR-1",),
        sends=changes(Joined, lambda f: replace(f, start=f.head + 1 if f.start <= f.head else max(f.head, 1))),
    ),
    ServerMutant(
        "replay-limit-plus-one",
        "Replays one message more than its limit.",
        ("RW-CURSOR-1",),
        patch=_replay_limit_plus_one,
    ),
    ServerMutant(
        "replay-missing", "Sends no retained messages after JOINED.", ("RW-PROMISE-9",), sends=_replay_missing
    ),
    ServerMutant(
        "replay-other-payload",
        "Sends other payloads in a replay.",
        ("RW-CURSOR-2",),
        sends=changes_stream(lambda c, f: replace(f, payload=b"?") if f.seq <= c.notes["head"] else f),
    ),
    ServerMutant(
        "stream-ends-after-replay",
        "Sends no new messages after a replay.",
        ("RW-CURSOR-2", "RW-CURSOR-3", "RW-CURSOR-5"),
        sends=changes_stream(_stream_ends_after_replay),
    ),
    ServerMutant(
        "history-stops-stream",
        "Sends no new messages after a reply to HISTORY.",
        ("RW-CURSOR-2",),
        sends=_history_stops_stream,
    ),
    ServerMutant(
        "first-new-message-missing",
        "Leaves out the first new message after JOINED.",
        ("RW-CURSOR-2",),
        sends=changes_stream(lambda c, f: None if f.seq == c.notes["head"] + 1 else f),
    ),
    # 9.3 Presence and roster
    ServerMutant(
        "presence-before-joined", "Sends PRESENCE before JOINED.", ("RW-CURSOR-5",), writes=_presence_before_joined
    ),
    ServerMutant(
        "presence-joined-missing",
        "Sends no PRESENCE(joined).",
        ("RW-PRESENCE-2", "RW-ROSTER-4"),
        sends=without(Presence, lambda f: f.kind == 1),
    ),
    ServerMutant(
        "presence-left-missing",
        "Sends no PRESENCE(left) or (lost).",
        ("RW-PRESENCE-2", "RW-CLOSE-6"),
        sends=without(Presence, lambda f: f.kind != 1),
    ),
    ServerMutant(
        "presence-wrong-name",
        "Sends a wrong name in PRESENCE.",
        ("RW-PRESENCE-2", "RW-PRESENCE-3"),
        sends=changes(Presence, lambda f: replace(f, name="x")),
    ),
    ServerMutant(
        "presence-left-as-lost",
        "Sends PRESENCE(lost) where (left) is due.",
        ("RW-PRESENCE-3",),
        sends=changes(Presence, lambda f: replace(f, kind=3) if f.kind == 2 else f),
    ),
    ServerMutant(
        "presence-lost-as-left",
        "Sends PRESENCE(left) where (lost) is due.",
        ("RW-PRESENCE-3", "RW-CLOSE-6"),
        sends=changes(Presence, lambda f: replace(f, kind=2) if f.kind == 3 else f),
    ),
    ServerMutant(
        "presence-of-itself", "Sends a member its own PRESENCE(joined).", ("RW-PRESENCE-4",), sends=_presence_of_itself
    ),
    ServerMutant(
        "members-plus-one",
        "Counts one member too many in JOINED.",
        ("RW-PRESENCE-5",),
        sends=changes(Joined, lambda f: replace(f, members=f.members + 1)),
    ),
    ServerMutant(
        "roster-last-entry-missing",
        "Leaves out the last entry of the roster.",
        ("RW-PRESENCE-5", "RW-ROSTER-1"),
        sends=changes(Roster, lambda f: replace(f, entries=f.entries[:-1])),
    ),
    ServerMutant("roster-missing", "Sends no ROSTER.", ("RW-ROSTER-1",), sends=without(Roster)),
    ServerMutant(
        "roster-without-reset",
        "Sends ROSTER without RESET.",
        ("RW-ROSTER-2",),
        sends=changes(Roster, lambda f: replace(f, flags=0)),
    ),
    ServerMutant(
        "roster-entries-twice",
        "Lists each member twice in the roster.",
        ("RW-ROSTER-2",),
        sends=changes(Roster, lambda f: replace(f, entries=f.entries * 2)),
    ),
    ServerMutant(
        "roster-always-more",
        "Sets MORE in every ROSTER.",
        ("RW-ROSTER-2",),
        sends=changes(Roster, lambda f: replace(f, flags=f.flags | Flag.MORE)),
    ),
    ServerMutant(
        "roster-first-entry-missing",
        "Leaves out the first entry of the roster.",
        ("RW-ROSTER-4",),
        sends=changes(Roster, lambda f: replace(f, entries=f.entries[1:])),
    ),
    ServerMutant(
        "roster-not-repaired",
        "Sends no new roster to a member that missed PRESENCE.",
        ("RW-ROSTER-3",),
        patch=_roster_not_repaired,
    ),
    ServerMutant(
        "presence-quiet-missing",
        "Sends no PRESENCE(quiet).",
        ("RW-QUIET-1",),
        sends=without(Presence, lambda f: f.kind == PresenceKind.QUIET),
    ),
    ServerMutant(
        "presence-in-quiet-room",
        "Sends PRESENCE(left) in a quiet room.",
        ("RW-QUIET-1",),
        sends=_presence_in_quiet_room,
    ),
    ServerMutant(
        "quiet-flag-once",
        "Sets QUIET only in the first JOINED of a quiet room.",
        ("RW-QUIET-2",),
        sends=_quiet_flag_once,
    ),
    ServerMutant(
        "quiet-flag-for-ever",
        "Sets QUIET in every JOINED after a room was once quiet.",
        ("RW-QUIET-2",),
        sends=_quiet_flag_for_ever,
    ),
    # 7.18 HISTORY, 7.19 HISTORY_END
    ServerMutant(
        "history-reversed",
        "Sends the messages of a reply to HISTORY in reverse order.",
        ("RW-HISTORY-1",),
        writes=_history_reversed,
    ),
    ServerMutant(
        "history-empty",
        "Answers every HISTORY with an empty range.",
        ("RW-HISTORY-2",),
        sends=lambda c, f: (
            []
            if isinstance(f, Message) and f.request
            else [replace(f, end=f.start)]
            if isinstance(f, HistoryEnd)
            else [f]
        ),
    ),
    ServerMutant(
        "history-end-below-start",
        "Answers a HISTORY whose end is below its start with HISTORY_END.",
        ("RW-HISTORY-4", "RW-CHECK-1"),
        sends=accepts(Code.RANGE_INVALID),
    ),
    ServerMutant(
        "history-more-inverted",
        "Inverts the flag MORE of HISTORY_END.",
        ("RW-HISTORY-5",),
        sends=changes(HistoryEnd, lambda f: replace(f, flags=f.flags ^ Flag.MORE)),
    ),
    ServerMutant(
        "history-range-shifted",
        "Sends a range in HISTORY_END that is shifted by one.",
        ("RW-HISTORY-6",),
        sends=changes(HistoryEnd, lambda f: replace(f, start=f.start + 1, end=f.end + 1)),
    ),
    ServerMutant(
        "history-other-time",
        "Sends another time_ms in a reply to HISTORY than in the stream.",
        ("RW-HISTORY-1", "RW-MODEL-2"),
        sends=changes(Message, lambda f: replace(f, time_ms=f.time_ms + 1) if f.request else f),
    ),
    # 12 Names
    ServerMutant("names-in-nfd", "Sends names in NFD.", ("RW-NAME-1", "RW-NAME-2"), sends=_names_in_nfd),
    ServerMutant("names-changed", "Changes the first character of every name.", ("RW-NAME-1",), sends=_names_changed),
    ServerMutant(
        "invalid-names-accepted",
        "Accepts names that earn NAME_INVALID.",
        ("RW-NAME-2", "RW-NAME-3", "RW-NAME-4", "RW-NAME-8", "RW-HELLO-3"),
        receives=_renames(_invalid_names_accepted),
    ),
    ServerMutant(
        "blank-names-accepted",
        "Accepts names that look empty, or as if they ended elsewhere.",
        ("RW-NAME-8",),
        receives=_renames(_blank_names_accepted),
    ),
    ServerMutant(
        "non-ascii-names-refused",
        "Refuses all names but a few plain ones.",
        ("RW-NAME-1", "RW-NAME-3", "RW-NAME-4"),
        receives=_renames(_non_ascii_names_refused),
    ),
    ServerMutant(
        "names-compared-exactly",
        "Compares the names of rooms octet by octet.",
        ("RW-NAME-4", "RW-JOIN-1"),
        patch=lambda p: p.setattr(join, "key", _names_compared_exactly),
    ),
)
