"""Compares two runs case by case: what got worse, better, or otherwise different.

It compares what an implementation did, not what its baseline expects: an expected failure counts as a failure. A case
that passed and is gone counts as worse, because a run that stopped early must not look good.
"""

from dataclasses import dataclass
from typing import Any, Literal

from conformance.harness.verdicts import Verdict

Change = Literal["worse", "better", "changed", "gone", "new"]

CHANGES: tuple[Change, ...] = ("worse", "gone", "better", "changed", "new")
WORSE = frozenset({"worse", "gone"})

_RANKS = {
    Verdict.PASS: 0,
    Verdict.XPASS: 0,
    Verdict.INFO: 1,
    Verdict.UNSUPPORTED: 1,
    Verdict.WARN: 2,
    Verdict.INCONCLUSIVE: 3,
    Verdict.FLAKY: 3,
    Verdict.FAIL: 4,
    Verdict.XFAIL: 4,
    Verdict.CRASH: 5,
    Verdict.HARNESS_ERROR: 5,
}
_UNKNOWN = 3  # the rank of a verdict of a later version


@dataclass(frozen=True)
class Difference:
    """A case whose verdicts differ; `before` is "" for a new case, `after` for one that is gone."""

    case: str
    change: Change
    before: str
    after: str
    got: str = ""


def rank(verdict: str) -> int:
    """How bad a verdict is; 0 is best."""
    return _RANKS[Verdict(verdict)] if verdict in _RANKS else _UNKNOWN


def compare(before: dict[str, Any], after: dict[str, Any]) -> list[Difference]:
    """The differences between two results.json of one role, the worst first, then in the order of the cases."""
    old = {result["id"]: result for result in before["results"]}
    new = {result["id"]: result for result in after["results"]}
    found = []
    for case in [*old, *(case for case in new if case not in old)]:
        was, now = old.get(case), new.get(case)
        if was is None or now is None or was["verdict"] != now["verdict"]:
            found.append(_difference(case, was, now))
    return sorted(found, key=lambda difference: CHANGES.index(difference.change))


def _difference(case: str, was: dict[str, Any] | None, now: dict[str, Any] | None) -> Difference:
    before, after = was["verdict"] if was else "", now["verdict"] if now else ""
    change: Change
    if was is None:
        change = "new"
    elif now is None:
        change = "gone" if rank(before) == 0 else "changed"
    elif rank(after) == rank(before):
        change = "changed"
    else:
        change = "worse" if rank(after) > rank(before) else "better"
    return Difference(case, change, before, after, (now or {}).get("got", "") or (now or {}).get("reason", ""))
