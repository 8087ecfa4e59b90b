"""roomwire-server user: makes, changes, removes and lists accounts. A running server notices the change by itself."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from reference_server.accounts import ITERATIONS, AccountsError, AccountsFile, accounts_path
from reference_server.commands.ending import Ended, ends, how_ended
from reference_server.config import ConfigError, load

FAILED = 1
USAGE = 2

EXAMPLES = """\
examples:
  roomwire-server user add ada                      asks for the password, twice
  roomwire-server user add ops --admin              an account that may stop the server (roomwire-chat stop)
  pass show chat/ada | roomwire-server user add ada the first line of the standard input is the password
  roomwire-server user passwd ada                   another password; ada's connections are ended
  roomwire-server user remove ada                   ada's connections are ended
  roomwire-server user list
  roomwire-server user list --data ./rooms          the accounts of a server with --data ./rooms
  roomwire-server user add ada --accounts ./a.db    those of a server with --accounts ./a.db

A server has accounts as soon as the first one is made. From then on clients without an account get a ~ before their
name. If the file then vanishes, is empty or cannot be read, the server keeps the accounts that were there, and its log
says so. Passwords are stored as SCRAM-SHA-256 stores them: they cannot be read back.

What root makes here belongs to the owner of its directory, so that the server can read it.

exit status: 0 done, 1 not done, 2 wrong usage
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `user` to the subparsers of roomwire-server."""
    layout = argparse.RawDescriptionHelpFormatter
    what = "make, change, remove and list accounts"
    user = commands.add_parser("user", help=what, description=what, epilog=EXAMPLES, formatter_class=layout)
    actions = user.add_subparsers(metavar="add|passwd|remove|list", required=True)
    add = _action(actions, "add", "make an account", _add)
    add.add_argument("name", metavar="NAME")
    add.add_argument("--admin", action="store_true", help="it may stop the server (STOP)")
    add.add_argument(
        "--iterations", type=int, metavar="N",
        help=f"cost of a login, and of a guess at a password; all accounts have that of the first ({ITERATIONS})",
    )  # fmt: skip
    _action(actions, "passwd", "give an account another password", _passwd).add_argument("name", metavar="NAME")
    _action(actions, "remove", "remove an account", _remove).add_argument("name", metavar="NAME")
    _action(actions, "list", "list the accounts", _list)


def _action(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    run: Callable[[AccountsFile, argparse.Namespace], None],
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=what, description=what, argument_default=argparse.SUPPRESS)
    parser.add_argument("--data", metavar="DIR", help="the data directory of the server (~/.local/share/roomwire)")
    parser.add_argument("--accounts", metavar="FILE", help="the file of accounts, if the server has that option")
    parser.add_argument("--config", metavar="FILE", type=Path, help="the server's settings")
    parser.set_defaults(command=lambda arguments: _run(run, arguments))
    return parser


def _run(run: Callable[[AccountsFile, argparse.Namespace], None], arguments: argparse.Namespace) -> int:
    options = {name: getattr(arguments, name, None) for name in ("data", "accounts", "memory")}
    try:
        path = accounts_path(load(options, os.environ, getattr(arguments, "config", None)))
        if path is None:
            raise ConfigError("accounts: expected --accounts FILE, since --memory keeps nothing else, found none")
        with ends() as hold:
            run(AccountsFile(path, committing=hold), arguments)
    except (AccountsError, ConfigError) as error:
        print(f"roomwire-server: {error}", file=sys.stderr)
        return USAGE if isinstance(error, ConfigError) else FAILED
    except Ended as end:
        line, status = how_ended(end.number, "nothing was changed")
        print(f"roomwire-server: {line}", file=sys.stderr)
        return status
    return 0


def _add(file: AccountsFile, arguments: argparse.Namespace) -> None:
    first = file.read()
    if first is None:
        file.check_user()  # before anybody is asked for a password
    account = file.add(
        arguments.name,
        _password(arguments.name),
        created_ms=time.time_ns() // 1_000_000,
        admin=getattr(arguments, "admin", False),
        iterations=getattr(arguments, "iterations", None),
    )
    mark = ", which may stop the server" if account.admin else ""
    print(f"made the account {account.name}{mark}, in {file.path}")
    if first is None:
        print("at a server with this file, clients without an account get a ~ before their name")


def _passwd(file: AccountsFile, arguments: argparse.Namespace) -> None:
    account = file.set_password(arguments.name, _password(arguments.name))
    print(f"{account.name} has another password; connections with the old one are ended")


def _remove(file: AccountsFile, arguments: argparse.Namespace) -> None:
    print(f"removed the account {file.remove(arguments.name).name}")


def _list(file: AccountsFile, arguments: argparse.Namespace) -> None:
    accounts = file.read()
    for account in accounts.all() if accounts else ():
        created = time.strftime("%Y-%m-%d", time.gmtime(account.created_ms / 1000))
        print(f"{created}  {'admin' if account.admin else '-':<5}  {account.name}")
    if not accounts or not accounts.all():
        print(f"no accounts in {file.path}", file=sys.stderr)


def _password(name: str) -> str:
    """The password: entered twice, without echo, on a terminal, or the first line of standard input.

    Raises AccountsError.
    """
    if not sys.stdin.isatty():
        line = sys.stdin.buffer.readline()
        try:
            return line.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise AccountsError("the password: expected UTF-8, found octets that are not") from None
    try:
        password = getpass.getpass(f"password for {name}: ")
        if getpass.getpass("the same again: ") != password:
            raise AccountsError("the two passwords differ; nothing was changed")
    except EOFError:
        raise AccountsError("no password was given; nothing was changed") from None
    return password
