"""`roomwire-check replay`: runs a replay file again, of a case or of a fuzzer."""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from conformance.client.target import launcher
from conformance.commands import arguments, run_server
from conformance.fuzz import cli as fuzz
from conformance.fuzz import script_file
from conformance.fuzz.client.player import ClientPlayer
from conformance.fuzz.failure import Failure
from conformance.fuzz.script_file import ScriptFile
from conformance.fuzz.server.network import Hosted
from conformance.fuzz.server.player import Player
from conformance.fuzz.stats import Stats
from conformance.harness import replay_file
from conformance.harness.case import Case
from conformance.harness.exit_status import CONFORMS, FAILS
from conformance.harness.judge import OnResult
from conformance.harness.process import CommandError, Unreachable, Unstartable
from conformance.harness.selection import Selection
from conformance.server import replay
from conformance.server.runner import ServerRunner
from conformance.server.shrink import shrunk
from conformance.server.target import LaunchedServer
from conformance.spec.tables import load


def add_to(subparsers: arguments.Subparsers) -> None:
    """Adds the command to a parser's subparsers."""
    parser = subparsers.add_parser("replay", help="run a replay file again (of --replay-dir, or of fuzz --save)")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--shrink",
        type=arguments.folder,
        metavar="DIR",
        help="drop the steps that the failure does not need, and write the rest as a file",
    )
    run_server.add_target(parser)
    arguments.add_run(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    file = replay_file.read(args.file)
    if not file.is_script:
        return _run_case(args, replay.parse(file))
    script = script_file.parse(file)
    try:
        failure = _play_client(args, script) if script.role == "client" else _play_server(args, script)
    except (Unreachable, Unstartable) as error:
        return fuzz.unreachable(error)
    if failure is None:
        print(f"PASS {args.file}: {len(script.steps)} steps, nothing broken")
        return CONFORMS
    print(f"FAIL {args.file}: {failure}")
    return FAILS


def _run_case(args: argparse.Namespace, script: replay.Script) -> int:
    server, options = run_server.target(args)

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


def _play_server(args: argparse.Namespace, script: ScriptFile) -> Failure | None:
    target, config = fuzz.target(args, arguments.address), fuzz.config(args)
    if isinstance(target, LaunchedServer):
        target.limits = {**target.limits, **script.limits}
    hosted = Hosted(target)
    try:
        hosted.start()
        network = hosted.network(args.timeout, script.limits if args.exec else {}, accounts=config.accounts)
        network.waits = True
        ascii_only = True if "ascii-names" in config.features else None
        return Player(network, script.seed, Stats(), args.timeout, ascii_only=ascii_only).play(script.steps)
    finally:
        hosted.stop()


def _play_client(args: argparse.Namespace, script: ScriptFile) -> Failure | None:
    if not args.exec:
        raise CommandError(f"{args.file} is of a client: start one with --exec 'COMMAND {{host}} {{port}}'")
    launch = launcher(args.exec)

    async def play() -> Failure | None:
        player = ClientPlayer(launch, script.seed, Stats(), args.timeout, asyncio.Semaphore(1))
        return await player.play(script.steps)

    return asyncio.run(play())
