"""The baseline: cases that a target is expected to fail, each with a reason.

The implementer keeps it in a file of TOML:

    [expected-failures]
    "server/7.9/already-joined" = "ticket 12: names are compared octet by octet"
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from conformance.harness import input_file
from conformance.harness.exit_status import UsageError
from conformance.harness.verdicts import Result, Verdict

_TABLE = "expected-failures"
_CAN_FAIL = frozenset({Verdict.FAIL, Verdict.WARN, Verdict.INCONCLUSIVE, Verdict.CRASH})


class BaselineError(UsageError):
    """The file cannot be read or does not have the form above."""


def read(path: Path) -> dict[str, str]:
    """Reasons by id of a case. Raises BaselineError."""
    try:
        document = input_file.from_toml(input_file.text(path))
    except ValueError as error:
        raise BaselineError(f"{path}: {error}") from None
    entries = document.pop(_TABLE, {})
    if document or not isinstance(entries, dict):
        raise BaselineError(f"{path}: expected one table, [{_TABLE}]")
    for case, reason in entries.items():
        if not isinstance(reason, str) or not reason.strip():
            raise BaselineError(f"{path}: {case} has no reason")
    return entries


def stale(entries: Collection[str], known: Collection[str]) -> list[str]:
    """Entries for cases that the suite does not have."""
    return sorted(set(entries) - set(known))


def apply(result: Result, entries: dict[str, str]) -> Result:
    """The result by the baseline: XFAIL for an expected failure, XPASS for one that did not happen."""
    reason = entries.get(result.id)
    if reason is None or result.verdict is Verdict.HARNESS_ERROR:
        return result
    if result.verdict in _CAN_FAIL:
        return replace(result, verdict=Verdict.XFAIL, reason=f"{reason} (was {result.verdict})")
    return replace(result, verdict=Verdict.XPASS, reason=f"the baseline expects a failure: {reason}")
