"""`roomwire-check replay`: runs a replay file again, of a case or of a fuzzer."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conformance.commands import arguments, run_server
from conformance.fuzz import cli as fuzz
from conformance.fuzz import script_file
from conformance.harness.case import Case
from conformance.harness.judge import OnResult
from conformance.harness.selection import Selection
from conformance.server.replay import read
from conformance.server.runner import ServerRunner
from conformance.server.shrink import shrunk
from conformance.spec.tables import load


def add_to(subparsers: arguments.Subparsers) -> None:
    """Adds the command to a parser's subparsers."""
    parser = subparsers.add_parser("replay", help="run a replay file again (of --replay-dir, or of fuzz --save)")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--shrink",
        type=Path,
        metavar="DIR",
        help="drop the steps that the failure does not need, and write the rest as a file",
    )
    run_server.add_target(parser)
    arguments.add_run(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if script_file.is_fuzz(args.file):
        return fuzz.replay(args, arguments.address)
    server, options = run_server.target(args)
    script = read(args.file)

    async def run_cases(cases: Sequence[Case], report: OnResult) -> None:
        recorded = options
        try:
            await server.start()
            if args.shrink:
                cases = [(await shrunk(script, server, options)).case]
                recorded = replace(options, replay_dir=args.shrink)
            await ServerRunner(server, load(), recorded, report).run(cases)
        finally:
            await server.stop()

    run = arguments.run_of(args, "server", Selection(), args.connect or args.exec)
    return run.execute([script.case], run_cases)
