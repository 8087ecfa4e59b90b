"""Sections 4 and 9.2: the stream of a room, holes and gaps."""

from conformance.client.cases.steps import add, case, expect_fatal, message_octets
from conformance.client.context import Context, Room
from conformance.client.raw_server import RawServer
from conformance.wire.octets import encode
from protocol.frames import Evicted, Presence, Roster
from protocol.registry import Code, Flag


@case("9.2/dropped", "RW-STREAM-1")
async def dropped(t: Context) -> None:
    """The client drops messages at or below its cursor without an error."""
    server, room = await t.member()
    server.send(room.message(), room.message(), room.message())
    server.send(room.again(3), room.again(1), room.again(2), room.again(3, b"another"))
    await t.marker(server, room, "RW-STREAM-1")
    t.require(t.seqs(room) == ["1", "2", "3", "4"], "messages 1 to 4", t.seqs(room))


for _name, _ahead in (("one", 1), ("many", 1000)):

    async def _hole(t: Context, ahead: int = _ahead) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        await expect_fatal(t, server, message_octets(room, room.next + ahead), "RW-STREAM-2", Code.SEQUENCE)
        t.require(t.seqs(room) == ["1"], "message 1 alone", t.seqs(room))

    add(
        f"9.2/hole-{_name}",
        ["RW-STREAM-2"],
        "The client sends GOAWAY(SEQUENCE) for a message beyond its cursor + 1.",
        _hole,
    )


@case("9.2/rooms-apart", "RW-CURSOR-4", "RW-STREAM-1")
async def rooms_apart(t: Context) -> None:
    """The client keeps a cursor for each room, and shows each message in its own room."""
    server, one = await t.member()
    two = t.room("two", next=50)
    await t.join(server, two)
    for _ in range(3):
        server.send(one.message(), two.message())
    await t.marker(server, one)
    await t.marker(server, two)
    found = t.seqs(one), t.seqs(two)
    t.require(found == (["1", "2", "3", "4"], ["50", "51", "52", "53"]), "1 to 4, and 50 to 53", found)


_FOREIGN = {
    "message": lambda ref: message_octets(Room("x", ref, 1, 1), 1),
    "presence": lambda ref: encode(Presence(1, 5, "bob", room=ref)),
    "roster": lambda ref: encode(Roster((), flags=Flag.RESET, room=ref)),
    "evicted": lambda ref: encode(Evicted(Code.KICKED, room=ref)),
}

for _name, _make in _FOREIGN.items():

    async def _foreign(t: Context, name: str = _name) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        await expect_fatal(t, server, _FOREIGN[name](room.ref + 30), "RW-STREAM-3", Code.UNEXPECTED)

    _text = f"The client sends GOAWAY(UNEXPECTED) for {_name.upper()} of a room that it is not in."
    add(f"9.2/foreign-{_name}", ["RW-STREAM-3"], _text, _foreign)


@case("9.2/after-eviction", "RW-STREAM-3")
async def after_eviction(t: Context) -> None:
    """The client sends GOAWAY(UNEXPECTED) for a MESSAGE of a room that it was evicted from."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send(Evicted(Code.KICKED, room=room.ref))
    await t.report("evicted")
    await expect_fatal(t, server, message_octets(room, 2), "RW-STREAM-3", Code.UNEXPECTED)


async def _rejoined(t: Context, *, epoch: int, start: int, flags: int) -> tuple[RawServer, Room]:
    """A client that was evicted from a room with cursor 5, and joins again as these values say."""
    t.needs("rejoin")
    server, room = await t.member(next=5)
    await t.marker(server, room)
    server.send(Evicted(Code.LAGGED, flags=Flag.RETRY, room=room.ref))
    again = t.room(room.name, next=start, epoch=epoch)
    await t.rejoin(server, again, flags=flags)
    return server, again


for _name, _epoch, _start, _flags in (
    ("flag", 7, 9, Flag.GAP),
    ("start-beyond", 7, 9, 0),
    ("other-epoch", 8, 1, Flag.GAP),
    ("other-epoch-without-flag", 8, 6, 0),
    ("flag-alone", 7, 3, Flag.GAP),
):

    async def _gap(t: Context, epoch: int = _epoch, start: int = _start, flags: int = _flags) -> None:
        server, room = await _rejoined(t, epoch=epoch, start=start, flags=flags)
        await t.marker(server, room, "RW-PROMISE-10")
        gaps = t.client.of("gap")
        t.require(len(gaps) == 1, "one report of a gap", gaps)
        t.require(gaps[0].get("room") == room.name, f"the room {room.name}", gaps[0])
        found = gaps[0].get("epoch"), gaps[0].get("start")
        t.require(found == (str(epoch), str(start)), f"epoch {epoch}, start {start}", gaps[0])
        events = [r for r in t.client.reports if r.get("event") in ("gap", "message")]
        t.require(events.index(gaps[0]) == 1, "the gap between the messages before and after it", events)

    _text = f"The client reports a gap that JOINED tells ({_name}), before the messages after it."
    add(f"4/gap-{_name}", ["RW-PROMISE-10"], _text, _gap)


@case("4/no-gap", "RW-PROMISE-10")
async def no_gap(t: Context) -> None:
    """The client reports no gap when it goes on at its cursor, or first joins in the middle of the log."""
    server, room = await _rejoined(t, epoch=7, start=6, flags=0)
    await t.marker(server, room)
    t.require(not t.client.of("gap"), "no gap", t.client.of("gap"))
    t.require(t.seqs(room) == ["5", "6"], "messages 5 and 6", t.seqs(room), "RW-RECOVER-3")
