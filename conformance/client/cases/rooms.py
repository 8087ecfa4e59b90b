"""Sections 7.12, 7.18, 9 and 12: cursors, the stream, gaps, rosters, evictions, history, names."""

from dataclasses import replace

from conformance.client.cases.steps import add, case, message_octets, refused
from conformance.client.context import Context, Room
from conformance.client.raw_server import RawServer
from conformance.client.target import Report
from conformance.wire.octets import b8, encode, frame, u32, u64
from protocol.frames import (
    Evicted,
    History,
    HistoryEnd,
    Join,
    Message,
    Presence,
    Publish,
    Roster,
    RosterEntry,
)
from protocol.registry import Code, Flag, FrameType


@case("9.1/cursor-is-set", "RW-CURSOR-4", "RW-STREAM-1")
async def cursor_is_set(t: Context) -> None:
    """The stream begins with `start` of JOINED, wherever that is."""
    server, room = await t.member(next=1000)
    server.send(room.again(999, b"below"))
    await t.marker(server, room, "RW-CURSOR-4")
    t.require(t.seqs(room) == ["1000"], "message 1000 alone", t.seqs(room))
    report = t.messages(room)[0]
    t.require(report.get("epoch") == "7", "epoch 7", report, "RW-MODEL-10")


@case("9.1/great-numbers", "RW-CURSOR-4", "RW-MODEL-10")
async def great_numbers(t: Context) -> None:
    """seq up to 2^53 - 1 and epochs up to 2^64 - 1 are kept exactly."""
    server = await t.open()
    room = t.room(next=2**53 - 2, epoch=2**64 - 1)
    await t.join(server, room)
    server.send(room.message(sender=2**64 - 1))
    report = await t.report("message", requirement="RW-CURSOR-4")
    found = report.get("seq"), report.get("epoch"), report.get("sender")
    t.require(found == (str(2**53 - 2), str(2**64 - 1), str(2**64 - 1)), "the numbers as decimal strings", report)


for _name, _epoch, _start in (("epoch", 0, 1), ("start", 7, 0)):

    async def _zero(t: Context, epoch: int = _epoch, start: int = _start) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        t.client.tell("join", room="other")
        join = await server.expect(Join)
        body = u64(epoch) + u64(0) + u64(start) + u64(1) + u32(1) + b8(b"other")
        octets = frame(FrameType.JOINED, body, request=join.request, room=room.ref + 9)
        await refused(t, server, octets, "RW-CURSOR-6", Code.MALFORMED)

    add(f"9.1/no-{_name}", ["RW-CURSOR-6"], f"A JOINED whose {_name} is 0 is MALFORMED.", _zero)


@case("9.1/content", "RW-MODEL-10")
async def content(t: Context) -> None:
    """What is reported of a message is what the server sent: octets, ctype, name, sender, time, VERIFIED."""
    server, room = await t.member()
    message = room.message(b"\x00\xff\x1b[31m", ctype=200, name="Zoë", sender=2**63, flags=Flag.SEQ | Flag.VERIFIED)
    server.send(message)
    report = await t.report("message", requirement="RW-MODEL-10")
    for name, wanted in {
        "payload": message.payload.hex(),
        "ctype": 200,
        "name": "Zoë",
        "sender": str(2**63),
        "time_ms": str(message.time_ms),
        "verified": True,
    }.items():
        t.require(report.get(name) == wanted, f"{name} {wanted!r}", report)


@case("9.2/dropped", "RW-STREAM-1")
async def dropped(t: Context) -> None:
    """Messages at or below the cursor are dropped without a word."""
    server, room = await t.member()
    server.send(room.message(), room.message(), room.message())
    server.send(room.again(3), room.again(1), room.again(2), room.again(3, b"another"))
    await t.marker(server, room, "RW-STREAM-1")
    t.require(t.seqs(room) == ["1", "2", "3", "4"], "messages 1 to 4", t.seqs(room))


for _name, _ahead in (("one", 1), ("many", 1000)):

    async def _hole(t: Context, ahead: int = _ahead) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        await refused(t, server, message_octets(room, room.next + ahead), "RW-STREAM-2", Code.SEQUENCE)
        t.require(t.seqs(room) == ["1"], "message 1 alone", t.seqs(room))

    add(f"9.2/hole-{_name}", ["RW-STREAM-2"], "A message beyond the cursor + 1 is SEQUENCE.", _hole)


@case("9.2/rooms-apart", "RW-CURSOR-4", "RW-STREAM-1")
async def rooms_apart(t: Context) -> None:
    """Each room has its own cursor, and what comes for one is shown in that one."""
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
        await refused(t, server, _FOREIGN[name](room.ref + 30), "RW-STREAM-3", Code.UNEXPECTED)

    _text = f"{_name.upper()} of a room that the client is not in is UNEXPECTED."
    add(f"9.2/foreign-{_name}", ["RW-STREAM-3"], _text, _foreign)


@case("9.2/after-eviction", "RW-STREAM-3")
async def after_eviction(t: Context) -> None:
    """After EVICTED the client is in the room no more: a MESSAGE of it is UNEXPECTED."""
    server, room = await t.member()
    await t.marker(server, room)
    server.send(Evicted(Code.KICKED, room=room.ref))
    await t.report("evicted")
    await refused(t, server, message_octets(room, 2), "RW-STREAM-3", Code.UNEXPECTED)


# Gaps.


async def _rejoined(t: Context, *, epoch: int, start: int, flags: int) -> tuple[RawServer, Room]:
    """In a room with the cursor 5, evicted, and in again as told."""
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

    _text = "A gap is reported, before what comes behind it, when JOINED says or shows that there is one."
    add(f"4/gap-{_name}", ["RW-PROMISE-10"], _text, _gap)


@case("4/no-gap", "RW-PROMISE-10")
async def no_gap(t: Context) -> None:
    """Going on at the cursor is no gap, and neither is a first join in the midst of the log."""
    server, room = await _rejoined(t, epoch=7, start=6, flags=0)
    await t.marker(server, room)
    t.require(not t.client.of("gap"), "no gap", t.client.of("gap"))
    t.require(t.seqs(room) == ["5", "6"], "messages 5 and 6", t.seqs(room), "RW-RECOVER-3")


# Presence and rosters.


def _roster(*members: tuple[int, str], flags: int = Flag.RESET, room: Room) -> Roster:
    return Roster(tuple(RosterEntry(member, 0, name) for member, name in members), flags=flags, room=room.ref)


async def _known(t: Context, server: RawServer, room: Room) -> set[object]:
    """Who is in the room, as the client reported it last before a marker."""
    await t.marker(server, room)
    found: Report = t.client.of("presence")[-1]
    roster = found.get("roster")
    members = roster if isinstance(roster, list) else []
    return {entry.get("name") for entry in members if isinstance(entry, dict)}


async def _with_roster(t: Context) -> tuple[RawServer, Room]:
    t.needs("presence")
    server = await t.open()
    room = t.room()
    join = await t.join(server, room)
    t.require(bool(join.flags & Flag.ROSTER), "the flag ROSTER", join.flags, "RW-ROSTER-5")
    server.send(_roster((5, "bob"), (6, "eve"), room=room))
    async with t.control("a roster"):
        await t.report("presence", lambda report: report.get("kind") == "roster")
    return server, room


@case("9.3/roster", "RW-ROSTER-5")
async def roster(t: Context) -> None:
    """A sequence of ROSTER frames takes the place of the roster before it, in as many frames as it has."""
    server, room = await _with_roster(t)
    t.require(await _known(t, server, room) == {"bob", "eve"}, "bob and eve", t.client.of("presence")[-1])
    server.send(
        _roster((7, "kim"), flags=Flag.RESET | Flag.MORE, room=room),
        _roster((8, "lee"), flags=Flag.MORE, room=room),
        _roster(flags=Flag.MORE, room=room),
        _roster((9, "max"), flags=0, room=room),
    )
    found = await _known(t, server, room)
    t.require(found == {"kim", "lee", "max"}, "kim, lee and max, and nobody of before", found)


@case("9.3/presence", "RW-PRESENCE-6", "RW-PRESENCE-1")
async def presence(t: Context) -> None:
    """PRESENCE of who is known or unknown already is no error; an unknown kind is ignored."""
    server, room = await _with_roster(t)
    server.send(
        Presence(1, 5, "bob", room=room.ref),
        Presence(2, 99, "nobody", room=room.ref),
        Presence(3, 98, "no one", room=room.ref),
        Presence(1, 7, "kim", flags=Flag.VERIFIED, room=room.ref),
        Presence(3, 6, "eve", room=room.ref),
    )
    found = await _known(t, server, room)
    t.require(found == {"bob", "kim"}, "bob and kim", found)
    kinds = [(r.get("kind"), r.get("name")) for r in t.client.of("presence")]
    t.require(("joined", "kim") in kinds and ("lost", "eve") in kinds, "joined kim, lost eve", kinds)


@case("9.3/unknown-kind", "RW-PRESENCE-1")
async def unknown_kind(t: Context) -> None:
    """PRESENCE of an unknown kind changes nothing and is reported as nothing."""
    server, room = await _with_roster(t)
    before = len(t.client.of("presence"))
    server.send(*(Presence(kind, 5, "bob", room=room.ref) for kind in (0, 5, 77, 255)))
    await t.marker(server, room, "RW-PRESENCE-1")
    t.require(len(t.client.of("presence")) == before, "no report", t.client.of("presence")[before:])


@case("9.3/quiet", "RW-QUIET-3")
async def quiet(t: Context) -> None:
    """When the room becomes quiet the roster is discarded."""
    server, room = await _with_roster(t)
    server.send(Presence(4, 0, "", room=room.ref))
    await t.report("presence", lambda report: report.get("kind") == "quiet", "RW-QUIET-3")
    found = await _known(t, server, room)
    t.require(found == set(), "nobody", found)


# Evictions.


@case("9.4/joins-again", "RW-LAG-4", "RW-RECOVER-1")
async def joins_again(t: Context) -> None:
    """After EVICTED with RETRY the client joins again with its cursor, when retry_ms has passed, and not before."""
    t.needs("rejoin")
    server, room = await t.member(next=5)
    await t.marker(server, room)
    sent = server.now()
    server.send(Evicted(Code.ROOM_CLOSED, 400, "come back", flags=Flag.RETRY, room=room.ref))
    join = await server.expect(Join, "RW-LAG-4")
    waited = server.now() - sent
    t.require((join.epoch, join.since) == (7, 5), "epoch 7, since 5", join, "RW-RECOVER-1")
    t.require(waited >= 0.4, "at least 400 ms", f"{waited * 1000:.0f} ms")


@case("9.4/lagged-twice", "RW-LAG-4", "RW-PROMISE-10")
async def lagged_twice(t: Context) -> None:
    """After two EVICTED(LAGGED) between which only old messages came it joins with epoch 0, and the gap is reported."""
    t.needs("rejoin")
    server, room = await t.member(next=5)
    await t.marker(server, room)
    lagged = Evicted(Code.LAGGED, flags=Flag.RETRY)
    server.send(replace(lagged, room=room.ref))
    again = t.room(room.name, next=6)
    await t.rejoin(server, again, head=100)
    await t.marker(server, again)  # seq 6: it was there when the client joined
    server.send(replace(lagged, room=again.ref))
    join = await server.expect(Join, "RW-LAG-4")
    t.require(join.epoch == 0, "epoch 0", join)
    last = t.room(room.name, next=90)
    server.send(t.joined(last, join, head=100))
    await t.marker(server, last)
    gaps = t.client.of("gap")
    t.require(bool(gaps) and gaps[-1].get("start") == "90", "a gap up to 90", gaps, "RW-PROMISE-10")


for _code in (Code.KICKED, Code.BANNED, 699):

    async def _final(t: Context, code: int = _code) -> None:
        server, room = await t.member()
        await t.marker(server, room)
        server.send(Evicted(code, room=room.ref))
        report = await t.report("evicted", requirement="RW-LAG-5")
        t.require(report.get("code") == code and report.get("again") is not True, f"code {code}, for good", report)
        await server.fence()
        await t.idle(server, 0.6)
        t.require(not server.left_over(Join), "no JOIN", server.left_over(Join), "RW-LAG-5")

    _text = "After EVICTED without RETRY the client does not join again by itself."
    add(f"9.4/final-{int(_code)}", ["RW-LAG-5"], _text, _final, ["waits"])


@case("9.4/not-joined-is-repeated", "RW-LAG-6")
async def not_joined_is_repeated(t: Context) -> None:
    """A publish that crossed EVICTED and earned NOT_JOINED is repeated in the room, with its id."""
    t.needs("rejoin", "repeat")
    server, room = await t.member()
    id = t.publish(room, b"crossing")
    publish = await server.expect(Publish)
    server.send(Evicted(Code.ROOM_CLOSED, flags=Flag.RETRY, room=room.ref), t.refusal(publish, Code.NOT_JOINED))
    again = t.room(room.name)
    await t.rejoin(server, again)
    repeat = await server.expect(Publish, "RW-LAG-6")
    t.require((repeat.id, repeat.room) == (publish.id, again.ref), "the same id, the new ref", repeat, "RW-LAG-6")
    server.send(t.ack(again, repeat))
    await t.answer(id, "published", requirement="RW-LAG-6")


# History.


@case("7.18/cursor-stays", "RW-HISTORY-3")
async def history(t: Context) -> None:
    """The messages of a reply to HISTORY are the answer to the command, and leave the cursor where it was."""
    t.needs("history")
    server, room = await t.member(next=100)
    await t.marker(server, room)
    id = t.client.tell("history", room=room.name, start="10", end="20", limit=3)
    ask = await server.expect(History)
    t.require((ask.start, ask.end, ask.limit, ask.room) == (10, 20, 3, room.ref), "10 to 20, 3", ask, "RW-MODEL-8")
    old: list[Message] = [replace(room.again(seq, bytes([seq])), request=ask.request) for seq in (10, 11, 12)]
    end = HistoryEnd(10, 13, 1, flags=Flag.MORE, request=ask.request, room=room.ref)
    server.send(old[0], room.message(b"between"), old[1], old[2], end)
    report = await t.answer(id, "history", requirement="RW-HISTORY-3")
    found = [m.get("seq") for m in report.get("messages", []) if isinstance(m, dict)]
    t.require(found == ["10", "11", "12"], "messages 10 to 12", report)
    t.require(
        (report.get("start"), report.get("end"), report.get("more")) == ("10", "13", True), "10, 13, more", report
    )
    await t.marker(server, room, "RW-HISTORY-3")
    t.require(t.seqs(room) == ["100", "101", "102"], "messages 100 to 102", t.seqs(room))


@case("7.18/ahead-of-the-stream", "RW-HISTORY-3")
async def history_ahead(t: Context) -> None:
    """A reply to HISTORY that runs ahead of the stream makes no hole, and the stream still shows its own."""
    t.needs("history")
    server, room = await t.member()
    id = t.client.tell("history", room=room.name)
    ask = await server.expect(History)
    old = [replace(room.again(seq), request=ask.request) for seq in (1, 2, 3)]
    server.send(*old, HistoryEnd(1, 4, 1, request=ask.request, room=room.ref))
    await t.answer(id, "history", requirement="RW-HISTORY-3")
    server.send(room.message(), room.message())
    await t.marker(server, room, "RW-HISTORY-3")
    t.require(t.seqs(room) == ["1", "2", "3"], "messages 1 to 3", t.seqs(room))


# Names.


@case("12/no-folding", "RW-NAME-7")
async def no_folding(t: Context) -> None:
    """Two spellings of a room are two requests: only the server knows that they are one room, and says so."""
    server = await t.open()
    room = t.room("STRASSE")
    id = t.client.tell("join", room=room.name)
    join = await server.expect(Join)
    t.require(join.name == room.name, "the name as it was given", join.name)
    server.send(t.joined(room, join))
    await t.answer(id, "joined")
    id = t.client.tell("join", room="straße")
    join = await server.expect(Join, "RW-NAME-7")
    t.require(join.name == "straße", "the name as it was given", join.name)
    server.send(replace(t.refusal(join, Code.ALREADY_JOINED), room=room.ref))
    await t.answer(id, "error", "joined", requirement="RW-NAME-7")
    await t.marker(server, room, "RW-NAME-7")


@case("12/server-spells", "RW-NAME-7", "RW-CHECK-3")
async def server_spells(t: Context) -> None:
    """JOINED may spell the room otherwise; names in a server's frames are not held to the rules of section 12."""
    server = await t.open()
    room = t.room("lobby")
    id = t.client.tell("join", room="lobby")
    join = await server.expect(Join)
    server.send(replace(t.joined(room, join), name="LOBBY \u202e\x07"))
    await t.answer(id, "joined", requirement="RW-NAME-7")
    server.send(room.message(name="\x1b[0m \u200b"), Presence(1, 9, "", room=room.ref))
    await t.marker(server, room, "RW-NAME-7")
    t.require(len(t.messages(room)) == 2, "both messages", t.messages(room))
