"""The commands that read the results of earlier runs: compare and report."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from conformance.commands.arguments import Subparsers, folder
from conformance.harness.exit_status import UsageError
from conformance.report import files, results
from conformance.report.compare import CHANGES, WORSE, Difference, compare
from conformance.wire.text import escape

_STYLES = {"worse": "bold red", "gone": "red", "better": "green", "changed": "yellow", "new": "cyan"}


def add_to(subparsers: Subparsers) -> None:
    """Adds the two commands to a parser's subparsers."""
    parser = subparsers.add_parser(
        "compare", help="compare two runs case by case; exit status 1 if something got worse"
    )
    parser.add_argument("before", metavar="BEFORE", type=Path, help="results.json, or a report's folder")
    parser.add_argument("after", metavar="AFTER", type=Path)
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.set_defaults(run=_compare)
    parser = subparsers.add_parser("report", help="write one page of several runs side by side")
    parser.add_argument("results", metavar="RESULTS", type=Path, nargs="+", help="results.json, or a report's folder")
    parser.add_argument("--output", metavar="DIR", type=folder, required=True, help="where index.html is written")
    parser.set_defaults(run=_report)


def _read(path: Path) -> dict[str, Any]:
    try:
        return results.read(path)
    except results.ResultsError as error:
        raise UsageError(escape(str(error))) from None


def _report(args: argparse.Namespace) -> int:
    documents = [_read(path) for path in args.results]
    files.prepare(args.output)
    print(files.write_page(documents, args.output))
    return 0


def _compare(args: argparse.Namespace) -> int:
    before, after = _read(args.before), _read(args.after)
    if before["role"] != after["role"]:
        raise UsageError(f"results of a {before['role']} and of a {after['role']} have no cases in common")
    found = compare(before, after)
    if args.format == "json":
        print(json.dumps([asdict(difference) for difference in found], indent=1))
    else:
        _show(found, before, after)
    return int(any(difference.change in WORSE for difference in found))


def _show(found: Sequence[Difference], before: dict[str, Any], after: dict[str, Any]) -> None:
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=True)
    for difference in found:
        style = _STYLES[difference.change]
        verdicts = f"{difference.before or '-'} -> {difference.after or '-'}"
        line = Text(f"{difference.change:8}", style)
        console.print(line.append(f" {escape(difference.case)}  {escape(verdicts)}", "default"))
        if difference.got and difference.change != "better":
            console.print(Text(f"         {escape(difference.got.splitlines()[0])}", "dim"))
    for document, word in ((before, "before"), (after, "after")):
        counts = ", ".join(f"{count} {escape(verdict)}" for verdict, count in document["counts"].items())
        name = escape(results.names([document])[0])
        console.print(Text(f"{word:8} {name}, {escape(document['run']['date'])}: {counts or 'nothing was run'}"))
    changes = Counter(difference.change for difference in found)
    said = ", ".join(f"{changes[change]} {change}" for change in CHANGES if changes[change])
    console.print(Text(said or "no difference", "bold"))
