"""The account of roomwire-chat. Its password comes from a file, the environment or the user, never from an option."""

import getpass
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from reference_client.chat.render import harmless


class CredentialsError(Exception):
    """The password is missing or not usable. `str()` is one line."""


class Account(NamedTuple):
    """The account to log in to."""

    name: str
    password: str


def credentials(account: str | None, name: str | None, file: Path | None, environ: Mapping[str, str]) -> Account | None:
    """The account to log in to, or None for an anonymous session. Raises CredentialsError."""
    account = account or (None if name else environ.get("ROOMWIRE_ACCOUNT"))
    if not account:
        if file:
            raise CredentialsError("--password-file needs --account NAME, found none")
        return None
    return Account(account, _usable(_password(account, file, environ)))


def _password(account: str, file: Path | None, environ: Mapping[str, str]) -> str:
    if file:
        try:
            return file.read_text(encoding="utf-8-sig", errors="surrogateescape").partition("\n")[0].removesuffix("\r")
        except OSError as error:
            raise CredentialsError(f"{harmless(str(file))}: cannot be read: {(error.strerror or '').lower()}") from None
    if "ROOMWIRE_PASSWORD" in environ:
        return environ["ROOMWIRE_PASSWORD"]
    try:
        # The terminal itself, since the standard input may hold messages.
        with open("/dev/tty", "rb", buffering=0) as terminal:
            usable = os.isatty(terminal.fileno())
    except OSError:
        usable = sys.stdin.isatty()
    if not usable:
        expected = "ROOMWIRE_PASSWORD, --password-file or a terminal"
        raise CredentialsError(f"the password of {harmless(account)}: expected {expected}, found none")
    try:
        return getpass.getpass(f"password for {harmless(account)}: ")
    except EOFError:
        raise CredentialsError("no password was given") from None


def _usable(password: str) -> str:
    try:
        password.encode()
    except UnicodeEncodeError:
        raise CredentialsError("the password: expected UTF-8, found other octets") from None
    return password
