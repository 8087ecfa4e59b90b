"""Section 10.3: order against refusals."""

from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.octets import encode
from protocol.frames import Ack, Joined, Leave, Ok, Publish
from protocol.registry import Code, Flag


async def _refused(t: Context) -> tuple[RawClient, Joined]:
    """A member whose last publish was refused."""
    peer, joined = await t.member()
    request = peer.ask(Publish(t.id(peer), 0, b"\xff", room=joined.room))
    await peer.expect_error(request, Code.PAYLOAD_INVALID, "RW-PUBLISH-2")
    return peer, joined


def _ordered(t: Context, peer: RawClient, room: int, payload: bytes = b"x") -> Publish:
    return Publish(t.id(peer), 0, payload, flags=Flag.ORDERED, room=room)


@case("10.3/preceded", "RW-ORDER-1", "RW-PROMISE-4")
async def preceded(t: Context) -> None:
    """ORDERED after a refusal earns PRECEDED, again and again, until one without ORDERED is accepted."""
    peer, joined = await _refused(t)
    for _ in range(3):
        await peer.expect_error(peer.ask(_ordered(t, peer, joined.room)), Code.PRECEDED, "RW-ORDER-1", joined.room)
    ack = await t.publish(peer, joined.room)
    t.require(ack.seq == 1, "seq 1: nothing was appended before", ack.seq, "RW-PROMISE-4")
    reply = await t.patiently(peer, _ordered(t, peer, joined.room))
    t.require(isinstance(reply, Ack), "ACK for ORDERED after an accepted one", reply, "RW-ORDER-1")


@case("10.3/preceded-in-one-segment", "RW-ORDER-1", "RW-REQUEST-3")
async def preceded_in_one_segment(t: Context) -> None:
    """The refusal counts for what was already on its way."""
    peer, joined = await t.member()
    t.needs(peer, window=4)
    await t.publish(peer, joined.room)
    payloads = (b"fine", b"\xff", b"behind", b"further behind")
    frames = [
        Publish(t.id(peer), 0, payload, flags=Flag.ORDERED, request=600 + n, room=joined.room)
        for n, payload in enumerate(payloads)
    ]
    peer.send_octets(b"".join(map(encode, frames)))
    await peer.expect(600, Ack)
    await peer.expect_error(601, Code.PAYLOAD_INVALID)
    await peer.expect_error(602, Code.PRECEDED)
    await peer.expect_error(603, Code.PRECEDED)


@case("10.3/first", "RW-ORDER-1")
async def first(t: Context) -> None:
    """ORDERED in the first publish of a membership is accepted."""
    peer, joined = await t.member()
    reply = await t.patiently(peer, _ordered(t, peer, joined.room))
    t.require(isinstance(reply, Ack), "ACK", reply)


@case("10.3/new-membership", "RW-ORDER-1")
async def new_membership(t: Context) -> None:
    """A refusal in an earlier membership does not count."""
    keeper, there = await t.member()
    peer, joined = await t.member(there.name)
    request = peer.ask(Publish(t.id(peer), 0, b"\xff", room=joined.room))
    await peer.expect_error(request, Code.PAYLOAD_INVALID)
    await peer.expect(peer.ask(Leave(room=joined.room)), Ok)
    again = await t.join(peer, there.name)
    reply = await t.patiently(peer, _ordered(t, peer, again.room))
    t.require(isinstance(reply, Ack), "ACK", reply)
    await keeper.fence()


@case("10.3/other-room", "RW-ORDER-1")
async def other_room(t: Context) -> None:
    """A refusal in one room does not count in another."""
    peer, joined = await _refused(t)
    t.needs(peer, rooms=2)
    other = await t.join(peer, t.room())
    reply = await t.patiently(peer, _ordered(t, peer, other.room))
    t.require(isinstance(reply, Ack), "ACK in the other room", reply)
    await peer.expect_error(peer.ask(_ordered(t, peer, joined.room)), Code.PRECEDED)


@case("10.3/other-connection", "RW-ORDER-1")
async def other_connection(t: Context) -> None:
    """A refusal on one connection does not count on another."""
    _, joined = await _refused(t)
    other, _ = await t.member(joined.name)
    reply = await t.patiently(other, _ordered(t, other, joined.room))
    t.require(isinstance(reply, Ack), "ACK", reply)


@case("10.3/known-id", "RW-ORDER-1", "RW-DEDUPE-1")
async def known_id(t: Context) -> None:
    """ORDERED with a known id is answered as a repeat, also after a refusal."""
    peer, joined = await t.member()
    t.needs(peer, dedupe=True)
    id = t.id(peer)
    first = await t.publish(peer, joined.room, b"known", id=id)
    request = peer.ask(Publish(t.id(peer), 0, b"\xff", room=joined.room))
    await peer.expect_error(request, Code.PAYLOAD_INVALID)
    ack = await peer.expect(peer.ask(Publish(id, 0, b"known", flags=Flag.ORDERED, room=joined.room)), Ack)
    t.require(ack.seq == first.seq and bool(ack.flags & Flag.DUPLICATE), f"DUPLICATE of seq {first.seq}", ack)


@case("10.3/expired-before-preceded", "RW-CHECK-1", "RW-ORDER-1")
async def expired_before_preceded(t: Context) -> None:
    """PUBLISH: PAYLOAD_INVALID and ID_EXPIRED come before PRECEDED."""
    peer, joined = await _refused(t)
    t.needs(peer, dedupe=True)
    old = Publish(bytes(15) + b"\x01", 0, b"x", flags=Flag.ORDERED, room=joined.room)
    await peer.expect_error(peer.ask(old, breaks="RW-ID-1"), Code.ID_EXPIRED)
    await peer.expect_error(peer.ask(_ordered(t, peer, joined.room, b"\xff")), Code.PAYLOAD_INVALID)
    await peer.expect_error(peer.ask(_ordered(t, peer, joined.room)), Code.PRECEDED)
