"""What a run has seen: figures for people, and the rows of SPEC.md's tables that it visited."""

from collections import Counter
from dataclasses import dataclass, field

from protocol.registry import Code
from protocol.state import CLIENT, MEMBERSHIP, SERVER, Transition

TABLES: dict[str, tuple[Transition, ...]] = {"server": SERVER, "client": CLIENT, "membership": MEMBERSHIP}
"""The tables of SPEC.md, sections 8.1, 8.2 and 9, by name."""


@dataclass
class Stats:
    """Counts of one run. `visited` has the (table, state, event) of transitions that the target was seen to make.

    `octets` came from the target, `told` were sent to it. `acknowledged` are publishes that it acknowledged.
    """

    scripts: int = 0
    steps: int = 0
    sent: int = 0
    received: int = 0
    connections: int = 0
    octets: int = 0
    told: int = 0
    acknowledged: int = 0
    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    visited: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    tolerated: Counter[str] = field(default_factory=Counter)

    def visit(self, table: str, state: str, event: str) -> None:
        """Counts a transition."""
        self.visited[table, state, event] += 1

    @property
    def frames(self) -> int:
        """Frames in both directions."""
        return self.sent + self.received

    def states(self, table: str) -> set[str]:
        """The states of a table that a transition left or entered."""
        rows = [row for row in TABLES[table] if (table, row.state, row.event) in self.visited]
        return {row.state for row in rows if row.state != "any"} | {row.next for row in rows}

    def unvisited(self, table: str) -> list[Transition]:
        """The rows of a table that were not seen."""
        return [row for row in TABLES[table] if (table, row.state, row.event) not in self.visited]

    def unseen_codes(self) -> list[Code]:
        """The codes of SPEC.md, section 16, that never came."""
        seen = {code for _, code in self.codes}
        return [code for code in Code if code not in seen]
