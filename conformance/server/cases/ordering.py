"""Section 10.3: order against refusals."""

from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.octets import encode
from protocol.frames import Ack, Joined, Leave, Ok, Publish
from protocol.registry import Code, Flag


async def _refused(t: Context) -> tuple[RawClient, Joined]:
    """A member whose last publish was refused."""
    client, joined = await t.member(fresh=False)
    request = client.ask(Publish(t.id(client), 0, b"\xff", room=joined.room))
    await client.expect_error(request, Code.PAYLOAD_INVALID, "RW-PUBLISH-2")
    return client, joined


def _ordered(t: Context, client: RawClient, room: int, payload: bytes = b"x") -> Publish:
    return Publish(t.id(client), 0, payload, flags=Flag.ORDERED, room=room)


@case("10.3/preceded", "RW-ORDER-1", "RW-PROMISE-4")
async def preceded(t: Context) -> None:
    """The server answers ORDERED after a refusal with PRECEDED, until it accepts a publish without ORDERED."""
    client, joined = await _refused(t)
    for _ in range(3):
        await client.expect_error(
            client.ask(_ordered(t, client, joined.room)), Code.PRECEDED, "RW-ORDER-1", joined.room
        )
    ack = await t.publish(client, joined.room)
    wanted = joined.head + 1
    t.require(ack.seq == wanted, f"seq {wanted}: the refused publishes appended nothing", ack.seq, "RW-PROMISE-4")
    reply = await t.patiently(client, _ordered(t, client, joined.room))
    t.require(isinstance(reply, Ack), "ACK for ORDERED after an accepted one", reply, "RW-ORDER-1")


@case("10.3/preceded-in-one-segment", "RW-ORDER-1", "RW-REQUEST-3")
async def preceded_in_one_segment(t: Context) -> None:
    """The server answers ORDERED publishes that were already on their way with PRECEDED, too."""
    client, joined = await t.member(fresh=False)
    t.needs(client, window=4)
    await t.publish(client, joined.room)
    payloads = (b"fine", b"\xff", b"behind", b"further behind")
    frames = [
        Publish(t.id(client), 0, payload, flags=Flag.ORDERED, request=600 + n, room=joined.room)
        for n, payload in enumerate(payloads)
    ]
    client.send_octets(b"".join(map(encode, frames)))
    await client.expect(600, Ack)
    await client.expect_error(601, Code.PAYLOAD_INVALID)
    await client.expect_error(602, Code.PRECEDED)
    await client.expect_error(603, Code.PRECEDED)


@case("10.3/first", "RW-ORDER-1")
async def first(t: Context) -> None:
    """The server accepts ORDERED in the first publish of a membership."""
    client, joined = await t.member(fresh=False)
    reply = await t.patiently(client, _ordered(t, client, joined.room))
    t.require(isinstance(reply, Ack), "ACK", reply)


@case("10.3/new-membership", "RW-ORDER-1")
async def new_membership(t: Context) -> None:
    """The server forgets a refusal when the membership ends."""
    keeper, there = await t.member(fresh=False)
    client, joined = await t.member(there.name)
    request = client.ask(Publish(t.id(client), 0, b"\xff", room=joined.room))
    await client.expect_error(request, Code.PAYLOAD_INVALID)
    await client.expect(client.ask(Leave(room=joined.room)), Ok)
    again = await t.join(client, there.name)
    reply = await t.patiently(client, _ordered(t, client, again.room))
    t.require(isinstance(reply, Ack), "ACK", reply)
    await keeper.fence()


@case("10.3/other-room", "RW-ORDER-1")
async def other_room(t: Context) -> None:
    """The server does not count a refusal in one room in another."""
    client, joined = await _refused(t)
    t.needs(client, rooms=2)
    other = await t.join(client, t.room())
    reply = await t.patiently(client, _ordered(t, client, other.room))
    t.require(isinstance(reply, Ack), "ACK in the other room", reply)
    await client.expect_error(client.ask(_ordered(t, client, joined.room)), Code.PRECEDED)


@case("10.3/other-connection", "RW-ORDER-1")
async def other_connection(t: Context) -> None:
    """The server does not count a refusal on one connection on another."""
    _, joined = await _refused(t)
    other, _ = await t.member(joined.name)
    reply = await t.patiently(other, _ordered(t, other, joined.room))
    t.require(isinstance(reply, Ack), "ACK", reply)


@case("10.3/known-id", "RW-ORDER-1", "RW-DEDUPE-1")
async def known_id(t: Context) -> None:
    """The server answers ORDERED with a known id as a repeat, even after a refusal."""
    client, joined = await t.member(fresh=False)
    t.needs(client, dedupe=True)
    id = t.id(client)
    first = await t.publish(client, joined.room, b"known", id=id)
    request = client.ask(Publish(t.id(client), 0, b"\xff", room=joined.room))
    await client.expect_error(request, Code.PAYLOAD_INVALID)
    ack = await client.expect(client.ask(Publish(id, 0, b"known", flags=Flag.ORDERED, room=joined.room)), Ack)
    t.require(ack.seq == first.seq and bool(ack.flags & Flag.DUPLICATE), f"DUPLICATE of seq {first.seq}", ack)


@case("10.3/expired-before-preceded", "RW-CHECK-1", "RW-ORDER-1")
async def expired_before_preceded(t: Context) -> None:
    """The server answers PUBLISH with PAYLOAD_INVALID or ID_EXPIRED rather than PRECEDED."""
    client, joined = await _refused(t)
    t.needs(client, dedupe=True)
    old = Publish(bytes(15) + b"\x01", 0, b"x", flags=Flag.ORDERED, room=joined.room)
    await client.expect_error(client.ask(old, breaks="RW-ID-1"), Code.ID_EXPIRED)
    await client.expect_error(client.ask(_ordered(t, client, joined.room, b"\xff")), Code.PAYLOAD_INVALID)
    await client.expect_error(client.ask(_ordered(t, client, joined.room)), Code.PRECEDED)
