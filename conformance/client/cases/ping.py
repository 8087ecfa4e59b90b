"""Section 7.7: PING and PONG."""

import os

from conformance.client.cases.steps import case
from conformance.client.context import Context
from protocol.frames import Ping, Pong


@case("7.7/answered", "RW-PING-1")
async def pings_answered(t: Context) -> None:
    """The client answers each PING with a PONG of the same octets, even many in one segment."""
    server = await t.open()
    wanted = [os.urandom(8) for _ in range(25)]
    server.send(*(Ping(opaque) for opaque in wanted))
    pongs = [(await server.expect(Pong, "RW-PING-1")).opaque for _ in wanted]
    t.require(pongs == wanted, "the octets of the PINGs", [pong.hex() for pong in pongs])


@case("7.7/unasked", "RW-PING-3")
async def unasked_pong(t: Context) -> None:
    """The client ignores a PONG that it did not ask for."""
    server, room = await t.member()
    server.send(Pong(b"unasked!"), Pong(bytes(8)))
    await t.marker(server, room, "RW-PING-3")
    await server.fence("RW-PING-3")
