"""Server mutants about publishing, repeats and order (SPEC.md, 4, 7.13 to 7.17, 10)."""

import itertools
from dataclasses import replace
from typing import Any

from protocol.frames import (
    Ack,
    Error,
    Join,
    Joined,
    Leave,
    Message,
    Ok,
    Ping,
    Pong,
    Publish,
)
from protocol.registry import (
    Code,
    Flag,
)
from tests.mutants.server.changes import accepts, changes, changes_stream, recoded, refuses, without
from tests.mutants.servers import Invalid, MutantConnection, Received, Sent, ServerMutant, fresh_id

_GHOST = 0x7F000000


def _behind(c: MutantConnection, received: Received) -> list[Sent]:
    """A PUBLISH that is in one segment with a LEAVE comes behind it."""
    if isinstance(received, Publish) and c.more:
        return [replace(received, room=received.room + 1)]
    return [received]


def _acks_round(c: MutantConnection, sent: list[Sent]) -> list[Sent]:
    acks = [f for f in sent if isinstance(f, Ack)]
    turned = iter([replace(f, seq=g.seq, time_ms=g.time_ms) for f, g in zip(acks, acks[::-1], strict=True)])
    return [next(turned) if isinstance(f, Ack) else f for f in sent]


def _acks_last(c: MutantConnection, sent: list[Sent]) -> list[Sent]:
    return sorted(sent, key=lambda f: isinstance(f, Ack))


def _ghosts(c: MutantConnection, received: Received) -> list[Sent]:
    """What is refused is appended all the same."""
    if isinstance(received, Invalid) and received.header.type == 0x20:
        return [received, _ghost(c, received.header.room)]
    if isinstance(received, Publish):
        return [received, _ghost(c, received.room)] if c.notes.get("refused") or not _is_text(received) else [received]
    return [received]


def _is_text(received: Publish) -> bool:
    try:
        return received.ctype != 0 or received.payload.decode() is not None
    except UnicodeDecodeError:
        return False


def _ghost(c: MutantConnection, room: int) -> Publish:
    c.notes["ghosts"] = c.notes.get("ghosts", _GHOST) + 1
    return Publish(fresh_id(), 1, b"ghost", request=c.notes["ghosts"], room=room)


def _no_ghosts(c: MutantConnection, sent: Sent) -> list[Sent]:
    if getattr(sent, "request", 0) > _GHOST:
        return []
    if isinstance(sent, (Error, Ack)):
        c.notes["refused"] = isinstance(sent, Error)
    return [sent]


def _refused_ids(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Publish):
        known = c.notes.setdefault("ids", set())
        if received.id in known:
            c.notes.setdefault("known", set()).add(received.request)
        known.add(received.id)
    return [received]


def _known_again(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Ack) and sent.request in c.notes.get("known", ()):
        return [replace(sent, flags=Flag.DUPLICATE)]
    return [sent]


def _nothing_behind(c: MutantConnection, sent: Sent) -> list[Sent]:
    """PONG waits for a stream that does not end."""
    if isinstance(sent, Joined):
        c.notes["behind"] = sent.start <= sent.head
    return [] if isinstance(sent, Pong) and c.notes.get("behind") else [sent]


def _nothing_after_ok(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Ok):
        c.notes["left"] = True
    return [] if isinstance(sent, Message) and c.notes.get("left") else [sent]


def _no_leaving(c: MutantConnection, received: Received) -> list[Sent]:
    """Sends OK, and goes on."""
    if isinstance(received, Leave):
        c.extra.append(Ok(request=received.request, room=received.room))
        return [Ping(bytes(8))]
    return [received]


def _age_ms(publish: Publish) -> int:
    return int.from_bytes(fresh_id()[:6], "big") - int.from_bytes(publish.id[:6], "big")


class Masked(MutantConnection):
    """Knows ids by connection and membership alone."""


def _masked(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Join):
        c.notes["mask"] = next(c.world.setdefault("masks", itertools.count(1)))
    if isinstance(received, Publish):
        return [replace(received, id=received.id[:14] + c.notes.get("mask", 0).to_bytes(2, "big"))]
    return [received]


def _used_anywhere(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Publish):
        c.notes["again"] = c.notes.setdefault("rooms", {}).setdefault(received.id, received.room) != received.room
    return [received]


def _ignorable_counts(c: MutantConnection, f: Publish) -> bool:
    fields = tuple(item for item in f.fields if item.type < 0xC000)
    before = c.notes.setdefault("fields", {}).setdefault(f.id, fields)
    return bool(before != fields)


def _late_lookup(c: MutantConnection, received: Received) -> list[Sent]:
    """A repeat in the same segment is not recognised."""
    if isinstance(received, Publish):
        if not c.notes.get("more"):
            c.notes["segment"] = set()
        c.notes["more"] = c.more
        if received.id in c.notes["segment"]:
            return [replace(received, id=fresh_id())]
        c.notes["segment"].add(received.id)
    return [received]


def _refusals(shared: bool) -> dict[str, Any]:
    """Minds refusals of other rooms, memberships, and with `shared` connections."""

    def sends(c: MutantConnection, sent: Sent) -> list[Sent]:
        notes = c.world if shared else c.notes
        if isinstance(sent, Message):
            return [] if sent.id in c.notes.get("ids", ()) else [sent]
        if isinstance(sent, Ack) and sent.request in c.notes.get("ordered", ()) and notes.get("refused"):
            return [Error(Code.PRECEDED, 1, "", fields=(), flags=Flag.RETRY, request=sent.request, room=sent.room)]
        if isinstance(sent, Error):
            notes["refused"] = True
        return [sent]

    def receives(c: MutantConnection, received: Received) -> list[Sent]:
        if isinstance(received, Publish) and received.flags & Flag.ORDERED:
            c.notes.setdefault("ordered", set()).add(received.request)
            c.notes.setdefault("ids", set()).add(received.id)
        return [received]

    return {"sends": sends, "receives": receives}


def _first_ordered(c: MutantConnection, received: Publish) -> bool:
    c.notes["seen"] = c.notes.get("seen", 0) + bool(received.flags & Flag.ORDERED)
    return bool(received.flags & Flag.ORDERED) and c.notes["seen"] == 1


def _charged(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Error) and sent.code == Code.RATE_LIMITED:
        c.notes["limited"] = True
    if isinstance(sent, Ack) and sent.flags and c.notes.get("limited"):
        return [Error(Code.RATE_LIMITED, 100, "", fields=(), flags=Flag.RETRY, request=sent.request, room=sent.room)]
    return [sent]


def _forgets(c: MutantConnection, sent: Sent) -> list[Sent]:
    """An id is known for as long as there are not five others."""
    if isinstance(sent, Ack) and sent.flags:
        c.notes["first"] = True
        return [replace(sent, flags=0, seq=sent.seq + 100)]
    return [sent]


MUTANTS: tuple[ServerMutant, ...] = (
    # 4 The promise
    ServerMutant(
        "pipelined-publish-misplaced",
        "Handles a PUBLISH as if the LEAVE behind it in the same segment came first.",
        ("RW-PROMISE-8",),
        receives=_behind,
    ),
    ServerMutant(
        "ack-seqs-reversed", "Reverses the seqs of ACKs that it sends together.", ("RW-PROMISE-8",), writes=_acks_round
    ),
    ServerMutant("message-before-ack", "Sends a MESSAGE before its ACK.", ("RW-PROMISE-11",), writes=_acks_last),
    ServerMutant(
        "refused-publish-appended",
        "Appends a message for a PUBLISH that it refuses.",
        ("RW-PROMISE-4", "RW-MODEL-1"),
        receives=_ghosts,
        sends=_no_ghosts,
    ),
    ServerMutant(
        "refused-id-remembered",
        "Answers the repeat of a refused PUBLISH with DUPLICATE.",
        ("RW-PROMISE-4", "RW-DEDUPE-1"),
        receives=_refused_ids,
        sends=_known_again,
    ),
    ServerMutant(
        "pong-waits-for-stream", "Sends no PONG after a JOIN with a replay.", ("RW-PROMISE-12",), sends=_nothing_behind
    ),
    # 7.13 LEAVE
    ServerMutant(
        "not-joined-other-code",
        "Answers FORBIDDEN where NOT_JOINED is due.",
        ("RW-LEAVE-1",),
        sends=recoded({Code.NOT_JOINED: Code.FORBIDDEN}),
    ),
    ServerMutant(
        "leave-ends-all-streams",
        "Sends no MESSAGE of any room after the OK to LEAVE.",
        ("RW-MODEL-2", "RW-LEAVE-2"),
        sends=_nothing_after_ok,
    ),
    ServerMutant(
        "stream-after-leave",
        "Answers LEAVE with OK, and goes on with the stream.",
        ("RW-LEAVE-2",),
        receives=_no_leaving,
    ),
    # 7.15 PUBLISH, 7.16 ACK, 7.17 MESSAGE
    ServerMutant(
        "payload-too-large-accepted",
        "Sends ACK where PAYLOAD_TOO_LARGE is due.",
        ("RW-PUBLISH-1",),
        sends=accepts(Code.PAYLOAD_TOO_LARGE),
    ),
    ServerMutant(
        "payload-invalid-accepted",
        "Sends ACK where PAYLOAD_INVALID is due.",
        ("RW-PUBLISH-2",),
        sends=accepts(Code.PAYLOAD_INVALID),
    ),
    ServerMutant(
        "empty-payload-refused",
        "Refuses empty payloads, and each ctype that it does not know.",
        ("RW-PUBLISH-3",),
        **refuses(lambda c, f: not f.payload or f.ctype > 1, Code.PAYLOAD_INVALID),
    ),
    ServerMutant(
        "payload-truncated",
        "Leaves out the last octet of each payload.",
        ("RW-PUBLISH-4",),
        sends=changes(Message, lambda f: replace(f, payload=f.payload[:-1])),
    ),
    ServerMutant(
        "ctype-changed",
        "Changes the ctype of each message.",
        ("RW-PUBLISH-4",),
        sends=changes(Message, lambda f: replace(f, ctype=f.ctype ^ 1)),
    ),
    ServerMutant(
        "message-other-time",
        "Sends another time_ms in MESSAGE than in ACK.",
        ("RW-ACK-2", "RW-ACK-1"),
        sends=changes(Message, lambda f: replace(f, time_ms=f.time_ms + 1)),
    ),
    ServerMutant(
        "duplicate-other-time",
        "Sends another time_ms in the ACK of a repeat.",
        ("RW-ACK-2",),
        sends=changes(Ack, lambda f: replace(f, time_ms=1) if f.flags else f),
    ),
    ServerMutant(
        "message-time-decreases",
        "Lets time_ms decrease from message to message.",
        ("RW-ACK-1",),
        sends=changes(Message, lambda f: replace(f, time_ms=f.time_ms - 1000 * f.seq)),
    ),
    ServerMutant("messages-missing", "Sends no MESSAGE.", ("RW-MESSAGE-1", "RW-MODEL-2"), sends=without(Message)),
    ServerMutant(
        "sender-not-sent",
        "Sends a MESSAGE to all members but its sender.",
        ("RW-MESSAGE-1",),
        sends=changes_stream(lambda c, f: None if f.sender == c.notes["member"] else f),
    ),
    # 10.1 Ids
    ServerMutant(
        "id-never-expires", "Sends ACK where ID_EXPIRED is due.", ("RW-ID-2",), sends=accepts(Code.ID_EXPIRED)
    ),
    ServerMutant(
        "id-expires-too-early",
        "Answers ID_EXPIRED to an id that is a minute old.",
        ("RW-ID-2",),
        **refuses(lambda c, f: _age_ms(f) > 60_000, Code.ID_EXPIRED),
    ),
    ServerMutant(
        "id-expires-without-dedupe",
        "Answers ID_EXPIRED also where its dedupe_ms is 0.",
        ("RW-ID-3",),
        **refuses(lambda c, f: _age_ms(f) > 60_000, Code.ID_EXPIRED),
    ),
    # 10.2 Repeats
    ServerMutant(
        "duplicate-flag-missing",
        "Leaves DUPLICATE out of ACK.",
        ("RW-DEDUPE-1", "RW-DEDUPE-3", "RW-DEDUPE-4"),
        sends=changes(Ack, lambda f: replace(f, flags=0)),
    ),
    ServerMutant(
        "ids-per-membership",
        "Recognises a repeat only within a membership.",
        ("RW-DEDUPE-1",),
        connection=Masked,
        receives=_masked,
    ),
    ServerMutant(
        "ids-shared-by-rooms",
        "Treats an id of another room as a repeat.",
        ("RW-DEDUPE-1",),
        receives=_used_anywhere,
        sends=lambda c, f: [replace(f, flags=Flag.DUPLICATE) if isinstance(f, Ack) and c.notes.get("again") else f],
    ),
    ServerMutant(
        "conflict-over-any-field",
        "Answers ID_CONFLICT when fields differ that are not relayed.",
        ("RW-DEDUPE-1",),
        **refuses(_ignorable_counts, Code.ID_CONFLICT),
    ),
    ServerMutant(
        "id-conflict-accepted", "Sends ACK where ID_CONFLICT is due.", ("RW-DEDUPE-2",), sends=accepts(Code.ID_CONFLICT)
    ),
    ServerMutant(
        "duplicate-in-segment-missed",
        "Does not recognise a repeat in the same segment.",
        ("RW-DEDUPE-4",),
        receives=_late_lookup,
    ),
    ServerMutant(
        "ids-forgotten-early", "Treats a repeat as a new message.", ("RW-DEDUPE-6", "RW-DEDUPE-3"), sends=_forgets
    ),
    ServerMutant(
        "duplicates-rate-limited",
        "Answers a repeat with RATE_LIMITED after it was limited once.",
        ("RW-LIMIT-2", "RW-DEDUPE-4"),
        sends=_charged,
    ),
    # 10.3 Order against refusals
    ServerMutant(
        "preceded-accepted", "Sends ACK where PRECEDED is due.", ("RW-ORDER-1",), sends=accepts(Code.PRECEDED)
    ),
    ServerMutant(
        "preceded-by-other-room",
        "Answers PRECEDED because of a refusal in another room.",
        ("RW-ORDER-1",),
        **_refusals(False),
    ),
    ServerMutant(
        "preceded-by-other-connection",
        "Answers PRECEDED because of a refusal on another connection.",
        ("RW-ORDER-1",),
        **_refusals(True),
    ),
    ServerMutant(
        "first-ordered-refused",
        "Answers PRECEDED to the first PUBLISH with ORDERED.",
        ("RW-ORDER-1",),
        **refuses(_first_ordered, Code.PRECEDED),
    ),
    ServerMutant(
        "every-ordered-refused",
        "Answers PRECEDED to every PUBLISH with ORDERED.",
        ("RW-ORDER-1", "RW-DEDUPE-1"),
        **refuses(lambda c, f: bool(f.flags & Flag.ORDERED), Code.PRECEDED),
    ),
)
