"""PUBLISH: the checks of SPEC.md, section 7.15, in their order, and the log (sections 4 and 10)."""

from __future__ import annotations

from protocol.codec import pack_ack
from protocol.connection import error_frame
from protocol.frames import Publish
from protocol.registry import Code, ContentType, Flag, FrameType
from reference_server.core.clock import AHEAD_MS
from reference_server.core.credit import REPEAT_COST, REQUEST_COST
from reference_server.core.limits import TokenBucket
from reference_server.core.messages import content_digest, pack_fields
from reference_server.core.peer import Peer
from reference_server.core.room import Member
from reference_server.store.base import MESSAGE, Entry, Outcome, Placed, Refused, Repeat

FULL_RETRY_MS = 1_000

_TEXT = int(ContentType.TEXT)
_NOT_JOINED = Refused(Code.NOT_JOINED, "you are not in that room")
_UNDECIDED = Placed(1 << 64, 0)
_new = tuple.__new__


def publish(peer: Peer, frame: Publish, now: float) -> None:
    """Propose the message to the room's log. The reply is an ERROR, or an ACK once the message is stable."""
    member = peer.memberships.get(frame.room)
    if member is None:
        peer.conn.credit -= REQUEST_COST
        peer.state.counters.error(FrameType.PUBLISH, Code.NOT_JOINED)
        peer.reply_in_turn(RefusedPublish(peer, frame, _NOT_JOINED))
        return
    state = peer.state
    payload = frame.payload
    fields = pack_fields(frame) if frame.fields else b""
    now_ms = state.clock.ms(now)
    digest = content_digest(frame.ctype, payload, fields, peer.account)
    entry = _new(
        Entry,
        (
            frame.id, digest, now_ms, MESSAGE, peer.member, peer.name, bool(peer.account), frame.ctype, payload, fields
        ),
    )  # fmt: skip
    publication = Publication(peer, member, frame, entry, now)
    if len(payload) + len(fields) > state.content_limit or (frame.ctype == _TEXT and not payload.isascii()):
        publication.invalid = _invalid(frame, len(payload) + len(fields), state.content_limit)
    age_ms = now_ms - int.from_bytes(frame.id[:6], "big")
    if not -AHEAD_MS <= age_ms <= state.config.dedupe_ms:  # RW-ID-2
        where = f"{age_ms} ms old" if age_ms > 0 else f"{-age_ms} ms ahead"
        publication.expired = Refused(Code.ID_EXPIRED, f"the id is {where}")
    peer.conn.credit -= peer.publish_cost
    member.room.log.propose(publication)
    peer.reply_in_turn(publication)
    state.proposed()


def _invalid(frame: Publish, size: int, limit: int) -> Refused | None:
    if size > limit:  # RW-PUBLISH-1
        found = f"expected at most {limit} octets, found {size}"
        return Refused(Code.PAYLOAD_TOO_LARGE, f"payload and relayed fields: {found}")
    if frame.ctype == _TEXT:
        try:
            frame.payload.decode()
        except UnicodeDecodeError as error:  # RW-PUBLISH-2
            return Refused(Code.PAYLOAD_INVALID, f"not UTF-8 at octet {error.start}")
    return None


class RefusedPublish:
    """The ERROR to a PUBLISH that is for no room of the client's, in its turn."""

    __slots__ = ("_frame", "_peer", "_why")

    ready = True

    def __init__(self, peer: Peer, frame: Publish, why: Refused) -> None:
        self._peer, self._frame, self._why = peer, frame, why

    def answer(self) -> None:
        code, text, retry_ms = self._why
        self._peer.conn.send(error_frame(code, self._frame.request, self._frame.room, retry_ms=retry_ms, text=text))


class Publication:
    """A PUBLISH from its arrival to its reply: what is proposed to the room's log (`store.base.Proposal`)."""

    __slots__ = ("_now", "_peer", "_request", "_wait_ms", "chain", "entry", "expired", "invalid", "ordered", "outcome")

    def __init__(self, peer: Peer, member: Member, frame: Publish, entry: Entry, now: float) -> None:
        self._peer = peer
        self.chain = member
        self._request = frame.request
        self.entry = entry
        self._now = now
        self.ordered = frame.flags & Flag.ORDERED != 0
        self.invalid: Refused | None = None
        self.expired: Refused | None = None
        self.outcome: Outcome = _UNDECIDED
        self._wait_ms: int | None = None  # what the rate said, once; 0: it has taken a token

    def admit(self, known: int) -> Refused | None:
        peer = self._peer
        config = peer.state.config
        if self._wait_ms is None:
            bucket = peer.publish_bucket
            if bucket is None:
                bucket = peer.publish_bucket = TokenBucket(config.publish_burst, self._now)
            self._wait_ms = bucket.take(config.publish_rate, config.publish_burst, self._now)
        if self._wait_ms:
            return Refused(Code.RATE_LIMITED, "too many publishes at once", self._wait_ms)
        if known >= config.ids_per_room:  # RW-DEDUPE-6
            return Refused(Code.RATE_LIMITED, "too many recent publishes to this room", FULL_RETRY_MS)
        if peer.state.store.busy:
            return Refused(Code.UNAVAILABLE, "the store cannot be written now", FULL_RETRY_MS)
        return None

    def settle(self, outcome: Outcome) -> None:
        peer, kind = self._peer, type(outcome)
        self.outcome = outcome
        self.chain.refused = kind is Refused
        counters = peer.state.counters
        if kind is Placed:
            counters.appended += 1
            peer.publish_cost = 0
        elif kind is Repeat:
            counters.repeats += 1
            peer.publish_cost = REPEAT_COST
            if self._wait_ms == 0:  # an earlier walk took it for new
                assert peer.publish_bucket is not None
                peer.publish_bucket.give_back()
        else:
            assert isinstance(outcome, Refused)
            counters.error(FrameType.PUBLISH, outcome.code)
            peer.publish_cost = REQUEST_COST

    @property
    def ready(self) -> bool:
        """Whether the reply may be sent: RW-PROMISE-1."""
        outcome = self.outcome
        return type(outcome) is Refused or outcome[0] <= self.chain.room.log.head

    def answer(self) -> None:
        """Send the reply."""
        outcome, conn, ref = self.outcome, self._peer.conn, self.chain.room.ref
        if isinstance(outcome, Refused):
            code, text, retry_ms = outcome
            conn.send(error_frame(code, self._request, ref, retry_ms=retry_ms, text=text))
        else:
            seq, time_ms = outcome
            flags = Flag.DUPLICATE if type(outcome) is Repeat else 0
            conn.reply(self._request, pack_ack(seq, time_ms, b"", flags, self._request, ref))
