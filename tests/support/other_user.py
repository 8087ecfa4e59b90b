"""Another user of this machine, whom only root can play: where the tests do not run as root, these are skipped."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.places import ROOT
from tests.support.raw_client import PATIENCE

OTHER = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")

# The other user may not be able to read the interpreter, so all is imported before.
_COMMANDS = """
import contextlib, encodings.idna, io, json, os, sys
from reference_server.cli import main
uid = int(sys.argv[1])
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
for arguments in json.loads(sys.argv[2]):
    output, errors = io.StringIO(), io.StringIO()
    sys.stdin = io.TextIOWrapper(io.BytesIO(b"correct horse"))
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, output.getvalue(), errors.getvalue()]))
"""


def as_other(*commands: Sequence[object]) -> list[tuple[int, str, str]]:
    """What `roomwire-server` does with each of these arguments as OTHER: exit status, standard output and error."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ROOMWIRE_")}
    arguments = json.dumps([[str(each) for each in command] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", _COMMANDS, str(OTHER), arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environ | {"XDG_DATA_HOME": os.devnull},
        timeout=3 * PATIENCE,
        check=True,
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that other users can reach: pytest's own are closed to them."""
    directory = Path(tempfile.mkdtemp(prefix="roomwire-shared-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)
