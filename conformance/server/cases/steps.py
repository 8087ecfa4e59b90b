"""The register of server cases, and the steps that cases share."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from conformance.harness.case import CaseRegistry
from conformance.harness.verdicts import Failed
from conformance.server.context import Context
from conformance.server.raw_client import RawClient
from conformance.wire.octets import b8, b16, b32, frame, read_header, u64
from conformance.wire.text import frame_line, type_name
from protocol.frames import Ack, Error, Field, Frame, Leave, Message, Ok
from protocol.registry import GREASE, Code, FrameType

SERVER = CaseRegistry("server")
case = SERVER.case

CRITICAL = 0x0003
"""A field type that is unassigned, and critical: bit 15 is clear."""

IGNORABLE = 0x8021
"""A reserved type of frames and fields, which a receiver ignores."""


def unreserved(fields: Iterable[Field]) -> tuple[Field, ...]:
    """The extension fields without those of reserved type, which a server may add to any frame (section 17.4)."""
    return tuple(field for field in fields if field.type not in GREASE)


def content(message: Message) -> Message:
    """The message as every member is sent it: without reserved fields."""
    return replace(message, fields=unreserved(message.fields))


class Place(NamedTuple):
    """Where a table's frame goes: the ref of a room that the client is in, the name of a fresh room, a fresh id."""

    room: int
    name: bytes
    id: bytes


MakeOctets = Callable[[Place], bytes]

HISTORY_BODY = u64(1) + u64(0) + b"\x00\x0a"


def hello(
    name: bytes = b"ada", mechanism: bytes = b"ANONYMOUS", auth: bytes = b"", tail: bytes = b"", **header: int
) -> bytes:
    """HELLO with request 1."""
    return frame(FrameType.HELLO, b8(name) + b8(mechanism) + b16(auth) + tail, **{"request": 1, **header})


def join(name: bytes, epoch: int = 0, since: int = 0, tail: bytes = b"", **header: int) -> bytes:
    """JOIN with request 700."""
    return frame(FrameType.JOIN, b8(name) + u64(epoch) + u64(since) + tail, **{"request": 700, **header})


def publish(place: Place, payload: bytes = b"hi", ctype: int = 0, tail: bytes = b"", **header: int) -> bytes:
    """PUBLISH to the place's room, with request 700."""
    body = place.id + bytes([ctype]) + b32(payload) + tail
    return frame(FrameType.PUBLISH, body, **{"request": 700, "room": place.room, **header})


def leave(place: Place, tail: bytes = b"", **header: int) -> bytes:
    """LEAVE of the place's room, with request 700."""
    return frame(FrameType.LEAVE, tail, **{"request": 700, "room": place.room, **header})


def ping(opaque: bytes = b"12345678", tail: bytes = b"", **header: int) -> bytes:
    """A PING."""
    return frame(FrameType.PING, opaque + tail, **header)


def pong(**header: int) -> bytes:
    """A PONG that the server did not ask for."""
    return frame(FrameType.PONG, b"87654321", **header)


def goaway(text: bytes = b"", tail: bytes = b"", **header: int) -> bytes:
    """A GOAWAY(NONE)."""
    return frame(FrameType.GOAWAY, bytes(10) + b16(text) + tail, **header)


def history(place: Place, body: bytes = HISTORY_BODY, tail: bytes = b"", **header: int) -> bytes:
    """HISTORY of the place's room, with request 700."""
    return frame(FrameType.HISTORY, body + tail, **{"request": 700, "room": place.room, **header})


async def joined_client(t: Context, room: str, octets: MakeOctets, extension: str = "") -> tuple[RawClient, Place]:
    """A client in a room, and the place for a table's frame, `octets`. Where one room is all that a client may be in,
    it is in none if the frame is a JOIN."""
    client, joined = await t.member(room, extension_names=[extension] if extension else [])
    if extension:
        t.needs(client, extension)
    place = Place(joined.room, t.room().encode(), t.id(client))
    joins = read_header(octets(place)).type == FrameType.JOIN
    if joins:
        place = place._replace(name=(await t.any_room()).encode())
    if joins and client.welcome.max_rooms == 1:
        async with t.control("LEAVE"):
            await client.expect(client.ask(Leave(room=joined.room)), Ok)
    return client, place


async def expect_accepted(t: Context, client: RawClient, octets: bytes) -> None:
    """The control of a negative case: the server accepts these octets."""
    async with t.control("the valid twin"):
        header = read_header(octets)
        if not header.request:
            client.send_octets(octets)
        if header.type == FrameType.GOAWAY:
            await client.expect_goaway(Code.NONE)
            return
        if header.request:
            reply = await answer(t, client, octets)
            if isinstance(reply, Error):
                raise Failed(f"{type_name(header.type)} accepted", frame_line(reply))
        await client.fence()


async def answer(t: Context, client: RawClient, octets: bytes, requirement: str = "", breaks: str = "") -> Frame:
    """The reply to a request in these octets, which are sent again while the server limits the rate."""

    async def ask() -> Frame:
        client.send_octets(octets, breaks=breaks)
        return await client.reply(read_header(octets).request, requirement)

    return await t.until_allowed(ask)


def expect_published(reply: Frame, requirement: str = "") -> None:
    """A PUBLISH behind another one is accepted, or the rate is limited so strictly. Raises Failed."""
    if not isinstance(reply, Ack) and not (isinstance(reply, Error) and reply.code == Code.RATE_LIMITED):
        raise Failed("ACK or RATE_LIMITED", frame_line(reply), requirement)


async def expect_fatal(
    t: Context, requirement: str, twin: MakeOctets, broken: MakeOctets, code: Code, extension: str = ""
) -> None:
    """The server accepts the twin, answers the broken frame with GOAWAY(code) and the end, and serves others."""
    room = await t.any_room()
    control, place = await joined_client(t, room, twin, extension)
    await expect_accepted(t, control, twin(place))
    client, place = await joined_client(t, room, broken, extension)
    client.send_octets(broken(place), breaks=requirement)
    await client.expect_goaway(code, requirement)
    await t.alive()


async def expect_refusal(
    t: Context,
    requirement: str,
    twin: MakeOctets,
    broken: MakeOctets,
    code: Code,
    extension: str = "",
    breaks: str = "",
) -> None:
    """The server accepts the twin, and answers the broken request with ERROR(code); the connection goes on."""
    room = await t.any_room()
    control, place = await joined_client(t, room, twin, extension)
    await expect_accepted(t, control, twin(place))
    client, place = await joined_client(t, room, broken, extension)
    octets = broken(place)
    header = read_header(octets)
    client.send_octets(octets, breaks=breaks)
    await client.expect_error(header.request, code, requirement, header.room)
    await client.fence()
    await t.alive()


async def expect_hello_fatal(t: Context, requirement: str, broken: bytes, code: Code, *, breaks: str = "") -> None:
    """The server accepts a well-formed HELLO, and answers the broken one with GOAWAY(code) alone."""
    control = await t.greet()
    await expect_accepted(t, control, hello())
    client = await t.greet()
    client.send_octets(broken, breaks=breaks or requirement)
    await client.expect_goaway(code, requirement)
    t.require(not client.left_over(Error), "no ERROR before a fatal GOAWAY", "ERROR", requirement)
    await t.alive()


async def expect_hello_refusal(
    t: Context, requirement: str, twin: bytes, broken: bytes, code: Code, *, breaks: str = ""
) -> Error:
    """The server accepts the twin, and answers the broken HELLO with ERROR(code), then GOAWAY(code)."""
    control = await t.greet()
    await expect_accepted(t, control, twin)
    client = await t.greet()
    client.send_octets(broken, breaks=breaks)
    error = await client.expect_error(read_header(broken).request, code, requirement)
    await client.expect_goaway(code, "RW-HELLO-3")
    await t.alive()
    return error
