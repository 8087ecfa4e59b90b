"""What a family of faults counts: invariants held, or broken, with the first words about each breach."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

INVARIANTS = {
    "lost": "acknowledged, and not in the store or not at its place",
    "seq": "holes in a room's log, or a seq that is used again",
    "order": "members, or a member and the store, that differ about a place; a publisher's order that changed",
    "doubled": "messages that stand twice in a log",
    "gap": "messages that a member was not sent and not told of, or a gap that it was told of without need",
    "served": "damaged data that was handed out, or damage that was met without a word",
    "memory": "the server's memory grew beyond the bound",
    "recovery": "not everybody was served again within 10 s",
    "p99": "others waited more than twice as long (99th percentile)",
}
"""What may be broken, in the order of the table's columns."""

SHOWN = 5


@dataclass
class Outcome:
    """One family of faults. `checked` are the invariants that it looks at; `broken` counts breaches of them."""

    name: str
    checked: tuple[str, ...]
    faults: int = 0
    acknowledged: int = 0
    delivered: int = 0
    repeated: int = 0
    seconds: float = 0.0
    state: str = ""
    """Why it did not come to its end, if so: "stopped", "not run: ...", "failed: ..."."""
    broken: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)
    notes: dict[str, float | str] = field(default_factory=dict)

    def breach(self, invariant: str, words: str, count: int = 1) -> None:
        """Count breaches of `invariant`, one of those that are `checked`."""
        assert invariant in self.checked, f"{self.name} says that it does not check {invariant}"
        if count:
            self.broken[invariant] += count
            if len(self.words) < SHOWN:
                self.words.append(f"{invariant}: {words}")

    def as_json(self) -> dict[str, object]:
        """For the file beside the table."""
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
