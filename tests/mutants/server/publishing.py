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

_OWN_REQUESTS = 0x7F000000


def _pipelined_publish_misplaced(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Publish) and c.more:
        return [replace(received, room=received.room + 1)]
    return [received]


def _ack_seqs_reversed(c: MutantConnection, sent: list[Sent]) -> list[Sent]:
    acks = [f for f in sent if isinstance(f, Ack)]
    reversed_acks = iter([replace(f, seq=g.seq, time_ms=g.time_ms) for f, g in zip(acks, acks[::-1], strict=True)])
    return [next(reversed_acks) if isinstance(f, Ack) else f for f in sent]


def _message_before_ack(c: MutantConnection, sent: list[Sent]) -> list[Sent]:
    return sorted(sent, key=lambda f: isinstance(f, Ack))


def _refused_publish_appended(c: MutantConnection, received: Received) -> list[Sent]:
    """Publishes a message of its own behind a PUBLISH that is ill-formed or follows a refusal."""
    if isinstance(received, Invalid) and received.header.type == 0x20:
        return [received, _own_publish(c, received.header.room)]
    if isinstance(received, Publish):
        appends = c.notes.get("refused") or not _is_text(received)
        return [received, _own_publish(c, received.room)] if appends else [received]
    return [received]


def _is_text(received: Publish) -> bool:
    try:
        return received.ctype != 0 or received.payload.decode() is not None
    except UnicodeDecodeError:
        return False


def _own_publish(c: MutantConnection, room: int) -> Publish:
    c.notes["own requests"] = c.notes.get("own requests", _OWN_REQUESTS) + 1
    return Publish(fresh_id(), 1, b"own", request=c.notes["own requests"], room=room)


def _hides_own_replies(c: MutantConnection, sent: Sent) -> list[Sent]:
    if getattr(sent, "request", 0) > _OWN_REQUESTS:
        return []
    if isinstance(sent, (Error, Ack)):
        c.notes["refused"] = isinstance(sent, Error)
    return [sent]


def _notes_known_ids(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Publish):
        known = c.notes.setdefault("ids", set())
        if received.id in known:
            c.notes.setdefault("known", set()).add(received.request)
        known.add(received.id)
    return [received]


def _refused_id_remembered(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Ack) and sent.request in c.notes.get("known", ()):
        return [replace(sent, flags=Flag.DUPLICATE)]
    return [sent]


def _pong_waits_for_stream(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Joined):
        c.notes["behind"] = sent.start <= sent.head
    return [] if isinstance(sent, Pong) and c.notes.get("behind") else [sent]


def _leave_ends_all_streams(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Ok):
        c.notes["left"] = True
    return [] if isinstance(sent, Message) and c.notes.get("left") else [sent]


def _stream_after_leave(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Leave):
        c.extra.append(Ok(request=received.request, room=received.room))
        return [Ping(bytes(8))]
    return [received]


def _age_ms(publish: Publish) -> int:
    return int.from_bytes(fresh_id()[:6], "big") - int.from_bytes(publish.id[:6], "big")


def _ids_per_membership(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Join):
        c.notes["mask"] = next(c.world.setdefault("masks", itertools.count(1)))
    if isinstance(received, Publish):
        return [replace(received, id=received.id[:14] + c.notes.get("mask", 0).to_bytes(2, "big"))]
    return [received]


def _ids_shared_by_rooms(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Publish):
        c.notes["again"] = c.notes.setdefault("rooms", {}).setdefault(received.id, received.room) != received.room
    return [received]


def _conflict_over_any_field(c: MutantConnection, f: Publish) -> bool:
    fields = tuple(item for item in f.fields if item.type < 0xC000)
    before = c.notes.setdefault("fields", {}).setdefault(f.id, fields)
    return bool(before != fields)


def _duplicate_in_segment_missed(c: MutantConnection, received: Received) -> list[Sent]:
    if isinstance(received, Publish):
        if not c.notes.get("more"):
            c.notes["segment"] = set()
        c.notes["more"] = c.more
        if received.id in c.notes["segment"]:
            return [replace(received, id=fresh_id())]
        c.notes["segment"].add(received.id)
    return [received]


def _preceded_by(shared: bool) -> dict[str, Any]:
    """Answers PRECEDED because of refusals in other rooms; with `shared` also on other connections."""

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


def _first_ordered_refused(c: MutantConnection, received: Publish) -> bool:
    c.notes["seen"] = c.notes.get("seen", 0) + bool(received.flags & Flag.ORDERED)
    return bool(received.flags & Flag.ORDERED) and c.notes["seen"] == 1


def _duplicates_rate_limited(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Error) and sent.code == Code.RATE_LIMITED:
        c.notes["limited"] = True
    if isinstance(sent, Ack) and sent.flags and c.notes.get("limited"):
        return [Error(Code.RATE_LIMITED, 100, "", fields=(), flags=Flag.RETRY, request=sent.request, room=sent.room)]
    return [sent]


def _ids_forgotten_early(c: MutantConnection, sent: Sent) -> list[Sent]:
    if isinstance(sent, Ack) and sent.flags:
        return [replace(sent, flags=0, seq=sent.seq + 100)]
    return [sent]


MUTANTS: tuple[ServerMutant, ...] = (
    # 4 The promise
    ServerMutant(
        "pipelined-publish-misplaced",
        "Handles a PUBLISH as if the LEAVE behind it in the same segment came first.",
        ("RW-PROMISE-8",),
        receives=_pipelined_publish_misplaced,
    ),
    ServerMutant(
        "ack-seqs-reversed",
        "Reverses the seqs of ACKs that it sends together.",
        ("RW-PROMISE-8",),
        writes=_ack_seqs_reversed,
    ),
    ServerMutant(
        "message-before-ack", "Sends a MESSAGE before its ACK.", ("RW-PROMISE-11",), writes=_message_before_ack
    ),
    ServerMutant(
        "refused-publish-appended",
        "Appends a message for a PUBLISH that it refuses.",
        ("RW-PROMISE-4", "RW-MODEL-1"),
        receives=_refused_publish_appended,
        sends=_hides_own_replies,
    ),
    ServerMutant(
        "refused-id-remembered",
        "Answers the repeat of a refused PUBLISH with DUPLICATE.",
        ("RW-PROMISE-4", "RW-DEDUPE-1"),
        receives=_notes_known_ids,
        sends=_refused_id_remembered,
    ),
    ServerMutant(
        "pong-waits-for-stream",
        "Sends no PONG after a JOIN with a replay.",
        ("RW-PROMISE-12",),
        sends=_pong_waits_for_stream,
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
        sends=_leave_ends_all_streams,
    ),
    ServerMutant(
        "stream-after-leave",
        "Answers LEAVE with OK, and goes on with the stream.",
        ("RW-LEAVE-2",),
        receives=_stream_after_leave,
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
        receives=_ids_per_membership,
    ),
    ServerMutant(
        "ids-shared-by-rooms",
        "Treats an id of another room as a repeat.",
        ("RW-DEDUPE-1",),
        receives=_ids_shared_by_rooms,
        sends=lambda c, f: [replace(f, flags=Flag.DUPLICATE) if isinstance(f, Ack) and c.notes.get("again") else f],
    ),
    ServerMutant(
        "conflict-over-any-field",
        "Answers ID_CONFLICT when fields differ that are not relayed.",
        ("RW-DEDUPE-1",),
        **refuses(_conflict_over_any_field, Code.ID_CONFLICT),
    ),
    ServerMutant(
        "id-conflict-accepted", "Sends ACK where ID_CONFLICT is due.", ("RW-DEDUPE-2",), sends=accepts(Code.ID_CONFLICT)
    ),
    ServerMutant(
        "duplicate-in-segment-missed",
        "Does not recognise a repeat in the same segment.",
        ("RW-DEDUPE-4",),
        receives=_duplicate_in_segment_missed,
    ),
    ServerMutant(
        "ids-forgotten-early",
        "Treats a repeat as a new message.",
        ("RW-DEDUPE-6", "RW-DEDUPE-3"),
        sends=_ids_forgotten_early,
    ),
    ServerMutant(
        "duplicates-rate-limited",
        "Answers a repeat with RATE_LIMITED after it was limited once.",
        ("RW-LIMIT-2", "RW-DEDUPE-4"),
        sends=_duplicates_rate_limited,
    ),
    # 10.3 Order against refusals
    ServerMutant(
        "preceded-accepted", "Sends ACK where PRECEDED is due.", ("RW-ORDER-1",), sends=accepts(Code.PRECEDED)
    ),
    ServerMutant(
        "preceded-by-other-room",
        "Answers PRECEDED because of a refusal in another room.",
        ("RW-ORDER-1",),
        **_preceded_by(False),
    ),
    ServerMutant(
        "preceded-by-other-connection",
        "Answers PRECEDED because of a refusal on another connection.",
        ("RW-ORDER-1",),
        **_preceded_by(True),
    ),
    ServerMutant(
        "first-ordered-refused",
        "Answers PRECEDED to the first PUBLISH with ORDERED.",
        ("RW-ORDER-1",),
        **refuses(_first_ordered_refused, Code.PRECEDED),
    ),
    ServerMutant(
        "every-ordered-refused",
        "Answers PRECEDED to every PUBLISH with ORDERED.",
        ("RW-ORDER-1", "RW-DEDUPE-1"),
        **refuses(lambda c, f: bool(f.flags & Flag.ORDERED), Code.PRECEDED),
    ),
)
