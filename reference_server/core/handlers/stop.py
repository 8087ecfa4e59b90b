"""STOP, for accounts that may (SPEC.md, section 7.20)."""

from __future__ import annotations

import logging

from protocol.frames import Ok, Stop
from protocol.registry import Code
from reference_server.core.peer import Peer
from reference_server.core.state import Context

log = logging.getLogger("roomwire.server")


class Stopper:
    """Drains the server when somebody asks for it who has the right to."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def stop(self, peer: Peer, stop: Stop) -> None:
        """Answer STOP. The accounts are asked anew: the right may have been taken away meanwhile."""
        context = self._context
        account = context.accounts.find(peer.account) if context.accounts and peer.account else None
        extra = {"peer": peer.address, "client": peer.name}
        if account is None or not account.admin:  # RW-STOP-1
            log.warning("stop refused", extra=extra)
            peer.refuse(stop, Code.FORBIDDEN, "only an administrator's account may stop the server")
            return
        peer.conn.send(Ok(request=stop.request))
        if not context.draining:
            log.info("draining", extra={**extra, "asked_by": "STOP"})
            context.host.drain()  # RW-STOP-2
