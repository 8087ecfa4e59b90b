"""Copies a store, also while a server uses it: all of it as it was at one moment, or nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from reference_server.accounts import ACCOUNTS
from reference_server.store.base import StoreCorrupt, StoreUnavailable
from reference_server.store.sqlite_files import (
    DATABASE,
    as_store_error,
    check_format,
    connect,
    lock_if_free,
    sync_directory,
)
from reference_server.store.sqlite_tables import Meta, read_meta, write_meta
from reference_server.store.sqlite_wal import check_wal
from reference_server.store.verify import Report, verify

PAGES_AT_ONCE = 1_024


def backup(directory: Path, target: Path, progress: Callable[[str], None] = lambda doing: None) -> Report:
    """Copy the store in `directory` to the new directory `target`, and check the copy.

    The copy has no incarnation: a server that is started with it uses new epochs (RW-MODEL-4), each time that it is
    copied back.

    Raises StoreUnavailable if the store cannot be read or the copy cannot be written, StoreCorrupt if the store is
    damaged, and StoreTooNew. Then `target` is not made.
    """
    source = directory / DATABASE
    if not source.is_file():
        raise StoreUnavailable(directory, f"a store, with a file {DATABASE}", "none")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreUnavailable(target, "a directory that does not exist or is empty", "another")
    try:
        with _directory_beside(target) as begun:
            with lock_if_free(directory) as holder:
                if not holder:
                    check_wal(source.with_name(f"{DATABASE}-wal"))
                _copy(source, begun / DATABASE, progress)
                if (directory / ACCOUNTS).is_file():
                    _copy_accounts(directory / ACCOUNTS, begun / ACCOUNTS)
            report = verify(begun, progress)
            if report.wrong:
                raise StoreCorrupt(source, "a sound store", report.wrong[0])
            sync_directory(begun)
            begun.rename(target)  # also replaces an empty directory
            sync_directory(target.absolute().parent)
    except Exception as error:
        raise as_store_error(error, source) from error
    return report


def _copy_accounts(source: Path, target: Path) -> None:
    target.touch(mode=0o600)
    with closing(connect(source, "ro")) as reader, closing(sqlite3.connect(target)) as writer:
        reader.backup(writer)
    with target.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def _directory_beside(target: Path) -> Iterator[Path]:
    """A new directory, which is deleted at the end unless it was renamed."""
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    begun = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.absolute().parent))
    try:
        yield begun
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _copy(source: Path, target: Path, progress: Callable[[str], None]) -> None:
    def copied(_status: int, remaining: int, total: int) -> None:
        progress(f"copied {total - remaining} of {total} pages")

    with closing(connect(source, "ro")) as reader, closing(connect(target)) as writer:
        check_format(reader, source)
        reader.execute("BEGIN")
        meta = read_meta(reader, source)  # the first read: from here on the transaction sees one state of the store
        reader.backup(writer, pages=PAGES_AT_ONCE, progress=copied)
        writer.execute("BEGIN IMMEDIATE")
        write_meta(writer, Meta(b"", meta.max_body))
        writer.execute("COMMIT")
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with target.open("rb") as file:
        os.fsync(file.fileno())
