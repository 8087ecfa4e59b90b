"""The walk, reference_server/store/walk.py, alone: how proposals are decided."""

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import example, given
from hypothesis import strategies as st

from protocol.registry import Code
from reference_server.store.base import Known, Outcome, Placed, Record, Refused, Repeat
from reference_server.store.walk import CONFLICT, PRECEDED, Walk, walk
from tests.support.stores import T0, Membership, Outcomes, Proposal, entry, record

INVALID = Refused(Code.PAYLOAD_INVALID, "not UTF-8")
EXPIRED = Refused(Code.ID_EXPIRED, "the id is old")
LIMITED = Refused(Code.RATE_LIMITED, "too many", 7)


@dataclass
class Log:
    """What a walk needs to know of a log."""

    ids: dict[bytes, Known] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    last_time_ms: int = 0
    remembers: bool = True

    def decide(self, *proposals: Proposal) -> Walk:
        """A walk, which changes nothing."""
        lookup = self.ids.get if self.remembers else None
        return walk(proposals, lookup, len(self.ids), len(self.records), self.last_time_ms)

    def take(self, *proposals: Proposal) -> Outcomes:
        """A walk, and what a store does then."""
        walked = self.decide(*proposals)
        assert len(walked.records) == len(walked.known)
        assert len(walked.outcomes) == len(proposals)
        self.records += walked.records
        if walked.records:
            self.last_time_ms = walked.records[-1].time_ms
        if self.remembers:
            self.ids |= {each.id: known for each, known in zip(walked.records, walked.known, strict=True)}
        for proposal, outcome in zip(proposals, walked.outcomes, strict=True):
            proposal.settle(outcome)
        return Outcomes(walked.outcomes)


Spec = tuple[int, int, int, int, bool, Refused | None, Refused | None, Refused | None]

few = st.integers(0, 3)
specs = st.lists(
    st.tuples(
        few,
        st.integers(1, 6),
        st.integers(0, 9).map(lambda number: number // 8),
        st.integers(0, 5),
        st.booleans(),
        st.sampled_from([None, None, None, INVALID]),
        st.sampled_from([None, None, None, EXPIRED]),
        st.sampled_from([None, None, None, LIMITED]),
    ),
    max_size=24,
)
"""Of each proposal: its membership, id, content and time, whether it is ordered, and why it is refused."""


def proposals_of(given_specs: list[Spec]) -> list[Proposal]:
    chains = [Membership() for _ in range(4)]
    return [
        Proposal(
            entry(number, time_ms=T0 + time_ms, id_ms=T0)._replace(digest=bytes([content]) * 16),
            chains[chain],
            ordered=ordered,
            invalid=invalid,
            expired=expired,
            why=why,
        )
        for chain, number, content, time_ms, ordered, invalid, expired, why in given_specs
    ]


def expected(given_specs: list[Spec], *, remembers: bool = True) -> list[Outcome]:
    """The outcomes by the rules of SPEC.md, for a log that is empty, without the walk's ways."""
    outcomes: list[Outcome] = []
    places: dict[int, tuple[int, Placed]] = {}
    refused: set[int] = set()
    tail, last = 0, 0
    for chain, number, content, time_ms, ordered, invalid, expired, why in given_specs:
        outcome: Outcome
        if invalid:
            outcome = invalid
        elif remembers and number in places:
            outcome = Repeat(*places[number][1]) if places[number][0] == content else CONFLICT
        elif remembers and expired:
            outcome = expired
        elif ordered and chain in refused:
            outcome = PRECEDED
        elif why:
            outcome = why
        else:
            tail, last = tail + 1, max(last, T0 + time_ms)
            outcome = Placed(tail, last)
            places[number] = (content, outcome)
        refused.discard(chain)
        if isinstance(outcome, Refused):
            refused.add(chain)
        outcomes.append(outcome)
    return outcomes


# --- against the rules


@given(specs, st.booleans())
def test_outcomes_are_as_specified(given_specs: list[Spec], remembers: bool) -> None:
    log, proposals = Log(remembers=remembers), proposals_of(given_specs)
    outcomes = log.take(*proposals)
    assert outcomes == expected(given_specs, remembers=remembers)
    placed = [(each.entry, each.outcomes[0]) for each in proposals if isinstance(each.outcomes[0], Placed)]
    assert log.records == [record(each, *outcome[:2]) for each, outcome in placed]


@given(specs, st.booleans(), st.lists(st.integers(1, 5), min_size=1, max_size=24))
def test_one_walk_is_as_good_as_many(given_specs: list[Spec], remembers: bool, sizes: list[int]) -> None:
    """How proposals are divided among commits changes nothing."""
    whole, parts = Log(remembers=remembers), Log(remembers=remembers)
    one, other = proposals_of(given_specs), proposals_of(given_specs)
    outcomes = whole.take(*one)
    told = Outcomes()
    start = 0
    for size in [*sizes, *[1] * len(other)]:
        told += parts.take(*other[start : start + size])
        start += size
    assert told == outcomes
    assert parts == whole
    assert [each.asked for each in other] == [each.asked for each in one]
    assert [each.chain.refused for each in other] == [each.chain.refused for each in one]


@given(specs, specs, st.booleans())
def test_walk_changes_nothing(before: list[Spec], given_specs: list[Spec], remembers: bool) -> None:
    """Walked again, proposals are decided in the same way."""
    log, proposals = Log(remembers=remembers), proposals_of(before + given_specs)
    log.take(*proposals[: len(before)])
    ids, chains = dict(log.ids), [each.chain.refused for each in proposals]
    first, second = (log.decide(*proposals[len(before) :]) for _ in range(2))
    assert first == second
    assert Outcomes(first.outcomes) == second.outcomes
    assert (log.ids, [each.chain.refused for each in proposals]) == (ids, chains)
    assert not any(each.outcomes for each in proposals[len(before) :])


@given(specs, specs)
def test_walk_after_another_server_was_first(before: list[Spec], given_specs: list[Spec]) -> None:
    """What was walked, but not settled, leaves no trace when the log has changed meanwhile."""
    straight, log = Log(), Log()
    one, other = proposals_of(before + given_specs), proposals_of(before + given_specs)
    log.decide(*other[len(before) :])
    outcomes = Outcomes(log.take(*other[: len(before)]) + log.take(*other[len(before) :]))
    assert outcomes == straight.take(*one)
    assert log == straight


@given(specs, st.booleans())
def test_times_never_decrease(given_specs: list[Spec], remembers: bool) -> None:
    """RW-ACK-1."""
    log, proposals = Log(remembers=remembers, last_time_ms=T0 + 3), proposals_of(given_specs)
    log.take(*proposals)
    asked = {each.entry.id: each.entry.time_ms for each in proposals}
    times = [T0 + 3, *[each.time_ms for each in log.records]]
    assert times == sorted(times)
    assert [each.seq for each in log.records] == list(range(1, len(log.records) + 1))
    assert set(times) <= {T0 + 3, *(each.entry.time_ms for each in proposals)}
    if remembers:
        assert all(each.id in asked for each in log.records)


@given(specs, specs)
@example([], [(0, 1, 0, 0, False, None, None, None), (0, 2, 0, 0, False, None, None, None)])
def test_admit_is_asked_for_new_ids_only(before: list[Spec], given_specs: list[Spec]) -> None:
    """RW-DEDUPE-6: with the number of ids that are known by then."""
    log, proposals = Log(), proposals_of(before + given_specs)
    log.take(*proposals[: len(before)])
    known = set(log.ids)
    log.take(*proposals[len(before) :])
    for proposal in proposals[len(before) :]:
        [outcome] = proposal.outcomes
        asks = isinstance(outcome, Placed) or outcome is LIMITED
        assert proposal.asked == ([len(known)] if asks else [])
        if asks:
            assert proposal.entry.id not in known
        if isinstance(outcome, Placed):
            known.add(proposal.entry.id)


# --- what comes first


def other_content(number: int) -> Proposal:
    return Proposal(entry(number)._replace(digest=b"another digest.."))


def test_known_id_comes_before_an_expired_one() -> None:
    """RW-DEDUPE-4."""
    log = Log()
    assert log.take(Proposal(entry(1)), Proposal(entry(1), expired=EXPIRED)) == [Placed(1, T0 + 1), Repeat(1, T0 + 1)]
    conflict = other_content(1)
    conflict.expired = EXPIRED
    assert log.take(Proposal(entry(1), expired=EXPIRED), conflict) == [Repeat(1, T0 + 1), CONFLICT]
    assert log.take(Proposal(entry(2), expired=EXPIRED)) == [EXPIRED]


def test_invalid_content_comes_before_a_known_id() -> None:
    log = Log()
    log.take(Proposal(entry(1)))
    conflict = other_content(1)
    conflict.invalid = INVALID
    assert log.take(Proposal(entry(1), invalid=INVALID), conflict) == [INVALID, INVALID]
    assert log.take(Proposal(entry(2), invalid=INVALID, expired=EXPIRED, why=LIMITED)) == [INVALID]


def test_expired_id_comes_before_an_order_and_that_before_a_limit() -> None:
    log, chain = Log(), Membership()
    chain.refused = True
    assert log.take(Proposal(entry(1), chain, ordered=True, expired=EXPIRED, why=LIMITED)) == [EXPIRED]
    assert log.take(Proposal(entry(1), chain, ordered=True, why=LIMITED)) == [PRECEDED]
    assert log.take(Proposal(entry(1), chain, why=LIMITED)) == [LIMITED]


def test_repeat_in_order_is_no_new_refusal() -> None:
    """RW-ORDER-1: a known id is answered before the order is looked at, and ends the refusals."""
    log, chain = Log(), Membership()
    log.take(Proposal(entry(1)))
    proposals = [
        Proposal(entry(2), chain, ordered=True, why=LIMITED),
        Proposal(entry(1), chain, ordered=True),
        Proposal(entry(3), chain, ordered=True),
    ]
    assert log.take(*proposals) == [LIMITED, Repeat(1, T0 + 1), Placed(2, T0 + 3)]


# --- chains


def refusals() -> list[Callable[[Membership], Proposal]]:
    """Each way to be refused, in a log that knows the ids 1 and 2."""
    conflict = entry(1)._replace(digest=b"another digest..")
    return [
        lambda chain: Proposal(entry(9), chain, invalid=INVALID),
        lambda chain: Proposal(entry(9), chain, expired=EXPIRED),
        lambda chain: Proposal(entry(9), chain, why=LIMITED),
        lambda chain: Proposal(conflict, chain),
    ]


@given(st.sampled_from(refusals()), st.booleans())
def test_ordered_after_a_refusal(refusal: Callable[[Membership], Proposal], one_walk: bool) -> None:
    """RW-ORDER-1: the ordered ones after it too, up to one without the flag, also in a later walk."""
    log, chain, other = Log(), Membership(), Membership()
    log.take(Proposal(entry(1)), Proposal(entry(2)))
    proposals = [
        refusal(chain),
        Proposal(entry(3), chain, ordered=True),
        Proposal(entry(4), other, ordered=True),
        Proposal(entry(5), chain, ordered=True),
        Proposal(entry(6), chain),
        Proposal(entry(7), chain, ordered=True),
    ]
    if one_walk:
        outcomes = log.take(*proposals)
    else:
        outcomes = Outcomes(outcome for proposal in proposals for outcome in log.take(proposal))
    assert isinstance(outcomes[0], Refused)
    assert Outcomes(outcomes[1:]) == [PRECEDED, Placed(3, T0 + 4), PRECEDED, Placed(4, T0 + 6), Placed(5, T0 + 7)]


@given(specs)
def test_preceded_only_after_a_refusal_in_the_same_chain(given_specs: list[Spec]) -> None:
    log, proposals = Log(), proposals_of(given_specs)
    half = len(proposals) // 2
    log.take(*proposals[:half])
    log.take(*proposals[half:])
    last: dict[Membership, Outcome] = {}
    for proposal in proposals:
        [outcome] = proposal.outcomes
        refused = isinstance(last.get(proposal.chain), Refused)
        if outcome is PRECEDED:
            assert proposal.ordered
            assert refused
        if isinstance(outcome, Placed):
            assert not (proposal.ordered and refused)
        last[proposal.chain] = outcome


# --- a log that knows no ids


def test_log_without_ids_accepts_every_one() -> None:
    """Also an id that would be expired: nothing is known of any (dedupe_ms 0)."""
    log = Log(remembers=False)
    proposals = [
        Proposal(entry(1)),
        Proposal(entry(1)),
        Proposal(entry(1)._replace(digest=bytes(16))),
        Proposal(entry(1)),
    ]
    proposals[2].expired = EXPIRED
    assert log.take(*proposals) == [Placed(seq, T0 + 1) for seq in (1, 2, 3, 4)]
    assert [each.asked for each in proposals] == [[0]] * 4
    assert log.take(Proposal(entry(2), invalid=INVALID), Proposal(entry(2), why=LIMITED)) == [INVALID, LIMITED]
