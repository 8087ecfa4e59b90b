"""`roomwire-check fuzz`: the options of the fuzzers, and what they are given."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from conformance.client.target import launcher
from conformance.fuzz.client.fuzzer import ClientFuzz
from conformance.fuzz.codec import CodecFuzz
from conformance.fuzz.options import Options
from conformance.fuzz.server.fuzzer import ServerFuzz
from conformance.harness.config import Config
from conformance.harness.exit_status import UNREACHABLE
from conformance.harness.options import DECLARATIONS
from conformance.harness.process import Unreachable, Unstartable, arguments
from conformance.server.target import OFFERED, LaunchedServer, ServerTarget

EXAMPLES = """\
examples:
  roomwire-check fuzz server --connect localhost:7117
  roomwire-check fuzz server --exec 'roomwire-server --port {port} --memory' --max-time 300 --seed 7 --save found
  roomwire-check replay found/RW-DEDUPE-1-7000021.jsonl --exec 'roomwire-server --port {port} --memory'
  roomwire-check fuzz client --exec 'python3 -m reference_client.adapter {host} {port}' --max-time 120
  roomwire-check fuzz codec --max-examples 100000
  roomwire-check fuzz codec --exec 'node examples/node/codec-adapter.mjs'

Ctrl-C ends a run and prints what was found so far. Exit status: 0 nothing found, 1 something found, 2 usage,
3 not reachable or did not start, 4 a fault of the suite."""

FUZZ_OFFERED = {**OFFERED, "retention_ms": 30_000, "dedupe_ms": 60_000, "drain_ms": 3_000, "linger_ms": 2_000}
"""What a server is offered besides, so that what old scripts left behind does not stay for the whole run."""

Address = Callable[[str], tuple[str, int]]


def add_to(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    address: Address,
    seconds: Callable[[str], float],
    count: Callable[[str], int],
) -> None:
    """Adds `fuzz` to a parser's subparsers; `address`, `seconds` and `count` read arguments."""
    raw = argparse.RawDescriptionHelpFormatter
    fuzz = subparsers.add_parser("fuzz", help="find what nobody thought of", epilog=EXAMPLES, formatter_class=raw)
    roles = fuzz.add_subparsers(required=True, metavar="ROLE")
    server = roles.add_parser("server", help="scripts and octets for a server", epilog=EXAMPLES, formatter_class=raw)
    where = server.add_mutually_exclusive_group(required=True)
    where.add_argument("--connect", metavar="HOST:PORT", help="a server that runs already")
    where.add_argument("--exec", metavar="COMMAND", help="start it: {port}, {host} and {dir} are filled in")
    _common(server, seconds, count)
    server.add_argument("--no-octets", dest="mutations", action="store_false", help="scripts alone, no mutated octets")
    server.add_argument("--save", type=Path, metavar="DIR", help="write a replay file for each failure")
    server.add_argument("--config", type=Path, metavar="FILE", help="TOML: features and limits of the target")
    server.add_argument("--declare", action="append", default=[], choices=sorted(DECLARATIONS), help="leave out")
    server.set_defaults(run=lambda args: _server(args, address))
    client = roles.add_parser("client", help="scripts for a client", epilog=EXAMPLES, formatter_class=raw)
    client.add_argument("--exec", metavar="COMMAND", required=True, help="start it: {host} and {port} are filled in")
    client.add_argument("-j", "--jobs", type=count, default=8, metavar="N", help="clients side by side (default 8)")
    _common(client, seconds, count)
    client.add_argument("--save", type=Path, metavar="DIR", help="write a replay file for each failure")
    client.set_defaults(run=_client)
    codec = roles.add_parser(
        "codec", help="the declarations, the code made of them, and a program", epilog=EXAMPLES, formatter_class=raw
    )
    codec.add_argument("--exec", metavar="COMMAND", default="", help="a program that answers JSON lines")
    _common(codec, seconds, count)
    codec.add_argument("--save", type=Path, metavar="DIR", help="write the octets of each difference")
    codec.set_defaults(run=_codec)


def _common(parser: argparse.ArgumentParser, seconds: Callable[[str], float], count: Callable[[str], int]) -> None:
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="repeats a run (default 1)")
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument("--max-time", type=seconds, default=60.0, metavar="S", help="default 60")
    bound.add_argument("--max-examples", type=count, default=0, metavar="N", help="in place of a time")
    parser.add_argument("--max-failures", type=count, default=1, metavar="N", help="go on up to so many (default 1)")
    parser.add_argument("--timeout", type=seconds, default=5.0, metavar="S", help="for each answer (default 5)")
    parser.add_argument("--format", choices=("human", "json"), default="human")


def options(args: argparse.Namespace) -> Options:
    """The options of the command line. Raises ConfigError."""
    said = config(args)
    return Options(
        seed=args.seed,
        max_time=0.0 if args.max_examples else args.max_time,
        max_examples=args.max_examples,
        max_failures=args.max_failures,
        timeout=args.timeout,
        format=args.format,
        mutations=getattr(args, "mutations", True),
        save=getattr(args, "save", None),
        limits=dict(said.limits),
        accounts=said.accounts,
        ascii_only=True if "ascii-names" in said.features else None,
    )


def config(args: argparse.Namespace) -> Config:
    """What --config and --declare say of the target. Raises ConfigError."""
    file = getattr(args, "config", None)
    said = Config.read(file) if file else Config()
    return replace(said, features=said.features | frozenset(getattr(args, "declare", ())))


def target(args: argparse.Namespace, address: Address) -> ServerTarget:
    """The server of the command line. Raises CommandError or ConfigError, and what `address` raises."""
    if args.connect:
        return ServerTarget(*address(args.connect), ready=10.0)
    arguments(args.exec, {"port": 0, "host": "", "dir": ""})
    limits = config(args).limits  # a declared limit is not offered with another value
    return LaunchedServer(args.exec, 15.0, {n: value for n, value in FUZZ_OFFERED.items() if n not in limits})


def _server(args: argparse.Namespace, address: Address) -> int:
    fuzz = ServerFuzz(target(args, address), options(args))
    try:
        fuzz.start()
        return fuzz.run()
    except (Unreachable, Unstartable) as error:
        return unreachable(error)
    finally:
        fuzz.stop()


def _client(args: argparse.Namespace) -> int:
    try:
        return ClientFuzz(launcher(args.exec), options(args), args.jobs).run()
    except (Unreachable, Unstartable) as error:
        return unreachable(error)


def _codec(args: argparse.Namespace) -> int:
    try:
        return CodecFuzz(options(args), args.exec).run()
    except (Unreachable, Unstartable) as error:
        return unreachable(error)


def unreachable(error: Exception) -> int:
    """Says why nothing could be done, and gives back the exit status."""
    print(f"roomwire-check: {error}", file=sys.stderr)
    for line in getattr(error, "stderr", "").splitlines()[-15:]:
        print(f"stderr: {line}", file=sys.stderr)
    return UNREACHABLE
