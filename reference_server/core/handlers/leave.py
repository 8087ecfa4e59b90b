"""LEAVE: ending a membership by the client's will (SPEC.md, section 7.13)."""

from __future__ import annotations

from protocol.frames import Leave, Ok
from protocol.registry import Code, PresenceKind
from reference_server.core.peer import Peer


def leave(peer: Peer, frame: Leave, now: float) -> None:
    """Answer LEAVE."""
    member = peer.memberships.pop(frame.room, None)
    if member is None:  # RW-LEAVE-1
        peer.refuse(frame, Code.NOT_JOINED, "you are not in that room")
        return
    member.room.detach(member, PresenceKind.LEFT)
    peer.conn.send(Ok(request=frame.request, room=frame.room))
    peer.state.room_left(member.room)
