"""The data directory of the SQLite store: its lock, its database file, and what can be wrong with them.

lock            contains the number of the process that has the store open
rooms.sqlite3   the database, with SQLite's own -wal and -shm beside it

While the store is open the directory itself is locked, so that nobody ends the lock by removing a file.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from reference_server.accounts import ACCOUNTS
from reference_server.files import (
    EXPECTED_SQLITE,
    close_to_others,
    make_directory,
    make_private,
    sync_directory,
    unfit_sqlite,
    why_closed,
)
from reference_server.store.base import (
    INCARNATION_SIZE,
    StoreCorrupt,
    StoreLocked,
    StoreTooNew,
    StoreUnavailable,
)
from reference_server.store.sqlite_tables import (
    SCHEMA,
    Meta,
    Server,
    make_server,
    read_meta,
    read_server,
    write_meta,
)
from reference_server.store.sqlite_wal import check_wal, recovered_frames

DATABASE = "rooms.sqlite3"
"""The name of the database in its directory."""

logger = logging.getLogger("roomwire.server")

FORMAT = 4
"""The version of the store's format, stored as the database's `user_version`. No release had an earlier one."""

INTERRUPTED = -1
"""The format of a database whose log a repair removes, until the new database is in its place."""

_FORMAT_AT = 60  # octets of the file before its format, which is big-endian (sqlite.org/fileformat2.html, 1.3)

OWNER_SIZE = 16

_APPLICATION = 0x52574952  # "RWIR", in the file's header, so that another database is not taken for a store
_STORAGE_ERRORS = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOLFS,
}


class DataDirectory:
    """A data directory that this process has locked, and its database, which is sound as far as can be told without
    reading all of it. Both are made if they are missing.

    Raises a StoreError: StoreLocked, StoreTooNew, StoreCorrupt or StoreUnavailable.
    """

    def __init__(self, directory: Path, random_bytes: Callable[[int], bytes]) -> None:
        self.path = directory / DATABASE
        check_library()
        self._lock = _lock(directory)
        try:
            self._check_log()
            self.writer = self._open(random_bytes)
            self._files = {path: _identity(path) for path in self._paths}
            if not self._meta.incarnation:  # a copy that is used for the first time: RW-MODEL-4
                self.write_meta(Meta(random_bytes(INCARNATION_SIZE), self._meta.max_body))
        except Exception as error:
            os.close(self._lock)
            raise as_store_error(error, self.path) from error

    @property
    def _paths(self) -> tuple[Path, ...]:
        return self.path.parent, self.path, *(self.path.with_name(f"{self.path.name}-{end}") for end in ("wal", "shm"))

    def check_files(self) -> None:
        """Raise StoreUnavailable if the files are not those that were opened: what is written to these is lost."""
        for path, expected in self._files.items():
            try:
                found = _identity(path)
            except OSError:
                continue  # nobody can tell
            if found != expected:
                what = "another one: it was replaced" if any(found) else "none: it was deleted or moved away"
                raise StoreUnavailable(path, "the file or directory that this server opened", what)

    def _open(self, random_bytes: Callable[[int], bytes]) -> sqlite3.Connection:
        make_private(self.path)  # SQLite gives its files beside it the same mode and owner
        for beside in ("-wal", "-shm"):
            close_to_others(self.path.with_name(self.path.name + beside))
        with suppress(PermissionError):  # it may belong to another user, who lets this one read it
            close_to_others(self.path.with_name(ACCOUNTS))
        connection = self.connect()
        try:
            if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                self._create(connection, random_bytes)
            check_format(connection, self.path)
            self._meta = read_meta(connection, self.path)
            self._own(connection, random_bytes(OWNER_SIZE))
            # check_wal relies on this too.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except Exception:
            connection.close()
            raise
        return connection

    def _own(self, connection: sqlite3.Connection, owner: bytes) -> None:
        """Write who owns the store now: an earlier owner that still runs can write nothing more."""
        connection.execute("BEGIN IMMEDIATE")
        self.server = Server(owner, read_server(connection, self.path).clock)
        make_server(connection, self.server)
        connection.execute("COMMIT")

    def _check_log(self) -> None:
        log = self.path.with_name(self.path.name + "-wal")
        dropped = check_wal(log, lambda: frames_used(self.path))
        if dropped:
            logger.warning(
                "an incomplete transaction at the end of the write-ahead log is dropped: the last complete one counts",
                extra={"path": str(log), "octets": dropped},
            )
        check_log_has_database(self.path)

    def log_octets(self) -> int:
        """The size of the write-ahead log."""
        return _size(self.path.with_name(self.path.name + "-wal"))

    def connect(self, mode: str = "rwc") -> sqlite3.Connection:
        """A connection to this database."""
        return connect(self.path, mode)

    def _create(self, connection: sqlite3.Connection, random_bytes: Callable[[int], bytes]) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        for statement in SCHEMA:
            connection.execute(statement)
        write_meta(connection, Meta(random_bytes(INCARNATION_SIZE), 0))
        make_server(connection, Server(b"", ""))
        connection.execute("COMMIT")
        # SQLite syncs its files and their names, but not the name of their directory.
        sync_directory(self.path.parent)
        sync_directory(self.path.parent.parent)

    @property
    def incarnation(self) -> bytes:
        return self._meta.incarnation

    @property
    def max_body(self) -> int:
        return self._meta.max_body

    def write_meta(self, meta: Meta) -> None:
        """Store `meta`. Raises StoreError."""
        try:
            self.writer.execute("BEGIN IMMEDIATE")
            write_meta(self.writer, meta)
            self.writer.execute("COMMIT")
        except sqlite3.Error as error:
            raise as_store_error(error, self.path) from error
        self._meta = meta

    def close(self) -> None:
        """Close the writer's connection and the lock. With no other connection open, this empties the log."""
        try:
            self.writer.close()
        finally:
            os.close(self._lock)


def frames_used(path: Path) -> int | None:
    """How many frames of its write-ahead log SQLite uses; None if that cannot be told. It reads much faster than Python
    does, and a connection that only reads leaves the log as it is."""
    if not _size(path):
        return None  # SQLite would delete the log
    try:
        with closing(connect(path, "ro")) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            return recovered_frames(path.with_name(f"{path.name}-shm"))
    except sqlite3.Error:
        return None  # the database is damaged


def connect(path: Path, mode: str = "rwc") -> sqlite3.Connection:
    """A connection that may be handed to another thread. The caller begins and ends transactions explicitly."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        # FULL syncs the log at every commit. NORMAL loses acknowledged messages when the power fails.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA journal_size_limit = 67108864")
    except Exception:
        connection.close()
        raise
    return connection


def check_log_has_database(path: Path) -> None:
    """Raise StoreCorrupt if there is a log without its database, which SQLite would delete."""
    if _size(path.with_name(f"{path.name}-wal")) and not _size(path):
        raise StoreCorrupt(path, "a database beside its write-ahead log", "none")


def check_library() -> None:
    """Raise StoreUnavailable if the SQLite of this Python is too old."""
    if unfit := unfit_sqlite():
        raise StoreUnavailable("SQLite", EXPECTED_SQLITE, unfit)


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreTooNew, StoreCorrupt or StoreUnavailable unless this version of the server can read the database."""
    application, version = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    if application != _APPLICATION:
        raise StoreCorrupt(path, "a Roomwire store", "the database of another application")
    if version == INTERRUPTED:
        raise repair_was_killed(path)
    if version > FORMAT:
        raise StoreTooNew(path, f"format {FORMAT} or older", f"format {version} of a newer version")
    if version != FORMAT:
        found = f"format {version}, from before any release; move it away, and a new store is made"
        raise StoreCorrupt(path, f"format {FORMAT}", found)


def repair_was_killed(path: Path) -> StoreUnavailable:
    """What is wrong with a database that is INTERRUPTED."""
    found = "one whose repair was killed; copy the files of the newest damaged-... there over it, and repair again"
    return StoreUnavailable(path, "a whole store", found)


def mark_interrupted(path: Path) -> None:
    """Make the database INTERRUPTED, whatever it holds. Nobody may have it open."""
    with path.open("r+b") as file:
        file.seek(_FORMAT_AT)
        file.write(INTERRUPTED.to_bytes(4, "big", signed=True))
        file.flush()
        os.fsync(file.fileno())


def is_interrupted(path: Path) -> bool:
    """Whether `mark_interrupted` was the last that happened to the database."""
    with path.open("rb") as file:
        file.seek(_FORMAT_AT)
        return file.read(4) == INTERRUPTED.to_bytes(4, "big", signed=True)


def renew_incarnation(directory: str | os.PathLike[str], random_bytes: Callable[[int], bytes] = os.urandom) -> None:
    """Give the store in `directory` a new incarnation, and so every room a new epoch.

    Do this after it was restored from a backup: clients then know that the messages they saw last may be missing, and
    that other messages may get their sequence numbers. Raises StoreError.
    """
    path = Path(directory)
    if not (path / DATABASE).exists():
        raise StoreUnavailable(path, "a store", "none")
    files = DataDirectory(path, random_bytes)
    try:
        files.write_meta(Meta(random_bytes(INCARNATION_SIZE), files.max_body))
    finally:
        files.close()


def is_busy(error: Exception) -> bool:
    """Whether another program keeps a transaction from beginning: nothing was read or written."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.OperationalError) and code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


def as_store_error(error: Exception, path: Path) -> Exception:
    """The StoreError for an operator to read; `error` itself if it does not concern storage."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF  # the other bits are details
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreLocked(path, "to be the only user", f"another one ({error})")
        if code in _STORAGE_ERRORS:
            return StoreUnavailable(path, "storage that can be read and written", _with_help(str(error), path))
        return StoreCorrupt(path, "a sound Roomwire store", str(error))
    if isinstance(error, UnicodeDecodeError):
        return StoreCorrupt(path, "names in UTF-8", "octets that are not")
    if isinstance(error, OSError):
        place = Path(os.fsdecode(error.filename)) if error.filename else path
        return StoreUnavailable(place, "storage that can be read and written", _with_help(_reason(error), place))
    return error


def _with_help(reason: str, path: Path) -> str:
    closed = why_closed(path)
    return f"{reason}: {closed}" if closed else reason


def _lock(directory: Path) -> int:
    """Make and lock the directory; the lock lasts as long as the descriptor, and ends if the process is killed."""
    descriptor, holder = _try_lock(directory)
    if holder:
        raise StoreLocked(directory, "to be the only user", f"that process {holder} uses it")
    return descriptor


def _try_lock(directory: Path) -> tuple[int, str]:
    """A descriptor that holds the lock, or -1 and who holds it."""
    lock = directory / "lock"
    try:
        make_directory(directory)
        descriptor = _locked(directory)
        if descriptor == -1:
            return -1, _holder(directory)
        try:
            make_private(lock)
            with lock.open("wb") as file:
                file.write(f"{os.getpid()}\n".encode())
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        found = _with_help(_reason(error), lock)
        raise StoreUnavailable(directory, "a directory that can be read and written", found) from error
    return descriptor, ""


def _locked(directory: Path) -> int:
    """A descriptor of the directory that holds its lock; -1 if another process holds it. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return -1
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _holder(directory: Path) -> str:
    """The number of the process that has the store open."""
    try:
        return (directory / "lock").read_text("ascii").strip() or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"


@contextmanager
def lock_if_free(directory: Path) -> Iterator[str]:
    """Keep servers from opening the store meanwhile. Yields the number of the process that has it open already, or "".

    This takes no more than the right to read the directory.
    """
    try:
        descriptor = _locked(directory)
    except OSError as error:
        raise StoreUnavailable(directory, "a directory that can be read", _reason(error)) from error
    try:
        yield _holder(directory) if descriptor == -1 else ""
    finally:
        if descriptor != -1:
            os.close(descriptor)


def _identity(path: Path) -> tuple[int, int]:
    """What distinguishes a file from another of the same name; zeros if there is none, or it cannot be told."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return 0, 0
    return found.st_dev, found.st_ino


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
