"""Section 9.3: presence and rosters."""

from conformance.client.cases.steps import case
from conformance.client.context import Context, Room
from conformance.client.raw_server import RawServer
from conformance.client.target import Report
from protocol.frames import Presence, Roster, RosterEntry
from protocol.registry import Flag


def _roster(*members: tuple[int, str], flags: int = Flag.RESET, room: Room) -> Roster:
    return Roster(tuple(RosterEntry(member, 0, name) for member, name in members), flags=flags, room=room.ref)


async def _known(t: Context, server: RawServer, room: Room) -> set[object]:
    """The names in the room, as the client reported them last before a marker."""
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
    """The client replaces its roster by a new sequence of ROSTER frames, however many frames it has."""
    server, room = await _with_roster(t)
    t.require(await _known(t, server, room) == {"bob", "eve"}, "bob and eve", t.client.of("presence")[-1])
    server.send(
        _roster((7, "kim"), flags=Flag.RESET | Flag.MORE, room=room),
        _roster((8, "lee"), flags=Flag.MORE, room=room),
        _roster(flags=Flag.MORE, room=room),
        _roster((9, "max"), flags=0, room=room),
    )
    found = await _known(t, server, room)
    t.require(found == {"kim", "lee", "max"}, "kim, lee and max alone", found)


@case("9.3/presence", "RW-PRESENCE-6", "RW-PRESENCE-1")
async def presence(t: Context) -> None:
    """The client takes PRESENCE of members that it knows already, or does not know, without an error."""
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
    """The client ignores PRESENCE of an unknown kind, and reports nothing."""
    server, room = await _with_roster(t)
    before = len(t.client.of("presence"))
    server.send(*(Presence(kind, 5, "bob", room=room.ref) for kind in (0, 5, 77, 255)))
    await t.marker(server, room, "RW-PRESENCE-1")
    t.require(len(t.client.of("presence")) == before, "no report", t.client.of("presence")[before:])


@case("9.3/quiet", "RW-QUIET-3")
async def quiet(t: Context) -> None:
    """The client discards its roster when the room becomes quiet."""
    server, room = await _with_roster(t)
    server.send(Presence(4, 0, "", room=room.ref))
    await t.report("presence", lambda report: report.get("kind") == "quiet", "RW-QUIET-3")
    found = await _known(t, server, room)
    t.require(found == set(), "an empty roster", found)
