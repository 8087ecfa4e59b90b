"""Section 9.1: joining, where a stream begins, and what the client reports of a message."""

from conformance.client.cases.steps import add, case, expect_fatal
from conformance.client.context import Context
from conformance.wire.octets import b8, frame, u32, u64
from protocol.frames import Join
from protocol.registry import Code, Flag, FrameType


@case("9.1/cursor-is-set", "RW-CURSOR-4", "RW-STREAM-1")
async def cursor_is_set(t: Context) -> None:
    """The client begins the stream with `start` of JOINED, wherever that is."""
    server, room = await t.member(next=1000)
    server.send(room.again(999, b"below"))
    await t.marker(server, room, "RW-CURSOR-4")
    t.require(t.seqs(room) == ["1000"], "message 1000 alone", t.seqs(room))
    report = t.messages(room)[0]
    t.require(report.get("epoch") == "7", "epoch 7", report, "RW-MODEL-10")


@case("9.1/great-numbers", "RW-CURSOR-4", "RW-MODEL-10")
async def great_numbers(t: Context) -> None:
    """The client keeps seq up to 2^53 - 1 and epochs up to 2^64 - 1 exactly."""
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
        await expect_fatal(t, server, octets, "RW-CURSOR-6", Code.MALFORMED)

    add(
        f"9.1/no-{_name}",
        ["RW-CURSOR-6"],
        f"The client sends GOAWAY(MALFORMED) for a JOINED whose {_name} is 0.",
        _zero,
    )


@case("9.1/content", "RW-MODEL-10")
async def content(t: Context) -> None:
    """The client reports a message as the server sent it: octets, ctype, name, sender, time, VERIFIED."""
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
