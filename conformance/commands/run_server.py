"""`roomwire-check server`: runs the cases for servers, against a running server or one that the suite starts."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from conformance.commands import arguments
from conformance.harness import process
from conformance.harness.case import Case
from conformance.harness.judge import OnResult
from conformance.harness.options import DECLARATIONS, ROOM_PREFIX, Options
from conformance.harness.tls import Trust, authority
from conformance.server.cases import server_cases
from conformance.server.runner import ServerRunner
from conformance.server.target import OFFERED, LaunchedServer, ServerTarget, tls_values
from conformance.spec.tables import load

_ROOMS = 200  # that a whole run joins


def add_to(subparsers: arguments.Subparsers) -> None:
    """Adds the command to a parser's subparsers."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser("server", help="check a server", epilog=arguments.EXAMPLES, formatter_class=raw)
    add_target(parser)
    parser.add_argument(
        "--room-prefix",
        type=arguments.room_prefix,
        default=ROOM_PREFIX,
        metavar="TEXT",
        help=f"what the names of rooms begin with (default {ROOM_PREFIX})",
    )
    arguments.add_selection(parser, "server_cases")
    arguments.add_last_failed(parser)
    arguments.add_run(parser)
    parser.set_defaults(run=_run)


def add_target(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that name the server; `target` reads them."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--connect", action=arguments.Once, metavar="HOST:PORT", help="a running server")
    where.add_argument(
        "--exec", action=arguments.Once, metavar="COMMAND", help="start it: {port}, {host} and {dir} are filled in"
    )
    parser.add_argument("--tls", action="store_true", help="speak TLS; with --exec {cert} and {key} are filled in")
    trusted = parser.add_mutually_exclusive_group()
    trusted.add_argument(
        "--ca", type=Path, metavar="FILE", help="the only authorities to trust (default: the system's)"
    )
    trusted.add_argument("--tls-insecure", action="store_true", help="accept any certificate")
    parser.add_argument(
        "--declare", action="append", default=[], choices=sorted(DECLARATIONS), help="what it leaves out"
    )
    parser.add_argument(
        "--patience", type=arguments.seconds, default=75.0, metavar="S", help="for the target's time-outs (default 75)"
    )


def target(args: argparse.Namespace) -> tuple[ServerTarget, Options]:
    """The server and the options of a run. Raises UsageError, CommandError, ConfigError or TlsError."""
    trust = _trust(args)
    if args.connect:
        host, port = arguments.address(args.connect)
        options = arguments.options(args, "server", ("--connect", args.connect))
        return ServerTarget(host, port, options.ready, trust), options
    process.arguments(args.exec, {"port": 0, "host": "", "dir": "", **tls_values(trust)})
    options = arguments.options(args, "server", ("--exec", args.exec))
    # A limit that --config declares is not offered with another value.
    offered = {name: value for name, value in OFFERED.items() if name not in options.limits}
    return LaunchedServer(args.exec, options.ready, offered, trust), options


def _trust(args: argparse.Namespace) -> Trust | None:
    """The certificates to accept over TLS, or None for clear text. Raises TlsError."""
    if not (args.tls or args.ca or args.tls_insecure):
        return None
    own = authority().ca if args.exec and not args.ca else args.ca
    trust = Trust(own, verify=not args.tls_insecure)
    trust.context()  # reports a bad file now, not in the first case
    return trust


def _run(args: argparse.Namespace) -> int:
    server, options = target(args)

    async def run_cases(cases: Sequence[Case], report: OnResult) -> None:
        try:
            await server.start()
            await ServerRunner(server, load(), options, report).run(cases)
        finally:
            await server.stop()

    run = arguments.run_of(args, "server", arguments.selection(args), args.connect or args.exec)
    if not args.quiet:
        server.rates.tell(lambda text: print(f"roomwire-check: {text}", file=sys.stderr))
    if args.connect and not args.quiet:
        rooms = f"rooms whose names begin with {args.room_prefix}, about {_ROOMS} if all cases run (see --room-prefix)"
        print(f"roomwire-check: this leaves behind {rooms}", file=sys.stderr)
    return run.execute(server_cases(), run_cases)
