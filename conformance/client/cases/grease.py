"""Section 17.4: reserved numbers, which change nothing."""

import os

from conformance.client.cases.steps import case
from conformance.client.context import Context
from protocol.frames import Field, Unknown


@case("17.4/reserved", "RW-GREASE-2", "RW-TYPE-4")
async def reserved(t: Context) -> None:
    """The client ignores reserved types and fields, from the first to the last, like any other unknown ones."""
    server, room = await t.member()
    for n in (0, 1, 263, 527):
        server.send(Unknown(0x8021 + 0x1F * n, os.urandom(n % 50), room=room.ref * (n % 2)))
        server.send(room.message(fields=(Field(0x8021 + 0x1F * n, os.urandom(3)),)))
    await t.marker(server, room, "RW-GREASE-2")
    await server.fence("RW-GREASE-2")
