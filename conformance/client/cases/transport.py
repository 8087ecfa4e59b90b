"""Section 14: TLS, with certificates that the suite makes."""

import ssl
from collections.abc import Awaitable, Callable

from conformance.client.cases.steps import add, case
from conformance.client.context import Context
from conformance.harness.tls import ALPN, authority
from conformance.harness.verdicts import Failed


@case("14/tls", "RW-TLS-1")
async def tls(t: Context) -> None:
    """The client speaks TLS 1.3 and roomwire/1 with a server whose certificate is valid, and joins a room."""
    t.needs("tls")
    await t.secure(authority().server())
    server, room = await t.member()
    found = (server.tls and server.tls.version(), server.tls and server.tls.selected_alpn_protocol())
    t.require(found == ("TLSv1.3", ALPN), f"TLSv1.3 and {ALPN}", found, "RW-TLS-1")
    await t.marker(server, room)


def _left(requirement: str, make: Callable[[], ssl.SSLContext]) -> Callable[[Context], Awaitable[None]]:
    async def run(t: Context) -> None:
        t.needs("tls")
        await t.secure(make())
        t.connect()
        await t.report("disconnected", requirement=requirement)
        for server in t.listener.connections:
            await server.expect_end(requirement)
            if server.preface or server.octet_times:
                raise Failed("nothing sent to this server", server.preface.hex(), requirement)
        await t.alive()

    return run


_SERVERS: dict[str, tuple[str, Callable[[], ssl.SSLContext]]] = {
    "older": ("RW-TLS-1", lambda: authority().server(most=ssl.TLSVersion.TLSv1_2)),
    "without-protocol": ("RW-TLS-4", lambda: authority().server(alpn=False)),
    "other-host": ("RW-TLS-5", lambda: authority().server("elsewhere.example", "192.0.2.1")),
    "expired": ("RW-TLS-5", lambda: authority().server(expired=True)),
    "other-authority": ("RW-TLS-5", lambda: authority("another").server()),
}

for _path, (_requirement, _make) in _SERVERS.items():
    _text = f"The client sends nothing to a server that it cannot trust, or that speaks another protocol ({_path})."
    add(f"14/tls-{_path}", [_requirement], _text, _left(_requirement, _make))
