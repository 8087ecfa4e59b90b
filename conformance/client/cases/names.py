"""Section 12: names of rooms and people."""

from dataclasses import replace

from conformance.client.cases.steps import case
from conformance.client.context import Context
from protocol.frames import Join, Presence
from protocol.registry import Code


@case("12/name-as-given", "RW-NAME-7")
async def hello_with_any_name(t: Context) -> None:
    """The client sends a name outside of ASCII in UTF-8, as it was given."""
    _, hello = await t.greeted("Straße Ünï")
    t.require(hello.name == "Straße Ünï", "the name as it was given", hello.name, "RW-NAME-7")


@case("12/no-folding", "RW-NAME-7")
async def no_folding(t: Context) -> None:
    """The client sends two JOINs for two spellings of a room, and learns from ALREADY_JOINED that they are one."""
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
    """The client accepts another spelling in JOINED, and names in a server's frames that section 12 forbids."""
    server = await t.open()
    room = t.room("lobby")
    id = t.client.tell("join", room="lobby")
    join = await server.expect(Join)
    server.send(replace(t.joined(room, join), name="LOBBY \u202e\x07"))
    await t.answer(id, "joined", requirement="RW-NAME-7")
    server.send(room.message(name="\x1b[0m \u200b"), Presence(1, 9, "", room=room.ref))
    await t.marker(server, room, "RW-NAME-7")
    t.require(len(t.messages(room)) == 2, "both messages", t.messages(room))
