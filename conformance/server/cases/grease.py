"""Section 17.4: reserved numbers, which change nothing."""

from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.wire.octets import encode, frame
from protocol.fields import extension
from protocol.frames import Ack, Field, Hello, Join, Joined, Leave, Ok, Ping, Pong, Publish, Welcome
from protocol.registry import GREASE

_SAMPLE = [GREASE[at] for at in (0, 1, 17, 250, 526, 527)]


@case("17.4/whole-session", "RW-GREASE-2", "RW-FIELD-1", "RW-TYPE-2")
async def whole_session(t: Context) -> None:
    """The server ignores reserved frames between all frames of a session, and reserved fields in each of them."""
    grease = b"".join(frame(kind, bytes([kind & 0xFF]) * (kind % 40), room=kind) for kind in _SAMPLE)
    fields = tuple(Field(kind, b"\xaa" * (kind % 9)) for kind in _SAMPLE)
    client = await t.greet()
    names = (extension("grease-0a3f"), extension("grease-"))
    client.send_octets(grease + encode(Hello(t.name(), "ANONYMOUS", b"", fields=(*names, *fields), request=1)) + grease)
    await client.expect(1, Welcome, "RW-GREASE-2")
    reply = await t.patiently(client, Join(t.room(), 0, 0, fields=fields))
    t.require(isinstance(reply, Joined), "JOINED", reply)
    client.send_octets(grease + encode(Ping(b"greasing", fields=fields)) + grease)
    await client.expect_frame(Pong, requirement="RW-GREASE-2")
    reply = await t.patiently(client, Publish(t.id(client), 0, b"x", fields=fields, room=reply.room))
    t.require(isinstance(reply, Ack), "ACK", reply)
    await t.marker(client, room=reply.room)
    await client.expect(client.ask(Leave(fields=fields, room=reply.room)), Ok, "RW-GREASE-2")


@case("17.4/all-types", "RW-GREASE-2", "RW-TYPE-2")
async def all_types(t: Context) -> None:
    """The server ignores all 528 reserved types, one after another."""
    client = await t.open()
    client.send_octets(b"".join(frame(kind, b"grease") for kind in GREASE))
    await client.fence("RW-GREASE-2")


@case("17.4/all-fields", "RW-GREASE-2", "RW-FIELD-1")
async def all_fields(t: Context) -> None:
    """The server ignores all 528 reserved fields in one frame."""
    client = await t.open()
    client.send(Ping(b"8 octets", fields=tuple(Field(kind) for kind in GREASE)))
    await client.expect_frame(Pong, requirement="RW-GREASE-2")


@case("17.4/relayed-like-any", "RW-FIELD-6", "RW-GREASE-2")
async def relayed_like_any(t: Context) -> None:
    """The server does not copy reserved fields to MESSAGE, for all of them are below 0xC000."""
    client, joined = await t.member()
    id = t.id(client)
    fields = [Field(kind, b"copied") for kind in _SAMPLE]
    await t.publish(client, joined.room, id=id, fields=fields)
    message = (await client.until(joined.room, id))[-1]
    copied = [item for item in message.fields if item in fields or item.type not in GREASE]
    t.require(not copied, "none of these fields", copied)
