"""PUBLISH: the checks of SPEC.md, section 7.15, in their order, and the log (sections 4 and 10)."""

from __future__ import annotations

from protocol.codec import pack_message
from protocol.connection import error_frame
from protocol.frames import Error, Publish
from protocol.registry import Code, ContentType, Flag, FrameType
from reference_server.core.clock import AHEAD_MS
from reference_server.core.credit import REPEAT_COST, REQUEST_COST
from reference_server.core.limits import TokenBucket
from reference_server.core.messages import content_digest, pack_fields
from reference_server.core.peer import Peer, Pending
from reference_server.core.room import Member
from reference_server.store.base import Entry, Known

PRECEDED_RETRY_MS = 1
FULL_RETRY_MS = 1_000

_TEXT = int(ContentType.TEXT)
_new = tuple.__new__


def publish(peer: Peer, frame: Publish, now: float) -> None:
    """Answer PUBLISH with an ERROR, or with an ACK once the message is stable."""
    member = peer.memberships.get(frame.room)
    if member is None:
        error: Error | None = _error(peer, frame, Code.NOT_JOINED, "you are not in that room")
    else:
        error = _sequence(peer, member, frame, now)
    if error is not None:
        peer.conn.credit -= REQUEST_COST
        if member is not None:
            member.refused = True
        peer.reply_in_turn(Pending(frame.request, None, 0, 0, 0, error))


def _sequence(peer: Peer, member: Member, frame: Publish, now: float) -> Error | None:
    """Check the publish, and give it the next place in the room's log if it has none yet; or the ERROR."""
    state, config, log = peer.state, peer.state.config, member.room.log
    payload = frame.payload
    fields = pack_fields(frame) if frame.fields else b""
    if len(payload) + len(fields) > state.content_limit:  # RW-PUBLISH-1
        found = f"expected at most {state.content_limit} octets, found {len(payload) + len(fields)}"
        return _error(peer, frame, Code.PAYLOAD_TOO_LARGE, f"payload and relayed fields: {found}")
    if frame.ctype == _TEXT and not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError as error:  # RW-PUBLISH-2
            return _error(peer, frame, Code.PAYLOAD_INVALID, f"not UTF-8 at octet {error.start}")
    now_ms = state.clock.ms(now)
    digest = content_digest(frame.ctype, payload, fields, peer.account)
    if config.dedupe_ms:  # RW-ID-3
        known = log.lookup(frame.id)  # RW-DEDUPE-4: before anything that may change with time
        if known is not None:
            return _repeat(peer, member, frame, known, digest)
        age_ms = now_ms - int.from_bytes(frame.id[:6], "big")
        if age_ms > config.dedupe_ms or age_ms < -AHEAD_MS:  # RW-ID-2
            where = f"{age_ms} ms old" if age_ms > 0 else f"{-age_ms} ms ahead"
            return _error(peer, frame, Code.ID_EXPIRED, f"the id is {where}")
    if frame.flags & Flag.ORDERED and member.refused:  # RW-ORDER-1
        text = "the publish before this one was refused"
        return _error(peer, frame, Code.PRECEDED, text, PRECEDED_RETRY_MS)
    bucket = peer.publish_bucket
    if bucket is None:
        bucket = peer.publish_bucket = TokenBucket(config.publish_burst, now)
    wait_ms = bucket.take(config.publish_rate, config.publish_burst, now)
    if wait_ms:
        return _error(peer, frame, Code.RATE_LIMITED, "too many publishes at once", wait_ms)
    if log.known >= config.ids_per_room:  # RW-DEDUPE-6
        return _error(peer, frame, Code.RATE_LIMITED, "too many recent publishes to this room", FULL_RETRY_MS)
    if state.store.busy:
        return _error(peer, frame, Code.UNAVAILABLE, "the store cannot be written now", FULL_RETRY_MS)
    _append(peer, member, frame, fields, digest, now_ms)
    return None


def _repeat(peer: Peer, member: Member, frame: Publish, known: Known, digest: bytes) -> Error | None:
    """The id is known: the same message again, or a conflict."""
    if known.digest != digest:
        return _error(peer, frame, Code.ID_CONFLICT, "the id belongs to another message")  # RW-DEDUPE-2
    member.refused = False
    peer.state.counters.repeats += 1
    peer.conn.credit -= REPEAT_COST
    peer.reply_in_turn(Pending(frame.request, member, known.seq, known.time_ms, Flag.DUPLICATE, None))
    return None


def _append(peer: Peer, member: Member, frame: Publish, fields: bytes, digest: bytes, now_ms: int) -> None:
    member.refused = False
    room = member.room
    verified = bool(peer.account)
    id, ctype, payload, author, name = frame.id, frame.ctype, frame.payload, peer.member, peer.name
    entry = _new(Entry, (id, digest, now_ms, author, name, verified, ctype, payload, fields))
    seq, time_ms, _ = room.log.append(entry)
    flags = Flag.SEQ | Flag.VERIFIED if verified else Flag.SEQ
    octets = pack_message(seq, time_ms, author, id, ctype, name.encode(), payload, fields, flags, 0, room.ref)
    room.sequenced(octets)  # once, the same for all members (RW-MODEL-2)
    peer.state.appended(room)
    peer.reply_in_turn(_new(Pending, (frame.request, member, seq, time_ms, 0, None)))


def _error(peer: Peer, frame: Publish, code: Code, text: str, retry_ms: int = 0) -> Error:
    peer.state.counters.error(FrameType.PUBLISH, code)
    return error_frame(code, frame.request, frame.room, retry_ms=retry_ms, text=text)
