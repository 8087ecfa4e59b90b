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

from conformance.harness import input_file
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
        lines = [input_file.from_json(line) for line in input_file.text(path).splitlines() if line.strip()]
    except ValueError as error:
        raise ReplayError(f"{path}: not a replay file: {error}") from None
    if not lines or not all(isinstance(line, dict) for line in lines) or "roomwire_replay" not in lines[0]:
        raise ReplayError(
            f'{path}: not a replay file: expected JSON objects, one a line, the first with "roomwire_replay"'
        )
    if lines[0]["roomwire_replay"] != FORMAT:
        found = lines[0]["roomwire_replay"]
        raise ReplayError(f"{path}: expected a replay file of format {FORMAT}, found format {found!r}")
    return ReplayFile(path, lines[0], lines[1:])


def write(path: Path, header: Mapping[str, Any], lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes a file, and its directory if that is missing. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = ({"roomwire_replay": FORMAT, **header}, *lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in whole), encoding="ascii")
