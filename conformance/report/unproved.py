"""What the kill matrix does not prove, each with a reason. It stands in unproved.toml.

`cases` are those that fail on no broken peer, `requirements` those that have a case or a test, and no broken peer that
a case tells from the whole one. A test holds the list against the matrix: nothing is missing, and nothing is stale.
"""

import tomllib
from functools import cache
from typing import NamedTuple

from conformance.files import DATA

_SHORTEST = 20


class Unproved(NamedTuple):
    """Reasons by id."""

    cases: dict[str, str]
    requirements: dict[str, str]


@cache
def load() -> Unproved:
    """The list. Raises ValueError for an entry without a reason."""
    tables = tomllib.loads((DATA / "unproved.toml").read_text(encoding="utf-8"))
    if tables.keys() != {"cases", "requirements"}:
        raise ValueError("unproved.toml: expected the tables cases and requirements, and no more")
    for name, reason in (item for table in tables.values() for item in table.items()):
        if not isinstance(reason, str) or len(reason) < _SHORTEST:
            raise ValueError(f"unproved.toml: {name} needs a reason")
    return Unproved(**tables)
