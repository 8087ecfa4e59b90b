"""Why fuzzers do not reach rows of SPEC.md's tables: `data/fuzz_reach.toml`."""

import tomllib
from collections.abc import Mapping
from functools import cache

from conformance.files import DATA

Reasons = Mapping[str, Mapping[str, str]]
_FILE = DATA / "fuzz_reach.toml"


@cache
def load() -> Mapping[str, Reasons]:
    """Returns the reasons under "never" and "live", in the tables "server", "membership", "client" and "codes"."""
    return tomllib.loads(_FILE.read_text(encoding="utf-8"))


def why(table: str, *row: str) -> str:
    """Returns why a run may not have reached a row of a table. `row` is a state and an event, or a code."""
    for kind in ("never", "live"):
        reasons = load()[kind].get(table, {})
        found = reasons.get(", ".join(row)) or reasons.get(row[0])
        if found:
            return found
    return "by chance: a longer run"
