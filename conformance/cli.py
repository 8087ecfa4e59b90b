"""The command `roomwire-check`: assembles its subcommands. `harness/exit_status.py` has its exit statuses."""

import argparse
import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any

from conformance.commands import (
    coverage,
    explain,
    init,
    inspect,
    replay,
    reports,
    run_client,
    run_codec,
    run_server,
    selftest,
)
from conformance.commands.arguments import EXAMPLES, Subparsers, address, count, seconds
from conformance.commands.completion import PrintCompletion
from conformance.fuzz import cli as fuzz
from conformance.harness.exit_status import FAULT, INTERRUPTED, READER_GONE, USAGE, UsageError
from conformance.harness.selection import suggestion
from conformance.harness.verdicts import HarnessFault
from conformance.report.results import suite_version
from conformance.spec.markdown import SpecError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status. Raises SystemExit for arguments that argparse refuses."""
    options = _parsed(sys.argv[1:] if argv is None else argv)
    options.argv = sys.argv[1:] if argv is None else list(argv)
    if argv is None:  # a cancelled CI job ends as with Ctrl-C, and leaves no target behind
        signal.signal(signal.SIGTERM, _interrupt)
    try:
        status: int = options.run(options)
        if sys.stdout:  # None if it was closed
            sys.stdout.flush()
    except UsageError as error:
        print(f"roomwire-check: {error}", file=sys.stderr)
        return USAGE
    except (HarnessFault, SpecError) as error:
        print(f"roomwire-check: a fault of the suite: {error}", file=sys.stderr)
        return FAULT
    except BrokenPipeError:
        _give_up_output()
        return READER_GONE
    except OSError as error:
        print(f"roomwire-check: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        _give_up_output()
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _interrupt(*_: object) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a background job of a shell
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


def _give_up_output() -> None:
    """Throws away what standard output still holds, which could only fail again at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    with contextlib.suppress(OSError, ValueError):  # a test may have replaced it
        os.dup2(null, sys.stdout.fileno())
    os.close(null)


class _Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviations: `fuzz --time` would be --timeout, and not --max-time."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments. A command or an option that does not exist is answered with those that resemble it."""
    parser, commands = _parser()
    if argv and not argv[0].startswith("-") and argv[0] not in commands.choices:
        parser.error(f"no command {argv[0]}{suggestion(argv[0], commands.choices)}")
    options, rest = parser.parse_known_args(argv)
    if rest:
        usage = commands.choices[argv[0]].format_usage()
        hint = suggestion(rest[0].partition("=")[0], re.findall(r"--[\w-]+", usage))
        parser.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
    return options


def _parser() -> tuple[argparse.ArgumentParser, Subparsers]:
    parser: argparse.ArgumentParser = _Parser(
        prog="roomwire-check",
        description="Checks programs that speak Roomwire/1 against SPEC.md.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = f"roomwire-check {suite_version()}, Roomwire/1"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument("--print-completion", action=PrintCompletion)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    run_server.add_to(subparsers)
    replay.add_to(subparsers)
    run_client.add_to(subparsers)
    run_codec.add_to(subparsers)
    fuzz.add_to(subparsers, address, seconds, count)
    inspect.add_to(subparsers)
    explain.add_to(subparsers)
    coverage.add_to(subparsers)
    selftest.add_to(subparsers)
    init.add_to(subparsers)
    reports.add_to(subparsers)
    return parser, subparsers


if __name__ == "__main__":
    sys.exit(main())
