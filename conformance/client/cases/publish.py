"""Section 7.15: publishing."""

from conformance.client.cases.steps import case
from conformance.client.context import Context


@case("7.15/content", "RW-PROMISE-5", "RW-MODEL-8")
async def content(t: Context) -> None:
    """The client sends a publish to the ref of its room, octet for octet, an empty payload too."""
    server, room = await t.member()
    for payload in (b"", b"\x00\xff\xfe", bytes(range(256)) * 20):
        publish = await t.published(server, room, payload)
        t.require((publish.room, publish.ctype) == (room.ref, 1), f"room {room.ref}, ctype 1", publish, "RW-MODEL-8")
