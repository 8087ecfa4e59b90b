"""A room as a model server has it, and what an application was told of it: the promise, seen from the client."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from conformance.fuzz.failure import fail
from conformance.fuzz.server.model import starts
from protocol.frames import Join, Joined, Message, Unknown
from protocol.registry import Flag

NOW_MS = 1_700_000_000_000
EXTENSION = 0xF123
"""The type of a sequenced frame that no client knows, and that each may ignore (RW-TYPE-5)."""


@dataclass(frozen=True)
class Entry:
    """One place in a log. With `ignorable` it holds a frame of an extension, not a message."""

    seq: int
    id: bytes
    sender: int
    ctype: int
    payload: bytes
    ignorable: bool = False

    @property
    def name(self) -> str:
        """The sender's name."""
        return "b\u00f6b" if self.sender == 77 else "ada"

    def frame(self, ref: int, request: int = 0) -> Message | Unknown:
        """Returns its frame in the stream, or in the reply to a HISTORY."""
        if self.ignorable:
            return Unknown(EXTENSION, self.seq.to_bytes(8, "big") + self.payload, Flag.SEQ, request, ref)
        return Message(
            self.seq, NOW_MS + self.seq, self.sender, self.id, self.ctype, self.name, self.payload,
            flags=Flag.SEQ, request=request, room=ref,
        )  # fmt: skip


@dataclass
class ClientRoom:
    """One room. `ref` is 0 while the client is not in it; `sent` is the newest seq that its stream has brought.

    `view` is the (epoch, seq) up to which the application was told everything, None before the first JOINED. `gap` is
    the (epoch, start) of a gap that it has to be told of. `wanted`: the application wants to be in the room.
    """

    name: str
    epoch: int
    oldest: int = 1
    log: list[Entry] = field(default_factory=list)
    ids: dict[bytes, Entry] = field(default_factory=dict)
    ignorable: set[tuple[int, int]] = field(
        default_factory=set
    )  # (epoch, seq) of all frames of extensions, trimmed ones too
    ref: int = 0
    sent: int = 0
    reached: dict[int, int] = field(default_factory=dict)  # by epoch: the highest cursor that the client can have
    view: tuple[int, int] | None = None
    gap: tuple[int, int] | None = None
    joined: deque[Joined] = field(default_factory=deque)  # JOINEDs whose report has not come
    wanted: bool = False
    newest: int = 0  # how many messages the command asked for
    lagged: int = 0  # EVICTED(LAGGED) without a new message between them
    joined_head: int = 0  # of the newest JOINED
    refused: bool = False  # the last PUBLISH was refused
    roster: bool = False
    quiet: bool = False
    people: dict[int, str] = field(default_factory=dict)
    shown: dict[str, str] | None = None  # the roster in the newest report

    @property
    def head(self) -> int:
        """The seq of the newest entry."""
        return self.log[-1].seq if self.log else self.oldest - 1

    def append(self, id: bytes, sender: int, ctype: int, payload: bytes, *, ignorable: bool = False) -> Entry:
        """Appends an entry."""
        entry = Entry(self.head + 1, id, sender, ctype, payload, ignorable)
        self.log.append(entry)
        if ignorable:
            self.ignorable.add((self.epoch, entry.seq))
        else:
            self.ids[id] = entry
        return entry

    def at(self, seq: int) -> Entry | None:
        """The entry with this seq, if it is retained."""
        return self.log[seq - self.oldest] if self.oldest <= seq <= self.head else None

    def trim(self, keep: int) -> None:
        """Removes all but the newest entries."""
        head = self.head
        self.oldest = max(self.oldest, head + 1 - keep)
        self.log = [entry for entry in self.log if entry.seq >= self.oldest]

    def start_again(self, epoch: int) -> None:
        """Empties the log, under another epoch."""
        self.epoch, self.oldest = epoch, 1
        self.log.clear()
        self.ids.clear()

    # --- what the client asks for

    def answer(self, join: Join, ref: int) -> Joined:
        """Judges the cursor of a JOIN, and returns the JOINED. Raises Failed."""
        if self.view is None:
            if (join.epoch, join.since) != (0, self.newest):
                fail("RW-RECOVER-1", f"JOIN of {self.name!r} for the newest {self.newest}", f"{join}")
        elif join.epoch:
            low = self.view[1] if join.epoch == self.view[0] else 0
            high = self.reached.get(join.epoch, -1)
            if not low <= join.since <= high:
                fail("RW-RECOVER-1", f"a cursor of epoch {self.view[0]} from {low} to {high}", f"{join}")
        elif self.lagged < 2:
            fail("RW-RECOVER-1", f"a cursor of epoch {self.view[0]}", f"{join}")
        blank = Joined(self.epoch, self.head, 1, self.oldest, 1, self.name)
        start, gap = starts(blank, join.epoch, join.since, 2**53)
        before = self.view
        if before and (gap or (join.epoch == 0 and (before[0] != self.epoch or start > before[1] + 1))):
            self.gap = (self.epoch, start)
        self.ref, self.sent, self.refused = ref, start - 1, False
        flags = (Flag.GAP if gap else 0) | (Flag.QUIET if self.quiet else 0)
        self.roster = bool(join.flags & Flag.ROSTER)
        joined = Joined(
            self.epoch, self.head, start, self.oldest, len(self.people), self.name,
            flags=flags, request=join.request, room=ref,
        )  # fmt: skip
        self.joined.append(joined)
        self.joined_head = joined.head
        self.reached[self.epoch] = max(self.reached.get(self.epoch, 0), start - 1)
        return joined

    # --- what the application is told

    def told_joined(self, report: Mapping[str, Any]) -> None:
        """Judges the report `joined`. Raises Failed."""
        if not self.joined:
            fail("RW-CURSOR-4", "no `joined` without a JOINED", f"{report}")
        joined = self.joined.popleft()
        numbers = {name: getattr(joined, name) for name in ("epoch", "head", "start", "oldest")}
        if {name: report.get(name) for name in numbers} != {name: str(value) for name, value in numbers.items()}:
            fail("RW-CURSOR-4", f"{numbers}", f"{report}")
        if self.gap is None or self.gap[0] != joined.epoch:
            self._from(joined.epoch, joined.start)

    def _from(self, epoch: int, start: int) -> None:
        """From `start` on the application has to be told everything."""
        if self.view is None or self.view[0] != epoch or start > self.view[1] + 1:
            self.view = (epoch, start - 1)

    def told_gap(self, report: Mapping[str, Any]) -> None:
        """Judges the report `gap`. Raises Failed."""
        if self.gap is None:
            fail("RW-PROMISE-10", "no gap where nothing is missing", f"{report}")
        epoch, start = self.gap
        if (report.get("epoch"), report.get("start")) != (str(epoch), str(start)):
            fail("RW-PROMISE-10", f"a gap up to {start} of epoch {epoch}", f"{report}")
        self.gap = None
        self.view = (epoch, start - 1)

    def told_message(self, report: Mapping[str, Any]) -> None:
        """Judges the report `message`: it has to be the next one, as in the log. Raises Failed."""
        epoch, seq = int(report.get("epoch", 0)), int(report.get("seq", 0))
        if self.gap and self.gap[0] == epoch and seq >= self.gap[1]:
            fail("RW-PROMISE-10", f"a gap up to {self.gap[1]} of epoch {epoch}", f"{report}")
        if self.view is None or epoch != self.view[0]:
            fail("RW-MODEL-10", f"a message of epoch {self.view and self.view[0]}", f"{report}")
        wanted = self._next
        if seq < wanted:
            fail("RW-RECOVER-3", f"seq {wanted}, each message once and in order", f"{report}")
        if seq > wanted:
            fail("RW-PROMISE-10", f"seq {wanted}, or a gap", f"{report}")
        entry = self.at(seq) if epoch == self.epoch else None
        if entry:
            wanted_fields = {
                "payload": entry.payload.hex(), "ctype": entry.ctype, "name": entry.name, "sender": str(entry.sender),
            }  # fmt: skip
            if {name: report.get(name) for name in wanted_fields} != wanted_fields:
                fail("RW-MODEL-10", f"{wanted_fields}", f"{report}")
        self.view = (epoch, seq)
        if seq > self.joined_head:  # RW-LAG-4: messages from before the JOIN are not new
            self.lagged = 0

    @property
    def _next(self) -> int:
        """The seq of the first message that the application was not told of, behind frames of extensions."""
        assert self.view
        epoch, seq = self.view
        while (epoch, seq + 1) in self.ignorable:
            seq += 1
        return seq + 1

    @property
    def owed(self) -> str:
        """What the application still has to be told, behind its requirement, or ""."""
        if self.joined:
            return f"RW-CURSOR-4 `joined` of {self.name!r}"
        if self.gap:
            return f"RW-PROMISE-10 `gap` up to {self.gap[1]} in {self.name!r}"
        if self.ref and self.view and self.view[0] == self.epoch and self._next <= self.sent:
            return f"RW-PROMISE-10 message {self._next} of {self.name!r}"
        return ""
