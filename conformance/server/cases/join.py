"""Sections 7.9, 7.10 and 9.1: joining, and where a stream begins."""

import asyncio

from conformance.harness.verdicts import Informative, Unsupported
from conformance.server.cases.steps import SERVER, case, content
from conformance.server.context import Context
from conformance.server.rates import TooLong
from conformance.server.raw_client import RawClient
from conformance.wire.octets import encode
from protocol.frames import Ack, Error, Frame, Join, Joined, Leave, Message, Ok, Publish
from protocol.registry import Code, Flag


@case("7.9/fresh", "RW-MODEL-3", "RW-CURSOR-1", "RW-PRESENCE-5")
async def fresh(t: Context) -> None:
    """The server answers the first JOIN of a room with head 0, start 1, oldest 1, one member, an epoch and no GAP."""
    client, joined = await t.member()
    found = (joined.head, joined.start, joined.oldest, joined.members)
    t.require(found == (0, 1, 1, 1), "head 0, start 1, oldest 1, members 1", found, "RW-CURSOR-1")
    t.require(not joined.flags & Flag.GAP, "GAP clear", hex(joined.flags), "RW-CURSOR-1")
    t.require(joined.epoch != 0, "an epoch that is not 0", 0, "RW-MODEL-3")
    await client.fence()


@case("7.9/already-joined", "RW-JOIN-1", "RW-ERROR-4")
async def already_joined(t: Context) -> None:
    """The server answers a second JOIN of a room with ALREADY_JOINED and its ref; the membership goes on."""
    client, joined = await t.member()
    request = client.ask(Join(joined.name, 0, 0))
    await client.expect_error(request, Code.ALREADY_JOINED, room=joined.room)
    await t.marker(client, room=joined.room)


@case("7.9/already-joined-spelling", "RW-JOIN-1", "RW-NAME-4")
async def already_joined_spelling(t: Context) -> None:
    """The server knows a room that the connection is in by another spelling of its name."""
    client, joined = await t.member(f"Lobby {t.room()}")
    request = client.ask(Join(joined.name.swapcase(), 0, 0))
    await client.expect_error(request, Code.ALREADY_JOINED, room=joined.room)


@case("7.9/too-many-rooms", "RW-JOIN-2", tags=["process"])
async def too_many_rooms(t: Context) -> None:
    """The server answers a JOIN beyond max_rooms with TOO_MANY_ROOMS, and accepts one after a LEAVE."""
    await t.with_limits(max_rooms=4)
    client = await t.open()
    wanted = client.welcome.max_rooms
    if wanted > 300:
        raise Informative(f"not tried: max_rooms is {wanted}")
    try:
        await _join_and_one_more(t, client, wanted)
    except TooLong as limited:
        raise Informative(f"not tried: max_rooms is {wanted}, and {limited}") from None


async def _join_and_one_more(t: Context, client: RawClient, wanted: int) -> None:
    joined = await t.join(client, t.room())
    for _ in range(wanted - 1):
        t.observe(not t.target.rates.rooms.scarce, f"not tried: max_rooms is {wanted}, and new rooms are limited")
        reply = await t.patiently(client, Join(t.room(), 0, 0))
        if isinstance(reply, Error) and reply.code in (Code.SERVER_FULL, Code.FORBIDDEN):
            raise Informative("not tried: the server allows fewer rooms")
        t.require(isinstance(reply, Joined), f"JOINED for each of {wanted} rooms", reply)
    reply = await t.patiently(client, Join(t.room(), 0, 0))
    t.require(isinstance(reply, Error) and reply.code == Code.TOO_MANY_ROOMS, "TOO_MANY_ROOMS", reply)
    request = client.ask(Join(joined.name, 0, 0))
    await client.expect_error(request, Code.ALREADY_JOINED, "RW-CHECK-1", joined.room)
    await client.expect(client.ask(Leave(room=joined.room)), Ok)
    await t.join(client, t.room())


@case("7.9/several-rooms", "RW-MODEL-7", "RW-MODEL-2")
async def several_rooms(t: Context) -> None:
    """The server gives the two rooms of a connection different refs, and sends each message in its own room."""
    client = await t.open()
    t.needs(client, rooms=2)
    one, two = await t.join(client, t.room()), await t.join(client, t.room())
    t.require(one.room != two.room, "two refs", one.room)
    for joined, payload in ((one, b"first"), (two, b"second"), (one, b"third")):
        id = t.id(client)
        await t.publish(client, joined.room, payload, id=id)
        seen = await client.until(joined.room, id)
        t.require([m.payload for m in seen] == [payload], f"{payload!r} alone", seen, "RW-MODEL-2")


@case("7.10/same-for-all", "RW-MODEL-7", "RW-MODEL-6")
async def same_for_all(t: Context) -> None:
    """The server gives all members of a room the same ref, epoch and name, and counts them."""
    _, one = await t.member()
    _, two = await t.member(one.name)
    for what in ("room", "epoch", "name"):
        a, b = getattr(one, what), getattr(two, what)
        t.require(a == b, f"the same {what} for both, {a!r}", repr(b))
    t.require(two.members == 2, "2 members", two.members, "RW-PRESENCE-5")


@case("7.10/ref-kept", "RW-MODEL-7")
async def ref_kept(t: Context) -> None:
    """The server gives a member that comes back the same ref, while another member stays."""
    _, stays = await t.member()
    goes, _ = await t.member(stays.name)
    await goes.close()
    _, again = await t.member(stays.name)
    t.require(again.room == stays.room, f"ref {stays.room}", again.room)


@case("7.10/ref-not-reused", "RW-MODEL-7")
async def ref_not_reused(t: Context) -> None:
    """The server does not give the ref of a room that all members have left to another room."""
    refs = {}
    for _ in range(4):
        client, joined = await t.member()
        t.require(joined.room not in refs, "a ref that was not used before", joined.room)
        refs[joined.room] = joined.name
        await client.close()


_PUBLISHED = 6


async def _history(t: Context) -> tuple[RawClient, Joined, list[Message]]:
    """A room with a few messages, and a member that stays."""
    client, joined = await t.member()
    ids = []
    for number in range(_PUBLISHED):
        ids.append(t.id(client))
        await t.publish(client, joined.room, b"%d" % number, id=ids[-1])
    return client, joined, await client.until(joined.room, ids[-1])


_CURSORS: list[tuple[str, str, bool | None, int]] = [
    ("newest-none", "no cursor, none of the newest", None, 0),
    ("newest-three", "no cursor, the three newest", None, 3),
    ("newest-all", "no cursor, more than there are", None, 99),
    ("newest-most", "no cursor, 2^53 - 1 of the newest", None, 2**53 - 1),
    ("at-head", "a cursor at the head", True, _PUBLISHED),
    ("behind", "a cursor in the middle", True, 2),
    ("at-start", "a cursor before the first message", True, 0),
    ("ahead", "a cursor above the head", True, _PUBLISHED + 2),
    ("far-ahead", "a cursor at 2^53 - 1", True, 2**53 - 1),
    ("other-epoch", "a cursor of another epoch", False, 3),
    ("other-epoch-ahead", "a cursor of another epoch, above the head", False, 1000),
]


def _expected(t: Context, joined: Joined, own: bool | None, since: int) -> tuple[int, bool]:
    """`start` and GAP by the formula of section 9.1."""
    floor = max(joined.oldest, joined.head + 1 - t.replay_cap, 1)
    if own is None:
        return max(floor, max(joined.head + 1 - since, 0)), False
    want = since + 1 if own else floor
    start = min(max(want, floor), joined.head + 1)
    return start, not own or start != since + 1


def _define_cursor(path: str, what: str, own: bool | None, since: int) -> None:
    async def run(t: Context) -> None:
        publisher, first, messages = await _history(t)
        epoch = 0 if own is None else first.epoch if own else first.epoch ^ 1 or 2
        reader, joined = await t.member(first.name, epoch=epoch, since=since)
        t.require(joined.head == _PUBLISHED, f"head {_PUBLISHED}", joined.head, "RW-PROMISE-1")
        t.require(joined.epoch == first.epoch, f"epoch {first.epoch}", joined.epoch, "RW-MODEL-6")
        start, gap = _expected(t, joined, own, since)
        t.require(
            joined.start == start, f"start {start} (oldest {joined.oldest}, replay cap {t.replay_cap})", joined.start
        )
        t.require(bool(joined.flags & Flag.GAP) == gap, f"GAP {gap:d}", joined.flags)
        [seen] = await t.marker(publisher, reader, room=first.room)
        seen, replayed = list(map(content, seen)), [content(m) for m in messages if m.seq >= start]
        t.require(
            seen[:-1] == replayed,
            f"{len(replayed)} messages replayed, as first sent",
            seen[:-1],
            "RW-CURSOR-2",
        )

    SERVER.add(
        f"9.1/{path}",
        ["RW-CURSOR-1", "RW-CURSOR-2"],
        f"The server begins the stream where section 9.1 says for JOIN with {what}.",
        run,
    )


for _cursor in _CURSORS:
    _define_cursor(*_cursor)


@case("9.1/retained", "RW-PROMISE-9", "RW-MODEL-9")
async def retained(t: Context) -> None:
    """The server sends the messages that it retains, as oldest tells, to a client that joins with a cursor of 0."""
    t.unless_declared("no-retention")
    _, first, _ = await _history(t)
    _, joined = await t.member(first.name, epoch=first.epoch, since=0)
    if joined.oldest == joined.head + 1:
        raise Unsupported("JOINED says that nothing is retained")
    t.require(joined.start <= _PUBLISHED, "a start at or below the head", joined.start)


@case("9.1/race", "RW-CURSOR-3", "RW-CURSOR-2")
async def race(t: Context) -> None:
    """The server sends publishes that race a JOIN exactly once: those up to head by replay, the others live."""
    publisher, first = await t.member()
    clients = [await t.open() for _ in range(4)]
    stop = False

    async def publishing() -> None:
        while not stop:
            await t.publish(publisher, first.room, b"race")

    task = asyncio.create_task(publishing())
    try:
        readers = []
        for client, since in zip(clients, (0, 5, 0, 5), strict=True):
            readers.append((client, await t.join(client, first.name, since=since)))
    finally:
        stop = True
        await task
    streams = await t.marker(publisher, *(client for client, _ in readers), room=first.room)
    for (_, joined), stream in zip(readers, streams, strict=True):
        numbers = [message.seq for message in stream]
        wanted = list(range(joined.start, stream[-1].seq + 1))
        t.require(numbers == wanted, f"each of {wanted[0]} to {wanted[-1]} once", numbers)


@case("9.1/join-behind-publish", "RW-CURSOR-5", "RW-CURSOR-3")
async def join_behind_publish(t: Context) -> None:
    """The server sends nothing of a stream before JOINED after LEAVE, JOIN and PUBLISH in one segment."""
    client, joined = await t.member()
    t.needs(client, window=3)
    other, _ = await t.member(joined.name)
    await t.publish(other, joined.room)
    id = t.id(client)
    frames: tuple[Frame, ...] = (
        Leave(request=81, room=joined.room),
        Join(joined.name, 0, 1, request=82),
        Publish(id, 0, b"back", request=83, room=joined.room),
    )
    client.send_octets(b"".join(map(encode, frames)))
    await client.reply(81)
    again = await client.reply(82)
    if isinstance(again, Error) and again.code == Code.RATE_LIMITED:
        raise Informative("the server limited the rate of joins")
    t.require(isinstance(again, Joined) and again.start <= again.head + 1, "JOINED", again)
    await client.expect(83, Ack)
    await client.until(joined.room, id)


@case("9.1/rejoin", "RW-MODEL-9", "RW-MODEL-6")
async def rejoin(t: Context) -> None:
    """The server keeps epoch and head of a room over LEAVE and JOIN, while another member stays."""
    stays, first, _ = await _history(t)
    client, one = await t.member(first.name)
    await client.expect(client.ask(Leave(room=one.room)), Ok)
    two = await t.join(client, first.name, epoch=one.epoch, since=one.head)
    found, wanted = (two.epoch, two.head, two.start), (one.epoch, one.head, one.head + 1)
    t.require(found == wanted, f"epoch, head, start {wanted}", found)
    await stays.fence()
