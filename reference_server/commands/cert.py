"""roomwire-server cert: makes a certificate to try TLS with, and the authority that clients have to trust for it."""

from __future__ import annotations

import argparse
import datetime
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import trustme

from reference_server.files import give_away

EXAMPLES = """\
Makes an authority that signs one certificate and is not kept, and writes to DIR

  ca.pem    for clients, which have to trust it: roomwire-chat --ca ca.pem
  cert.pem  for the server: --tls-cert cert.pem
  key.pem   for the server alone (mode 0600): --tls-key key.pem

This is for trying things out, and where all hosts are yours. If strangers are to connect, get a certificate from an
authority that they trust already.

examples:
  roomwire-server cert                                      for localhost, into this directory
  roomwire-server cert chat.example 192.0.2.7 --output tls  for these names and addresses, into tls
  roomwire-server --tls-cert cert.pem --tls-key key.pem     then use it
  kill -HUP PID                                             after new files were made: no connection is lost

exit status: 0 made, 1 not made, 2 wrong usage
"""

FILES = ("ca.pem", "cert.pem", "key.pem")
_LOCAL = ("localhost", "127.0.0.1", "::1")


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command `cert` to the subparsers of roomwire-server."""
    parser = commands.add_parser(
        "cert", help="make a certificate to try TLS with", description="Makes a certificate to try TLS with.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("names", nargs="*", metavar="NAME", help="host or address (localhost, 127.0.0.1, ::1)")
    parser.add_argument("--output", type=Path, default=Path("."), metavar="DIR", help="default: here")
    parser.add_argument("--days", type=int, default=90, metavar="N", help="how long it is valid (90)")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the files; the exit status."""
    names = arguments.names or _LOCAL
    directory: Path = arguments.output
    there = [name for name in FILES if (directory / name).exists()]
    if there and not arguments.force:
        return _fail(f"{directory / there[0]} exists already: nothing was made (--force replaces it)")
    if not 1 <= arguments.days <= 3650:
        return _fail(f"--days: expected 1 to 3650, found {arguments.days}", 2)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=arguments.days)
    authority = trustme.CA(organization_name="Roomwire, for trying out")
    try:
        certificate = authority.issue_cert(*names, not_after=end)
    except ValueError as error:
        return _fail(f"expected names of hosts and addresses, found {error}", 2)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        key, ca = certificate.private_key_pem.bytes(), authority.cert_pem.bytes()
        _write(directory, {"key.pem": (key, 0o600), "cert.pem": (chain, 0o644), "ca.pem": (ca, 0o644)})
    except OSError as error:
        return _fail(f"{error.filename or directory}: {(error.strerror or str(error)).lower()}")
    print(f"made {', '.join(str(directory / name) for name in FILES)}")
    print(f"for {', '.join(names)}, valid until {end:%Y-%m-%d}")
    return 0


def _write(directory: Path, files: Mapping[str, tuple[bytes, int]]) -> None:
    """Write all files, or none: a server that reads one meanwhile finds the old or the new one, and the whole of it."""
    begun: dict[Path, Path] = {}
    try:
        for name, (octets, mode) in files.items():
            new = directory / f"{name}.new"
            new.unlink(missing_ok=True)
            begun[new] = directory / name
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
            with os.fdopen(descriptor, "wb") as file:
                give_away(new)
                file.write(octets)
                file.flush()
                os.fsync(descriptor)
        for new, path in begun.items():
            os.replace(new, path)
    finally:
        for new in begun:
            new.unlink(missing_ok=True)


def _fail(what: str, status: int = 1) -> int:
    print(f"roomwire-server: {what}", file=sys.stderr)
    return status
