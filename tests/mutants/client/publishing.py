"""Client mutants about publishing, repeats, order and recovery (SPEC.md, 4, 10, 11)."""

import itertools
import random
import time
from dataclasses import replace
from typing import Any

from protocol.errors import Unexpected
from protocol.frames import Ack, Frame, Publish, Welcome
from reference_client.session.membership import RoomState
from reference_client.session.outbox import Outbox, Pace
from reference_client.session.requests import Requests
from tests.mutants.client.changes import changes, fatal_if, receives, replaces, reports
from tests.mutants.clients import ClientMutant, Patch


def _repeat_with_new_id(patch: Patch) -> None:
    plain = Outbox.take

    def take(self: Outbox, request: int) -> None:
        plain(self, request)
        self.sent[request].id = b""

    patch.setattr(Outbox, "take", take)


def _repeat_with_other_content(patch: Patch) -> None:
    plain = Outbox.refused

    def refused(self: Outbox, request: int, *, repeat: bool) -> Any:
        self.sent[request].payload += b"!"
        return plain(self, request, repeat=repeat)

    patch.setattr(Outbox, "refused", refused)


_COUNT = itertools.count(1)


def _counted() -> bytes:
    return next(_COUNT).to_bytes(10, "big")


def _id(now_ms: float, tail: bytes = b"") -> bytes:
    return int(now_ms).to_bytes(6, "big") + (tail or random.randbytes(10))


def _refused_repeated_at_once(patch: Patch) -> None:
    def next_(self: Outbox) -> Any:
        self.waiting.extendleft(reversed(self._refused))
        self._refused.clear()
        return self.waiting[0] if self.waiting else None

    patch.setattr(Outbox, "next", next_)


def _repeats_reversed(patch: Patch) -> None:
    plain = Outbox.disconnected

    def disconnected(self: Outbox) -> None:
        plain(self)
        self.waiting.reverse()

    patch.setattr(Outbox, "disconnected", disconnected)


def _refused_repeat_is_final(patch: Patch) -> None:
    plain = Requests._publish_replied

    def replied(self: Requests, request: Publish, reply: Frame, room: RoomState, now: float) -> None:
        with Patch.context() as inner:
            inner.setattr(RoomState, "caught_up", True)
            plain(self, request, reply, room, now)

    patch.setattr(Requests, "_publish_replied", replied)


def _rest_before_first_ack(patch: Patch) -> None:
    plain = Outbox.take

    def take(self: Outbox, request: int) -> None:
        plain(self, request)
        self.pace._limit = 1 << 16

    patch.setattr(Outbox, "take", take)


MUTANTS: tuple[ClientMutant, ...] = (
    # 4 The promise
    ClientMutant("repeat-with-new-id", "Repeats a publish with a new id.", ("RW-PROMISE-5",), _repeat_with_new_id),
    ClientMutant(
        "repeat-with-other-content",
        "Repeats a refused publish with other content.",
        ("RW-PROMISE-5",),
        _repeat_with_other_content,
        only=("client/7.4/waits",),
    ),
    ClientMutant(
        "duplicate-ack-fatal",
        "Ends the connection over an ACK with DUPLICATE.",
        ("RW-PROMISE-5",),
        fatal_if(lambda f: isinstance(f, Ack) and bool(f.flags), Unexpected),
    ),
    ClientMutant(
        "unknown-outcome-as-failure",
        "Reports failure where the outcome of a publish is unknown.",
        ("RW-PROMISE-6",),
        reports(lambda r: {**r, "unknown": False} if "unknown" in r else r),
    ),
    # 10.1 Ids
    ClientMutant(
        "id-from-own-clock",
        "Makes ids from its own clock.",
        ("RW-ID-1",),
        replaces(Requests, "_new_id", lambda self, now: _id(time.time() * 1000)),
    ),
    ClientMutant(
        "id-guessable",
        "Makes ids that can be guessed.",
        ("RW-ID-1",),
        replaces(Requests, "_new_id", lambda self, now: _id(self._welcome.now_ms, _counted())),
    ),
    # 10.2 Repeats
    ClientMutant(
        "repeat-without-dedupe",
        "Repeats a publish of unknown outcome when dedupe_ms is 0.",
        ("RW-DEDUPE-7",),
        receives(changes(Welcome, lambda f: replace(f, dedupe_ms=600_000))),
    ),
    ClientMutant(
        "outcome-given-up-early",
        "Gives up on a publish before the stream has reached head.",
        ("RW-DEDUPE-8",),
        replaces(RoomState, "caught_up", property(lambda self: self.state == "IN")),
    ),
    ClientMutant(
        "refused-repeat-given-up-early",
        "Gives up on a publish as soon as its repeat is refused for good.",
        ("RW-DEDUPE-8",),
        _refused_repeat_is_final,
    ),
    # 10.3 Order against refusals
    ClientMutant(
        "refused-repeated-at-once",
        "Repeats a refused publish before the replies to later ones.",
        ("RW-ORDER-2",),
        _refused_repeated_at_once,
    ),
    ClientMutant(
        "repeat-always-ordered",
        "Sets ORDERED in every publish.",
        ("RW-ORDER-2",),
        replaces(Outbox, "ordered", property(lambda self: True)),
    ),
    ClientMutant(
        "repeats-reversed", "Repeats unanswered publishes in reverse order.", ("RW-ORDER-3",), _repeats_reversed
    ),
    ClientMutant(
        "all-at-once-after-limit",
        "Sends all publishes at once after RATE_LIMITED.",
        ("RW-ORDER-4",),
        replaces(Pace, "allows", lambda self, under_way: True),
    ),
    ClientMutant(
        "rest-before-first-ack",
        "Sends the other publishes before the first is acknowledged.",
        ("RW-ORDER-4",),
        _rest_before_first_ack,
    ),
    # 11 Recovery
    ClientMutant(
        "rejoin-without-cursor",
        "Joins again without its cursor.",
        ("RW-RECOVER-1",),
        replaces(RoomState, "where", property(lambda self: (0, 0))),
    ),
    ClientMutant(
        "own-message-not-recognised",
        "Does not take its own MESSAGE as an acknowledgement.",
        ("RW-RECOVER-2",),
        replaces(Outbox, "found", lambda self, id: None),
    ),
    ClientMutant(
        "message-reported-twice",
        "Reports messages of the stream twice.",
        ("RW-RECOVER-3",),
        replaces(RoomState, "shows", lambda self, seq: True),
    ),
)
