"""Which cases failed in the last runs, for --last-failed.

The ids are kept in $XDG_CACHE_HOME (by default ~/.cache), one file for each role, target and working directory.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from conformance.harness import input_file
from conformance.harness.verdicts import ACCEPTED, Result


def read(role: str, target: str) -> frozenset[str]:
    """The ids of the cases that failed when they last ran; empty if none did or nothing is known."""
    try:
        found = input_file.from_json(input_file.text(_path(role, target)))
    except (OSError, ValueError, RuntimeError):
        return frozenset()
    return frozenset(item for item in found if isinstance(item, str)) if isinstance(found, list) else frozenset()


def note(role: str, target: str, results: Iterable[Result]) -> None:
    """Keeps the results of a run. Cases that did not run keep theirs. A cache that cannot be written is left out."""
    failed = set(read(role, target))
    for result in results:
        if result.verdict in ACCEPTED:
            failed.discard(result.id)
        else:
            failed.add(result.id)
    with contextlib.suppress(OSError, RuntimeError):
        path = _path(role, target)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(sorted(failed)), encoding="utf-8")


def _path(role: str, target: str) -> Path:
    """The file. Raises RuntimeError if there is no home, OSError if there is no working directory."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = Path(base) if base else Path.home() / ".cache"
    key = "\0".join((role, target, str(Path.cwd())))
    return folder / "roomwire-check" / f"{sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"
