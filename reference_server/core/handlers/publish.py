"""PUBLISH: the checks of SPEC.md, section 7.15, in their order, and the log (sections 4 and 10)."""

from __future__ import annotations

from protocol.codec import pack_message
from protocol.connection import error_frame
from protocol.frames import Error, Publish
from protocol.registry import CONTENT_RESERVE, Code, ContentType, Flag, FrameType
from reference_server.core.limits import TokenBucket
from reference_server.core.messages import content_digest, pack_fields
from reference_server.core.peer import Peer, Pending
from reference_server.core.room import Member
from reference_server.core.state import Context
from reference_server.store.base import Entry

AHEAD_MS = 60_000
"""How far ahead of the server's clock an id may be (RW-ID-2)."""

_TEXT = int(ContentType.TEXT)
_new = tuple.__new__

PRECEDED_RETRY_MS = 1
FULL_RETRY_MS = 1_000


class Publisher:
    """Decides on publishes, and sequences those that are accepted."""

    def __init__(self, hub: Context) -> None:
        self._hub = hub
        self._content_limit = hub.max_body - CONTENT_RESERVE
        self._now = -1.0
        self._now_ms = 0  # the server's clock at _now: many publishes arrive at once

    def publish(self, peer: Peer, member: Member | None, publish: Publish, now: float) -> Pending | Error:
        """An ACK that becomes due when the message is stable, or the ERROR."""
        if member is None:
            return self._error(publish, Code.NOT_JOINED, "you are not in that room")
        payload = publish.payload
        fields = pack_fields(publish) if publish.fields else b""
        if len(payload) + len(fields) > self._content_limit:  # RW-PUBLISH-1
            size = len(payload) + len(fields)
            text = f"payload and relayed fields: expected at most {self._content_limit} octets, found {size}"
            return self._error(publish, Code.PAYLOAD_TOO_LARGE, text)
        if publish.ctype == _TEXT and not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError as error:  # RW-PUBLISH-2
                return self._error(publish, Code.PAYLOAD_INVALID, f"not UTF-8 at octet {error.start}")
        hub, config, log = self._hub, self._hub.config, member.room.log
        if now != self._now:
            self._now, self._now_ms = now, hub.clock_ms(now)
        now_ms = self._now_ms
        digest = content_digest(publish.ctype, payload, fields, peer.account)
        if config.dedupe_ms:  # RW-ID-3
            known = log.lookup(publish.id)  # RW-DEDUPE-4: before anything that may change with time
            if known is not None:
                if known.digest != digest:
                    return self._error(publish, Code.ID_CONFLICT, "the id belongs to another message")  # RW-DEDUPE-2
                member.refused = False
                hub.counters.repeats += 1
                return Pending(publish.request, member, known.seq, known.time_ms, Flag.DUPLICATE, None)
            age_ms = now_ms - int.from_bytes(publish.id[:6], "big")
            if age_ms > config.dedupe_ms or age_ms < -AHEAD_MS:  # RW-ID-2
                where = f"{age_ms} ms old" if age_ms > 0 else f"{-age_ms} ms ahead"
                return self._error(publish, Code.ID_EXPIRED, f"the id is {where}")
        if publish.flags & Flag.ORDERED and member.refused:  # RW-ORDER-1
            return self._error(publish, Code.PRECEDED, "the publish before this one was refused", PRECEDED_RETRY_MS)
        bucket = peer.publish_bucket
        if bucket is None:
            bucket = peer.publish_bucket = TokenBucket(config.publish_burst, now)
        wait_ms = bucket.take(config.publish_rate, config.publish_burst, now)
        if wait_ms:
            return self._error(publish, Code.RATE_LIMITED, "too many publishes at once", wait_ms)
        if log.known >= config.ids_per_room:  # RW-DEDUPE-6
            return self._error(publish, Code.RATE_LIMITED, "too many recent publishes to this room", FULL_RETRY_MS)
        member.refused = False
        return self._append(peer, member, publish, fields, digest, now_ms)

    def _append(
        self, peer: Peer, member: Member, publish: Publish, fields: bytes, digest: bytes, now_ms: int
    ) -> Pending:
        room = member.room
        verified = bool(peer.account)
        id, ctype, payload, author, name = publish.id, publish.ctype, publish.payload, peer.member, peer.name
        entry = _new(Entry, (id, digest, now_ms, author, name, verified, ctype, payload, fields))
        seq, time_ms, _ = room.log.append(entry)
        flags = Flag.SEQ | Flag.VERIFIED if verified else Flag.SEQ
        octets = pack_message(seq, time_ms, author, id, ctype, name.encode(), payload, fields, flags, 0, room.ref)
        room.sequenced(octets)  # once, the same for all members (RW-MODEL-2)
        self._hub.appended(room)
        return _new(Pending, (publish.request, member, seq, time_ms, 0, None))

    def _error(self, publish: Publish, code: Code, text: str, retry_ms: int = 0) -> Error:
        self._hub.counters.error(FrameType.PUBLISH, code)
        return error_frame(code, publish.request, publish.room, retry_ms=retry_ms, text=text)
