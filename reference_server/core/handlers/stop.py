"""STOP, for accounts that may (SPEC.md, section 7.20)."""

from __future__ import annotations

import logging

from protocol.frames import Ok, Stop
from protocol.registry import Code
from reference_server.core.peer import Peer

log = logging.getLogger("roomwire.server")


def stop(peer: Peer, frame: Stop, now: float) -> None:
    """Answer STOP. The accounts are asked again, since the right may have been taken away after the login."""
    state = peer.state
    account = state.accounts.find(peer.account) if state.accounts and peer.account else None
    extra = {"peer": peer.address, "client": peer.name}
    if account is None or not account.admin:  # RW-STOP-1
        log.warning("stop refused", extra=extra)
        peer.refuse(frame, Code.FORBIDDEN, "only an administrator's account may stop the server")
        return
    peer.conn.send(Ok(request=frame.request))
    if not state.draining:
        log.info("draining", extra={**extra, "asked_by": "STOP"})
        state.host.drain()  # RW-STOP-2
