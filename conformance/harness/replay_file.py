"""Replay files, of cases and of fuzzers' scripts: JSON lines that say what failed, and how to bring it about again.

The first line is the header:

    {"roomwire_replay": 1, "case": ID, "requirement": ID, "expected": TEXT, "got": TEXT, "seed": N, ...}

`server/recording.py` describes the other lines of a case, and `fuzz/script_file.py` those of a script, whose header has
"fuzz" too.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.harness.exit_status import UsageError

FORMAT = 1


class ReplayError(UsageError):
    """A replay file cannot be read or run, or is not one."""


@dataclass(frozen=True)
class ReplayFile:
    """The header and the other lines of a file."""

    path: Path
    header: dict[str, Any]
    lines: list[dict[str, Any]]

    @property
    def is_script(self) -> bool:
        """Whether it holds a script of a fuzzer, and not the steps of a case."""
        return "fuzz" in self.header


def read(path: Path) -> ReplayFile:
    """Reads a file. Raises ReplayError."""
    try:
        header, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if header["roomwire_replay"] != FORMAT or not all(isinstance(line, dict) for line in lines):
            raise ReplayError(f"{path}: not a replay file of format {FORMAT}")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise error if isinstance(error, ReplayError) else ReplayError(f"{path}: {error!r}") from None
    return ReplayFile(path, header, lines)


def write(path: Path, header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes a file, and its directory if that is missing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = ({"roomwire_replay": FORMAT, **header}, *lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in whole), encoding="ascii")
