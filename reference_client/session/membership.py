"""One room as a session sees it: cursor, what was shown, roster (SPEC.md, sections 9 and 11)."""

from dataclasses import dataclass

from protocol.client import Membership
from protocol.frames import Joined, Presence, Roster
from protocol.registry import Flag, PresenceKind
from reference_client.events import Event, Gap, MemberJoined, MemberLeft, RoomQuiet, RosterChanged
from reference_client.session.outbox import Outbox

MAX_ROSTER = 1 << 16
"""Members of one room that are remembered; a server that names more has not become quiet in time."""

_MAX_EPOCHS = 16


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody in a room. Names are not unique; `member` is."""

    member: int
    name: str
    verified: bool


class RoomState:
    """A room that the application wants to be in, across connections.

    `state` is that of SPEC.md, section 9, on the present connection. `history` is how many old messages the first
    JOIN asks for.
    """

    __slots__ = (
        "_epoch",
        "_known",
        "_seq",
        "_shown",
        "evictions",
        "gone",
        "head",
        "history",
        "lagged",
        "leaving",
        "members",
        "membership",
        "name",
        "not_before",
        "outbox",
        "quiet",
        "ref",
        "roster",
        "state",
        "title",
    )

    def __init__(self, name: str, history: int, cursor: tuple[int, int] | None) -> None:
        self.name = name
        self.title = name
        self.history = history
        self.state = "OUT"
        self.ref = 0
        self.membership: Membership | None = None
        self.head = 0  # of the last JOINED: what is up to there had been published before
        self.not_before = 0.0  # no JOIN before this time
        self.evictions = 0  # without a new message between them
        self.lagged = 0  # those of them, at their end, that were EVICTED(LAGGED)
        self.leaving = False
        self.gone = False  # given up: only replies under way still matter
        self.outbox = Outbox()
        self.quiet = False
        self.members = 0
        self.roster: dict[int, Member] = {}
        self._known = False  # whether a roster has come
        self._epoch, self._seq = cursor or (0, 0)
        self._shown: dict[int, int] = {self._epoch: self._seq} if self._epoch else {}

    # --- the log

    @property
    def cursor(self) -> tuple[int, int]:
        """(epoch, seq) of the last message received; epoch 0: there is none yet."""
        if self.membership is not None:
            return self.membership.epoch, max(self.membership.cursor, 0)
        return self._epoch, self._seq

    @property
    def entered(self) -> bool:
        """Whether there is something to go on from: we were in the room, or were told from where to begin."""
        return self.membership is not None or self._epoch != 0

    @property
    def where(self) -> tuple[int, int]:
        """`epoch` and `since` of the next JOIN."""
        epoch, seq = self.cursor
        if not epoch:
            return 0, self.history if self.membership is None else 0
        return (0, 0) if self.lagged >= 2 else (epoch, seq)  # RW-LAG-4

    @property
    def caught_up(self) -> bool:
        """Whether everything that was there when we joined has been received."""
        return self.state in ("IN", "LEAVING") and self.cursor[1] >= self.head

    def joined(self, frame: Joined, membership: Membership) -> Gap | None:
        """The membership begins. RW-PROMISE-10: what was missed is said."""
        old_epoch, after = self.cursor
        self.state = "IN"
        self.ref = frame.room
        self.title = frame.name
        self.membership = membership
        self.head = frame.head
        self.members = frame.members
        self._clear_roster(bool(frame.flags & Flag.QUIET))
        said = bool(frame.flags & Flag.GAP)
        if said and old_epoch == frame.epoch and frame.start <= after:
            self._shown[frame.epoch] = frame.start - 1  # other messages have taken those places: section 9.1
        missed = old_epoch and (old_epoch != frame.epoch or frame.start > after + 1)
        if missed or said:
            return Gap(self.name, old_epoch, after, frame.epoch, frame.start)
        return None

    def shows(self, seq: int) -> bool:
        """Whether the message of the stream is to be shown: not if it ever was (RW-RECOVER-3).

        The cursor does not tell, since JOINED may have set it to an epoch of which some messages were shown before.
        """
        epoch = self.cursor[0]
        if seq > self.head:
            self.lagged = self.evictions = 0
        if seq <= self._shown.get(epoch, 0):
            return False
        self._shown[epoch] = seq
        if len(self._shown) > _MAX_EPOCHS:
            del self._shown[next(iter(self._shown))]
        return True

    def out(self) -> None:
        """The membership has ended; the cursor stays."""
        self.state = "OUT"
        self.ref = 0
        self._clear_roster(False)

    # --- who is here

    def _clear_roster(self, quiet: bool) -> None:
        self.quiet = quiet
        self.roster = {}
        self._known = False

    def roster_received(self, frame: Roster) -> Event | None:
        if frame.flags & Flag.RESET:
            self._clear_roster(self.quiet)  # RW-ROSTER-5
        if self.quiet:
            return None
        for entry in frame.entries[: MAX_ROSTER - len(self.roster)]:
            self.roster[entry.member] = Member(entry.member, entry.name, bool(entry.mflags & Flag.VERIFIED))
        if frame.flags & Flag.MORE:
            return None
        self._known = True
        self.members = len(self.roster)
        return RosterChanged(self.name)

    def presence_received(self, frame: Presence) -> Event | None:
        if frame.kind == PresenceKind.QUIET:
            self._clear_roster(True)  # RW-QUIET-3
            return RoomQuiet(self.name)
        if self.quiet:
            return None
        if frame.kind == PresenceKind.JOINED:
            member = Member(frame.member, frame.name, bool(frame.flags & Flag.VERIFIED))
            known = frame.member in self.roster
            if known or len(self.roster) < MAX_ROSTER:
                self.roster[frame.member] = member
            self.members += not known
            return None if known else MemberJoined(self.name, frame.member, frame.name, member.verified)
        if frame.kind in (PresenceKind.LEFT, PresenceKind.LOST):
            known = frame.member in self.roster or not self._known
            self.roster.pop(frame.member, None)
            self.members = max(self.members - known, 0)
            lost = frame.kind == PresenceKind.LOST
            return MemberLeft(self.name, frame.member, frame.name, lost) if known else None
        return None  # RW-PRESENCE-1
