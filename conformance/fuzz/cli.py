"""`roomwire-check fuzz`: the arguments of the fuzzers."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

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
"""Limits that a server is offered, so short that what old scripts left behind does not stay for the whole run."""

Address: TypeAlias = Callable[[str], tuple[str, int]]
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Common: TypeAlias = Callable[[argparse.ArgumentParser], None]


def add_to(
    subparsers: Subparsers, address: Address, seconds: Callable[[str], float], count: Callable[[str], int]
) -> None:
    """Adds the command to a parser's subparsers. `address`, `seconds` and `count` parse arguments."""
    raw = argparse.RawDescriptionHelpFormatter
    fuzz = subparsers.add_parser(
        "fuzz", help="look for failures that no case covers", epilog=EXAMPLES, formatter_class=raw
    )
    roles = fuzz.add_subparsers(required=True, metavar="ROLE")
    common = partial(_common, seconds=seconds, count=count)
    _add_server(roles, common, address)
    _add_client(roles, common, count)
    _add_codec(roles, common)


def _add(roles: Subparsers, role: str, summary: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    return roles.add_parser(role, help=summary, epilog=EXAMPLES, formatter_class=raw)


def _add_server(roles: Subparsers, common: Common, address: Address) -> None:
    server = _add(roles, "server", "scripts and octets for a server")
    where = server.add_mutually_exclusive_group(required=True)
    where.add_argument("--connect", metavar="HOST:PORT", help="a running server")
    where.add_argument("--exec", metavar="COMMAND", help="start it: {port}, {host} and {dir} are filled in")
    common(server)
    server.add_argument("--no-octets", dest="mutations", action="store_false", help="only scripts, no mutated octets")
    server.add_argument("--save", type=Path, metavar="DIR", help="write a replay file for each failure")
    server.add_argument("--config", type=Path, metavar="FILE", help="TOML: features and limits of the target")
    server.add_argument(
        "--declare", action="append", default=[], choices=sorted(DECLARATIONS), help="what it leaves out"
    )
    server.set_defaults(run=lambda args: _server(args, address))


def _add_client(roles: Subparsers, common: Common, count: Callable[[str], int]) -> None:
    client = _add(roles, "client", "scripts for a client")
    client.add_argument("--exec", metavar="COMMAND", required=True, help="start it: {host} and {port} are filled in")
    client.add_argument("-j", "--jobs", type=count, default=8, metavar="N", help="clients at the same time (default 8)")
    common(client)
    client.add_argument("--save", type=Path, metavar="DIR", help="write a replay file for each failure")
    client.set_defaults(run=_client)


def _add_codec(roles: Subparsers, common: Common) -> None:
    codec = _add(roles, "codec", "compare codecs: the declarations, the code made of them, a program")
    codec.add_argument("--exec", metavar="COMMAND", default="", help="a program that answers JSON lines")
    common(codec)
    codec.add_argument("--save", type=Path, metavar="DIR", help="write the octets of each difference")
    codec.set_defaults(run=_codec)


def _common(parser: argparse.ArgumentParser, seconds: Callable[[str], float], count: Callable[[str], int]) -> None:
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="repeats a run (default 1)")
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument(
        "--max-time", type=seconds, default=60.0, metavar="S", help="begin no script after S seconds (default 60)"
    )
    bound.add_argument("--max-examples", type=count, default=0, metavar="N", help="instead of a time")
    parser.add_argument("--max-failures", type=count, default=1, metavar="N", help="stop after N failures (default 1)")
    parser.add_argument("--timeout", type=seconds, default=5.0, metavar="S", help="for each answer (default 5)")
    parser.add_argument("--format", choices=("human", "json"), default="human")


def options(args: argparse.Namespace) -> Options:
    """Returns the options of the command line. Raises ConfigError."""
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
    """Returns what --config and --declare say of the target. Raises ConfigError."""
    file = getattr(args, "config", None)
    said = Config.read(file) if file else Config()
    return replace(said, features=said.features | frozenset(getattr(args, "declare", ())))


def target(args: argparse.Namespace, address: Address) -> ServerTarget:
    """Returns the server of the command line. Raises CommandError or ConfigError, and what `address` raises."""
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
    """Prints why the target cannot be used, and returns the exit status."""
    print(f"roomwire-check: {error}", file=sys.stderr)
    for line in getattr(error, "stderr", "").splitlines()[-15:]:
        print(f"stderr: {line}", file=sys.stderr)
    return UNREACHABLE
