"""The requirements that nothing checks, each with a kind and a reason. They stand in uncovered.toml.

A test holds the list against SPEC.md, the cases and the tests: whoever adds a case strikes its requirement
off, and whoever writes a requirement either has it checked or says here why not.
"""

import tomllib
from functools import cache
from typing import NamedTuple

from conformance.files import DATA

KINDS = {
    "untestable": "no peer could tell whether it is kept, or only by luck",
    "client role, later": "binds clients, and is judged when the suite can drive one",
    "extension, later": "about an extension, or an optional part, that the reference programs do not have yet",
}


class Uncovered(NamedTuple):
    """Why a requirement is not checked; `kind` is a key of KINDS."""

    kind: str
    reason: str


@cache
def load() -> dict[str, Uncovered]:
    """The list by requirement. Raises ValueError for an entry without a known kind and a reason."""
    entries = tomllib.loads((DATA / "uncovered.toml").read_text(encoding="utf-8"))
    for name, entry in entries.items():
        if entry.keys() != {"kind", "reason"} or entry["kind"] not in KINDS or len(entry["reason"]) < 20:
            raise ValueError(f"uncovered.toml: {name} needs a kind of {list(KINDS)} and a reason, and no more")
    return {name: Uncovered(entry["kind"], entry["reason"]) for name, entry in entries.items()}
