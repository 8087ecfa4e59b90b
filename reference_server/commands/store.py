"""roomwire-server verify, backup and renew: commands on a store, which need no server and none of its settings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from reference_server.config import ConfigError, default_data_directory
from reference_server.store.backup import backup
from reference_server.store.base import StoreError
from reference_server.store.sqlite_files import renew_incarnation
from reference_server.store.verify import Report, verify

VERIFY = """\
Checks everything that is stored, and changes nothing: the database's own pages, every row against its checksum, that
each room's messages have no holes up to its head, and that remembered ids are those of their messages; and the
accounts beside the rooms. A server may be running meanwhile. Each fault is one line on standard output.

examples:
  roomwire-server verify                     the store in your data directory
  roomwire-server verify /var/lib/roomwire   another one
  roomwire-server verify backups/monday      a backup

exit status: 0 sound, 1 something is wrong, 2 there is no store, it cannot be read, or it is of a newer version
"""

BACKUP = """\
Copies a store to a new directory, as it is at one moment, also while a server runs; then checks the copy. Makes all
of TARGET, or nothing. To restore, copy TARGET to the data directory of a server that is not running, and start the
server: every room then has a new epoch, so clients know that messages may be missing, and take none for another.

examples:
  roomwire-server backup /var/lib/roomwire /backups/$(date +%F)

exit status: 0 copied and checked, 1 the store is damaged or the copy could not be written, 2 wrong usage
"""

RENEW = """\
Gives every room of a store a new epoch. Use it once after you restored a data directory from a copy that
`roomwire-server backup` did not make, for example a snapshot of the file system: messages may be missing since, and
other messages may take their sequence numbers. No server may be running.

examples:
  roomwire-server renew /var/lib/roomwire

exit status: 0 done, 1 not
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add these commands to the subparsers of roomwire-server."""
    directory = "data directory of a server (~/.local/share/roomwire)"

    def add(name: str, run: Callable[[argparse.Namespace], int], what: str, text: str) -> argparse.ArgumentParser:
        parser = commands.add_parser(
            name, help=what, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.set_defaults(command=run)
        return parser

    checked = add("verify", _verify, "check all that is stored", VERIFY)
    checked.add_argument("directory", metavar="DIR", type=Path, nargs="?", help=directory)
    copied = add("backup", _backup, "copy a store, also while it is in use", BACKUP)
    copied.add_argument("directory", metavar="DIR", type=Path, help=directory)
    copied.add_argument("target", metavar="TARGET", type=Path, help="directory to be made")
    renewed = add("renew", _renew, "give the rooms of a restored store new epochs", RENEW)
    renewed.add_argument("directory", metavar="DIR", type=Path, help=directory)


def _verify(arguments: argparse.Namespace) -> int:
    try:
        report = verify(arguments.directory or default_data_directory(), _progress)
    except (StoreError, ConfigError) as error:
        return _fail(error, 2)
    for line in report.wrong:
        print(line)
    for note in report.notes:
        print(f"note: {note}")
    print(f"{'WRONG' if report.wrong else 'sound'}: {_amount(report)}")
    return int(bool(report.wrong))


def _backup(arguments: argparse.Namespace) -> int:
    try:
        report = backup(arguments.directory, arguments.target, _progress)
    except StoreError as error:
        return _fail(error, 1)
    print(f"copied to {arguments.target} and checked: {_amount(report)}")
    return 0


def _renew(arguments: argparse.Namespace) -> int:
    try:
        renew_incarnation(arguments.directory)
    except StoreError as error:
        return _fail(error, 1)
    print("every room has a new epoch")
    return 0


def _amount(report: Report) -> str:
    accounts = f", {report.accounts} accounts" if report.accounts else ""
    return f"{report.rooms} rooms, {report.messages} messages, {report.ids} ids{accounts}"


def _fail(error: Exception, status: int) -> int:
    _progress("")
    print(f"roomwire-server: {error}", file=sys.stderr)
    return status


def _progress(doing: str) -> None:
    """Show the progress on a terminal; the next line overwrites this one."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{doing}", end="", file=sys.stderr, flush=True)
