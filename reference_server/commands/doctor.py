"""roomwire-server doctor: finds what would keep a server from running here."""

import os
import platform
import resource
import sqlite3
import sys
from collections.abc import Iterator
from typing import NamedTuple

from protocol.names import UNICODE_VERSION
from reference_server.config import Config, data_directory
from reference_server.net.sockets import RESERVED_DESCRIPTORS, port_is_free
from reference_server.store.base import Retention, StoreError, StoreLocked
from reference_server.store.sqlite import SqliteStore

EXAMPLES = """\
examples:
  roomwire-server doctor                     would a server run that is started without options?
  roomwire-server doctor --config server.toml --port 7200

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
    yield Finding("SQLite", sqlite3.sqlite_version)
    yield Finding("Unicode", UNICODE_VERSION)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = (
        config.max_connections
        if hard == resource.RLIM_INFINITY
        else min(config.max_connections, hard - RESERVED_DESCRIPTORS)
    )
    note = "" if room == config.max_connections else f"; max_connections is {config.max_connections}"
    yield Finding("descriptors", f"{soft}, may be {hard}: enough for {room} connections{note}")
    reason = port_is_free(config.host, config.port)
    yield Finding(
        "port", f"{config.host}:{config.port} {'is free' if not reason else f'cannot be used: {reason}'}", bool(reason)
    )
    if config.memory:
        yield Finding("rooms", "in memory only")
        return
    path = data_directory(config)
    if not path.exists():
        above = next(folder for folder in path.absolute().parents if folder.exists())
        usable = above.is_dir() and os.access(above, os.W_OK | os.X_OK)
        found = f"{path} does not exist yet and {'would' if usable else 'could not'} be made in {above}"
        yield Finding("rooms", found, not usable)
        return
    try:
        store = SqliteStore(path, Retention(), lambda callback: None, lambda error: None)
    except StoreLocked as error:
        yield Finding("rooms", f"in use: {error}", True)
    except StoreError as error:
        yield Finding("rooms", str(error), True)
    else:
        yield Finding("rooms", f"{store.rooms()} in {path}")
        store.close()


def run(config: Config) -> int:
    """Print the findings; 0 if a server could run."""
    findings = list(examine(config))
    for finding in findings:
        print(f"{'FAIL' if finding.bad else 'ok':<5} {finding.what:<12} {finding.found}")
    return int(any(finding.bad for finding in findings))
