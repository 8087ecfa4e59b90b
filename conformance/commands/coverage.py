"""`roomwire-check coverage`: prints what the suite's cases prove, requirement by requirement."""

import argparse
import json
from dataclasses import asdict

from conformance.commands.arguments import Subparsers
from conformance.commands.cases import all_cases
from conformance.harness.exit_status import CONFORMS, FAILS
from conformance.report.coverage import STATUSES, Coverage, counts, coverage, matrix, problems
from conformance.spec.tables import load

_SHOWN = 3  # names in a line


def add_to(subparsers: Subparsers) -> None:
    """Adds the command to a parser's subparsers."""
    parser = subparsers.add_parser("coverage", help="show what the cases prove, requirement by requirement")
    parser.add_argument(
        "--status", action="append", choices=STATUSES, default=[], help="only requirements of this status"
    )
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    """Prints the table. Returns FAILS if a list or a case names an id that does not exist."""
    spec, cases, peers = load(), all_cases(), matrix()
    found = problems(spec, cases, peers)
    rows = coverage(spec, cases, peers)
    taken = [row for row in rows if not args.status or row.status in args.status]
    if args.format == "json":
        document = {"requirements": [asdict(row) for row in taken], "counts": counts(rows), "problems": found}
        print(json.dumps(document, indent=1))
    else:
        for row in taken:
            print(f"{row.id:16} {row.level:10} {row.binds:7} {row.status:10} {_told(row)}")
        print()
        for binds, count in counts(rows).items():
            print(f"MUST and MUST NOT that bind {binds:7} {', '.join(f'{status} {n}' for status, n in count.items())}")
        print("\n".join(found), end="\n" if found else "")
    return FAILS if found else CONFORMS


def _told(row: Coverage) -> str:
    names = [*row.peers, *(f"{name} (by the watch)" for name in row.by_watch)]
    if names:
        more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"{', '.join(names[:_SHOWN])}{more}"
    told = f"{len(row.cases)} cases" if row.cases else ""
    return ": ".join(filter(None, [told, row.reason]))
