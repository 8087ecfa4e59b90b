"""The command roomwire-chat: its options, and what each subcommand runs."""

import argparse
import asyncio
import contextlib
import getpass
import io
import os
import re
import signal
import ssl
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import shtab

from protocol.errors import RoomwireError
from reference_client.chat.chat import Chat
from reference_client.chat.credentials import Account, CredentialsError, credentials
from reference_client.chat.render import harmless, place_of
from reference_client.chat.send_tail import (
    FAILED,
    TIMED_OUT,
    UNKNOWN,
    Sender,
    SendOptions,
    Stopper,
    Tailer,
    TailOptions,
    warn,
)
from reference_client.chat.show import Show, wants_colour
from reference_client.chat.streams import UNWRITTEN, drop_output, end_unread, fill_gaps
from reference_client.chat.terminal import Plain, Terminal, can_edit
from reference_client.chat.words import WordsError, parted, room_and_text, with_command
from reference_client.client import DEFAULT_PORT, Client
from reference_client.errors import ClientError, OutcomeUnknown, Unreachable
from reference_client.tls import client_context

USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130

_HISTORY = 10
_MOST_HISTORY = 2**53 - 1

_EXIT_STATUS = """\
exit status:
  0    done
  1    refused or failed
  2    wrong usage
  3    the server could not be reached
  4    outcome unknown: the reply was lost, and a message may have been published
  5    the time (-W) ended before there were enough messages, or before all were acknowledged
  74   the output could not be written
  130  interrupted
"""

_EXAMPLES = """\
examples:
  roomwire-chat                                      talk at localhost:7117; /join ROOM, /help
  roomwire-chat --name ada chat.example:7117 lobby   join the room lobby as ada
  roomwire-chat send lobby "good morning"            publish one message
  roomwire-chat send lobby -- "$TEXT"                publish a message that may look like an option
  make 2>&1 | roomwire-chat send builds -            publish each line as a message
  roomwire-chat tail lobby -n 1 -W 60 --json         wait a minute for the next message
  roomwire-chat --account ada roomwires://chat.example lobby
                                                     log in as ada over TLS; asks for the password
  roomwire-chat --ca ca.pem localhost lobby          TLS with a certificate of `roomwire-server cert`
  roomwire-chat stop --account ops                   stop the server, if ops may

Without the option, ROOMWIRE_SERVER is the server, ROOMWIRE_NAME the name and ROOMWIRE_ACCOUNT the account.
ROOMWIRE_PASSWORD is the password if there is no --password-file. With NO_COLOR set, the output has no colours.
Control characters in the text of others never reach the terminal; they are shown as \\x1b.

"""


class Parser(argparse.ArgumentParser):
    """A parser that reports wrong usage in one line, and takes no abbreviations of options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        warn(f"{harmless(message)}; see {self.prog} --help")
        sys.exit(USAGE)


class Address(NamedTuple):
    """The server's address. `tls` is set for roomwires://."""

    host: str
    port: int
    tls: bool = False


def server(text: str) -> Address:
    """Parse HOST, HOST:PORT or [ADDRESS]:PORT, with roomwire:// or roomwires:// (TLS) before it or nothing."""
    scheme, slashes, rest = text.rpartition("://")
    if slashes:
        if scheme not in ("roomwire", "roomwires"):
            raise argparse.ArgumentTypeError(f"expected roomwire:// or roomwires://, found {harmless(text)!r}")
        text = rest.removesuffix("/")
    tls = scheme == "roomwires"
    match = re.fullmatch(r"\[([^\]]+)\](?::(\d{1,5}))?|([^:]+)(?::(\d{1,5}))?", text)
    if match is None:
        if re.fullmatch(r"[0-9A-Fa-f:.%\w]*:[0-9A-Fa-f:.%\w]*:[0-9A-Fa-f:.%\w]*", text):
            return Address(text, DEFAULT_PORT, tls)  # an IPv6 address
        raise argparse.ArgumentTypeError(f"expected HOST or HOST:PORT, found {harmless(text)!r}")
    port = int(match[2] or match[4] or DEFAULT_PORT)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, found {port}")
    return Address(match[1] or match[3], port, tls)


def seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, found {harmless(text)}")
    return value


def count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= _MOST_HISTORY:
        raise argparse.ArgumentTypeError(f"expected a number of at least 1, found {value}")
    return value


def number(text: str) -> int:
    value = int(text)
    if not 0 <= value <= _MOST_HISTORY:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, found {value}")
    return value


def place(text: str) -> tuple[int, int]:
    """Parse SEQ, or EPOCH:SEQ with the epoch in hexadecimal, as --json prints it."""
    epoch, _, seq = text.rpartition(":")
    value = int(epoch, 16) if epoch else 0
    if not 0 <= value < 2**64:
        raise argparse.ArgumentTypeError("expected an epoch of at most 16 hexadecimal digits")
    return value, number(seq)


def login_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "guest"  # the user has no name on this machine


def parser() -> Parser:
    """The parser of the command line."""
    top = Parser(
        prog="roomwire-chat",
        usage="roomwire-chat [--name NAME] [HOST[:PORT]] [ROOM ...]\n       roomwire-chat send|tail [option ...] ROOM\n"
        "       roomwire-chat stop [option ...]",
        description="Talks to a Roomwire/1 chat server: by hand, or from a script with send and tail.",
        epilog=_EXAMPLES + _EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shtab.add_argument_to(top, ["--print-completion"])
    top.add_argument("--version", action="version", version="roomwire-chat 0.1.0, Roomwire/1")
    commands = top.add_subparsers(prog="roomwire-chat", dest="command", metavar="chat|send|tail|stop", required=True)
    options: dict[str, Any] = {
        "parents": [_common_options()],
        "epilog": _EXIT_STATUS,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    _add_chat(commands.add_parser("chat", help="talk (the default command)", **options))
    _add_send(commands.add_parser("send", help="publish, and wait for the acknowledgement", **options))
    _add_tail(commands.add_parser("tail", help="print messages", **options))
    stop = commands.add_parser("stop", help="stop the server, if your account may", **options)
    stop.add_argument("-W", dest="seconds", metavar="SECONDS", type=seconds, help="give up after this time")
    return top


def _common_options() -> Parser:
    common = Parser(add_help=False)
    common.add_argument(
        "--name", metavar="NAME", default=os.environ.get("ROOMWIRE_NAME") or None, help="your name (ROOMWIRE_NAME)"
    )
    common.add_argument(
        "--server",
        "--host",
        metavar="HOST[:PORT]",
        type=server,
        default=None,
        help=f"the server (ROOMWIRE_SERVER, or localhost:{DEFAULT_PORT})",
    )
    common.add_argument("--account", metavar="NAME", help="log in to this account (ROOMWIRE_ACCOUNT)")
    common.add_argument(
        "--password-file", metavar="FILE", type=Path,
        help="its first line is the password (otherwise ROOMWIRE_PASSWORD, or roomwire-chat asks)"
    )  # fmt: skip
    common.add_argument("--tls", action="store_true", help="speak TLS, as with roomwires://HOST")
    common.add_argument("--ca", metavar="FILE", type=Path, help="speak TLS, and trust only these authorities (PEM)")
    return common


def _add_chat(chat: argparse.ArgumentParser) -> None:
    chat.add_argument(
        "--history", metavar="COUNT", type=number, help=f"old messages to show ({_HISTORY} at a terminal, else 0)"
    )
    chat.add_argument(
        "words", nargs="*", metavar="HOST[:PORT] ROOM", help="the server, unless --server names it, and rooms to join"
    )


def _add_send(send: argparse.ArgumentParser) -> None:
    send.add_argument("room", metavar="ROOM")
    send.add_argument(
        "text",
        metavar="TEXT",
        nargs="?",
        help="the message, after -- whatever it looks like; - or nothing sends each line of the standard input",
    )
    send.add_argument("-W", dest="seconds", metavar="SECONDS", type=seconds, help="give up after this time")
    send.add_argument("--json", action="store_true", help="print a line of JSON for each message")


def _add_tail(tail: argparse.ArgumentParser) -> None:
    tail.add_argument("room", metavar="ROOM")
    tail.add_argument("-n", dest="count", metavar="COUNT", type=count, help="end after this many messages")
    tail.add_argument("-W", dest="seconds", metavar="SECONDS", type=seconds, help="end after this time")
    tail.add_argument(
        "--history", metavar="COUNT", type=number, default=0, help="begin with this many old messages (0)"
    )
    tail.add_argument("--since", metavar="[EPOCH:]SEQ", type=place, help="begin after this message")
    tail.add_argument("--json", action="store_true", help="print lines of JSON")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return the exit status."""
    fill_gaps()
    top = parser()
    arguments = _parsed(top, with_command(sys.argv[1:] if argv is None else argv))
    address = arguments.server
    rooms: list[str] = []
    if arguments.command == "chat":
        rooms = arguments.words
        if address is None and rooms:
            address, rooms = _server_or_exit(top, rooms[0]), rooms[1:]
    if address is None:
        address = _server_or_exit(top, os.environ.get("ROOMWIRE_SERVER") or "localhost")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        account = credentials(arguments.account, arguments.name, arguments.password_file, os.environ)
        tls = client_context(arguments.ca) if arguments.tls or arguments.ca or address.tls else None
        return asyncio.run(_run(arguments, address, rooms, account, tls))
    except CredentialsError as error:
        top.error(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        end_unread()
    except Unreachable as error:
        warn(f"{place_of(address.host, address.port)} cannot be reached: {harmless(str(error))}")
        return UNREACHABLE
    except OutcomeUnknown as error:
        what = "the server may be stopping" if arguments.command == "stop" else "the message may be published"
        warn(f"outcome unknown, {what}: {harmless(str(error))}")
        return UNKNOWN
    except (ClientError, RoomwireError) as error:
        warn(harmless(str(error)))
        return FAILED
    except OSError as error:  # those of the connection are a ClientError
        drop_output()
        warn(f"the output cannot be written: {(error.strerror or str(error)).lower()}")
        return UNWRITTEN


def _parsed(top: Parser, words: list[str]) -> argparse.Namespace:
    """Parse the words. argparse sees fillers for ROOM and TEXT of `send` and `tail`: it takes none for an option."""
    command, rest = words[0], words[1:]
    if command not in ("send", "tail"):
        return top.parse_args(words)
    found = parted(rest)
    try:
        room, text = room_and_text(command, found)
    except WordsError as error:
        top.error(str(error))
    arguments = top.parse_args([command, *found.options, *("-" for _ in found.places)])
    arguments.room, arguments.text = room, text
    arguments.expected = len(found.places) == 1
    return arguments


def _server_or_exit(top: Parser, text: str) -> Address:
    try:
        return server(text)
    except argparse.ArgumentTypeError as error:
        top.error(str(error))


async def _run(
    arguments: argparse.Namespace,
    address: Address,
    rooms: list[str],
    account: Account | None,
    tls: ssl.SSLContext | None,
) -> int:
    name = account.name if account else arguments.name or login_name()
    password = account.password if account else None
    client = Client(
        address.host, address.port, name=name, password=password, tls=tls, roster=arguments.command == "chat"
    )
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        # End as with Ctrl-C: say goodbye, and restore the terminal. Under nohup, go on.
        if signal.getsignal(number) != signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    limit = getattr(arguments, "seconds", None)
    deadline = None if limit is None else asyncio.get_running_loop().time() + limit
    try:
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout_at(deadline):
                await stack.enter_async_context(client)
            return await _command(arguments, client, rooms, deadline)
    except TimeoutError:
        warn("the time is over before there is a connection")
        return TIMED_OUT
    except asyncio.CancelledError:
        return INTERRUPTED


def _command(
    arguments: argparse.Namespace, client: Client, rooms: list[str], deadline: float | None
) -> Coroutine[Any, Any, int]:
    if arguments.command == "send":
        options = SendOptions(arguments.room, arguments.text, arguments.expected, arguments.json, deadline)
        return Sender(client, options).run()
    if arguments.command == "tail":
        wanted = TailOptions(
            arguments.room, arguments.count, deadline, arguments.history, arguments.since, arguments.json
        )
        return Tailer(client, wanted).run()
    if arguments.command == "stop":
        return Stopper(client, deadline).run()
    return _chat(client, rooms, arguments.history)


async def _chat(client: Client, rooms: list[str], history: int | None) -> int:
    show = Show(colour=wants_colour(sys.stdout))
    if not can_edit():
        return await Chat(client, Plain(sys.stdout), show, history=history or 0).run(rooms)
    with Terminal(sys.stdout) as terminal:
        return await Chat(client, terminal, show, history=_HISTORY if history is None else history).run(rooms)


if __name__ == "__main__":
    sys.exit(main())
