"""The counts of a family of faults: breaches of invariants, and the first words about them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

INVARIANTS = {
    "lost": "acknowledged messages that are not in the store, or not at their place",
    "seq": "holes in a room's log, or a seq that is used again",
    "order": "members, or a member and the store, that differ about a place; a publisher's changed order",
    "doubled": "messages that are in a log twice",
    "gap": "messages that a member neither got nor was told to miss, or a gap without need",
    "served": "damaged data that the server served, or damage that it did not report",
    "told": "trouble that /healthz or the metrics did not tell in time, or told without need",
    "names": "guests that were let in under a name of an account, or accounts that cannot be read and nobody says so",
    "private": "files that others than the owner of their directory can read",
    "alarm": "damage that a check told of, and that was not there",
    "memory": "the server's memory grew beyond the bound",
    "recovery": "not all clients were served again within 10 s",
    "p99": "others waited more than twice as long (99th percentile)",
}
"""The invariants that may be broken, in the order of the table's columns."""

SHOWN = 5


@dataclass
class Outcome:
    """The outcome of a family of faults. `checked` are its invariants; `broken` counts their breaches."""

    name: str
    checked: tuple[str, ...]
    faults: int = 0
    acknowledged: int = 0
    delivered: int = 0
    repeated: int = 0
    seconds: float = 0.0
    state: str = ""
    """Why the family did not complete, or "": "stopped", "not run: ...", "failed: ..."."""
    broken: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)
    notes: dict[str, float | str] = field(default_factory=dict)

    def breach(self, invariant: str, words: str, count: int = 1) -> None:
        """Count breaches of `invariant`, which must be one of `checked`."""
        assert invariant in self.checked, f"{self.name} does not declare that it checks {invariant}"
        if count:
            self.broken[invariant] += count
            if len(self.words) < SHOWN:
                self.words.append(f"{invariant}: {words}")

    def as_json(self) -> dict[str, object]:
        """The outcome for the JSON file."""
        return {
            "name": self.name,
            "faults": self.faults,
            "acknowledged": self.acknowledged,
            "delivered": self.delivered,
            "repeated": self.repeated,
            "seconds": round(self.seconds, 2),
            "state": self.state,
            "broken": {name: self.broken[name] for name in self.checked},
            "words": self.words,
            "notes": self.notes,
        }
