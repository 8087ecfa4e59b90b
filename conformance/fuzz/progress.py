"""What a fuzzer says while it runs, to standard error, and at its end, to standard output."""

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from conformance.fuzz.tally import TABLES, Tally
from conformance.show import code_name
from protocol.registry import Code

_EVERY = 10.0  # seconds between lines where nobody looks at a terminal
_REFRESH = 0.25

WHY_NOT: dict[str, dict[str, str]] = {
    "server": {
        "WAIT_PREFACE/time-out": "takes the preface time-out: only on a virtual clock, and in the cases of 5.1",
        "WAIT_PREFACE/close": "a server that ends or is full just then: the cases of 8.3",
        "WAIT_HELLO/HELLO, needs more": "needs accounts: the cases of 13",
        "WAIT_HELLO/time-out": "takes the handshake time-out: only on a virtual clock, and in the cases of 7.1",
        "WAIT_HELLO/close": "a server that ends or is full just then: the cases of 8.3",
        "AUTHENTICATING/": "needs accounts: the cases of 13",
        "OPEN/drain": "needs --exec, for somebody has to tell the server",
        "OPEN/time-out": "takes two heartbeats: only on a virtual clock, and in the cases of 8.4",
        "OPEN/close": "the operator's or the server's own wish, which no script can bring about",
        "DRAINING/": "needs --exec, for somebody has to tell the server; the time-outs: the cases of 8.6",
        "CLOSING/GOAWAY": "cannot be told on the wire from the end of the stream",
        "CLOSING/time-out": "takes the linger time: the cases of 8.5",
    },
    "membership": {
        "JOINING/ERROR": "a refusal for want of capacity, which this server had no reason for",
        "IN/EVICTED": "needs a member that lags behind what is retained",
        "LEAVING/stream frame": "a race that the fuzzer does not look for",
        "LEAVING/ERROR(NOT_JOINED)": "an eviction while LEAVE was under way: the cases of 9.4",
        "LEAVING/ERROR": "no code of LEAVE but NOT_JOINED is for servers to give here",
        "LEAVING/EVICTED": "a race between LEAVE and EVICTED: the cases of 9.4",
    },
}
"""Why rows of SPEC.md's tables may never be seen, by "state/event" or "state/" for all of a state."""

CODES_WHY_NOT: dict[Code, str] = {
    Code.SEQUENCE: "a client's word to a server",
    Code.TIMEOUT: "takes a time-out: only on a virtual clock, and in the cases of 5.2, 7.1 and 8.4",
    Code.AUTH_FAILED: "needs accounts: the cases of 13",
    Code.TLS_REQUIRED: "needs a mechanism that the operator offers under TLS only",
    Code.ACCOUNT_REVOKED: "the operator's act",
    Code.FORBIDDEN: "a policy of the server: STOP by somebody who may not, where `admin` is offered",
    Code.NO_SUCH_ROOM: "a server that makes no rooms by joining",
    Code.RATE_LIMITED: "a server whose rates were not reached, or raised for the fuzzer",
    Code.TOO_MANY_ROOMS: "a server whose max_rooms is above the fuzzer's number of rooms",
    Code.ROOM_FULL: "a server with a limit of members",
    Code.SERVER_FULL: "a server whose limit of connections was not reached",
    Code.SLOW: "takes the stall time: the cases of 9.4",
    Code.ABUSE: "a policy of the server",
    Code.INTERNAL: "a server that fails inside",
    Code.UNAVAILABLE: "a server that cannot do something at the moment",
    Code.DRAINING: "needs --exec, for somebody has to tell the server",
    Code.SHUTDOWN: "needs --exec, for somebody has to tell the server",
    Code.LAGGED: "needs a member that lags behind what is retained",
    Code.KICKED: "the operator's act",
    Code.BANNED: "the operator's act",
    Code.ROOM_CLOSED: "the operator's act",
    Code.LOG_RESET: "a store that was restored while the server ran",
}
"""Why codes may never be seen."""


@dataclass
class Progress:
    """Shows the figures of a run. `max_time` in seconds and `max_examples`: 0 for no bound."""

    what: str
    tally: Tally
    max_time: float
    max_examples: int
    tables: tuple[str, ...] = ("server", "membership")
    began: float = field(default_factory=time.monotonic)
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
        """Time since the beginning."""
        return time.monotonic() - self.began

    @property
    def over(self) -> bool:
        """Whether the run has had its time, or its examples."""
        if self.max_examples and self.tally.scripts >= self.max_examples:
            return True
        return bool(self.max_time) and self.seconds >= self.max_time

    @property
    def done(self) -> float:
        """Which part of its time or examples the run has had, from 0 to 1."""
        if self.max_examples:
            return self.tally.scripts / self.max_examples
        return self.seconds / self.max_time if self.max_time else 0.0

    def show(self, note: str = "") -> None:
        """Says how far it is, if it is time to."""
        now = time.monotonic()
        if now - self._said < (_REFRESH if self._live else _EVERY):
            return
        self._said = now
        line = self.line() + (f"; {note}" if note else "")
        if self._live:
            self._live.update(Text(line))
        else:
            print(f"roomwire-check: {line}", file=sys.stderr, flush=True)

    def line(self) -> str:
        """The figures in a line."""
        t = self.tally
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
        return len(TABLES[table]) - len(self.tally.unvisited(table))

    def unvisited(self) -> list[str]:
        """The transitions that were never seen, with the reason where it is known."""
        lines = []
        for table in self.tables:
            for row in self.tally.unvisited(table):
                reasons = WHY_NOT.get(table, {})
                why = reasons.get(f"{row.state}/{row.event}") or reasons.get(f"{row.state}/") or "not known why"
                lines.append(f"{table}: {row.state}, {row.event}: {why}")
        return lines

    def unseen_codes(self) -> list[str]:
        """The codes that never came, with the reason where it is known."""
        return [f"{code.name}: {CODES_WHY_NOT.get(code, 'not known why')}" for code in self.tally.unseen_codes()]

    def summary(self, outcome: str, fmt: str = "human") -> None:
        """Prints the figures of the whole run."""
        t = self.tally
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
        t = self.tally
        return {
            "what": self.what, "seconds": round(self.seconds, 2), "examples": t.scripts, "steps": t.steps,
            "connections": t.connections, "sent": t.sent, "received": t.received, "octets": t.octets,
            "broken": dict(t.broken),
            "codes": {f"{carrier}:{code_name(code)}": count for (carrier, code), count in t.codes.items()},
            "unvisited": self.unvisited(), "unseen_codes": self.unseen_codes(), "notes": self.notes,
        }  # fmt: skip
