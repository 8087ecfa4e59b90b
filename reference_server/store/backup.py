"""Copies a store, also while a server uses it: all of it as it was at one moment, or nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from reference_server.accounts import ACCOUNTS, AccountsFile
from reference_server.files import give_away, make_private, sync_directory
from reference_server.store.base import StoreCorrupt, StoreUnavailable
from reference_server.store.snapshot import never, snapshot
from reference_server.store.sqlite_files import DATABASE, as_store_error, check_format, connect
from reference_server.store.sqlite_tables import Meta, read_meta, write_meta
from reference_server.store.verify import Report, verify

PAGES_AT_ONCE = 1_024


def backup(
    directory: Path,
    target: Path,
    progress: Callable[[str], None] = lambda doing: None,
    stopped: Callable[[], bool] = never,
) -> Report:
    """Copy the store in `directory` to the new directory `target`, and check the copy.

    The copy has no incarnation: a server that is started with it uses new epochs (RW-MODEL-4), each time that it is
    copied back.

    Raises StoreUnavailable if the store cannot be read or the copy cannot be written, or once `stopped` is true,
    StoreCorrupt if the store is damaged, StoreTooNew, and AccountsError. Then `target` is not made.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreUnavailable(target, "a directory that does not exist or is empty", "another")
    source = directory / DATABASE
    try:
        with _directory_beside(target) as begun:
            with snapshot(directory, stopped, begun) as reading:
                if reading.log is not None:
                    raise reading.log
                _copy(reading.connection, source, begun / DATABASE, progress, stopped)
                note = _copy_accounts(directory / ACCOUNTS, begun)
            report = verify(begun, progress, stopped)
            if report.wrong:
                raise StoreCorrupt(source, "a sound store", report.wrong[0])
            report.notes = note
            sync_directory(begun)
            begun.rename(target)  # also replaces an empty directory
            sync_directory(target.absolute().parent)
    except (sqlite3.Error, OSError) as error:
        full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
        raise as_store_error(error, target if full else source) from error
    return report


def _copy_accounts(source: Path, begun: Path) -> list[str]:
    """Copy the accounts if there are any. Returns a note if the file is empty: it holds none. Raises AccountsError."""
    if source.is_file() and not source.stat().st_size:
        return [f"{source} is empty: the copy has no accounts"]
    AccountsFile(source).copy(begun / ACCOUNTS)
    return []


@contextmanager
def _directory_beside(target: Path) -> Iterator[Path]:
    """A new directory, which is deleted at the end unless it was renamed."""
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    begun = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.absolute().parent))
    try:
        give_away(begun)
        yield begun
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _copy(
    reader: sqlite3.Connection,
    source: Path,
    target: Path,
    progress: Callable[[str], None],
    stopped: Callable[[], bool],
) -> None:
    def copied(_status: int, remaining: int, total: int) -> None:
        progress(f"copied {total - remaining} of {total} pages")
        if stopped():
            raise StoreUnavailable(source, "to be copied to the end", "that the command was ended")

    make_private(target)
    with closing(connect(target)) as writer:
        check_format(reader, source)
        meta = read_meta(reader, source)
        reader.backup(writer, pages=PAGES_AT_ONCE, progress=copied)
        writer.execute("BEGIN IMMEDIATE")
        write_meta(writer, Meta(b"", meta.max_body))
        writer.execute("COMMIT")
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with target.open("rb") as file:
        os.fsync(file.fileno())
