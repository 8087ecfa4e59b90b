"""What the suite's cases prove, requirement by requirement.

- proved: a case that names the requirement fails on a peer that breaks it, and passes on one that does not; or an
  invariant that is watched on every connection convicts it. Such peers, the mutants, are in tests/ of the repository,
  their results in data/kill_matrix.json.
- tested: there are cases, but no such proof.
- untestable: no peer could tell; data/gaps.toml says why.
- untested: no case is about it; data/gaps.toml may say why.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.files import DATA
from conformance.harness.case import Case
from conformance.report import gaps
from conformance.spec.tables import Spec

MATRIX = DATA / "kill_matrix.json"
STATUSES = ("proved", "tested", "untestable", "untested")


@dataclass(frozen=True)
class Mutant:
    """A row of the kill matrix: `kills` are the cases that fail on it, `watch` the invariants that convict it."""

    name: str
    breaks: tuple[str, ...]
    kills: tuple[str, ...]
    watch: tuple[str, ...]


@dataclass(frozen=True)
class Coverage:
    """What is known about one requirement. `by_watch` are the mutants that only an invariant convicts."""

    id: str
    section: str
    level: str
    binds: str
    status: str
    cases: tuple[str, ...]
    peers: tuple[str, ...]
    by_watch: tuple[str, ...]
    reason: str


def matrix(path: Path = MATRIX) -> list[Mutant]:
    """The rows of the kill matrix. Raises OSError or ValueError for a file that cannot be read."""
    peers = json.loads(path.read_text(encoding="utf-8"))["peers"]
    return [
        Mutant(name, tuple(peer["breaks"]), tuple(peer["kills"]), tuple(peer["watch"])) for name, peer in peers.items()
    ]


def coverage(spec: Spec, cases: Sequence[Case], peers: Sequence[Mutant]) -> list[Coverage]:
    """The coverage of all requirements, in the order of SPEC.md."""
    naming: dict[str, list[str]] = {name: [] for name in spec.requirements}
    for case in cases:
        for name in case.requirements:
            naming[name].append(case.id)
    excused = gaps.load()
    rows = []
    for requirement in spec.requirements.values():
        id = requirement.id
        about = set(naming[id])
        breaking = [peer for peer in peers if id in peer.breaks]
        killed = tuple(peer.name for peer in breaking if about & set(peer.kills))
        watched = tuple(peer.name for peer in breaking if peer.watch and peer.name not in killed)
        if killed or watched:
            status = "proved"
        elif about:
            status = "tested"
        else:
            status = "untestable" if id in excused.untestable else "untested"
        level, binds, reason = requirement.level, requirement.binds, excused.requirements.get(id, "")
        rows.append(Coverage(id, requirement.section, level, binds, status, tuple(naming[id]), killed, watched, reason))
    return rows


def problems(spec: Spec, cases: Sequence[Case], peers: Sequence[Mutant]) -> list[str]:
    """Ids that do not exist: of requirements that SPEC.md lacks, and of cases that the suite lacks."""
    ids = {case.id for case in cases}
    named = {
        "the kill matrix": {name for peer in peers for name in (*peer.breaks, *peer.watch)},
        "gaps.toml": set(gaps.load().requirements),
        "a case": {name for case in cases for name in case.requirements},
    }
    found = [
        f"{where} names {id}, which SPEC.md does not have"
        for where in named
        for id in sorted(named[where] - spec.requirements.keys())
    ]
    tried = {
        "the kill matrix": {id for peer in peers for id in peer.kills},
        "gaps.toml": set(gaps.load().cases),
    }
    found += [f"{where} names {id}, which is not a case" for where in tried for id in sorted(tried[where] - ids)]
    return found


def counts(rows: Sequence[Coverage]) -> dict[str, dict[str, int]]:
    """How many requirements of level MUST and MUST NOT have each status, by the end that they bind."""
    musts = [row for row in rows if row.level in ("MUST", "MUST NOT")]
    by: dict[str, Any] = {}
    for binds in ("server", "client", "both"):
        count = Counter(row.status for row in musts if row.binds == binds)
        by[binds] = {status: count[status] for status in STATUSES}
    return by
