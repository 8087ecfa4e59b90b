"""Section 9.3: rooms with more members than the quiet threshold, on a server of its own where that is low."""

from conformance.harness.verdicts import Informative
from conformance.server.cases.steps import case
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from protocol.frames import Joined, Leave, Ok, Presence, Roster
from protocol.registry import Flag, PresenceKind

_THRESHOLD = 3
_TRIED = 40  # members, where the server has a threshold of its own


async def _filled(t: Context) -> list[tuple[RawClient, Joined]]:
    """A room that the last member to join has made quiet."""
    await t.with_limits(quiet_members=_THRESHOLD)
    room = t.room()
    threshold = t.options.limits.get("quiet_members", _THRESHOLD)
    most = max(_THRESHOLD, threshold) if threshold < _TRIED else _THRESHOLD
    members: list[tuple[RawClient, Joined]] = []
    for count in range(1, most + 2):
        members.append(await t.member(room, flags=Flag.ROSTER))
        if members[-1][1].flags & Flag.QUIET:
            t.observe(count > 1, "the room was quiet with one member")
            return members
    raise Informative(f"not tried: the room is not quiet with {len(members)} members")


def _quiet(frame: Presence) -> bool:
    return frame.kind == PresenceKind.QUIET


@case("9.3/quiet", "RW-QUIET-1", "RW-QUIET-2", tags=["process"])
async def quiet(t: Context) -> None:
    """The server tells all members that a room becomes quiet, and from then on of no member that comes or goes."""
    *members, (last, there) = await _filled(t)
    ref = there.room
    for client, joined in members:
        t.require(not joined.flags & Flag.QUIET, "QUIET clear before", joined, "RW-QUIET-2")
        told = await client.expect_frame(Presence, _quiet, "PRESENCE(quiet)", "RW-QUIET-1")
        t.require((told.member, told.name) == (0, ""), "member 0 and no name", told, "RW-QUIET-1")
    known = [len(client.received) for client, _ in members]
    comes, joined = await t.member(there.name, flags=Flag.ROSTER)
    t.require(bool(joined.flags & Flag.QUIET), "QUIET set", joined, "RW-QUIET-2")
    t.require(joined.members == len(members) + 2, f"{len(members) + 2} members", joined.members, "RW-PRESENCE-5")
    await comes.expect(comes.ask(Leave(room=ref)), Ok)
    await members.pop()[0].close()
    await t.marker(last, *(client for client, _ in members), room=ref)
    for (client, _), before in zip(members, known, strict=False):
        await client.fence()
        said = [i.frame for i in client.received[before:] if isinstance(i.frame, (Presence, Roster))]
        t.require(not said, "no PRESENCE and no ROSTER in a quiet room", said, "RW-QUIET-1")
    for client in (last, comes):
        said = [i.frame for i in client.received if isinstance(i.frame, (Presence, Roster))]
        t.require(not said, "no PRESENCE and no ROSTER after JOINED with QUIET", said, "RW-QUIET-1")


@case("9.3/quiet-until-empty", "RW-QUIET-2", "RW-QUIET-1", tags=["process"])
async def quiet_until_empty(t: Context) -> None:
    """The server keeps a quiet room quiet when members leave, until it is empty."""
    members = await _filled(t)
    keeper, there = members[0]
    for client, _ in members[1:]:
        await client.expect(client.ask(Leave(room=there.room)), Ok)
    client, joined = await t.member(there.name)
    t.require(bool(joined.flags & Flag.QUIET), "QUIET with two members left", joined)
    t.require(joined.members == 2, "2 members", joined.members, "RW-PRESENCE-5")
    await client.expect(client.ask(Leave(room=there.room)), Ok)
    await keeper.expect(keeper.ask(Leave(room=there.room)), Ok)
    client, fresh = await t.member(there.name, flags=Flag.ROSTER)
    t.require(not fresh.flags & Flag.QUIET, "QUIET clear in a room that was empty", fresh)
    await client.expect_frame(Roster, lambda roster: roster.room == fresh.room, "ROSTER", "RW-ROSTER-1")
