"""Section 7.13: leaving."""

from conformance.client.cases.steps import case
from conformance.client.context import Context
from conformance.wire.octets import b16, frame, u16, u32
from protocol.frames import Evicted, Join, Leave, Ok
from protocol.registry import Code, Flag, FrameType


@case("7.13/leave", "RW-MODEL-8", "RW-REQUEST-1")
async def leave(t: Context) -> None:
    """The client sends LEAVE with the room's ref, and shows the stream until LEAVE is answered."""
    server, room = await t.member()
    await t.marker(server, room)
    id = t.client.tell("leave", room=room.name)
    request = await server.expect(Leave, "RW-MODEL-8")
    t.require(request.room == room.ref, f"room {room.ref}", request.room)
    server.send(room.message(b"still here"), Ok(request=request.request, room=room.ref))
    await t.answer(id, "left", requirement="RW-REQUEST-7")
    t.require(t.seqs(room) == ["1", "2"], "messages 1 and 2", t.seqs(room), "RW-STREAM-1")
    await server.fence()


@case("7.13/evicted-while-leaving", "RW-REQUEST-7")
async def evicted_while_leaving(t: Context) -> None:
    """The client takes EVICTED and NOT_JOINED that cross its LEAVE for the end of the membership."""
    server, room = await t.member()
    id = t.client.tell("leave", room=room.name)
    request = await server.expect(Leave)
    server.send(Evicted(Code.ROOM_CLOSED, flags=Flag.RETRY, room=room.ref))
    body = u16(Code.NOT_JOINED) + u32(0) + b16(b"")
    server.send_octets(frame(FrameType.ERROR, body, request=request.request, room=room.ref))
    await t.answer(id, "left", requirement="RW-REQUEST-7")
    await server.fence("RW-REQUEST-7")
    t.require(not server.left_over(Join), "no JOIN of a room that is being left", server.left_over(Join))
