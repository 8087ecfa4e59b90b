"""The profile of a run: which parts of the protocol it has shown, so that nothing untried counts as kept.

conformance/README.md says what each part needs. A run is partial if it has not shown the core.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conformance.harness.verdicts import ACCEPTED, Verdict

CORE = "core"
_KEPT = frozenset({Verdict.PASS, Verdict.WARN, Verdict.INFO})
"""Verdicts on the cases of a part that was shown."""


@dataclass(frozen=True)
class Part:
    """A part of the protocol: `keys` are cases that must pass, `cases` the beginnings of the ids of all its cases."""

    name: str
    keys: tuple[str, ...]
    cases: tuple[str, ...]


PARTS = {
    "server": (
        Part("history", ("server/7.18/all", "server/7.18/pages"), ("server/7.18/",)),
        Part("accounts", ("server/13/scram", "server/13/guest"), ("server/13/", "server/7.3/")),
        Part("TLS", ("server/14/tls", "server/14/tls-older"), ("server/14/",)),
        Part(
            "durable",
            ("server/4/acknowledged-survives", "server/4/prefix-survives"),
            (
                "server/3/head-after-crash",
                "server/4/acknowledged-survives",
                "server/4/prefix-survives",
                "server/10.1/clock-after-crash",
                "server/10.2/repeat-after-crash",
            ),
        ),
    ),
    "client": (
        Part("recovery", ("client/8.7/by-itself", "client/11/cursor"), ("client/8.7/", "client/11/", "client/10.2/")),
        Part("history", ("client/7.18/cursor-stays",), ("client/7.18/",)),
        Part("accounts", ("client/13/scram", "client/13/scram-names"), ("client/13/", "client/7.3/")),
        Part("TLS", ("client/14/tls", "client/14/tls-older"), ("client/14/",)),
    ),
    "codec": (),
}
CORE_KEYS = {
    "server": ("server/5.1/answered", "server/7.1/welcome", "server/7.9/fresh", "server/7.15/echo"),
    "client": ("client/5.1/waits-for-preface", "client/7.1/hello", "client/7.15/content", "client/9.1/cursor-is-set"),
    "codec": ("codec/7.6/decode/ping-client", "codec/7.6/encode/ping-client", "codec/7.6/feed/ping-client"),
}


@dataclass(frozen=True)
class Profile:
    """`shown` and `missing` are the names of parts; `partial` says why the core is not among the shown ones, or ""."""

    shown: tuple[str, ...]
    missing: tuple[str, ...]
    partial: str

    def as_json(self) -> dict[str, Any]:
        """The profile as plain values."""
        return {"shown": list(self.shown), "missing": list(self.missing), "partial": self.partial}


UNKNOWN: dict[str, Any] = {"shown": [], "missing": [], "partial": "its results do not name a profile"}
"""The profile of results that an earlier version has written."""


def profile(role: str, verdicts: Mapping[str, str], known: int) -> Profile:
    """What a run with these verdicts by case has shown, of a role that has `known` cases."""
    parts = PARTS[role]
    shown = [part.name for part in parts if _shown(part, verdicts)]
    partial = _partial(role, verdicts, known)
    names = [CORE, *(part.name for part in parts)]
    shown = shown if partial else [CORE, *shown]
    return Profile(tuple(shown), tuple(name for name in names if name not in shown), partial)


def _shown(part: Part, verdicts: Mapping[str, str]) -> bool:
    own = [verdict for id, verdict in verdicts.items() if id.startswith(part.cases)]
    return all(verdicts.get(key) == Verdict.PASS for key in part.keys) and all(verdict in _KEPT for verdict in own)


def _partial(role: str, verdicts: Mapping[str, str], known: int) -> str:
    """Why a run does not show the core; "" if it does."""
    if len(verdicts) < known:
        return f"{len(verdicts)} of {known} cases ran"
    failed = sum(verdict not in ACCEPTED for verdict in verdicts.values())
    if failed:
        return f"{failed} of {known} cases failed"
    expected = sum(verdict == Verdict.XFAIL for verdict in verdicts.values())
    if expected:
        return f"{expected} of {known} cases are expected to fail"
    left_out = sum(verdict == Verdict.UNSUPPORTED for verdict in verdicts.values())
    if role == "codec" and left_out:
        return f"{left_out} of {known} cases are unsupported"
    missed = next((key for key in CORE_KEYS[role] if verdicts.get(key) != Verdict.PASS), "")
    return f"{missed} did not pass" if missed else ""


def headline(status: int, found: Mapping[str, Any]) -> str:
    """What a run that ended with status 0 may claim, from `Profile.as_json`; "" for another status."""
    if status:
        return ""
    if found["partial"]:
        return f"passes a part of the suite ({found['partial']})"
    return f"conforms in {', '.join(found['shown'])}"
