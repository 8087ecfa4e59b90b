"""roomwire-server doctor: finds what would keep a server from running here, and makes nothing.

It begins to run one, with rooms in memory; what fails is told, and left out of the next attempt.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shlex
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from protocol.names import UNICODE_VERSION
from reference_server.accounts import AccountsError
from reference_server.config import Config, ConfigError, data_directory
from reference_server.files import EXPECTED_SQLITE, unfit_sqlite, user_name, why_closed
from reference_server.metrics.http import MetricsServer
from reference_server.net.listener import Listener
from reference_server.net.sockets import ListenError, address_text, allow_connections
from reference_server.net.tls import TlsError, require_secrecy
from reference_server.store.base import StoreError, StoreLocked, StoreUnavailable
from reference_server.store.memory import MemoryStore
from reference_server.store.open import advised, retention
from reference_server.store.snapshot import snapshot
from reference_server.store.sqlite_files import (
    DATABASE,
    as_store_error,
    check_format,
    check_log_has_database,
    lock_if_free,
)
from reference_server.store.sqlite_tables import read_meta, read_rooms, read_server

EXAMPLES = """\
Runs the checks with which a server begins, and makes and changes nothing. A server that is to run as a user of its
own is examined as that user.

examples:
  roomwire-server doctor                     would a server run that is started without options?
  roomwire-server doctor --config server.toml --port 7200
  runuser -u roomwire -- roomwire-server doctor --data /var/lib/roomwire

exit status: 0 it would run, 1 it would not, and FAIL says why, 2 wrong usage or settings
"""


class Finding(NamedTuple):
    """One thing that was examined; `bad` if it keeps a server from running."""

    what: str
    found: str
    bad: bool = False


def examine(config: Config) -> Iterator[Finding]:
    """Examine everything that a server with these settings needs."""
    yield Finding("Python", platform.python_version(), sys.version_info < (3, 11))
    unfit = unfit_sqlite()
    found = f"expected {EXPECTED_SQLITE}, found {unfit}" if unfit else sqlite3.sqlite_version
    yield Finding("SQLite", found, bool(unfit))
    yield Finding("Unicode", UNICODE_VERSION)
    connections = allow_connections(config.max_connections)
    note = "" if connections == config.max_connections else f"; max_connections is {config.max_connections}"
    yield Finding("descriptors", f"enough for {connections} connections{note}")
    try:
        require_secrecy(config)
    except ConfigError as error:
        yield Finding("secrecy", str(error), True)
    yield from asyncio.run(_started(config))
    if config.memory:
        yield Finding("rooms", "in memory only")
    else:
        yield from _directory(data_directory(config))


async def _started(config: Config) -> list[Finding]:
    """Begin to run servers until one can, and end them before they serve anybody."""
    failed: dict[str, Exception] = {}
    trial = config
    while True:
        listener = Listener(trial, lambda post, failed: MemoryStore(retention(config)))
        try:
            await listener.start()
            if config.metrics_port >= 0:
                loop = asyncio.get_running_loop()
                try:
                    MetricsServer(listener.hub, loop, config.metrics_host, config.metrics_port).close()
                except ListenError as error:
                    failed["metrics"] = error
            break
        except AccountsError as error:
            failed["accounts"], trial = error, replace(trial, accounts="", memory=True)
        except TlsError as error:
            failed["TLS"], trial = error, replace(trial, tls_cert="", tls_key="")
        except ListenError as error:
            failed["port"], trial = error, replace(trial, host="127.0.0.1", port=0)
        finally:
            listener.cut()
    accounts = listener.hub.state.accounts
    found = {
        "port": f"{address_text(config.host, config.port)} is free",
        "TLS": config.tls_cert or "none: clear text",
        "accounts": "none: clients have the names that they choose" if accounts is None else f"{len(accounts.all())}",
    }
    if config.metrics_port >= 0:
        found["metrics"] = f"{address_text(config.metrics_host, config.metrics_port)} is free"
    return [Finding(what, str(failed.get(what, text)), what in failed) for what, text in found.items()]


def _directory(path: Path) -> Iterator[Finding]:
    if not path.exists():
        above = next(folder for folder in path.absolute().parents if folder.exists())
        usable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
        found = f"{path} does not exist yet and {'would' if usable else 'could not'} be made in {above}"
        yield Finding("rooms", found, not usable)
        return
    try:
        yield Finding("rooms", f"{_rooms(path)} in {path}")
    except (StoreError, sqlite3.Error, OSError) as error:
        yield Finding("rooms", str(advised(as_store_error(error, path / DATABASE), path)), True)
    yield from _owner(path)


def _rooms(path: Path) -> int:
    """The number of rooms. Raises what a server that opens the store would raise, or ask for."""
    database = path / DATABASE
    check_log_has_database(database)
    _check_rights(path)
    with lock_if_free(path) as holder:
        if holder:
            raise StoreLocked(path, "to be the only user", f"that it is in use: by process {holder}")
    if not database.exists() or not database.stat().st_size:
        return 0
    with snapshot(path) as reading:
        if reading.log is not None:
            raise reading.log
        check_format(reading.connection, database)
        read_meta(reading.connection, database)
        read_server(reading.connection, database)
        return sum(1 for _ in read_rooms(reading.connection, database))


def _check_rights(path: Path) -> None:
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise StoreUnavailable(path, "a directory that can be read and written", why_closed(path) or "another")
    for name in ("lock", DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        if closed := why_closed(path / name):
            raise StoreUnavailable(path / name, "a file that can be read and written", closed)
    space = os.statvfs(path)
    if not (space.f_bavail if os.geteuid() else space.f_bfree):
        raise StoreUnavailable(path, "free space", "a full disk")


def _owner(path: Path) -> Iterator[Finding]:
    """What root, who may open everything, has to know of a directory of somebody else."""
    owner = path.stat().st_uid
    if os.geteuid() or not owner or not path.is_dir():
        return
    name = user_name(owner)
    for file in sorted(path.iterdir()):
        if file.stat().st_uid != owner:
            help = f"chown --reference={shlex.quote(str(path))} {shlex.quote(str(file))}"
            found = f"{file} belongs to {user_name(file.stat().st_uid)}, and the directory to {name}: {help}"
            yield Finding("owner", found, True)
    yield Finding("owner", f"{name}: for a server of theirs, run this command with: runuser -u {name} -- ...")


def run(config: Config) -> int:
    """Print the findings; 0 if a server could run."""
    findings = list(examine(config))
    for finding in findings:
        print(f"{'FAIL' if finding.bad else 'ok':<5} {finding.what:<12} {finding.found}")
    return int(any(finding.bad for finding in findings))
