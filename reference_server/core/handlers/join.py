"""JOIN: attaching a client to a room, at a place in its log (SPEC.md, sections 7.9 and 9.1)."""

from __future__ import annotations

from collections.abc import Callable

from protocol.errors import NameInvalid
from protocol.frames import Join, Joined
from protocol.names import key, normalise
from protocol.registry import Code, Flag
from reference_server.core.handlers.cursor import join_point
from reference_server.core.limits import TokenBucket
from reference_server.core.peer import Peer
from reference_server.core.room import Room
from reference_server.core.state import Context
from reference_server.store.base import Log

FULL_RETRY_MS = 5_000


class Joiner:
    """Lets peers into rooms."""

    def __init__(self, hub: Context) -> None:
        self._hub = hub

    def join(self, peer: Peer, join: Join) -> None:
        """Answer JOIN, with the checks in the order of section 7.9."""
        hub, config = self._hub, self._hub.config
        try:
            name = normalise(join.name)
            room_key = key(name)
        except NameInvalid as error:
            peer.refuse(join, Code.NAME_INVALID, str(error))
            return
        room = hub.rooms.get(room_key)
        if room is not None and peer in room.members:  # RW-JOIN-1
            text = "you are in that room already"
            peer.refuse(join, Code.ALREADY_JOINED, text, room=room.ref)
            return
        if len(peer.memberships) >= config.max_rooms:  # RW-JOIN-2
            peer.refuse(join, Code.TOO_MANY_ROOMS, f"you may be in {config.max_rooms} rooms")
            return
        if room is not None and len(room.members) >= config.max_members:
            peer.refuse(join, Code.ROOM_FULL, "the room is full", FULL_RETRY_MS)
            return
        if room is None and len(hub.rooms) >= config.max_open_rooms:
            peer.refuse(join, Code.SERVER_FULL, "too many rooms are open", FULL_RETRY_MS)
            return
        if peer.join_bucket is None:
            peer.join_bucket = TokenBucket(config.join_burst, hub.now)
        wait_ms = peer.join_bucket.take(config.join_rate, config.join_burst, hub.now)
        if wait_ms:
            peer.refuse(join, Code.RATE_LIMITED, "too many joins at once", wait_ms)
            return
        if room is not None:
            self._enter(peer, join, room)
            return

        def start(done: Callable[[], None]) -> None:
            def opened(log: Log, _created: bool) -> None:
                self._opened(peer, join, log)
                done()

            hub.store.open(room_key, name, opened)

        peer.run(start)

    def _opened(self, peer: Peer, join: Join, log: Log) -> None:
        hub = self._hub
        room = hub.rooms.get(log.key)
        if room is not None:
            hub.store.release(log)  # somebody else opened it meanwhile; one room holds one log
        if peer.closing:
            if room is None:
                hub.store.release(log)
            return
        if room is None and not log.tail:
            code, wait_ms, text = Code.RATE_LIMITED, 0, "too many new rooms from your address"
            if not hub.config.create_rooms:
                code, text = Code.NO_SUCH_ROOM, "there is no such room"
            else:
                wait_ms = hub.addresses.create_room(peer.address, hub.now)
            if wait_ms or code == Code.NO_SUCH_ROOM:
                hub.store.release(log)
                peer.refuse(join, code, text, wait_ms)
                return
        self._enter(peer, join, room or hub.add_room(log))

    def _enter(self, peer: Peer, join: Join, room: Room) -> None:
        """JOINED and the attachment are one step (RW-CURSOR-3)."""
        log = room.log
        cap = self._hub.config.replay_messages
        start, gap = join_point(log.head, log.oldest, log.epoch, join.epoch, join.since, cap)
        wants_roster = bool(join.flags & Flag.ROSTER)
        member = room.attach(peer, start - 1, wants_roster)
        peer.memberships[room.ref] = member
        flags = (Flag.GAP if gap else 0) | (Flag.QUIET if room.quiet else 0)
        peer.conn.send(
            Joined(
                log.epoch, log.head, start, log.oldest, len(room.members), log.name,
                flags=flags, request=join.request, room=room.ref,
            )
        )  # fmt: skip
        if wants_roster and not room.quiet:
            peer.write_stream(room.roster())
        self._hub.counters.joins += 1
        self._hub.room_changed(room)
