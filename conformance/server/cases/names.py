"""Section 12: names of rooms and people, those of names.jsonl among them."""

import json
from typing import Any

from conformance.files import VECTORS
from conformance.server.cases.steps import SERVER, case, expect_hello_refusal, hello
from conformance.server.context import Context
from conformance.wire.text import quoted
from protocol.frames import Hello, Join, Joined, Leave, Ok, Welcome
from protocol.registry import Code


@case("12/nfc", "RW-NAME-1")
async def nfc(t: Context) -> None:
    """The server accepts a name that is not in NFC, sends it in NFC, and takes it for the same room."""
    t.unless_declared("ascii-names")
    one, _joined = await t.member(fresh=False)
    stem = t.room()
    for name in (f"e\u0301 {stem}", f"\u00e9 {stem}"):
        client = await t.open()
        there = await t.join(client, name)
        t.require(there.name == f"\u00e9 {stem}", f"the name {quoted(chr(0xE9) + ' ' + stem)}", quoted(there.name))
    t.require(there.members == 2, "2 members in one room", there.members)
    await one.fence()


@case("12/nfc-of-people", "RW-NAME-1")
async def nfc_of_people(t: Context) -> None:
    """The server sends the name in WELCOME in NFC."""
    t.unless_declared("ascii-names")
    client = await t.greet()
    answer = await client.hello("Zoe\u0308")
    t.require(answer.name.removeprefix("~") == "Zo\u00eb", "the name in NFC", quoted(answer.name))


@case("12/shortest-and-longest", "RW-NAME-2")
async def shortest_and_longest(t: Context) -> None:
    """The server accepts a name of 64 octets, and refuses one of 65 octets and an empty one."""
    client = await t.open()
    stem = t.room()
    longest = stem + "x" * (64 - len(stem))
    await t.join(client, longest)
    for name in (longest + "y", "z" * 255, ""):
        await client.expect_error(client.ask(Join(name, 0, 0)), Code.NAME_INVALID, "RW-NAME-2", 0)


@case("12/length-after-nfc", "RW-NAME-2", "RW-NAME-1")
async def length_after_nfc(t: Context) -> None:
    """The server counts the octets of a name after NFC: 93 that become 62 are a name, 33 that become 66 are not."""
    t.unless_declared("ascii-names")
    await t.member(fresh=False)
    client = await t.greet()
    answer = await client.expect(client.ask(Hello("e\u0301" * 31, "ANONYMOUS", b"")), Welcome, "RW-NAME-2")
    t.require(
        answer.name.removeprefix("~") == "\u00e9" * 31,
        "31 characters in NFC",
        quoted(answer.name),
        "RW-NAME-1",
    )
    client = await t.open()
    await client.expect_error(client.ask(Join("\u0958" * 11, 0, 0)), Code.NAME_INVALID, "RW-NAME-2", 0)


@case("12/inner-space", "RW-NAME-3")
async def inner_space(t: Context) -> None:
    """The server accepts single spaces inside a name."""
    client = await t.open()
    reply = await t.patiently(client, Join(f"a b c {t.room()}", 0, 0))
    t.require(isinstance(reply, Joined), "JOINED", reply)


@case("12/empty-key", "RW-NAME-4")
async def empty_key(t: Context) -> None:
    """The server refuses a name whose key is empty, for all of its characters are ignorable (U+115F)."""
    client = await t.open()
    await t.join(client, await t.any_room())
    await client.expect_error(client.ask(Join("\u115f\u115f", 0, 0)), Code.NAME_INVALID, "RW-NAME-4", 0)


async def _valid(t: Context, vector: dict[str, Any]) -> None:
    """The server grants a valid name in NFC, and takes it for one room with all names of its key and no other."""
    name, normalised = vector["name"], vector["normalised"]
    if len(normalised.encode()) < 64:  # a server with accounts needs an octet for the `~`
        answer = await (await t.greet()).hello(name)
        granted = answer.name == normalised or answer.name == f"~{normalised}"
        t.require(granted, f"the name {quoted(normalised)}", quoted(answer.name), "RW-NAME-1")
    client = await t.open()
    t.needs(client, rooms=2)
    reply = await t.patiently(client, Join(name, 0, 0))
    t.require(isinstance(reply, Joined), f"JOINED for {quoted(name)}", reply, "RW-NAME-3")
    taken = str.isascii if "ascii-names" in t.options.declared else bool
    for other in filter(taken, vector["same_as"]):
        error = await client.expect_error(client.ask(Join(other, 0, 0)), Code.ALREADY_JOINED, "RW-NAME-4")
        t.require(error.room == reply.room, f"ref {reply.room} for {quoted(other)}", error.room, "RW-NAME-4")
    for other in filter(taken, vector["differs_from"]):
        # ALREADY_JOINED comes before any limit of a rate, so RATE_LIMITED says that this is another room, too.
        reached = await client.reply(client.ask(Join(other, 0, 0)))
        t.require(reached.room != reply.room, f"another room for {quoted(other)}", reached, "RW-NAME-4")
        if isinstance(reached, Joined):
            await client.expect(client.ask(Leave(room=reached.room)), Ok)


async def _invalid(t: Context, vector: dict[str, Any]) -> None:
    """The server refuses a name that is not valid, of a room and of a person."""
    client, name = await t.open(), vector["name"]
    await t.join(client, await t.any_room())
    rule = "RW-NAME-8" if _looks_empty(vector) else "RW-NAME-3"
    await client.expect_error(client.ask(Join(name, 0, 0)), Code.NAME_INVALID, rule, 0)
    await expect_hello_refusal(t, rule, hello(), hello(name=name.encode()), Code.NAME_INVALID)


def _looks_empty(vector: dict[str, Any]) -> bool:
    return str(vector["id"]).startswith("blank-")


def _define(vector: dict[str, Any]) -> None:
    valid = vector["valid"]

    async def run(t: Context) -> None:
        if valid and not vector["name"].isascii():
            t.unless_declared("ascii-names")
        await (_valid if valid else _invalid)(t, vector)

    what = "takes {} for one room with all names of its key" if valid else "refuses {} as a name of a room or a person"
    if _looks_empty(vector):
        requirements = ["RW-NAME-8"]
    else:
        requirements = ["RW-NAME-4", "RW-NAME-3", "RW-NAME-1"] if valid else ["RW-NAME-3", "RW-NAME-2"]
    summary = f"The server {what.format(quoted(vector['name']))}: vector {vector['id']} of names.jsonl."
    SERVER.add(f"12/name-{vector['id']}", requirements, summary, run)


for _line in (VECTORS / "names.jsonl").read_text(encoding="utf-8").splitlines():
    _define(json.loads(_line))


@case("12/spelling-kept", "RW-JOIN-4", "RW-NAME-4", "RW-MODEL-7")
async def spelling_kept(t: Context) -> None:
    """The server keeps one spelling of a room's name while the room has members, however others spell it."""
    stem = t.room()
    _, first = await t.member(f"MiXed {stem}")
    _, second = await t.member(f"mixeD {stem}")
    t.require(second.name == first.name, f"the name {quoted(first.name)}", quoted(second.name))
    t.require(second.room == first.room, f"ref {first.room}", second.room, "RW-NAME-4")
