"""`roomwire-check codec`: runs the cases for codecs, against one process that the suite starts."""

import argparse
from collections.abc import Sequence

from conformance.codec.cases import codec_cases
from conformance.codec.runner import CodecRunner
from conformance.commands import arguments
from conformance.harness import process
from conformance.harness.case import Case
from conformance.harness.judge import OnResult
from conformance.spec.tables import load


def add_to(subparsers: arguments.Subparsers) -> None:
    """Adds the command to a parser's subparsers."""
    parser = subparsers.add_parser("codec", help="check an encoder and decoder")
    parser.add_argument(
        "--exec", action=arguments.Once, metavar="COMMAND", required=True, help="a program that answers JSON lines"
    )
    arguments.add_selection(parser, "codec_cases")
    arguments.add_last_failed(parser)
    arguments.add_run(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    process.arguments(args.exec, {})
    options = arguments.options(args, "codec", ("--exec", args.exec))
    run = arguments.run_of(args, "codec", arguments.selection(args), args.exec)

    async def run_cases(cases: Sequence[Case], report: OnResult) -> None:
        runner = CodecRunner(args.exec, load(), options, report)
        try:
            await runner.run(cases)
        finally:
            run.about.greet(runner.greeting)

    return run.execute(codec_cases(), run_cases)
