"""Section 7.4: ERROR."""

from conformance.client.cases.steps import case
from conformance.client.context import Context
from conformance.wire.octets import b16, field, frame, u16, u32
from protocol.frames import Join, Publish
from protocol.registry import Code, FrameType


@case("7.4/waits", "RW-ERROR-2", "RW-PROMISE-5", tags=["waits"])
async def waits(t: Context) -> None:
    """The client repeats a publish that was refused with RETRY after retry_ms, not earlier, and unchanged."""
    t.needs("repeat")
    server, room = await t.member()
    id = t.publish(room, b"patience")
    publish = await server.expect(Publish)
    for wait in (300, 600):
        began = server.now()
        server.send(t.refusal(publish, Code.RATE_LIMITED, wait))
        again = await server.expect(Publish, "RW-ERROR-2")
        waited = (server.now() - began) * 1000
        t.require(waited >= wait, f"at least {wait} ms", f"{waited:.0f} ms")
        t.require(again.id == publish.id, f"id {publish.id.hex()}", again.id.hex(), "RW-PROMISE-5")
        publish = again
    server.send(t.ack(room, publish))
    await t.answer(id, "published", requirement="RW-ERROR-2")


@case("7.4/join-waits", "RW-ERROR-2", tags=["waits"])
async def join_waits(t: Context) -> None:
    """The client does not repeat a JOIN that was refused with RETRY before retry_ms has passed."""
    server = await t.open()
    t.client.tell("join", room="lobby")
    join = await server.expect(Join)
    began = server.now()
    server.send(t.refusal(join, Code.RATE_LIMITED, 500))
    await t.idle(server, 0.45)
    waits = [round((at - began) * 1000) for at in server.arrivals(Join)]  # a busy suite may look late
    t.require(min(waits, default=500) >= 500, "no JOIN within 500 ms", f"JOIN after {waits} ms")


@case("7.4/final", "RW-ERROR-3", "RW-PROMISE-6")
async def final(t: Context) -> None:
    """The client reports a publish that was refused without RETRY as failed, not as unknown, and does not repeat it."""
    server, room = await t.member()
    for code in (Code.PAYLOAD_INVALID, Code.ID_CONFLICT, Code.FORBIDDEN, Code.ID_EXPIRED):
        id = t.publish(room)
        publish = await server.expect(Publish)
        server.send(t.refusal(publish, code))
        report = await t.answer(id, "error", requirement="RW-ERROR-3")
        t.require(report.get("code") == code, f"code {int(code)}", report)
        t.require(report.get("unknown") is not True, "a failure that is not unknown", report, "RW-PROMISE-6")
    await t.marker(server, room)
    t.require(not server.left_over(Publish), "no repeat", server.left_over(Publish))


@case("7.4/unknown-code", "RW-CODE-2", "RW-ERROR-3")
async def unknown_code(t: Context) -> None:
    """The client takes a request as failed for good after an unknown code without RETRY, and goes on."""
    server, room = await t.member()
    for code in (399, 0, 999, 65535):
        id = t.publish(room)
        publish = await server.expect(Publish)
        body = u16(code) + u32(0) + b16(b"wait 1 s and retry")
        server.send_octets(frame(FrameType.ERROR, body, request=publish.request, room=room.ref))
        report = await t.answer(id, "error", requirement="RW-CODE-2")
        t.require(report.get("code") == code, f"code {code} in the report", report, "RW-ERROR-3")
    await t.marker(server, room, "RW-CODE-2")
    t.require(not server.left_over(Publish), "no repeat", server.left_over(Publish), "RW-ERROR-3")


@case("7.4/unknown-code-retry", "RW-ERROR-3", "RW-CODE-2")
async def unknown_code_retry(t: Context) -> None:
    """The client may repeat a publish after an unknown code with RETRY, and repeats it unchanged."""
    t.needs("repeat")
    server, room = await t.member()
    id = t.publish(room, b"again")
    publish = await server.expect(Publish)
    body = u16(499) + u32(50) + b16(b"never come back")
    server.send_octets(frame(FrameType.ERROR, body, request=publish.request, room=room.ref, flags=1))
    again = await server.expect(Publish, "RW-ERROR-3")
    t.require(again.id == publish.id, f"id {publish.id.hex()}", again.id.hex(), "RW-PROMISE-5")
    server.send(t.ack(room, again))
    await t.answer(id, "published", requirement="RW-ERROR-3")


@case("7.4/join-refused", "RW-CODE-2")
async def join_refused(t: Context) -> None:
    """The client takes a JOIN as failed after ERROR, and sends the next one as a new request."""
    server = await t.open()
    id = t.client.tell("join", room="secret")
    join = await server.expect(Join)
    body = u16(Code.FORBIDDEN) + u32(0) + b16(b"no") + field(0x8004, b"SCRAM-SHA-256") + field(0x8004, b"X")
    server.send_octets(frame(FrameType.ERROR, body, request=join.request))
    report = await t.answer(id, "error", requirement="RW-CODE-2")
    t.require(report.get("code") == Code.FORBIDDEN, "FORBIDDEN", report)
    await t.join(server, t.room("lobby"))
