"""Section 17.2: what members of a room get who negotiated different extensions."""

from conformance.server.cases.steps import case
from conformance.server.context import Context
from protocol.frames import Field, Leave, Ok
from protocol.registry import Flag, PresenceKind

_EVERY = ("history", "admin", "org.example.other", "grease-0a3f")


@case("17.2/stream-for-everybody", "RW-EXT-2", "RW-EXT-1", "RW-FLAG-2", "RW-GREASE-1")
async def stream_for_everybody(t: Context) -> None:
    """The server sends a member without extensions nothing that it cannot read, whatever other members use."""
    plain, joined = await t.member(flags=Flag.ROSTER)
    rich, there = await t.member(joined.name, flags=Flag.ROSTER, extension_names=_EVERY)
    await t.publish(rich, there.room, fields=[Field(0xF001, b"private"), Field(0x8021, b"grease")])
    await t.marker(rich, plain, room=there.room)
    await rich.expect(rich.ask(Leave(room=there.room)), Ok)
    if not there.flags & Flag.QUIET:
        await plain.expect_presence(joined.room, rich.welcome.member, (PresenceKind.LEFT,))
    await plain.fence()
