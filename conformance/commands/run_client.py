"""`roomwire-check client`: runs the cases for clients; the suite starts a client for each and is its server."""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from conformance.client.cases import client_cases
from conformance.client.runner import ClientRunner
from conformance.client.target import launcher
from conformance.commands import arguments
from conformance.harness.case import Case
from conformance.harness.judge import OnResult
from conformance.spec.tables import load


def add_to(subparsers: arguments.Subparsers) -> None:
    """Adds the command to a parser's subparsers."""
    parser = subparsers.add_parser("client", help="check a client, which the suite drives (see CONTRACT.md)")
    parser.add_argument(
        "--exec",
        action=arguments.Once,
        metavar="COMMAND",
        required=True,
        help="start it: {host} and {port} are filled in",
    )
    parser.add_argument("--tls", action="store_true", help="over TLS, in all cases")
    arguments.add_selection(parser, "client_cases")
    arguments.add_last_failed(parser)
    arguments.add_run(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    launch = launcher(args.exec)
    options = replace(arguments.options(args, "client", ("--exec", args.exec)), ready=3 * max(args.timeout, 1.0))
    run = arguments.run_of(args, "client", arguments.selection(args), args.exec)

    async def run_cases(cases: Sequence[Case], report: OnResult) -> None:
        runner = ClientRunner(launch, load(), options, report)
        try:
            await runner.run(cases)
        finally:
            run.about.greet(runner.greeting)

    return run.execute(client_cases(), run_cases)
