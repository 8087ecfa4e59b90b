"""Sections 10.1 and 10.2: ids, and publishing again."""

from conformance.harness.verdicts import Informative, Unsupported
from conformance.server.cases.steps import IGNORABLE, case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.octets import encode, field
from protocol.frames import Ack, Field, Joined, Leave, Ok, Publish
from protocol.registry import Code, Flag

_SAME = (Field(0xC000, b"a"), Field(0xC001, b"b"))


async def first_publish(
    t: Context, *, fields: tuple[Field, ...] = (), ctype: int = 0
) -> tuple[RawClient, Joined, Publish, Ack]:
    """A message that was accepted, on a server that remembers ids."""
    client, joined = await t.member(fresh=False)
    t.needs(client, dedupe=True)
    frame = Publish(t.id(client), ctype, b"once", fields=fields, room=joined.room)
    ack = await t.publish(client, joined.room, frame.payload, id=frame.id, ctype=ctype, fields=fields)
    return client, joined, frame, ack


async def _repeated(t: Context, client: RawClient, frame: Publish, first: Ack) -> None:
    ack = await client.expect(client.ask(frame), Ack, "RW-DEDUPE-1")
    t.require(bool(ack.flags & Flag.DUPLICATE), "DUPLICATE set", hex(ack.flags), "RW-DEDUPE-1")
    found, wanted = (ack.seq, ack.time_ms), (first.seq, first.time_ms)
    t.require(found == wanted, f"seq and time of the first, {wanted}", found, "RW-ACK-2")


@case("10.2/repeat", "RW-DEDUPE-1", "RW-ACK-2")
async def repeat(t: Context) -> None:
    """The server acknowledges the same id with the same content as DUPLICATE, and appends nothing."""
    client, joined, frame, first = await first_publish(t)
    t.require(not first.flags & Flag.DUPLICATE, "DUPLICATE clear at first", hex(first.flags))
    for _ in range(3):
        await _repeated(t, client, frame, first)
    [seen] = await t.marker(client, room=joined.room)
    t.require(seen[-1].seq == first.seq + 1, f"seq {first.seq + 1} next", seen[-1].seq)
    t.require(sum(m.id == frame.id for m in seen) == 1, "the message once", seen)


@case("10.2/repeat-elsewhere", "RW-DEDUPE-1")
async def repeat_elsewhere(t: Context) -> None:
    """The server knows a repeat on another connection, after the first connection has ended."""
    client, joined, frame, first = await first_publish(t)
    keeper, _ = await t.member(joined.name)
    await client.close()
    again, rejoined = await t.member(joined.name)
    t.require(rejoined.epoch == joined.epoch, "the same epoch", rejoined.epoch, "RW-MODEL-6")
    await _repeated(t, again, frame, first)
    await keeper.fence()


@case("10.2/repeat-after-rejoin", "RW-DEDUPE-1")
async def repeat_after_rejoin(t: Context) -> None:
    """The server knows a repeat after LEAVE and JOIN, where it kept the epoch."""
    client, joined, frame, first = await first_publish(t)
    await client.expect(client.ask(Leave(room=joined.room)), Ok)
    again = await t.join(client, joined.name)
    if again.epoch != joined.epoch:
        raise Informative("the room got a new epoch when all members had left")
    await _repeated(t, client, Publish(frame.id, 0, frame.payload, room=again.room), first)


@case("10.2/repeat-in-one-segment", "RW-DEDUPE-4", "RW-DEDUPE-5")
async def repeat_in_one_segment(t: Context) -> None:
    """The server knows a repeat right after the first copy, which may not be durable yet."""
    client, joined = await t.member(fresh=False)
    t.needs(client, window=3, dedupe=True)
    await t.publish(client, joined.room)
    id = t.id(client)
    frames = [Publish(id, 0, b"twice", request=400 + n, room=joined.room) for n in range(3)]
    client.send_octets(b"".join(map(encode, frames)))
    first = await client.expect(400, Ack)
    t.require(not first.flags & Flag.DUPLICATE, "DUPLICATE clear in the first", hex(first.flags), "RW-DEDUPE-1")
    for request in (401, 402):
        ack = await client.expect(request, Ack)
        t.require(bool(ack.flags & Flag.DUPLICATE), "DUPLICATE", hex(ack.flags))
        t.require((ack.seq, ack.time_ms) == (first.seq, first.time_ms), f"seq {first.seq}", ack, "RW-ACK-2")


@case("10.2/repeat-with-other-ignorable-fields", "RW-DEDUPE-1")
async def repeat_other_fields(t: Context) -> None:
    """The server does not count fields that are not relayed as content: a repeat may have others."""
    client, _, frame, first = await first_publish(t, fields=(Field(IGNORABLE, b"a"), Field(0xC000, b"kept")))
    again = Publish(frame.id, 0, frame.payload, fields=(Field(0xC000, b"kept"), Field(0x8040, b"")), room=frame.room)
    await _repeated(t, client, again, first)


async def _conflict(t: Context, changed: tuple[int, bytes, tuple[Field, ...]], before: int = 0) -> None:
    client, joined, frame, first = await first_publish(t, fields=_SAME, ctype=before)
    await _repeated(t, client, frame, first)
    ctype, payload, fields = changed
    request = client.ask(Publish(frame.id, ctype, payload, fields=fields, room=joined.room))
    await client.expect_error(request, Code.ID_CONFLICT, "RW-DEDUPE-2", joined.room)
    [seen] = await t.marker(client, room=joined.room)
    t.require(seen[-1].seq == first.seq + 1, "nothing appended", seen[-1].seq, "RW-PROMISE-4")


@case("10.2/conflict-payload", "RW-DEDUPE-2")
async def conflict_payload(t: Context) -> None:
    """The server sends ID_CONFLICT for the same id with another payload."""
    await _conflict(t, (0, b"Once", _SAME))


@case("10.2/conflict-ctype", "RW-DEDUPE-2")
async def conflict_ctype(t: Context) -> None:
    """The server sends ID_CONFLICT for the same id with another ctype."""
    await _conflict(t, (1, b"once", _SAME))


@case("10.2/conflict-field-value", "RW-DEDUPE-2")
async def conflict_field_value(t: Context) -> None:
    """The server sends ID_CONFLICT for the same id with another value of a relayed field."""
    await _conflict(t, (0, b"once", (Field(0xC000, b"a"), Field(0xC001, b"c"))))


@case("10.2/conflict-field-order", "RW-DEDUPE-2")
async def conflict_field_order(t: Context) -> None:
    """The server sends ID_CONFLICT for the same id with the relayed fields in another order."""
    await _conflict(t, (0, b"once", _SAME[::-1]))


@case("10.2/conflict-boundaries", "RW-DEDUPE-2")
async def conflict_boundaries(t: Context) -> None:
    """The server answers the same octets, cut elsewhere into payload and relayed fields, with ID_CONFLICT."""
    await _conflict(t, (1, b"once" + field(0xC000, b"a"), _SAME[1:]), before=1)


@case("10.2/another-room", "RW-DEDUPE-1")
async def another_room(t: Context) -> None:
    """The server takes an id that was used in one room as new in another."""
    client, _, frame, _ = await first_publish(t)
    t.needs(client, rooms=2)
    other = await t.join(client, t.room())
    ack = await t.publish(client, other.room, b"other", id=frame.id)
    t.require(not ack.flags & Flag.DUPLICATE and ack.seq == 1, "a first message", ack)


@case("10.1/expired", "RW-ID-2")
async def expired(t: Context) -> None:
    """The server answers an unknown id that is older than dedupe_ms with ID_EXPIRED, and accepts one of now."""
    client, joined = await t.member(fresh=False)
    t.needs(client, dedupe=True)
    await t.publish(client, joined.room)
    age = client.welcome.dedupe_ms + 5_000
    if age > client.now_ms():
        raise Informative("dedupe_ms is longer than the server's time")
    for offset in (-age, -client.now_ms()):
        request = client.ask(Publish(t.id(client, offset), 0, b"x", room=joined.room), breaks="RW-ID-1")
        await client.expect_error(request, Code.ID_EXPIRED, room=joined.room)


@case("10.1/ahead", "RW-ID-2")
async def ahead(t: Context) -> None:
    """The server answers an unknown id more than 60 s ahead with ID_EXPIRED, and accepts one 50 s ahead."""
    client, joined = await t.member(fresh=False)
    t.needs(client, dedupe=True)
    await t.publish(client, joined.room, id=t.id(client, 50_000))
    for id in (t.id(client, 70_000), b"\xff" * 16):
        request = client.ask(Publish(id, 0, b"x", room=joined.room), breaks="RW-ID-1")
        await client.expect_error(request, Code.ID_EXPIRED, room=joined.room)


@case("10.1/recent", "RW-ID-2")
async def recent(t: Context) -> None:
    """The server accepts an unknown id that is not as old as dedupe_ms."""
    client, joined = await t.member(fresh=False)
    t.needs(client, dedupe=True)
    age = client.welcome.dedupe_ms - 5_000
    if not 0 < age < client.now_ms():
        raise Informative("dedupe_ms is too short, or longer than the server's time")
    reply = await t.patiently(client, Publish(t.id(client, -age), 0, b"x", room=joined.room))
    t.require(isinstance(reply, Ack), "ACK", reply)


@case("10.1/no-dedupe", "RW-ID-3", tags=["process"])
async def no_dedupe(t: Context) -> None:
    """The server takes no id as too old, and none as a repeat, if its dedupe_ms is 0."""
    await t.with_limits(dedupe_ms=0)
    client, joined = await t.member()
    if client.welcome.dedupe_ms:
        raise Unsupported("WELCOME has a dedupe_ms")
    for _ in range(2):
        reply = await t.patiently(client, Publish(bytes(16), 0, b"old", room=joined.room))
        t.require(isinstance(reply, Ack) and not reply.flags & Flag.DUPLICATE, "ACK without DUPLICATE", reply)
