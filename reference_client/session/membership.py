"""What a session knows of one room: cursor, messages shown, roster (SPEC.md, sections 9 and 11)."""

from dataclasses import dataclass

from protocol.client import Membership
from protocol.frames import Joined, Presence, Roster
from protocol.registry import Flag, PresenceKind
from reference_client.events import Event, Gap, MemberJoined, MemberLeft, RoomQuiet, RosterChanged
from reference_client.session.outbox import Outbox

MAX_ROSTER = 1 << 16
"""Members that a roster holds at most. A server that names more should have made the room quiet."""

_MAX_EPOCHS = 16


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a room. `member` is unique, names are not."""

    member: int
    name: str
    verified: bool


class RoomState:
    """The state of a room that the application wants to be in, across connections.

    `state` is that of SPEC.md, section 9, on the present connection. `history` is the number of old messages that
    the first JOIN asks for.
    """

    __slots__ = (
        "_epoch",
        "_known",
        "_seq",
        "_shown",
        "evictions",
        "gone",
        "head",
        "held",
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
        self.head = 0  # of the last JOINED: messages up to here are old
        self.not_before = 0.0  # when the next JOIN or LEAVE may be sent
        self.evictions = 0  # in a row, without a new message between them
        self.lagged = 0  # how many of the last of them were EVICTED(LAGGED)
        self.held: tuple[int, int] | None = None  # (epoch, seq) after which the stream is not shown (`hold`)
        self.leaving = False
        self.gone = False  # dropped: only replies under way still matter
        self.outbox = Outbox()
        self.quiet = False
        self.members = 0
        self.roster: dict[int, Member] = {}
        self._known = False  # whether a roster has arrived
        self._epoch, self._seq = cursor or (0, 0)
        self._shown: dict[int, int] = {self._epoch: self._seq} if self._epoch else {}

    # --- the log

    @property
    def cursor(self) -> tuple[int, int]:
        """(epoch, seq) of the last message received, and not held; epoch 0 if there is none yet."""
        if self.held is not None:
            return self.held
        if self.membership is not None:
            return self.membership.epoch, max(self.membership.cursor, 0)
        return self._epoch, self._seq

    @property
    def epoch(self) -> int:
        """The epoch of the present or last membership."""
        return self._epoch if self.membership is None else self.membership.epoch

    @property
    def entered(self) -> bool:
        """Whether there is a cursor: the session was in the room, or the application gave one."""
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
        """Whether all messages that were in the log when the session joined have arrived."""
        there = self.state in ("IN", "LEAVING") and self.membership is not None
        return there and self.membership is not None and max(self.membership.cursor, 0) >= self.head

    def hold(self, cursor: tuple[int, int] | None = None) -> None:
        """Stop showing the stream; the next membership goes on from here, or from `cursor`."""
        self.held = self.held or cursor or self.cursor

    def joined(self, frame: Joined, membership: Membership) -> Gap | None:
        """The membership begins. Returns a Gap if messages were missed (RW-PROMISE-10)."""
        old_epoch, after = self.cursor
        self.held = None
        self.state = "IN"
        self.ref = frame.room
        self.title = frame.name
        self.membership = membership
        self.head = frame.head
        self.members = frame.members
        self._clear_roster(bool(frame.flags & Flag.QUIET))
        announced = bool(frame.flags & Flag.GAP)
        if announced and old_epoch == frame.epoch and frame.start <= after:
            self._shown[frame.epoch] = frame.start - 1  # other messages have taken those places (section 9.1)
        missed = old_epoch and (old_epoch != frame.epoch or frame.start > after + 1)
        if missed or announced:
            return Gap(self.name, old_epoch, after, frame.epoch, frame.start)
        return None

    def shows(self, seq: int) -> bool:
        """Whether to show this message of the stream: only if it was never shown before (RW-RECOVER-3).

        The cursor is not enough to tell: JOINED may return to an epoch of which some messages were shown already.
        """
        epoch = self.epoch
        if seq > self.head:
            self.lagged = self.evictions = 0
        if seq <= self._shown.get(epoch, 0):
            return False
        self._shown[epoch] = seq
        if len(self._shown) > _MAX_EPOCHS:
            del self._shown[next(iter(self._shown))]
        return True

    def out(self) -> None:
        """The membership ended; the cursor stays."""
        self.state = "OUT"
        self.ref = 0
        self._clear_roster(False)

    # --- who is here

    def _clear_roster(self, quiet: bool) -> None:
        self.quiet = quiet
        self.roster = {}
        self._known = False

    def roster_received(self, frame: Roster) -> Event | None:
        """Take a ROSTER; returns RosterChanged with its last part."""
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
        """Take a PRESENCE; returns its event, or None if it changes nothing (RW-PRESENCE-6)."""
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
            gone = self.roster.pop(frame.member, None)
            verified = gone.verified if gone else bool(frame.flags & Flag.VERIFIED)
            self.members = max(self.members - known, 0)
            lost = frame.kind == PresenceKind.LOST
            return MemberLeft(self.name, frame.member, frame.name, lost, verified) if known else None
        return None  # RW-PRESENCE-1
