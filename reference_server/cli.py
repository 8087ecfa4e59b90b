"""roomwire-server: runs a server, or checks whether one could run."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import shtab

from reference_server import VERSION, logs
from reference_server.accounts import AccountsError
from reference_server.commands import cert, doctor, store, user
from reference_server.config import Config, ConfigError, data_directory, load
from reference_server.lines import LineWriter
from reference_server.metrics.http import MetricsServer
from reference_server.net.listener import Listener, StoreHung
from reference_server.net.signals import EndSignals
from reference_server.net.sockets import ListenError, address_text, allow_connections
from reference_server.net.tls import TlsError, require_secrecy
from reference_server.store.base import StoreError
from reference_server.store.open import open_store
from reference_server.streams import standard_streams

EXAMPLES = """\
examples:
  roomwire-server                            on 127.0.0.1:7117, rooms kept in your data directory
  roomwire-server --port 7200 --data ./rooms rooms kept in ./rooms
  roomwire-server --memory                   nothing is kept; for tests and throw-away rooms
  roomwire-server --config server.toml       settings from a file, for example publish_rate = 100
  ROOMWIRE_PUBLISH_RATE=100 roomwire-server  any setting by its name in capitals
  roomwire-server --metrics-port 9117        serves metrics for Prometheus, and /healthz
  roomwire-server user add ada               makes an account; from then on guests have a ~ before their names
  roomwire-server doctor                     says what would keep a server from running here
  roomwire-server backup DIR TARGET          copies the rooms in DIR, also while a server runs
  roomwire-server verify DIR                 checks all that is stored in DIR
  roomwire-server --tls-cert cert.pem --tls-key key.pem --host 0.0.0.0
                                             TLS, for other hosts; see also: roomwire-server cert --help

Settings are the limits of SPEC.md, section 15, by their names there, and: host, port, data, memory, accounts,
anonymous, tls_cert, tls_key, insecure, metrics_host, metrics_port, log_format, log_level, server_id, create_rooms,
local_limits, max_connections, max_members, max_open_rooms, ids_per_room, retention_octets.
An option of the command line beats a ROOMWIRE_ variable, which beats the file.

SIGHUP reloads the certificate and its key; if they cannot be used, the server logs that and keeps the old ones.
SIGTERM or Ctrl-C drains: the server tells its clients, still answers their requests, and ends after drain_ms at the
latest. A second one ends it at once. No acknowledged message is lost either way, except with --memory.

exit status: 0 drained, 1 could not run or failed, 2 wrong usage or settings; of all commands: 74 the output could not
be written, SIGPIPE its reader is gone
"""

SWITCH_SECONDS = 0.00005
"""How long one thread may run while another waits for the interpreter. The store's threads need it for a moment, many
times in a commit; with Python's default each of these waits would cost a busy server 5 ms."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="roomwire-server",
        description="Runs a Roomwire/1 chat server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shtab.add_argument_to(top, ["--print-completion"])
    top.add_argument("--version", action="version", version=f"roomwire-server {VERSION}, Roomwire/1")
    _add_settings(top)
    commands = top.add_subparsers(metavar="COMMAND", title="commands")
    top.set_defaults(command=_run)
    for name, run, what, text in (
        ("run", _run, "run a server: the default", EXAMPLES),
        ("doctor", _doctor, "say what would keep a server with these settings from running here", doctor.EXAMPLES),
    ):
        command = commands.add_parser(
            name, help=what, description=what, epilog=text, argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        command.set_defaults(command=run)
        _add_settings(command)
    user.add_to(commands)
    cert.add_to(commands)
    store.add_to(commands)
    return top


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (7117); 0 takes a free one")
    rooms = parser.add_mutually_exclusive_group()
    rooms.add_argument("--data", metavar="DIR", help="directory that holds the rooms (~/.local/share/roomwire)")
    rooms.add_argument("--memory", action="store_const", const=True, help="keep rooms in memory only")
    parser.add_argument("--accounts", metavar="FILE", help="accounts (accounts.sqlite3 in DIR); see: user --help")
    parser.add_argument(
        "--no-anonymous", dest="anonymous", action="store_const", const=False, help="refuse clients without an account"
    )
    parser.add_argument("--tls-cert", metavar="FILE", help="certificates for TLS, in PEM; reloaded at SIGHUP")
    parser.add_argument("--tls-key", metavar="FILE", help="the private key, if it is not in that file")
    parser.add_argument(
        "--insecure", action="store_const", const=True, help="clear text also on addresses that others can reach"
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings, as TOML")
    parser.add_argument(
        "--metrics-port", type=int, metavar="PORT",
        help="port for /metrics and /healthz (none); 0 takes a free one"
    )  # fmt: skip
    parser.add_argument("--metrics-host", metavar="HOST", help="address to listen on for them (127.0.0.1)")
    parser.add_argument("--log-format", choices=("text", "json"), help="text")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="info")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status."""
    with standard_streams():
        arguments = parser().parse_args(argv)
        return int(arguments.command(arguments))


def _run(arguments: argparse.Namespace) -> int:
    return _with_settings(arguments, _serve)


def _doctor(arguments: argparse.Namespace) -> int:
    return _with_settings(arguments, doctor.run)


def _with_settings(arguments: argparse.Namespace, command: Callable[[Config], int]) -> int:
    """Load the settings and run a command with them; the exit status."""
    options = dict(vars(arguments))
    del options["command"]
    file = options.pop("config")
    if options["data"] is not None:
        options["memory"] = False
    try:
        return command(load(options, os.environ, file))
    except (ConfigError, ListenError, StoreError, AccountsError, TlsError) as error:
        print(f"roomwire-server: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        return 130


def for_people(path: Path) -> str:
    """The path, with ~ for the home directory."""
    path, home = path.absolute(), Path(os.path.expanduser("~"))
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _serve(config: Config) -> int:
    """Run a server until it has drained; the exit status."""
    signals, output, errors = EndSignals(), LineWriter(1), LineWriter(2)
    errors.tell = logs.configure(config.log_format, config.log_level, errors).tell
    output.failed = logs.log_output_error
    failure: Exception | None
    try:
        require_secrecy(config)
        config = dataclasses.replace(config, max_connections=allow_connections(config.max_connections))
        failure = asyncio.run(_run_server(config, signals, output, errors))
    except (ConfigError, ListenError, StoreError, AccountsError, TlsError) as error:
        failure = error
    if failure is not None and config.log_format == "json":
        logs.log_end(failure)
    elif failure is not None:
        errors.put(f"roomwire-server: {failure}")
    output.finish()
    errors.finish()
    if isinstance(failure, StoreHung):
        os._exit(1)  # the end of Python closes files, and might wait for the disk as well
    return 0 if failure is None else 2 if isinstance(failure, ConfigError) else 1


async def _run_server(config: Config, signals: EndSignals, output: LineWriter, errors: LineWriter) -> Exception | None:
    # The server holds many messages. With Python's default thresholds the garbage collector would look through them so
    # often that it takes a tenth of the time, and it would find next to nothing.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(SWITCH_SECONDS)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.log_fault)
    listener = Listener(config, lambda post, failed: open_store(config, post, failed))
    metrics = None
    try:
        host, port = await listener.start()
        if config.metrics_port >= 0:
            metrics = MetricsServer(listener.hub, loop, config.metrics_host, config.metrics_port, errors)
    except (ListenError, AccountsError, TlsError):
        listener.hub.state.store.close()
        raise
    signals.serve(listener.signalled)
    listener.handle_hangup()
    where = "in memory only: gone when the server ends" if config.memory else f"in {for_people(data_directory(config))}"
    output.put(f"roomwire-server: listening on {address_text(host, port)}; rooms are kept {where}")
    if metrics is not None:
        output.put(f"roomwire-server: metrics on http://{metrics.address}/metrics")
    failure = await listener.run()
    if metrics is not None:
        metrics.close()
    return failure


if __name__ == "__main__":
    sys.exit(main())
