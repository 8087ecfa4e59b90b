"""Section 7.18: reading history."""

from dataclasses import replace

from conformance.client.cases.steps import case
from conformance.client.context import Context
from protocol.frames import History, HistoryEnd, Message
from protocol.registry import Flag


@case("7.18/cursor-stays", "RW-HISTORY-3")
async def history(t: Context) -> None:
    """The client answers its command with the reply to HISTORY, and does not move its cursor for it."""
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
    """The client sees no hole where a reply to HISTORY runs ahead of the stream, and still shows the stream."""
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
