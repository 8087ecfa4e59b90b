"""Section 9.3: presence and roster."""

from conformance.harness.verdicts import Failed
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.octets import frame
from conformance.wire.text import frame_line
from protocol.frames import Goaway, Join, Joined, Leave, Ok, Presence, Roster, RosterEntry
from protocol.registry import Code, Flag, PresenceKind


async def _two(t: Context) -> tuple[RawClient, Joined, RawClient]:
    """A member that stays, and another that joined after it and that it was told of."""
    keeper, joined = await t.member()
    client, there = await t.member(joined.name)
    if not there.flags & Flag.QUIET:
        await keeper.expect_presence(joined.room, client.welcome.member, (PresenceKind.JOINED,), "RW-PRESENCE-2")
    t.not_quiet(there)
    return keeper, joined, client


async def _goes(keeper: RawClient, joined: Joined, client: RawClient, kind: PresenceKind) -> None:
    member = client.welcome.member
    presence = await keeper.expect_presence(
        joined.room, member, (PresenceKind.LEFT, PresenceKind.LOST), "RW-PRESENCE-2"
    )
    if presence.kind != kind or presence.name != client.welcome.name:
        raise Failed(f"PRESENCE({kind.name.lower()}) of {client.welcome.name}", frame_line(presence), "RW-PRESENCE-3")


@case("9.3/joined", "RW-PRESENCE-2", "RW-PRESENCE-4")
async def joined(t: Context) -> None:
    """The server tells the others of a member that joins, with number and name, and not the member itself."""
    keeper, there, client = await _two(t)
    third, _ = await t.member(there.name)
    for reader in (keeper, client):
        presence = await reader.expect_presence(there.room, third.welcome.member, (PresenceKind.JOINED,))
        t.require(presence.name == third.welcome.name, third.welcome.name, presence.name)
    await t.marker(keeper, third, room=there.room)
    own = [p for p in third.left_over(Presence) if p.member == third.welcome.member]
    t.require(not own, "no PRESENCE of the member itself", own, "RW-PRESENCE-4")


@case("9.3/left-by-leave", "RW-PRESENCE-3", "RW-PRESENCE-2")
async def left_by_leave(t: Context) -> None:
    """The server tells of a member that sends LEAVE as left."""
    keeper, there, client = await _two(t)
    await client.expect(client.ask(Leave(room=there.room)), Ok)
    await _goes(keeper, there, client, PresenceKind.LEFT)


@case("9.3/left-by-goaway", "RW-PRESENCE-3", "RW-PRESENCE-2")
async def left_by_goaway(t: Context) -> None:
    """The server tells of a member that sends GOAWAY(NONE) as left."""
    keeper, there, client = await _two(t)
    client.send(Goaway(Code.NONE))
    await client.expect_goaway(Code.NONE, "RW-CLOSE-3")
    await _goes(keeper, there, client, PresenceKind.LEFT)


@case("9.3/lost-by-close", "RW-PRESENCE-3", "RW-PRESENCE-2")
async def lost_by_close(t: Context) -> None:
    """The server tells of a member whose stream ends without GOAWAY as lost."""
    keeper, there, client = await _two(t)
    await client.close()
    await _goes(keeper, there, client, PresenceKind.LOST)


@case("9.3/lost-by-reset", "RW-PRESENCE-3", "RW-PRESENCE-2")
async def lost_by_reset(t: Context) -> None:
    """The server tells of a member whose transport is reset as lost."""
    keeper, there, client = await _two(t)
    await client.close(abort=True)
    await _goes(keeper, there, client, PresenceKind.LOST)


@case("9.3/lost-by-failure", "RW-PRESENCE-3", "RW-PRESENCE-2")
async def lost_by_failure(t: Context) -> None:
    """The server tells of a member whose connection it ends with GOAWAY as lost."""
    keeper, there, client = await _two(t)
    client.send_octets(frame(0x0009), breaks="RW-EXT-1")
    await client.expect_goaway(Code.UNKNOWN_TYPE, "RW-TYPE-3")
    await _goes(keeper, there, client, PresenceKind.LOST)


@case("9.3/every-room", "RW-PRESENCE-2", "RW-CLOSE-6")
async def every_room(t: Context) -> None:
    """The server tells of the end of a connection in both rooms that it was in."""
    client = await t.open()
    t.needs(client, rooms=2)
    rooms = [await t.join(client, t.room()) for _ in range(2)]
    keepers = [await t.member(there.name) for there in rooms]
    for _, there in keepers:
        t.not_quiet(there)
    await client.close()
    for (keeper, _), there in zip(keepers, rooms, strict=True):
        await keeper.expect_presence(there.room, client.welcome.member, (PresenceKind.LOST,))


@case("9.3/same-name", "RW-PRESENCE-2", "RW-WELCOME-1")
async def same_name(t: Context) -> None:
    """The server tells two members of the same name apart by their numbers."""
    keeper, there = await t.member()
    name = t.name()
    clients = [await t.open(name) for _ in range(2)]
    for client in clients:
        t.not_quiet(await t.join(client, there.name))
        await keeper.expect_presence(there.room, client.welcome.member, (PresenceKind.JOINED,))
    await clients[0].close()
    await keeper.expect_presence(there.room, clients[0].welcome.member, (PresenceKind.LOST,))
    await t.marker(keeper, clients[1], room=there.room)


async def _roster(client: RawClient, room: int, requirement: str = "RW-ROSTER-1") -> list[RosterEntry]:
    """The entries of the next whole sequence of ROSTER frames."""
    entries: list[RosterEntry] = []
    while True:
        roster = await client.expect_frame(Roster, lambda r: r.room == room, "ROSTER", requirement)
        entries += roster.entries
        if not roster.flags & Flag.MORE:
            return entries


@case("9.3/roster", "RW-ROSTER-1", "RW-ROSTER-2", "RW-PRESENCE-5")
async def roster(t: Context) -> None:
    """The server sends a client that joins with ROSTER all members, itself included, each once."""
    clients = [await t.member(room) for room in [t.room()] * 3]
    name, room = clients[0][1].name, clients[0][1].room
    client, joined = await t.member(name, flags=Flag.ROSTER)
    t.not_quiet(joined)
    entries = await _roster(client, room)
    wanted = {(p.welcome.member, p.welcome.name) for p, _ in clients} | {(client.welcome.member, client.welcome.name)}
    found = {(entry.member, entry.name) for entry in entries}
    t.require(found == wanted and len(entries) == 4, f"{sorted(wanted)}", sorted(found))
    t.require(joined.members == 4, "4 members in JOINED", joined.members, "RW-PRESENCE-5")


@case("9.3/roster-alone", "RW-ROSTER-1", "RW-PRESENCE-5")
async def roster_alone(t: Context) -> None:
    """The server sends a roster of one entry in a room without other members."""
    client, joined = await t.member(flags=Flag.ROSTER)
    t.not_quiet(joined)
    entries = await _roster(client, joined.room)
    found = [(entry.member, entry.name) for entry in entries]
    t.require(found == [(client.welcome.member, client.welcome.name)], "the member itself", found)


def known_members(client: RawClient) -> set[int]:
    """The members of the one room that a client is in, as ROSTER and PRESENCE have told it."""
    members: set[int] = set()
    for item in client.received:
        frame_ = item.frame
        if isinstance(frame_, Roster):
            members = set() if frame_.flags & Flag.RESET else members
            members |= {entry.member for entry in frame_.entries}
        elif isinstance(frame_, Presence) and frame_.kind == PresenceKind.JOINED:
            members.add(frame_.member)
        elif isinstance(frame_, Presence):
            members.discard(frame_.member)
    return members


@case("9.3/roster-and-presence", "RW-ROSTER-4", "RW-ROSTER-1")
async def roster_and_presence(t: Context) -> None:
    """The server sends a roster and then PRESENCE that give the members, while members come and go."""
    keeper, there = await t.member()
    client = await t.open()
    movers = [await t.open() for _ in range(3)]
    request = client.ask(Join(there.name, 0, 0, flags=Flag.ROSTER))
    for mover in movers:
        await t.join(mover, there.name)
    await movers[0].close()
    reply = await client.reply(request)
    t.observe(isinstance(reply, Joined) and not reply.flags & Flag.QUIET, "no JOINED, or a quiet room")
    await keeper.expect_presence(there.room, movers[0].welcome.member, (PresenceKind.LOST,))
    await client.expect_presence(there.room, movers[0].welcome.member, (PresenceKind.LOST,))
    await t.marker(keeper, client, room=there.room)
    members = known_members(client)
    wanted = {p.welcome.member for p in (keeper, client, *movers[1:])}
    t.require(members == wanted, f"{sorted(wanted)}", sorted(members))
