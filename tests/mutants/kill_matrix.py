"""Which case kills which mutant. `python -m tests.mutants.kill_matrix` runs all mutants and writes the matrix.

The matrix is part of the suite (conformance/data/kill_matrix.json), so that its users can see what the cases are
worth: `roomwire-check coverage` reads it. For each mutant it holds the requirements that the mutant breaks, the cases
that failed on their own assertion, and the requirements by which an invariant of all connections found it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from conformance.client.cases import client_cases
from conformance.codec.cases import codec_cases
from conformance.harness.case import Case
from conformance.report.coverage import MATRIX
from conformance.server.cases import server_cases
from tests.mutants import clients, codecs, servers
from tests.mutants.catalogue import MUTANTS, Mutant
from tests.mutants.clients import ClientMutant
from tests.mutants.codecs import CodecMutant
from tests.mutants.servers import UNCHANGED, ServerMutant, durable

UNCHANGED_SERVERS = (
    UNCHANGED,
    ServerMutant(
        "unchanged-with-all", "Breaks nothing; is durable, with accounts and TLS.",
        store=durable, accounts=True, tls=True,
    ),
)  # fmt: skip
_CASES: dict[str, Callable[[], Sequence[Case]]] = {"server": server_cases, "codec": codec_cases, "client": client_cases}


class Row(NamedTuple):
    """What the cases say of one mutant. `ends` are their ends by case, in the words of `servers.trial`."""

    breaks: tuple[str, ...]
    ends: dict[str, str]
    errors: list[str]

    @property
    def kills(self) -> list[str]:
        """Cases that failed on their own assertion."""
        return [id for id, end in self.ends.items() if end.startswith("kill ")]

    @property
    def watched(self) -> list[str]:
        """Requirements that the watch found broken."""
        return sorted({end.removeprefix("watch ") for end in self.ends.values() if end.startswith("watch ")})


def cases_for(mutant: Mutant) -> list[Case]:
    """The cases that are tried on a mutant."""
    cases = _CASES[mutant.ROLE]()
    if mutant.only:
        return [case for case in cases if any(fnmatchcase(case.id, pattern) for pattern in mutant.only)]
    return [case for case in cases if set(case.requirements) & set(mutant.breaks)]


def run(mutant: Mutant, cases: Sequence[Case] | None = None) -> Row:
    """Tries a mutant with all of its cases, or with these."""
    taken = cases_for(mutant) if cases is None else cases
    match mutant:
        case ClientMutant():
            ends, errors = clients.trial(mutant, taken)
        case CodecMutant():
            ends, errors = codecs.trial(mutant, taken)
        case ServerMutant():
            ends, errors = servers.trial(mutant, taken)
    return Row(mutant.breaks, ends, errors)


def unchanged(cases: Iterable[Case]) -> tuple[dict[str, list[str]], list[str]]:
    """How cases end on the servers of UNCHANGED_SERVERS, which break nothing, and the exceptions that they met."""
    trials = [servers.trial(mutant, list(cases)) for mutant in UNCHANGED_SERVERS]
    ends = {id: [end[id] for end, _ in trials] for id in trials[0][0]}
    return ends, [error for _, errors in trials for error in errors]


def _row(name: str, times: int) -> dict[str, Any]:
    """The row of the matrix for one mutant: what came in each of several runs."""
    began = time.monotonic()
    tries = [run(MUTANTS[name]) for _ in range(times)]
    kills = [id for id in tries[0].kills if all(id in row.kills for row in tries)]
    watched = [id for id in tries[0].watched if all(id in row.watched for row in tries)]
    print(f"{time.monotonic() - began:6.2f} s  {len(kills):3} {' '.join(watched):30} {name}", flush=True)
    return {"breaks": MUTANTS[name].breaks, "kills": kills, "watch": watched}


def main() -> int:
    """Writes the matrix, or only the rows of the mutants given; with --show it shows how all cases end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mutants", nargs="*", metavar="ROLE/SLUG")
    parser.add_argument("--show", action="store_true", help="show how all cases end, and write nothing")
    parser.add_argument("--again", type=int, default=2, help="runs of each mutant; kills that come each time count")
    options = parser.parse_args()
    if options.show:
        for name in options.mutants:
            row = run(MUTANTS[name])
            shown = {"mutant": name, "does": MUTANTS[name].description, "ends": row.ends, "errors": row.errors}
            print(json.dumps(shown, indent=1))
        return 0
    rows = json.loads(MATRIX.read_text(encoding="utf-8"))["peers"] if options.mutants else {}
    for name in options.mutants or MUTANTS:
        rows[name] = _row(name, options.again)
    document = {"version": 1, "peers": {name: rows[name] for name in MUTANTS}}
    MATRIX.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
