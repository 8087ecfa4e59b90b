"""What the suite does not show, each entry with its reason, from data/gaps.toml.

Tests hold the list against SPEC.md, the cases, the tests and the kill matrix: nothing is missing from it, and nothing
in it is stale. Remove an entry when a case or a mutant makes it untrue.
"""

import tomllib
from functools import cache
from typing import NamedTuple

from conformance.files import DATA

_SHORTEST = 20


class Gaps(NamedTuple):
    """Reasons by id.

    - `untestable`: requirements that nothing checks, because no peer could tell whether they are kept
    - `unproved`: requirements with a case or a test, but no mutant that a case tells from a correct peer
    - `cases`: cases that kill no mutant
    """

    untestable: dict[str, str]
    unproved: dict[str, str]
    cases: dict[str, str]

    @property
    def requirements(self) -> dict[str, str]:
        """The reasons of all requirements."""
        return self.untestable | self.unproved


@cache
def load() -> Gaps:
    """Reads the list. Raises ValueError as `parse` does."""
    return parse((DATA / "gaps.toml").read_text(encoding="utf-8"))


def parse(text: str) -> Gaps:
    """The list in a text of TOML.

    Raises ValueError for other tables, a requirement in two of them, or an entry without a reason.
    """
    tables = tomllib.loads(text)
    if tables.keys() != set(Gaps._fields):
        raise ValueError(f"gaps.toml: expected the tables {', '.join(Gaps._fields)}, found {', '.join(tables)}")
    for name, reason in (item for table in tables.values() for item in table.items()):
        if not isinstance(reason, str) or len(reason) < _SHORTEST:
            raise ValueError(f"gaps.toml: {name} needs a reason of at least {_SHORTEST} characters")
    gaps = Gaps(**tables)
    for name in gaps.untestable.keys() & gaps.unproved.keys():
        raise ValueError(f"gaps.toml: {name} is untestable and unproved")
    return gaps
