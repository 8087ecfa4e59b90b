"""The command `roomwire-check`.

Exit status: 0 conforms, 1 does not or the baseline is stale, 2 usage, 3 the target cannot be reached or did
not start, 4 a fault of the suite, 5 nothing was selected or nothing of it applies.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import shtab

from conformance.client.cases import client_cases
from conformance.client.runner import ClientRunner
from conformance.client.target import launcher
from conformance.codec.cases import codec_cases
from conformance.codec.runner import CodecRunner
from conformance.commands import init, selftest
from conformance.commands import inspect as commands
from conformance.commands import reports as report_commands
from conformance.commands.run import Session
from conformance.fuzz import cli as fuzz_cli
from conformance.fuzz import script_file
from conformance.harness.baseline import BaselineError
from conformance.harness.case import Case, check
from conformance.harness.config import Config, ConfigError
from conformance.harness.exit_status import FAILS, FAULT, INTERRUPTED, USAGE
from conformance.harness.judge import Report
from conformance.harness.options import DECLARATIONS, Options, UsageError
from conformance.harness.process import CommandError, arguments
from conformance.harness.selection import Selection, SelectionError
from conformance.harness.tls import TlsError, Trust, authority
from conformance.harness.verdicts import HarnessFault
from conformance.report import coverage
from conformance.report.results import About
from conformance.report.terminal import FORMATS
from conformance.server import replay
from conformance.server import shrink as shrinking
from conformance.server.cases import server_cases
from conformance.server.runner import ServerRunner
from conformance.server.target import OFFERED, LaunchedServer, ServerTarget, tls_values
from conformance.spec.markdown import SpecError
from conformance.spec.tables import load

_EXAMPLES = """\
examples:
  roomwire-check server --connect localhost:7117
  roomwire-check server --exec './my-server --port {port} --store {dir}/rooms.db'
  roomwire-check server --connect localhost:7117 'server/7.9/*' -x
  roomwire-check server --connect localhost:7117 --section 10 -k 'not waits'
  roomwire-check client --exec 'python3 -m reference_client.adapter {host} {port}'
  roomwire-check codec --exec 'python3 -m conformance.codec.reference' --format json
  roomwire-check server --connect localhost:7117 --report after
  roomwire-check compare before after
  roomwire-check report ours theirs --output both
  roomwire-check explain server/7.9/already-joined
  roomwire-check explain RW-JOIN-1
  roomwire-check describe JOIN
  echo 'F5525750 01 01 0000' | roomwire-check decode -

exit status: 0 conforms, 1 does not or stale baseline, 2 usage, 3 not reachable or did not start,
4 a fault of the suite, 5 nothing selected"""

_WRONG_USAGE = (
    SelectionError,
    BaselineError,
    UsageError,
    CommandError,
    ConfigError,
    replay.ReplayError,
    script_file.ScriptFileError,
    init.InitError,
    TlsError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status, and raises SystemExit for wrong usage."""
    parser = _parser()
    options = parser.parse_args(argv)
    options.argv = sys.argv[1:] if argv is None else list(argv)
    if argv is None:  # a job that is cancelled in CI ends as with Ctrl-C, and leaves no target behind
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        status: int = options.run(options)
    except _WRONG_USAGE as error:
        print(f"roomwire-check: {error}", file=sys.stderr)
        return USAGE
    except (HarnessFault, SpecError) as error:
        print(f"roomwire-check: a fault of the suite: {error}", file=sys.stderr)
        return FAULT
    except BrokenPipeError:
        sys.stderr.close()  # nobody reads any more, and that is nobody's mistake
        return FAILS
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roomwire-check",
        description="Checks programs that speak Roomwire/1 against SPEC.md.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shtab.add_argument_to(parser, ["--print-completion"])
    commands_ = parser.add_subparsers(required=True, metavar="COMMAND")
    server = commands_.add_parser(
        "server",
        help="check a server",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _server_options(server)
    _selection_options(server)
    _run_options(server)
    server.set_defaults(run=_server, role="server", file=None, shrink=None)
    again = commands_.add_parser("replay", help="do again what a file of --replay-dir says, at any server")
    again.add_argument("file", type=Path, metavar="FILE")
    again.add_argument(
        "--shrink",
        type=Path,
        metavar="DIR",
        help="leave out what the failure does not need, and write a file of the rest",
    )
    _server_options(again)
    _run_options(again)
    again.set_defaults(run=_server, role="server", cases=[], requirement=[], section=[], level=[], words="")
    client = commands_.add_parser("client", help="check a client, which the suite drives (see CONTRACT.md)")
    client.add_argument("--exec", metavar="COMMAND", required=True, help="start it: {host} and {port} are filled in")
    client.add_argument("--tls", action="store_true", help="over TLS, in all cases")
    _selection_options(client)
    _run_options(client)
    client.set_defaults(run=_client, role="client", connect=None, patience=75.0, declare=[])
    codec = commands_.add_parser("codec", help="check an encoder and decoder")
    codec.add_argument("--exec", metavar="COMMAND", required=True, help="a program that answers JSON lines")
    _selection_options(codec)
    _run_options(codec)
    codec.set_defaults(run=_codec, role="codec", connect=None, patience=75.0, declare=[])
    fuzz_cli.add_to(commands_, _address, _seconds, _count)
    commands.add_to(commands_, _selection_options, all_cases)
    coverage.add_to(commands_, all_cases)
    tried = commands_.add_parser("selftest", help="whether the suite itself works on this machine")
    tried.set_defaults(run=lambda args: selftest.run())
    begun = commands_.add_parser("init", help="write a skeleton that can be run at once")
    begun.add_argument("init_role", choices=init.ROLES, metavar="ROLE", help=" or ".join(init.ROLES))
    begun.add_argument("--output", type=Path, default=Path("."), metavar="DIR", help="default: here")
    begun.set_defaults(run=lambda args: init.run(args.init_role, args.output))
    report_commands.add_to(commands_)
    return parser


def _selection_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cases", nargs="*", metavar="CASE", help="id, glob, or leading part such as server/7.9")
    parser.add_argument("--requirement", action="append", default=[], metavar="RW-X-1")
    parser.add_argument("--section", action="append", default=[], metavar="N", help="with those inside it")
    parser.add_argument(
        "--level", action="append", default=[], choices=["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"]
    )
    parser.add_argument("-k", dest="words", default="", metavar="WORDS", help="words with and, or, not")


def _server_options(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--connect", metavar="HOST:PORT", help="a server that runs already")
    where.add_argument("--exec", metavar="COMMAND", help="start it: {port}, {host} and {dir} are filled in")
    parser.add_argument("--tls", action="store_true", help="speak TLS; with --exec {cert} and {key} are filled in")
    trusted = parser.add_mutually_exclusive_group()
    trusted.add_argument("--ca", type=Path, metavar="FILE", help="authorities to trust, where the target has its own")
    trusted.add_argument("--tls-insecure", action="store_true", help="trust whoever answers")
    parser.add_argument("--declare", action="append", default=[], choices=sorted(DECLARATIONS), help="leave out")
    parser.add_argument("--patience", type=_seconds, default=75.0, metavar="S", help="for time-outs of the target")


def _run_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-x", dest="max_failures", action="store_const", const=1, default=0, help="stop at the first failure"
    )
    parser.add_argument("--max-failures", type=_count, metavar="N", default=argparse.SUPPRESS)
    parser.add_argument("-j", "--jobs", type=_count, default=8, metavar="N", help="cases side by side (default 8)")
    parser.add_argument("--timeout", type=_seconds, default=5.0, metavar="S", help="for each answer (default 5)")
    parser.add_argument("--format", choices=FORMATS, default="human")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML: features, limits and accounts of the target")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="for inputs chosen at random (default 1)")
    parser.add_argument("--repeat", type=_count, default=1, metavar="N", help="each case; what differs is FLAKY")
    parser.add_argument("--max-time", type=_seconds, default=0.0, metavar="S", help="begin no case after this time")
    parser.add_argument("--replay-dir", type=Path, metavar="DIR", help="write a file for each failure (see replay)")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="TOML: cases that are expected to fail")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write a page, results.json, junit.xml, badge.json")
    parser.add_argument("--name", default="", metavar="TEXT", help="of the target in the report")
    parser.add_argument("-v", "--verbose", action="store_true", help="name the cases that passed, too")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError("has to be above 0")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("has to be at least 1")
    return count


def all_cases() -> list[Case]:
    """All cases of all roles. Raises HarnessFault if one does not fit SPEC.md."""
    cases = [*server_cases(), *client_cases(), *codec_cases()]
    check(cases, load())
    return cases


def _options(args: argparse.Namespace, target: Sequence[str]) -> Options:
    said = Config.read(args.config) if args.config else Config()
    again = [part for name in args.declare for part in ("--declare", name)]
    again += ["--config", str(args.config)] if args.config else []
    again += ["--tls"] if getattr(args, "tls", False) else []
    again += ["--ca", str(args.ca)] if getattr(args, "ca", None) else []
    again += ["--tls-insecure"] if getattr(args, "tls_insecure", False) else []
    again += ["--seed", str(args.seed)] if args.seed != 1 else []
    return Options(
        timeout=args.timeout,
        patience=args.patience,
        jobs=args.jobs,
        max_failures=args.max_failures,
        declared=said.features | frozenset(args.declare),
        limits=said.limits,
        accounts=said.accounts,
        admins=said.admins,
        tls=getattr(args, "tls", False),
        seed=args.seed,
        repeat=args.repeat,
        max_time=args.max_time,
        replay_dir=args.replay_dir,
        command=("roomwire-check", args.role, *target, *again),
    )


def _server(args: argparse.Namespace) -> int:
    if args.file and script_file.is_fuzz(args.file):
        return fuzz_cli.replay(args, _address)
    if args.connect:
        host, port = _address(args.connect)
        options = _options(args, ("--connect", args.connect))
        target = ServerTarget(host, port, options.ready, _trust(args))
    else:
        trust = _trust(args)
        arguments(args.exec, {"port": 0, "host": "", "dir": "", **tls_values(trust)})
        options = _options(args, ("--exec", args.exec))
        # What it was declared to have is not offered to be otherwise.
        offered = {name: value for name, value in OFFERED.items() if name not in options.limits}
        target = LaunchedServer(args.exec, options.ready, offered, trust)

    async def run(cases: Sequence[Case], report: Report) -> None:
        recorded = options
        try:
            await target.start()
            if script and args.shrink:
                cases = [(await shrinking.shrunk(script, target, options)).case]
                recorded = replace(options, replay_dir=args.shrink)
            await ServerRunner(target, load(), recorded, report).run(cases)
        finally:
            await target.stop()

    script = replay.read(args.file) if args.file else None
    cases = [script.case] if script else server_cases()
    return _session(args, args.connect or args.exec).run(cases, run)


def _trust(args: argparse.Namespace) -> Trust | None:
    """How servers are reached over TLS; None in clear text. Raises TlsError."""
    if not (args.tls or args.ca or args.tls_insecure):
        return None
    own = authority().ca if args.exec and not args.ca else args.ca
    trust = Trust(own, verify=not args.tls_insecure)
    trust.context()  # so that a wrong file is told at once
    return trust


def _client(args: argparse.Namespace) -> int:
    launch = launcher(args.exec)
    options = replace(_options(args, ("--exec", args.exec)), ready=3 * max(args.timeout, 1.0))

    async def run(cases: Sequence[Case], report: Report) -> None:
        runner = ClientRunner(launch, load(), options, report)
        try:
            await runner.run(cases)
        finally:
            session.about.greet(runner.greeting)

    session = _session(args, args.exec)
    return session.run(client_cases(), run)


def _codec(args: argparse.Namespace) -> int:
    arguments(args.exec, {})
    options = _options(args, ("--exec", args.exec))

    async def run(cases: Sequence[Case], report: Report) -> None:
        runner = CodecRunner(args.exec, load(), options, report)
        try:
            await runner.run(cases)
        finally:
            session.about.greet(runner.greeting)

    session = _session(args, args.exec)
    return session.run(codec_cases(), run)


def _session(args: argparse.Namespace, target: str) -> Session:
    selection = Selection(args.cases, args.requirement, args.section, args.level, args.words)
    about = About(("roomwire-check", *args.argv), args.seed, args.name)
    return Session(args.role, target, selection, args.format, args.baseline, args.verbose, args.report, about)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"not HOST:PORT: {text}")
    return host.removeprefix("[").removesuffix("]"), int(port)


if __name__ == "__main__":
    sys.exit(main())
