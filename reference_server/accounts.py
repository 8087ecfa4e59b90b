"""Accounts: who may log in, and what is stored of passwords (SPEC.md, section 13).

`AccountsFile` is a SQLite database of its own, beside the rooms: commands change it while a server runs. A server works
with `Accounts`, which the file held when it was last read, and checks the file for changes about once a second. It has
accounts if it has the file, also if there are none in it: then all clients are guests. An empty file is none: a
command makes the file as a whole, so something else emptied it.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import NameInvalid
from protocol.names import key as key_of
from protocol.names import normalise
from protocol.scram import KEY_SIZE, MAX_ITERATIONS, MIN_ITERATIONS, StoredKeys, stored_keys
from reference_server.config import Config, data_directory
from reference_server.files import (
    EXPECTED_SQLITE,
    make_directory,
    new_file,
    remove_unfinished,
    unfit_sqlite,
    user_name,
    why_closed,
)

ITERATIONS = 600_000
"""Iterations of PBKDF2-HMAC-SHA-256, unless the first account of a file is made with another number."""

SHORTEST_PASSWORD = 8
"""Characters."""

ACCOUNTS = "accounts.sqlite3"
"""The file's name, beside the rooms."""

_SECRET_SIZE = 32
_SALT_SIZE = 16
_APPLICATION = 0x52574143  # "RWAC", in the file's header, so that another database is not taken for this one
_FORMAT = 1
_ROOMS = "rooms.sqlite3"
_BUSY_SECONDS = 10.0
_CHANGE_COUNTER = slice(24, 28)  # in the header of a SQLite file: changes with each transaction that writes
_SCHEMA = (
    "CREATE TABLE settings (secret BLOB NOT NULL, iterations INTEGER NOT NULL)",
    "CREATE TABLE accounts (key TEXT PRIMARY KEY, name TEXT NOT NULL, salt BLOB NOT NULL, stored_key BLOB NOT NULL,"
    " server_key BLOB NOT NULL, admin INTEGER NOT NULL, created_ms INTEGER NOT NULL) WITHOUT ROWID",
)


class AccountsError(Exception):
    """The accounts cannot be used, or an operation on them is not possible. `str()` is one line."""


class AccountsLocked(AccountsError):
    """Another program has locked the file."""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who may log in. `name` is the account's own spelling, `key` is what names are compared by."""

    name: str
    key: str
    keys: StoredKeys
    admin: bool = False
    created_ms: int = 0


class Accounts:
    """All accounts, as they were when the file was read."""

    def __init__(self, secret: bytes, iterations: int, accounts: Iterable[Account] = ()) -> None:
        self._secret = secret
        self.iterations = iterations
        self._by_key = {account.key: account for account in accounts}

    @classmethod
    def none(cls, secret: bytes) -> Accounts:
        """Accounts for a server whose file cannot be read: nobody logs in, and all clients are guests."""
        return cls(secret, ITERATIONS)

    def find(self, key: str) -> Account | None:
        """The account whose name has this key."""
        return self._by_key.get(key)

    def all(self) -> list[Account]:
        """All accounts, sorted by key."""
        return [self._by_key[key] for key in sorted(self._by_key)]

    def salt(self, key: str) -> bytes:
        """RW-SCRAM-2: the salt of an account with this key, whether it exists or not."""
        return self._derived(b"salt", key)[:_SALT_SIZE]

    def unknown_keys(self, key: str) -> StoredKeys:
        """The keys that an unknown account is checked against: they look like others, and no password fits."""
        return StoredKeys(
            self.salt(key), self.iterations, self._derived(b"stored key", key), self._derived(b"server key", key)
        )

    def _derived(self, what: bytes, key: str) -> bytes:
        return hmac.digest(self._secret, what + b"\0" + key.encode(), "sha256")

    def account(self, name: str, password: str, *, admin: bool = False, created_ms: int = 0) -> Account:
        """Make an account, without adding it to these. Slow on purpose. Raises AccountsError (RW-SASL-6)."""
        name, key = checked_name(name)
        check_password(password)
        return Account(name, key, stored_keys(password, self.salt(key), self.iterations), admin, created_ms)


def checked_name(name: str) -> tuple[str, str]:
    """The normalised name of an account, and its key. Raises AccountsError."""
    try:
        name = normalise(name)
    except NameInvalid as error:
        raise AccountsError(f"not a name that an account can have: {error}") from None
    key = key_of(name)
    if key.startswith("~"):  # RW-SASL-6
        raise AccountsError(f"not a name that an account can have: names with ~ in front are for guests, found {name}")
    return name, key


def check_password(password: str) -> None:
    """Raises AccountsError for a password that is too short or not UTF-8."""
    try:
        password.encode()
    except UnicodeEncodeError:
        raise AccountsError("the password is not UTF-8") from None
    if len(password) < SHORTEST_PASSWORD:
        found = f"found {len(password)}" if password else "found none"
        raise AccountsError(f"the password: expected at least {SHORTEST_PASSWORD} characters, {found}")


def accounts_path(config: Config) -> Path | None:
    """The file of accounts of a server with these settings; None if it has none. Raises ConfigError."""
    if config.accounts:
        return Path(config.accounts)
    if config.memory:
        return None
    return data_directory(config) / ACCOUNTS


class AccountsFile:
    """The accounts in a file, which need not exist. Each method opens the file, and waits for up to `busy_seconds`
    while another program locks it; then it raises AccountsLocked. `committing` is called before a change is made."""

    def __init__(
        self,
        path: Path,
        random_bytes: Callable[[int], bytes] = os.urandom,
        busy_seconds: float = _BUSY_SECONDS,
        committing: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self._random_bytes = random_bytes
        self._busy_seconds = busy_seconds
        self._committing = committing

    def version(self) -> tuple[int, bytes] | None:
        """A value that differs after each change; None if the file is missing. Raises AccountsError."""
        try:
            with self.path.open("rb") as file:
                header = file.read(_CHANGE_COUNTER.stop)
                number = os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from None
        if not header:
            expected = "accounts (restore a backup of them, or remove the file and make them again)"
            raise AccountsError(f"{self.path}: expected {expected}, found an empty file")
        return number, header[_CHANGE_COUNTER]

    def read(self) -> Accounts | None:
        """The accounts, or None if there is no file. Raises AccountsError."""
        if self.version() is None:
            return None
        with self._open(self.path) as connection:
            return self._read(connection)

    def copy(self, target: Path) -> bool:
        """Copy the accounts to the new file `target`; False if there is no file. Raises AccountsError."""
        if self.version() is None:
            return False
        with self._settled() as path, self._open(path) as connection, new_file(target) as begun:
            try:
                with contextlib.closing(sqlite3.connect(begun)) as writer:
                    connection.backup(writer)
            except sqlite3.Error as error:
                raise AccountsError(f"{target}: cannot be written: {error}") from None
        return True

    def check(self) -> tuple[int, list[str]]:
        """The number of accounts, and a line for each fault of the file. Raises AccountsError."""
        if self.version() is None:
            return 0, []
        with self._settled() as path, self._open(path) as connection:
            lines = [line for (line,) in connection.execute("PRAGMA integrity_check(10)") if line != "ok"]
            wrong = [f"{self.path}: {' '.join(str(line).split())}" for line in lines]
            accounts = self._read(connection).all()
        for account in accounts:
            try:
                expected = checked_name(account.name)
            except AccountsError as error:
                wrong.append(f"account {account.key!r}: {error}")
                continue
            if (account.name, account.key) != expected:
                wrong.append(
                    f"account {account.key!r}: expected a name in NFC that has this key, found {account.name!r}"
                )
        return len(accounts), wrong

    def add(
        self, name: str, password: str, *, created_ms: int, admin: bool = False, iterations: int | None = None
    ) -> Account:
        """Make an account, and the file if it is missing. Raises AccountsError if the key has an account already."""
        checked_name(name)
        check_password(password)
        remove_unfinished(self.path)
        if self.version() is None:
            with contextlib.suppress(FileExistsError):  # another command has made it meanwhile
                return self._make(name, password, admin, created_ms, iterations or ITERATIONS)
        with self._open(self.path, write=True) as connection:
            accounts = self._read(connection)
            if iterations not in (None, accounts.iterations):
                expected = f"the {accounts.iterations} iterations that all accounts there have"
                raise AccountsError(f"{self.path}: expected {expected}, found {iterations}")
            return self._add(connection, accounts, name, password, admin, created_ms)

    def set_password(self, name: str, password: str) -> Account:
        """Change the password of an account. Raises AccountsError if there is no such account."""
        check_password(password)
        with self._open_existing(name) as connection:
            accounts = self._read(connection)
            account = self._found(accounts, name)
            keys = stored_keys(password, accounts.salt(account.key), accounts.iterations)
            connection.execute(
                "UPDATE accounts SET salt = ?, stored_key = ?, server_key = ? WHERE key = ?",
                (keys.salt, keys.stored_key, keys.server_key, account.key),
            )
        return account

    def remove(self, name: str) -> Account:
        """Remove an account. Raises AccountsError if there is no such account."""
        with self._open_existing(name) as connection:
            account = self._found(self._read(connection), name)
            connection.execute("DELETE FROM accounts WHERE key = ?", (account.key,))
        return account

    def check_user(self) -> None:
        """Raise AccountsError if a file that this process makes would not be for the user whose server reads it."""
        with contextlib.suppress(FileNotFoundError):
            owner = self.path.with_name(_ROOMS).stat().st_uid
            if os.geteuid() not in (0, owner):
                name, found = user_name(owner), user_name(os.geteuid())
                expected = f"{name}, whose rooms are beside it (as root: runuser -u {name} -- roomwire-server user ...)"
                raise AccountsError(f"{self.path}: expected to be made by {expected}, found {found}")

    def _found(self, accounts: Accounts, name: str) -> Account:
        account = accounts.find(checked_name(name)[1])
        if account is None:
            raise AccountsError(f"there is no account {name} in {self.path}")
        return account

    def _make(self, name: str, password: str, admin: bool, created_ms: int, iterations: int) -> Account:
        """Make the file with its first account. Raises FileExistsError if there is one by now, and AccountsError."""
        if not MIN_ITERATIONS <= iterations <= MAX_ITERATIONS:  # RW-SCRAM-3
            raise AccountsError(f"iterations: expected {MIN_ITERATIONS} to {MAX_ITERATIONS}, found {iterations}")
        self.check_user()
        try:
            make_directory(self.path.parent)
            with new_file(self.path) as begun, self._open(begun, write=True, iterations=iterations) as connection:
                return self._add(connection, self._read(connection), name, password, admin, created_ms)
        except FileExistsError:
            raise
        except OSError as error:
            raise self._unusable(error) from None

    def _add(
        self,
        connection: sqlite3.Connection,
        accounts: Accounts,
        name: str,
        password: str,
        admin: bool,
        created_ms: int,
    ) -> Account:
        name, key = checked_name(name)
        found = accounts.find(key)
        if found is not None:
            as_what = "" if found.name == name else f", as {found.name}"
            raise AccountsError(f"there is an account {name} already{as_what}")
        account = accounts.account(name, password, admin=admin, created_ms=created_ms)
        keys = account.keys
        row = (key, name, keys.salt, keys.stored_key, keys.server_key, admin, created_ms)
        connection.execute("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        return account

    # --- the database

    @contextlib.contextmanager
    def _settled(self) -> Iterator[Path]:
        """The file, or a copy of it if a killed process left it half written where SQLite cannot undo that."""
        journal = self.path.with_name(f"{self.path.name}-journal")
        if not journal.exists() or os.access(self.path.parent, os.W_OK):
            yield self.path
            return
        with tempfile.TemporaryDirectory(prefix="roomwire-") as name:
            for file in (self.path, journal):
                shutil.copyfile(file, Path(name) / file.name)
            yield Path(name) / self.path.name

    @contextlib.contextmanager
    def _open_existing(self, name: str) -> Iterator[sqlite3.Connection]:
        if self.version() is None:
            raise AccountsError(f"there is no account {name}, for there is no file {self.path}")
        with self._open(self.path, write=True) as connection:
            yield connection

    @contextlib.contextmanager
    def _open(self, path: Path, *, write: bool = False, iterations: int = 0) -> Iterator[sqlite3.Connection]:
        """A transaction on the file at `path`, which commits at the end. With `iterations` the tables are made."""
        if unfit := unfit_sqlite():
            raise AccountsError(f"SQLite: expected {EXPECTED_SQLITE}, found {unfit}")
        try:
            # Also to read: SQLite may have to undo what a killed process left half written.
            uri = f"{path.absolute().as_uri()}?mode=rw"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=self._busy_seconds)
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        try:
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            if iterations:
                self._create(connection, iterations)
            self._check(connection)
            yield connection
            if write:
                self._committing()
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        finally:
            connection.close()  # undoes what is not committed

    def _create(self, connection: sqlite3.Connection, iterations: int) -> None:
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_FORMAT}")
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO settings VALUES (?, ?)", (self._random_bytes(_SECRET_SIZE), iterations))

    def _check(self, connection: sqlite3.Connection) -> None:
        application, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if (application, version) != (_APPLICATION, _FORMAT):
            found = "the file of another application" if application != _APPLICATION else f"format {version}"
            raise AccountsError(f"{self.path}: expected accounts of format {_FORMAT}, found {found}")

    def _read(self, connection: sqlite3.Connection) -> Accounts:
        try:
            secret, iterations = connection.execute("SELECT secret, iterations FROM settings").fetchone()
            sound = len(secret) == _SECRET_SIZE and MIN_ITERATIONS <= iterations <= MAX_ITERATIONS
        except TypeError:  # no row, or values of other types
            sound = False
        if not sound:
            raise AccountsError(f"{self.path}: expected a secret and a number of iterations, found none")
        rows = connection.execute("SELECT key, name, salt, stored_key, server_key, admin, created_ms FROM accounts")
        return Accounts(secret, iterations, [self._account(iterations, *values) for values in rows])

    def _account(self, iterations: int, *values: object) -> Account:
        match values:
            case (str() as key, str() as name, bytes() as salt, bytes() as stored_key, bytes() as server_key, *rest):
                if salt and len(stored_key) == len(server_key) == KEY_SIZE:
                    admin, created_ms = (int(value) if isinstance(value, int) else 0 for value in rest)
                    keys = StoredKeys(salt, iterations, stored_key, server_key)
                    return Account(name, key, keys, bool(admin), created_ms)
        raise AccountsError(f"{self.path}: the account {values[1]!r} has keys of a wrong length")

    def _unusable(self, error: Exception) -> AccountsError:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return AccountsLocked(f"{self.path}: another program has locked it")
        closed = why_closed(self.path)
        return AccountsError(f"{self.path}: cannot be used: {reason}{f': {closed}' if closed else ''}")
