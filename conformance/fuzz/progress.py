"""What a fuzzer prints: its progress to standard error, and its summary to standard output."""

import json
import sys
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from conformance.fuzz import reach
from conformance.fuzz.stats import TABLES, Stats
from conformance.wire import clock
from conformance.wire.text import code_name

_EVERY = 10.0  # seconds between lines where standard error is no terminal
_REFRESH = 0.25


@dataclass
class Progress:
    """Shows the figures of a run. `max_time`, in seconds, and `max_examples` bound it unless they are 0.

    `kinds` are those of the reasons for what it does not reach (`reach`).
    """

    what: str
    stats: Stats
    max_time: float
    max_examples: int
    tables: tuple[str, ...] = ("server", "membership")
    kinds: tuple[str, ...] = ("live",)
    began: float = field(default_factory=clock.now)
    notes: list[str] = field(default_factory=list)
    _live: Live | None = None
    _said: float = 0.0

    def __enter__(self) -> "Progress":
        console = Console(stderr=True)
        if console.is_terminal:
            self._live = Live(Text(""), console=console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    @property
    def seconds(self) -> float:
        """Seconds since the run began."""
        return clock.now() - self.began

    @property
    def over(self) -> bool:
        """Whether the run has had its time, or its examples."""
        if self.max_examples and self.stats.scripts >= self.max_examples:
            return True
        return bool(self.max_time) and self.seconds >= self.max_time

    @property
    def done(self) -> float:
        """The part of its time or examples that the run has had, from 0 to 1."""
        if self.max_examples:
            return self.stats.scripts / self.max_examples
        return self.seconds / self.max_time if self.max_time else 0.0

    def show(self, note: str = "") -> None:
        """Shows the figures if it is time for that."""
        now = clock.now()
        if now - self._said < (_REFRESH if self._live else _EVERY):
            return
        self._said = now
        line = self.line() + (f"; {note}" if note else "")
        if self._live:
            self._live.update(Text(line))
        else:
            print(f"roomwire-check: {line}", file=sys.stderr, flush=True)

    def line(self) -> str:
        """The figures in one line."""
        t = self.stats
        left = max(0.0, self.max_time - self.seconds) if self.max_time else 0
        until = f"{left:.0f} s left" if self.max_time else f"{self.max_examples - t.scripts} examples left"
        rows = "".join(
            f", {len(t.states(table))} states and {self._seen(table)}/{len(TABLES[table])} transitions of {table}"
            for table in self.tables
        )
        return (
            f"{self.what}: {t.scripts} examples, {t.frames} frames, {t.connections} connections{rows}, "
            f"{sum(t.broken.values())} times {len(t.broken)} rules broken on purpose, "
            f"{t.frames / max(self.seconds, 0.001):.0f} frames/s, {until}"
        )

    def _seen(self, table: str) -> int:
        return len(TABLES[table]) - len(self.stats.unvisited(table))

    def unvisited(self) -> list[str]:
        """The transitions that were never seen, each with the reason."""
        rows = [(table, row.state, row.event) for table in self.tables for row in self.stats.unvisited(table)]
        return [
            f"{table}: {state}, {event}: {reach.why(self.kinds, table, state, event)}" for table, state, event in rows
        ]

    def unseen_codes(self) -> list[str]:
        """The codes that never came, each with the reason."""
        return [f"{code.name}: {reach.why(self.kinds, 'codes', code.name)}" for code in self.stats.unseen_codes()]

    def summary(self, outcome: str, fmt: str = "human") -> None:
        """Prints the figures of the whole run."""
        t = self.stats
        if fmt == "json":
            print(json.dumps(self.figures() | {"outcome": outcome}))
            return
        print(f"{self.what}: {outcome} in {self.seconds:.1f} s")
        print(
            f"  {t.scripts} examples, {t.steps} steps, {t.connections} connections, {t.sent} frames sent, "
            f"{t.received} received ({t.frames / max(self.seconds, 0.001):.0f} frames/s), {t.octets} octets received"
        )
        print(
            f"  rules broken on purpose: {', '.join(f'{rule} {n}' for rule, n in sorted(t.broken.items())) or 'none'}"
        )
        codes = sorted((carrier, code) for carrier, code in t.codes)
        names = {"E": "ERROR", "V": "EVICTED", "G": "GOAWAY"}
        shown = ", ".join(f"{names[c]}({code_name(code)}) {t.codes[c, code]}" for c, code in codes)
        print(f"  codes: {shown or 'none'}")
        for table in self.tables:
            states = sorted(t.states(table))
            print(
                f"  {table} table: {self._seen(table)} of {len(TABLES[table])} transitions; states {', '.join(states)}"
            )
        for title, lines in (("transitions never seen", self.unvisited()), ("codes never seen", self.unseen_codes())):
            if lines and self.tables:
                print(f"  {title}:")
                for line in lines:
                    print(f"    {line}")
        for note in self.notes:
            print(f"  {note}")

    def figures(self) -> dict[str, Any]:
        """The same figures for programs."""
        t = self.stats
        return {
            "what": self.what, "seconds": round(self.seconds, 2), "examples": t.scripts, "steps": t.steps,
            "connections": t.connections, "sent": t.sent, "received": t.received, "octets": t.octets,
            "broken": dict(t.broken),
            "codes": {f"{carrier}:{code_name(code)}": count for (carrier, code), count in t.codes.items()},
            "unvisited": self.unvisited(), "unseen_codes": self.unseen_codes(), "notes": self.notes,
        }  # fmt: skip
