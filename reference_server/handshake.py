"""HELLO to WELCOME (SPEC.md, sections 7.1, 7.2 and 13)."""

from __future__ import annotations

import logging

from protocol.errors import NameInvalid
from protocol.frames import Auth, Field, Hello, Welcome, agent, extension, extensions, mechanism, server_identity
from protocol.names import normalise
from protocol.registry import Code, Flag, FrameType
from reference_server.context import Context
from reference_server.peer import NO_EXTENSIONS, Peer

log = logging.getLogger("roomwire.server")

MECHANISMS = ("ANONYMOUS",)
EXTENSIONS = frozenset({"history"})
AGENT = "roomwire-server/0.1"
FULL_RETRY_MS = 5_000


class Handshake:
    """Lets clients in."""

    def __init__(self, hub: Context) -> None:
        self._hub = hub

    def hello(self, peer: Peer, hello: Hello) -> None:
        """Answer HELLO, with the checks in the order of section 7.1."""
        hub = self._hub
        try:
            name = normalise(hello.name)
        except NameInvalid as error:
            self._refuse(peer, Code.NAME_INVALID, str(error))
            return
        if hello.mechanism not in MECHANISMS:  # RW-SASL-1
            fields = tuple(mechanism(offered) for offered in MECHANISMS)
            text = f"offered are {', '.join(MECHANISMS)}"
            self._refuse(peer, Code.UNSUPPORTED_MECHANISM, text, fields=fields)
            return
        if peer.full:  # RW-CONN-3
            self._refuse(peer, Code.SERVER_FULL, "the server has as many connections as it may", FULL_RETRY_MS)
            return
        wanted = extensions(hello)
        peer.extensions = EXTENSIONS.intersection(wanted) or NO_EXTENSIONS  # RW-WELCOME-2, RW-EXT-3
        peer.name = name
        peer.member = hub.new_member()
        config = hub.config
        fields = tuple(extension(offered) for offered in sorted(peer.extensions))
        peer.conn.welcome(
            Welcome(
                peer.member,
                name,
                hub.clock_ms(),
                hub.max_body,
                config.heartbeat_ms,
                config.dedupe_ms,
                config.window,
                config.max_rooms,
                b"",
                (*fields, agent(AGENT), server_identity(hub.server_id, hub.address)),
                Flag.DURABLE if hub.store.durable else 0,
                hello.request,
            )
        )
        extra = {"peer": peer.address, "client": peer.name, "member": f"{peer.member:016x}"}
        log.info("client connected", extra=extra)

    def auth(self, peer: Peer, auth: Auth) -> None:
        """No mechanism of this server asks for AUTH, so the connection never reports one."""
        raise AssertionError(f"AUTH reported without a challenge: {auth}")

    def _refuse(self, peer: Peer, code: Code, text: str, retry_ms: int = 0, fields: tuple[Field, ...] = ()) -> None:
        self._hub.tally.error(FrameType.HELLO, code)
        peer.conn.refuse(code, self._hub.now, retry_ms=retry_ms, text=text, fields=fields)
        log.info("client refused", extra={"peer": peer.address, "code": code.name, "text": text})
