"""Why fuzzers do not reach rows of SPEC.md's tables: `data/fuzz_reach.toml`."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache

from conformance.files import DATA

Reasons = Mapping[str, Mapping[str, str]]
_FILE = DATA / "fuzz_reach.toml"


@cache
def load() -> Mapping[str, Reasons]:
    """Returns the reasons by kind, in the tables "server", "membership", "client" and "codes"."""
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def kinds(*, launched: bool, accounts: bool) -> tuple[str, ...]:
    """Returns the kinds of reasons of a run against a server, the first that has a row first."""
    return (*(["exec"] if launched else []), *(["accounts"] if accounts else []), "live")


def why(kinds: Sequence[str], table: str, *row: str) -> str:
    """Returns why a run may not have reached a row of a table. `row` is a state and an event, or a code.

    `kinds` are asked in this order, after "never". A reason for the row counts before one for its whole state.
    """
    for name in (", ".join(row), row[0]):
        for kind in ("never", *kinds):
            if found := load()[kind].get(table, {}).get(name):
                return found
    return "by chance: a longer run"
