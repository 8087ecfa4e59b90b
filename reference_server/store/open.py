"""Opens the store that a server's settings ask for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reference_server.config import Config, data_directory
from reference_server.store.base import Retention, Store, StoreCorrupt
from reference_server.store.memory import MemoryStore
from reference_server.store.sqlite import SqliteStore


def retention(config: Config) -> Retention:
    """How much of each room's log is kept."""
    return Retention(config.retention_messages, config.retention_octets, config.retention_ms, bool(config.dedupe_ms))


def open_store(config: Config, post: Callable[..., None], failed: Callable[[Exception], None]) -> Store:
    """Open the store. Raises StoreError and ConfigError.

    `post` runs a callback on the server's thread, `failed` is told of the error if the store fails later.
    """
    if config.memory:
        return MemoryStore(retention(config))
    directory = data_directory(config)
    try:
        return SqliteStore(directory, retention(config), post, failed)
    except StoreCorrupt as error:
        raise advised(error, directory) from error


def advised(error: Exception, directory: Path) -> Exception:
    """The error, with what to do about it if the store in this directory is damaged."""
    if not isinstance(error, StoreCorrupt):
        return error
    found = f"{error.found}; roomwire-server verify {directory} says more, and --repair keeps what is sound"
    return StoreCorrupt(error.path, error.expected, found)
