"""JOIN: attaching a client to a room, at a place in its log (SPEC.md, sections 7.9 and 9.1)."""

from __future__ import annotations

from collections.abc import Callable

from protocol.errors import NameInvalid
from protocol.frames import Join, Joined
from protocol.names import key, normalise
from protocol.registry import Code, Flag
from reference_server.core.limits import TokenBucket
from reference_server.core.peer import Peer
from reference_server.core.room import Room
from reference_server.store.base import Log

FULL_RETRY_MS = 5_000
DAMAGED_RETRY_MS = 60_000


def join(peer: Peer, frame: Join, now: float) -> None:
    """Answer JOIN, with the checks in the order of section 7.9."""
    try:
        name = normalise(frame.name)
        room_key = key(name)
    except NameInvalid as error:
        peer.refuse(frame, Code.NAME_INVALID, str(error))
        return
    room = peer.state.rooms.get(room_key)
    if room is not None and peer in room.members:  # RW-JOIN-1
        peer.refuse(frame, Code.ALREADY_JOINED, "you are in that room already", room=room.ref)
    elif _has_place(peer, frame, room) and _within_rate(peer, frame, now):
        if room_key in peer.state.damaged_rooms:
            _refuse_damaged(peer, frame)
        elif room is not None:
            _enter(peer, frame, room)
        else:
            _open(peer, frame, room_key, name)


def _has_place(peer: Peer, frame: Join, room: Room | None) -> bool:
    """Whether the caps leave a place for this membership. If not, the JOIN is refused."""
    config = peer.state.config
    if len(peer.memberships) >= config.max_rooms:  # RW-JOIN-2
        peer.refuse(frame, Code.TOO_MANY_ROOMS, f"you may be in {config.max_rooms} rooms")
    elif room is not None and len(room.members) >= config.max_members:
        peer.refuse(frame, Code.ROOM_FULL, "the room is full", FULL_RETRY_MS)
    elif room is None and len(peer.state.rooms) >= config.max_open_rooms:
        peer.refuse(frame, Code.SERVER_FULL, "too many rooms are open", FULL_RETRY_MS)
    else:
        return True
    return False


def _within_rate(peer: Peer, frame: Join, now: float) -> bool:
    """Whether the client may join now. If not, the JOIN is refused."""
    config = peer.state.config
    if peer.join_bucket is None:
        peer.join_bucket = TokenBucket(config.join_burst, now)
    wait_ms = peer.join_bucket.take(config.join_rate, config.join_burst, now)
    if wait_ms:
        peer.refuse(frame, Code.RATE_LIMITED, "too many joins at once", wait_ms)
    return not wait_ms


def _open(peer: Peer, frame: Join, room_key: str, name: str) -> None:
    """Have the store open the room's log, then go on."""

    def start(done: Callable[[], None]) -> None:
        def opened(log: Log, _created: bool) -> None:
            _opened(peer, frame, log)
            done()

        def damaged() -> None:
            if not peer.closing:
                _refuse_damaged(peer, frame)
            done()

        peer.state.store.open(room_key, name, opened, damaged)

    peer.run(start)


def _refuse_damaged(peer: Peer, frame: Join) -> None:
    peer.refuse(frame, Code.UNAVAILABLE, "the room's log is damaged", DAMAGED_RETRY_MS)


def _opened(peer: Peer, frame: Join, log: Log) -> None:
    state = peer.state
    room = state.rooms.get(log.key)
    if room is not None:
        state.store.release(log)  # another client's JOIN opened it meanwhile; one room holds one log
    if peer.closing:
        if room is None:
            state.store.release(log)
        return
    if room is None and not log.tail and not _may_create(peer, frame):
        state.store.release(log)
        return
    _enter(peer, frame, room or state.add_room(log))


def _may_create(peer: Peer, frame: Join) -> bool:
    """Whether the client may make a room that has no messages yet. If not, the JOIN is refused."""
    state = peer.state
    if not state.config.create_rooms:
        peer.refuse(frame, Code.NO_SUCH_ROOM, "there is no such room")
        return False
    wait_ms = state.addresses.create_room(peer.address, state.now)
    if wait_ms:
        peer.refuse(frame, Code.RATE_LIMITED, "too many new rooms from your address", wait_ms)
    return not wait_ms


def _enter(peer: Peer, frame: Join, room: Room) -> None:
    """Send JOINED and attach the client, in one step (RW-CURSOR-3)."""
    log = room.log
    cap = peer.state.config.replay_messages
    start, gap = join_point(log.head, log.oldest, log.epoch, frame.epoch, frame.since, cap)
    wants_roster = bool(frame.flags & Flag.ROSTER)
    member = room.attach(peer, start - 1, wants_roster)
    peer.memberships[room.ref] = member
    flags = (Flag.GAP if gap else 0) | (Flag.QUIET if room.quiet else 0)
    peer.conn.send(
        Joined(
            log.epoch, log.head, start, log.oldest, len(room.members), log.name,
            flags=flags, request=frame.request, room=room.ref,
        )
    )  # fmt: skip
    if wants_roster and not room.quiet:
        peer.write_stream(room.roster())
    peer.state.counters.joins += 1
    peer.state.room_changed(room)


def join_point(head: int, oldest: int, epoch: int, client_epoch: int, since: int, cap: int) -> tuple[int, bool]:
    """(`start`, GAP) of JOINED: where a member's stream begins, by the formula of section 9.1 (RW-CURSOR-1).

    `head`, `oldest` and `epoch` are of the room's log, `client_epoch` and `since` are the cursor in JOIN, and `cap` is
    the greatest number of messages to replay.
    """
    floor = max(oldest, head + 1 - cap)
    if client_epoch == 0:
        return max(floor, head + 1 - since), False
    want = since + 1 if client_epoch == epoch else floor
    start = min(max(want, floor), head + 1)
    return start, client_epoch != epoch or start != since + 1
