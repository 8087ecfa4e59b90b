"""Files of the server: for its user alone, whatever their directory allows, and made whole or not at all; and the
library that reads them.

What root makes gets the owner of its directory: a server that runs as that user has to open it.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import shlex
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

OLDEST_SQLITE = (3, 34, 0)
"""That of Debian 11 and RHEL 9. The tests passed with it."""

EXPECTED_SQLITE = f"version {'.'.join(map(str, OLDEST_SQLITE[:2]))} or newer, with functions for JSON"

PRIVATE = 0o600

_OTHERS = stat.S_IRWXO
"""A file that its owner made readable for a group stays so: backups can be made by a user of that group."""


def make_directory(path: Path) -> None:
    """Make a directory that only its owner may enter, and those above it. Raises OSError."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    give_away(path)


def open_private(path: Path) -> int:
    """A descriptor to read and write a file, which is made if it is missing. Raises OSError."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, PRIVATE)
    except FileExistsError:
        return os.open(path, flags)
    give_away(path)
    return descriptor


def make_private(path: Path) -> None:
    """Make a file if it is missing; if others may read or write it, let its owner alone do so. Raises OSError."""
    os.close(open_private(path))
    close_to_others(path)


def close_to_others(path: Path) -> None:
    """Let only the owner read and write a file that others may read or write. It may be missing. Raises OSError."""
    with suppress(FileNotFoundError):
        if stat.S_IMODE(path.stat().st_mode) & _OTHERS:
            path.chmod(PRIVATE)


def give_away(path: Path) -> None:
    """Let root's file belong to the owner of its directory. Raises OSError."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A private file, which is named `path` at the end of the block; if the block raises, nothing stays.

    Raises FileExistsError if there is a file of this name by then, and other OSErrors. What a killed process leaves is
    for `remove_unfinished`.
    """
    with _locked_directory(path) as directory:
        begun = directory / path.name
        os.close(open_private(begun))
        yield begun
        with begun.open("rb") as file:
            os.fsync(file.fileno())
        os.link(begun, path)
        sync_directory(path.parent)


@contextmanager
def _locked_directory(path: Path) -> Iterator[Path]:
    """A directory for the making of `path`, which is removed at the end, and locked until then."""
    directory = Path(tempfile.mkdtemp(prefix=_unfinished(path), dir=path.parent))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        give_away(directory)
        with suppress(OSError):  # a file system without locks, where `remove_unfinished` removes nothing
            stack.enter_context(_lock(directory))
        yield directory


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes left of `new_file(path)`: what is not empty, for then it would be locked."""
    with suppress(OSError):
        for each in path.parent.iterdir():
            with suppress(OSError):
                if each.name.startswith(_unfinished(path)) and any(each.iterdir()):
                    with _lock(each):
                        shutil.rmtree(each)


def _unfinished(path: Path) -> str:
    return f".{path.name}-unfinished-"


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Lock a directory. Raises OSError, also if another process has locked it."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def user_name(number: int) -> str:
    """The name of a user, or the number if there is none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def why_closed(path: Path) -> str:
    """Why this process may not read and write a file, with the command that helps; "" if it may."""
    if not os.path.exists(path) or os.access(path, os.R_OK | os.W_OK):
        return ""
    owner, above = path.stat().st_uid, path.parent.stat().st_uid
    if owner == os.geteuid() or not os.geteuid():
        return "its mode, or its file system, does not allow it"
    why = f"it belongs to {user_name(owner)}, and this is {user_name(os.geteuid())}"
    if owner == above:
        return why
    return f"{why}; as root: chown --reference={shlex.quote(str(path.parent))} {shlex.quote(str(path))}"


def unfit_sqlite() -> str:
    """What was found instead of EXPECTED_SQLITE, or ""."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        return sqlite3.sqlite_version
    try:
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("SELECT json_group_array(1)")
    except sqlite3.OperationalError as error:
        return f"{sqlite3.sqlite_version}: {error}"
    return ""
