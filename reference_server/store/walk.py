"""The *walk*: it decides what is proposed to a room's log (SPEC.md, sections 7.15 and 10).

It has no effect on the log, and asks nobody but the proposals themselves, so every store decides in the same way, and
a store that shares its rooms with other servers can walk again when another one was first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from protocol.registry import Code
from reference_server.store.base import Chain, Known, Outcome, Placed, Proposal, Record, Refused, Repeat

_PRECEDED_RETRY_MS = 1

_new = tuple.__new__


CONFLICT = Refused(Code.ID_CONFLICT, "the id belongs to another message")
PRECEDED = Refused(Code.PRECEDED, "the publish before this one was refused", _PRECEDED_RETRY_MS)


class Walk(NamedTuple):
    """What a walk decides: the records to be appended, what is known of their ids, and an outcome a proposal."""

    records: list[Record]
    known: list[Known]
    outcomes: list[Outcome]


def walk(
    proposals: Sequence[Proposal],
    lookup: Callable[[bytes], Known | None] | None,
    ids: int,
    tail: int,
    last_time_ms: int,
) -> Walk:
    """Decide `proposals`, in order, for a log whose last place is `tail`, with the time `last_time_ms`.

    `lookup` finds the `ids` ids that the log knows; it is None for a log that knows none, and accepts every id.
    """
    records: list[Record] = []
    new: list[Known] = []
    outcomes: list[Outcome] = []
    placed: dict[bytes, Known] = {}
    refused: dict[Chain, bool] = {}  # how this walk changes the chains
    for proposal in proposals:
        id, digest, time_ms, kind, sender, name, verified, ctype, payload, fields = proposal.entry
        chain = proposal.chain
        outcome: Outcome | None = proposal.invalid
        if outcome is None and lookup is not None:
            outcome = _of_id(placed.get(id) or lookup(id), digest, proposal)
        if outcome is None:
            if proposal.ordered and refused.get(chain, chain.refused):  # RW-ORDER-1
                outcome = PRECEDED
            else:
                outcome = proposal.admit(ids + len(placed))
        if outcome is None:
            tail += 1
            last_time_ms = max(time_ms, last_time_ms)  # RW-ACK-1
            known = _new(Known, (tail, last_time_ms, digest))
            if lookup is not None:
                placed[id] = known
            new.append(known)
            records.append(_new(Record, (tail, last_time_ms, kind, sender, id, ctype, name, verified, payload, fields)))
            outcome = _new(Placed, (tail, last_time_ms))
        refused[chain] = type(outcome) is Refused
        outcomes.append(outcome)
    return _new(Walk, (records, new, outcomes))


def _of_id(known: Known | None, digest: bytes, proposal: Proposal) -> Outcome | None:
    """What follows from the id alone: RW-DEDUPE-4, before anything that may change with time."""
    if known is None:
        return proposal.expired  # RW-ID-2
    return _new(Repeat, known[:2]) if known.digest == digest else CONFLICT  # RW-DEDUPE-2
