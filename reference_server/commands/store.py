"""roomwire-server verify, backup, trim, renew: commands on a store, which need no server and none of its settings."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from reference_server.accounts import AccountsError
from reference_server.commands.ending import Ended, Ending, ends_at_once
from reference_server.config import ConfigError, default_data_directory
from reference_server.store.backup import backup
from reference_server.store.base import StoreError
from reference_server.store.repair import repair
from reference_server.store.sqlite_files import DATABASE, lock_if_free, renew_incarnation
from reference_server.store.upkeep import restamp, trim
from reference_server.store.verify import Report, verify

VERIFY = """\
Checks everything that is stored, and changes nothing: the database's own pages, every row against its checksum, that
each room's messages have no holes up to its head, and that remembered ids are those of their messages; and the
accounts beside the rooms. A server may be running meanwhile. Each fault is one line on standard output.

With --repair, and no server running, a damaged store is put right: of each room the longest run of sound messages is
kept, and a room that loses something gets a new epoch, so clients know that messages may be missing. The files as they
were stay in DIR, in a directory damaged-...; delete it when you have what you need of it.

examples:
  roomwire-server verify                     the store in your data directory
  roomwire-server verify /var/lib/roomwire   another one
  roomwire-server verify backups/monday      a backup
  roomwire-server verify --repair /var/lib/roomwire

A signal that ends a repair leaves the store as it was.

exit status: 0 sound, or repaired, 1 something is wrong, 2 no store, not readable, or of a newer version, 128 and the
number of the signal that ended it
"""

BACKUP = """\
Copies a store to a new directory, as it is at one moment, also while a server runs; then checks the copy. Makes all
of TARGET, or nothing, also if a signal ends it. To restore, copy TARGET to the data directory of a server that is not
running, and start the server: every room then has a new epoch, so clients know that messages may be missing, and take
none for another.

examples:
  roomwire-server backup /var/lib/roomwire /backups/$(date +%F)

exit status: 0 copied and checked, 1 the store is damaged or the copy could not be written, 2 wrong usage;
128 and the number of the signal that ended it
"""

RENEW = """\
Gives every room of a store a new epoch. Use it once after you restored a data directory from a copy that
`roomwire-server backup` did not make, for example a snapshot of the file system: messages may be missing since, and
other messages may take their sequence numbers. No server may be running.

With --restamp, messages whose time is in the future get the present time: after a server ran with a clock that was
ahead. First see that the clock of this machine is right.

examples:
  roomwire-server renew /var/lib/roomwire
  roomwire-server renew --restamp /var/lib/roomwire

exit status: 0 done, 1 not
"""


TRIM = """\
Gives the space of deleted messages back to the file system: a database keeps it, and uses it again. No server may be
running, and there must be as much free space as the messages take that are left.

A server deletes messages by their age, but counts only time in which it ran. With --older-than, messages are deleted
by the clock of this machine; first see that it is right.

examples:
  roomwire-server trim /var/lib/roomwire
  roomwire-server trim --older-than 7 /var/lib/roomwire     and delete messages that are older than 7 days

exit status: 0 done, 1 not, 2 wrong usage; 128 and the number of the signal that ended it
"""

_DAY_MS = 86_400_000


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
    checked.add_argument("--repair", action="store_true", help="keep what is sound, and the damaged files beside it")
    copied = add("backup", _backup, "copy a store, also while it is in use", BACKUP)
    copied.add_argument("directory", metavar="DIR", type=Path, help=directory)
    copied.add_argument("target", metavar="TARGET", type=Path, help="directory to be made")
    renewed = add("renew", _renew, "give the rooms of a restored store new epochs", RENEW)
    renewed.add_argument("directory", metavar="DIR", type=Path, help=directory)
    renewed.add_argument("--restamp", action="store_true", help="give messages of a future time the present one")
    trimmed = add("trim", _trim, "give the space of deleted messages back", TRIM)
    trimmed.add_argument("directory", metavar="DIR", type=Path, help=directory)
    trimmed.add_argument("--older-than", metavar="DAYS", type=_days, help="first delete messages that are older")


def _verify(arguments: argparse.Namespace) -> int:
    ending = Ending()
    try:
        directory = arguments.directory or default_data_directory()
        with ending:
            report = verify(directory, _progress, ending.asked)
            if report.wrong and arguments.repair:
                return _repair(directory, ending)
    except (StoreError, ConfigError) as error:
        return _fail(*ending.how_ended("not all was checked")) if ending.asked() else _fail(error, 2)
    for line in report.wrong:
        print(line)
    _notes(report)
    print(f"{'WRONG' if report.wrong else 'sound'}: {_amount(report)}")
    return int(bool(report.wrong))


def _repair(directory: Path, ending: Ending) -> int:
    """Repair the store, and check it again; the exit status. Raises StoreError."""

    def progress(doing: str) -> None:
        ending.check()
        _progress(doing)

    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    _remove_unfinished_repairs(directory)
    try:
        done = repair(directory, stamp, progress)
    except Ended:
        shutil.rmtree(directory / f"damaged-{stamp}", ignore_errors=True)  # a copy of what is still there
        return _fail(*ending.how_ended("nothing was changed"))
    for line in done.lines:
        print(line)
    if done.all_new:
        print("every room has a new epoch")
    try:
        report = verify(directory, _progress, ending.asked)
    except StoreError:
        if not ending.asked():
            raise
        return _fail(*ending.how_ended(f"repaired, but not checked again; the damaged files are in {done.kept}"))
    for line in report.wrong:
        print(line)
    found = "STILL WRONG" if report.wrong else "repaired"
    print(f"{found}: {_amount(report)}; the damaged files are in {done.kept}")
    return int(bool(report.wrong))


def _remove_unfinished_repairs(directory: Path) -> None:
    """Remove what killed repairs left: whoever has the lock knows that none runs. Raises StoreError."""
    with lock_if_free(directory) as holder:
        if not holder:
            for left in directory.glob(".repair-????????"):
                shutil.rmtree(left, ignore_errors=True)


def _unfinished_backups(target: Path) -> list[Path]:
    """What backups to `target` have begun: of a killed one, or of one that still runs."""
    above = target.absolute().parent
    names = [each for each in above.iterdir() if each.name.startswith(f".{target.name}-")] if above.is_dir() else []
    return sorted(each for each in names if (each / DATABASE).is_file())


def _backup(arguments: argparse.Namespace) -> int:
    ending = Ending()
    try:
        with ending:
            report = backup(arguments.directory, arguments.target, _progress, ending.asked)
    except (StoreError, AccountsError) as error:
        return _fail(*ending.how_ended("nothing was copied")) if ending.asked() else _fail(error, 1)
    _notes(report)
    for left in _unfinished_backups(arguments.target):
        print(f"note: {left} is of another backup, which runs, or was killed; then delete it")
    print(f"copied to {arguments.target} and checked: {_amount(report)}")
    return 0


def _renew(arguments: argparse.Namespace) -> int:
    try:
        if arguments.restamp:
            print(f"{restamp(arguments.directory, _now_ms())} messages have the present time")
        else:
            renew_incarnation(arguments.directory)
    except StoreError as error:
        return _fail(error, 1)
    print("every room has a new epoch")
    return 0


def _trim(arguments: argparse.Namespace) -> int:
    days = arguments.older_than
    before_ms = 0 if days is None else max(0, _now_ms() - int(days * _DAY_MS))
    try:
        with ends_at_once(_fail, "the store is whole; what was deleted stays so, and trim can be run again"):
            done = trim(arguments.directory, before_ms, _progress)
    except StoreError as error:
        return _fail(error, 1)
    _progress("")
    print(f"{done.messages} messages were deleted; {done.before} octets are {done.after} now")
    return 0


def _days(text: str) -> float:
    days = float(text)
    if not math.isfinite(days) or days < 0:
        raise ValueError
    return days


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _notes(report: Report) -> None:
    for note in report.notes:
        print(f"note: {note}")


def _amount(report: Report) -> str:
    accounts = f", {report.accounts} accounts" if report.accounts else ""
    return f"{report.rooms} rooms, {report.messages} messages, {report.ids} ids{accounts}"


def _fail(error: Exception | str, status: int) -> int:
    _progress("")
    print(f"roomwire-server: {error}", file=sys.stderr)
    return status


def _progress(doing: str) -> None:
    """Show the progress on a terminal; the next line overwrites this one."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{doing}", end="", file=sys.stderr, flush=True)
