"""Reads a store as it is at one moment, and changes nothing of it: also one that is in use, or on a read-only place.

SQLite's own way to read a store whose log is not empty needs a file beside it. Where that cannot be made, this reads
a copy of the database and its log.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from reference_server.store.base import StoreCorrupt, StoreUnavailable
from reference_server.store.sqlite_files import DATABASE, check_library, connect, lock_if_free
from reference_server.store.sqlite_wal import check_wal

STEPS = 20_000
"""How many instructions of SQLite run before it looks whether to stop."""


def never() -> bool:
    """For `stopped`: go on to the end."""
    return False


@dataclass(slots=True)
class Snapshot:
    """A read transaction on a store. `holder` is the process that uses the store, or ""; if there is one, the log was
    not checked: it is being written."""

    connection: sqlite3.Connection
    holder: str
    log: StoreCorrupt | None
    """What is wrong with the write-ahead log."""


@contextmanager
def snapshot(directory: Path, stopped: Callable[[], bool] = never, scratch: Path | None = None) -> Iterator[Snapshot]:
    """Read the store in `directory`. While no server uses it, none can start.

    `scratch` is where a copy may be made, by default the directory for temporary files. Once `stopped` is true,
    SQLite interrupts what it does. Raises StoreUnavailable if there is no store, sqlite3.Error and OSError.
    """
    check_library()
    path = directory / DATABASE
    log = path.with_name(f"{DATABASE}-wal")
    if not path.is_file():
        raise StoreUnavailable(directory, f"a store, with a file {DATABASE}", "none")
    with ExitStack() as stack:
        holder = stack.enter_context(lock_if_free(directory))
        wrong = None
        if not holder:
            try:
                check_wal(log)
            except StoreCorrupt as error:
                wrong = error
        if holder or (log.is_file() and log.stat().st_size):
            connection = _reading(path, log, holder, stack, scratch)
        else:  # SQLite makes no files then
            connection = stack.enter_context(closing(connect(path, "ro&immutable=1")))
        connection.set_progress_handler(stopped, STEPS)
        connection.execute("BEGIN")
        yield Snapshot(connection, holder, wrong)


def _reading(path: Path, log: Path, holder: str, stack: ExitStack, scratch: Path | None) -> sqlite3.Connection:
    index = path.with_name(f"{path.name}-shm")
    if not holder and not index.exists():
        stack.callback(_remove, index)  # SQLite makes it, and nobody else uses it
    try:
        connection = stack.enter_context(closing(connect(path, "ro")))
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        return connection
    except sqlite3.OperationalError as error:
        if holder or error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
            raise
    copy = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="roomwire-", dir=scratch)))
    for file in (path, log):
        shutil.copyfile(file, copy / file.name)
    return stack.enter_context(closing(connect(copy / path.name)))


def _remove(path: Path) -> None:
    with suppress(OSError):  # there is none, or the place is read-only
        path.unlink()
