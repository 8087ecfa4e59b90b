"""Follows the file of accounts while a server runs, on a thread: the event loop never waits for what others lock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Thread

from reference_server.accounts import Accounts, AccountsError, AccountsFile, AccountsLocked
from reference_server.core.hub import Hub

log = logging.getLogger("roomwire.server")

ACCOUNTS_SECONDS = 1.0
"""How often the file is checked for changes."""

LOCKED_SECONDS = 2.0
"""How long the file may be locked before the log says so."""

AGAIN = 60
"""After how many checks the same trouble is logged again."""


class AccountsWatch:
    """Gives a hub the accounts of a file, at the start and after each change.

    A file that vanished or cannot be read changes nothing, except for a server that had no accounts: from then on
    its guests get a ~ too, since the file may have an account of their name. `post` runs a callback on the hub's
    thread. If `named`, the file must exist.
    """

    def __init__(self, path: Path, hub: Hub, post: Callable[[Callable[[], None]], None], *, named: bool) -> None:
        self._file = AccountsFile(path, busy_seconds=LOCKED_SECONDS)
        self._hub = hub
        self._post = post
        self._named = named
        self._ended = Event()
        self._version: tuple[int, bytes] | None = None  # that is in use
        self._seen = False  # the file was there
        self._trouble = ""
        self._checks = 0  # since the trouble was logged

    def start(self) -> None:
        """Read the file, then follow it. Raises AccountsError."""
        self._hub.use_accounts(self.first())
        Thread(target=self._follow, name="accounts", daemon=True).start()

    def first(self) -> Accounts | None:
        """The accounts to start with. Raises AccountsError."""
        self._version, accounts = self._file.version(), self._file.read()
        self._seen = accounts is not None
        if self._named and not self._seen:
            help = f"make it with: roomwire-server user add NAME --accounts {self._file.path}"
            raise AccountsError(f"{self._file.path}: expected the file of accounts, found none; {help}")
        return accounts

    def stop(self) -> None:
        """End the thread, soon."""
        self._ended.set()

    # --- on its own thread

    def _follow(self) -> None:
        while not self._ended.wait(ACCOUNTS_SECONDS):
            self.check()

    def check(self) -> None:
        """Look at the file, and tell the hub if it changed or is in trouble."""
        try:
            version = self._file.version()
            if version is None:
                if self._seen:
                    raise AccountsError(f"{self._file.path}: expected the file of accounts that was there, found none")
                return
            self._seen = True
            if version == self._version and not self._trouble:
                return
            accounts = self._file.read()
        except AccountsError as error:
            self._in_trouble(error)
            return
        self._version, self._trouble = version, ""
        if accounts is not None:
            self._post(partial(self._use, accounts))

    def _in_trouble(self, error: AccountsError) -> None:
        self._checks += 1
        if str(error) != self._trouble or self._checks >= AGAIN:
            self._trouble, self._checks = str(error), 0
            self._post(partial(self._keep, error))

    # --- on the hub's thread

    def _use(self, accounts: Accounts) -> None:
        log.info("accounts read", extra={"accounts": len(accounts.all())})
        self._hub.use_accounts(accounts)

    def _keep(self, error: AccountsError) -> None:
        self._hub.keep_accounts()
        level = logging.WARNING if isinstance(error, AccountsLocked) else logging.ERROR
        log.log(level, "the accounts cannot be read, those that were there stay", extra={"error": str(error)})
