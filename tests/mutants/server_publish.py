"""Servers that break one rule about publishing, repeats and order (SPEC.md, 4, 7.13 to 7.17, 10)."""

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
from tests.mutants.server_changes import (
    broken,
    minds,
    never,
    of,
    pretends,
    recoded,
    stream,
)
from tests.mutants.servers import Alteration, Heard, Piece, Wrong, fresh_id

_GHOST = 0x7F000000


# --- publishing


def _behind(a: Alteration, heard: Heard) -> list[Piece]:
    """A PUBLISH that is in one segment with a LEAVE comes behind it."""
    if isinstance(heard, Publish) and a.more:
        return [replace(heard, room=heard.room + 1)]
    return [heard]


def _acks_round(a: Alteration, said: list[Piece]) -> list[Piece]:
    acks = [f for f in said if isinstance(f, Ack)]
    turned = iter([replace(f, seq=g.seq, time_ms=g.time_ms) for f, g in zip(acks, acks[::-1], strict=True)])
    return [next(turned) if isinstance(f, Ack) else f for f in said]


def _acks_last(a: Alteration, said: list[Piece]) -> list[Piece]:
    return sorted(said, key=lambda f: isinstance(f, Ack))


def _ghosts(a: Alteration, heard: Heard) -> list[Piece]:
    """What is refused is appended all the same."""
    if isinstance(heard, Wrong) and heard.header.type == 0x20:
        return [heard, _ghost(a, heard.header.room)]
    if isinstance(heard, Publish):
        return [heard, _ghost(a, heard.room)] if a.notes.get("refused") or not _is_text(heard) else [heard]
    return [heard]


def _is_text(heard: Publish) -> bool:
    try:
        return heard.ctype != 0 or heard.payload.decode() is not None
    except UnicodeDecodeError:
        return False


def _ghost(a: Alteration, room: int) -> Publish:
    a.notes["ghosts"] = a.notes.get("ghosts", _GHOST) + 1
    return Publish(fresh_id(), 1, b"ghost", request=a.notes["ghosts"], room=room)


def _no_ghosts(a: Alteration, said: Piece) -> list[Piece]:
    if getattr(said, "request", 0) > _GHOST:
        return []
    if isinstance(said, (Error, Ack)):
        a.notes["refused"] = isinstance(said, Error)
    return [said]


def _refused_ids(a: Alteration, heard: Heard) -> list[Piece]:
    if isinstance(heard, Publish):
        known = a.notes.setdefault("ids", set())
        if heard.id in known:
            a.notes.setdefault("known", set()).add(heard.request)
        known.add(heard.id)
    return [heard]


def _known_again(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, Ack) and said.request in a.notes.get("known", ()):
        return [replace(said, flags=Flag.DUPLICATE)]
    return [said]


def _nothing_behind(a: Alteration, said: Piece) -> list[Piece]:
    """PONG waits for a stream that does not end."""
    if isinstance(said, Joined):
        a.notes["behind"] = said.start <= said.head
    return [] if isinstance(said, Pong) and a.notes.get("behind") else [said]


def _nothing_after_ok(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, Ok):
        a.notes["left"] = True
    return [] if isinstance(said, Message) and a.notes.get("left") else [said]


def _no_leaving(a: Alteration, heard: Heard) -> list[Piece]:
    """Says OK, and goes on."""
    if isinstance(heard, Leave):
        a.extra.append(Ok(request=heard.request, room=heard.room))
        return [Ping(bytes(8))]
    return [heard]


def _age_ms(publish: Publish) -> int:
    return int.from_bytes(fresh_id()[:6], "big") - int.from_bytes(publish.id[:6], "big")


broken("reads PUBLISH behind LEAVE", "RW-PROMISE-8", hears=_behind)
broken("acknowledges in another order", "RW-PROMISE-8", batch=_acks_round)
broken("sends a message before its ACK", "RW-PROMISE-11", batch=_acks_last)
broken("appends what it refuses", "RW-PROMISE-4", "RW-MODEL-1", hears=_ghosts, says=_no_ghosts)
broken("remembers refused ids", "RW-PROMISE-4", "RW-DEDUPE-1", hears=_refused_ids, says=_known_again)
broken("lets replies wait for streams", "RW-PROMISE-12", says=_nothing_behind)
broken("accepts large payloads", "RW-PUBLISH-1", says=pretends(Code.PAYLOAD_TOO_LARGE))
broken("accepts texts that are no UTF-8", "RW-PUBLISH-2", says=pretends(Code.PAYLOAD_INVALID))
broken("wants a payload", "RW-PUBLISH-3", **minds(lambda a, f: not f.payload or f.ctype > 1, Code.PAYLOAD_INVALID))
broken("cuts payloads", "RW-PUBLISH-4", says=of(Message, lambda f: replace(f, payload=f.payload[:-1])))
broken("forgets the ctype", "RW-PUBLISH-4", says=of(Message, lambda f: replace(f, ctype=f.ctype ^ 1)))
broken("has two clocks", "RW-ACK-2", "RW-ACK-1", says=of(Message, lambda f: replace(f, time_ms=f.time_ms + 1)))
broken("acknowledges a repeat anew", "RW-ACK-2", says=of(Ack, lambda f: replace(f, time_ms=1) if f.flags else f))
broken(
    "lets time step back", "RW-ACK-1", says=of(Message, lambda f: replace(f, time_ms=f.time_ms - 1000 * f.seq)),
)  # fmt: skip
broken("delivers nothing", "RW-MESSAGE-1", "RW-MODEL-2", says=of(Message, never))
broken(
    "does not send to the sender", "RW-MESSAGE-1",
    says=stream(lambda a, f: None if f.sender == a.notes["member"] else f),
)  # fmt: skip
broken("leaves all rooms at once", "RW-MODEL-2", "RW-LEAVE-2", says=_nothing_after_ok)
broken("goes on behind OK", "RW-LEAVE-2", hears=_no_leaving)
broken("acknowledges what is not joined", "RW-LEAVE-1", says=recoded({Code.NOT_JOINED: Code.FORBIDDEN}))
broken("expires no id", "RW-ID-2", says=pretends(Code.ID_EXPIRED))
broken("expires ids at once", "RW-ID-2", **minds(lambda a, f: _age_ms(f) > 60_000, Code.ID_EXPIRED))
broken(
    "expires ids that it does not remember", "RW-ID-3", **minds(lambda a, f: _age_ms(f) > 60_000, Code.ID_EXPIRED),
)  # fmt: skip

# --- repeats and order


class Masked(Alteration):
    """Knows ids by connection and membership alone."""


def _masked(a: Alteration, heard: Heard) -> list[Piece]:
    if isinstance(heard, Join):
        a.notes["mask"] = next(a.world.setdefault("masks", itertools.count(1)))
    if isinstance(heard, Publish):
        return [replace(heard, id=heard.id[:14] + a.notes.get("mask", 0).to_bytes(2, "big"))]
    return [heard]


def _used_anywhere(a: Alteration, heard: Heard) -> list[Piece]:
    if isinstance(heard, Publish):
        a.notes["again"] = a.notes.setdefault("rooms", {}).setdefault(heard.id, heard.room) != heard.room
    return [heard]


def _ignorable_counts(a: Alteration, f: Publish) -> bool:
    fields = tuple(item for item in f.fields if item.type < 0xC000)
    before = a.notes.setdefault("fields", {}).setdefault(f.id, fields)
    return bool(before != fields)


def _late_lookup(a: Alteration, heard: Heard) -> list[Piece]:
    """A repeat in the same segment is not recognised."""
    if isinstance(heard, Publish):
        if not a.notes.get("more"):
            a.notes["segment"] = set()
        a.notes["more"] = a.more
        if heard.id in a.notes["segment"]:
            return [replace(heard, id=fresh_id())]
        a.notes["segment"].add(heard.id)
    return [heard]


def _refusals(shared: bool) -> dict[str, Any]:
    """Minds refusals of other rooms, memberships, and with `shared` connections."""

    def says(a: Alteration, said: Piece) -> list[Piece]:
        notes = a.world if shared else a.notes
        if isinstance(said, Message):
            return [] if said.id in a.notes.get("ids", ()) else [said]
        if isinstance(said, Ack) and said.request in a.notes.get("ordered", ()) and notes.get("refused"):
            return [Error(Code.PRECEDED, 1, "", fields=(), flags=Flag.RETRY, request=said.request, room=said.room)]
        if isinstance(said, Error):
            notes["refused"] = True
        return [said]

    def hears(a: Alteration, heard: Heard) -> list[Piece]:
        if isinstance(heard, Publish) and heard.flags & Flag.ORDERED:
            a.notes.setdefault("ordered", set()).add(heard.request)
            a.notes.setdefault("ids", set()).add(heard.id)
        return [heard]

    return {"says": says, "hears": hears}


def _first_ordered(a: Alteration, heard: Publish) -> bool:
    a.notes["seen"] = a.notes.get("seen", 0) + bool(heard.flags & Flag.ORDERED)
    return bool(heard.flags & Flag.ORDERED) and a.notes["seen"] == 1


def _charged(a: Alteration, said: Piece) -> list[Piece]:
    if isinstance(said, Error) and said.code == Code.RATE_LIMITED:
        a.notes["limited"] = True
    if isinstance(said, Ack) and said.flags and a.notes.get("limited"):
        return [Error(Code.RATE_LIMITED, 100, "", fields=(), flags=Flag.RETRY, request=said.request, room=said.room)]
    return [said]


broken(
    "does not say DUPLICATE", "RW-DEDUPE-1", "RW-DEDUPE-3", "RW-DEDUPE-4", says=of(Ack, lambda f: replace(f, flags=0))
)
broken("knows ids by membership", "RW-DEDUPE-1", make=Masked, hears=_masked)
broken(
    "knows ids of all rooms", "RW-DEDUPE-1", hears=_used_anywhere,
    says=lambda a, f: [replace(f, flags=Flag.DUPLICATE) if isinstance(f, Ack) and a.notes.get("again") else f],
)  # fmt: skip
broken("compares all fields", "RW-DEDUPE-1", **minds(_ignorable_counts, Code.ID_CONFLICT))
broken("has no conflicts", "RW-DEDUPE-2", says=pretends(Code.ID_CONFLICT))
broken("looks ids up too late", "RW-DEDUPE-4", hears=_late_lookup)
broken("charges repeats", "RW-LIMIT-2", "RW-DEDUPE-4", says=_charged)
broken("limits without a time", "RW-LIMIT-1", says=of(Error, lambda f: replace(f, retry_ms=0)))
broken("minds no order", "RW-ORDER-1", says=pretends(Code.PRECEDED))
broken("minds refusals of all rooms", "RW-ORDER-1", **_refusals(False))
broken("minds refusals of all connections", "RW-ORDER-1", **_refusals(True))
broken("refuses ORDERED at first", "RW-ORDER-1", **minds(_first_ordered, Code.PRECEDED))
broken(
    "refuses ORDERED repeats",
    "RW-ORDER-1",
    "RW-DEDUPE-1",
    **minds(lambda a, f: bool(f.flags & Flag.ORDERED), Code.PRECEDED),
)
