"""Results with the same cause: those that judge one requirement, expect the same and found the same.

Numbers, and names that are fresh in each case, do not tell causes apart. A result without an expectation is grouped by
its reason.
"""

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from conformance.harness.verdicts import Verdict

T = TypeVar("T")
Account = tuple[str, str, str, str, str]
"""Verdict, requirement, expected, got and reason of a result."""

FOLDED = frozenset({Verdict.INFO.value, Verdict.UNSUPPORTED.value, Verdict.XFAIL.value})
"""The verdicts that a report folds into one line a reason."""

_FRESH = re.compile(r"\b[\w.-]*[0-9a-f]{10}-\d+\b|\b(?:0x)?[0-9a-f]*\d[0-9a-f]*(?:\.\d+)?\b")


def cause(account: Account) -> Account:
    """The cause of a result: equal for results that belong together."""
    verdict, requirement, expected, got, reason = account
    if expected:
        return verdict, requirement, _alike(expected), _alike(got), ""
    return verdict, "", "", "", _alike(reason)


def by_cause(results: Iterable[T], account: Callable[[T], Account]) -> list[list[T]]:
    """The results in groups of one cause each, in the order in which the causes first appear."""
    groups: dict[Account, list[T]] = {}
    for result in results:
        groups.setdefault(cause(account(result)), []).append(result)
    return list(groups.values())


def _alike(text: str) -> str:
    return _FRESH.sub("#", text)
