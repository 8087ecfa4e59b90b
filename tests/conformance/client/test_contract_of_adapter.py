"""What CONTRACT.md says beyond the members of a line, shown by the reference adapter."""

from collections.abc import Awaitable, Callable

import pytest

from conformance.client.context import Context
from conformance.client.raw_server import RawServer
from conformance.client.target import Report
from conformance.harness.options import Options
from protocol.frames import Evicted, Goaway, History, Join, Leave, Publish
from protocol.registry import Code, Flag
from tests.support import virtual_time
from tests.support.client_in_process import launch, run_to_the_end

_OPTIONS = Options(timeout=5.0, ready=5.0)
_DRAINING = Goaway(Code.DRAINING, 10, 0, flags=Flag.RETRY)
_SHUTDOWN = Goaway(Code.SHUTDOWN, 10, 0, flags=Flag.RETRY)


def _play(steps: Callable[[Context], Awaitable[None]]) -> None:
    async def played() -> None:
        t = Context(launch, _OPTIONS)
        try:
            await t.start()
            await steps(t)
        finally:
            await t.close()

    virtual_time.run(run_to_the_end(played()))


async def _refused(t: Context, op: str, **values: object) -> Report:
    """The error that answers a command, without a code."""
    report = await t.answer(t.client.tell(op, **values), "error")
    assert report.get("code") is None
    assert report.get("unknown") is not True
    return report


def test_commands_that_cannot_be_obeyed() -> None:
    async def steps(t: Context) -> None:
        await _refused(t, "join", room="lobby")
        server, room = await t.member()
        await _refused(t, "connect", name="eve")
        await _refused(t, "join", room=room.name)
        for op, values in (("publish", {"payload": "00", "ctype": 0}), ("leave", {}), ("history", {})):
            await _refused(t, op, room="other", **values)
        await t.marker(server, room)

    _play(steps)


def test_leave_without_a_connection() -> None:
    async def steps(t: Context) -> None:
        server, room = await t.member()
        server.send(_SHUTDOWN)
        await t.report("disconnected")
        id = t.client.tell("leave", room=room.name)
        await t.answer(id, "left")
        assert not server.left_over(Leave)

    _play(steps)


@pytest.mark.parametrize(
    ("waits", "then", "code"),
    [(False, (), 503), (False, (_SHUTDOWN,), 503), (True, (_SHUTDOWN,), 504)],
    ids=["draining", "goaway-before-shutdown", "shutdown-before-goaway"],
)
def test_code_after_draining(waits: bool, then: tuple[Goaway, ...], code: int) -> None:
    """It is that of the last GOAWAY before the client's own, and is told once."""

    async def steps(t: Context) -> None:
        server, room = await t.member()
        if waits:
            t.publish(room)
            await server.expect(Publish)
        server.send(_DRAINING)
        if not waits:
            await server.expect_goaway(Code.NONE)
        server.send(*then)
        report = await t.report("disconnected")
        assert (report.get("code"), report.get("again")) == (code, True)
        await server.close()
        await t.reopened()
        assert len(t.client.of("disconnected")) == 1

    _play(steps)


def test_joined_comes_before_gap() -> None:
    async def steps(t: Context) -> None:
        server, room = await t.member(next=5)
        await t.marker(server, room)
        server.send(Evicted(Code.LAGGED, flags=Flag.RETRY, room=room.ref))
        again = t.room(room.name, next=9)
        await t.rejoin(server, again, head=20)
        await t.marker(server, again)
        events = [report.get("event") for report in t.client.of("joined", "gap", "message")]
        assert events == ["joined", "message", "joined", "gap", "message"]

    _play(steps)


def test_rejoin_that_is_refused_for_good() -> None:
    """It is an error without id; then the client is out of the room."""

    async def steps(t: Context) -> None:
        server, room = await t.member()
        server.send(Evicted(Code.ROOM_CLOSED, flags=Flag.RETRY, room=room.ref))
        join = await server.expect(Join)
        id = t.publish(room)
        server.send(t.refusal(join, Code.FORBIDDEN))
        report = await t.report("error", lambda report: "id" not in report)
        assert (report.get("room"), report.get("code")) == (room.name, Code.FORBIDDEN)
        await t.answer(id, "error")
        await _refused(t, "publish", room=room.name, payload="00", ctype=0)

    _play(steps)


def test_join_refused_with_retry_is_repeated() -> None:
    async def steps(t: Context) -> None:
        server: RawServer = await t.open()
        room = t.room()
        id = t.client.tell("join", room=room.name)
        server.send(t.refusal(await server.expect(Join), Code.RATE_LIMITED, 300))
        server.send(t.joined(room, await server.expect(Join)))
        await t.answer(id, "joined")

    _play(steps)


def test_history_that_the_server_does_not_offer() -> None:
    async def steps(t: Context) -> None:
        server, room = await t.member(fields=())
        report = await t.answer(t.client.tell("history", room=room.name), "error")
        assert report.get("code") == Code.UNKNOWN_REQUEST
        await t.marker(server, room)
        assert not server.left_over(History)

    _play(steps)


def test_quit_after_closed() -> None:
    """There is one `closed`, and status 0; a second `connect` is an error."""

    async def steps(t: Context) -> None:
        server, _ = await t.member()
        server.send(Goaway(Code.ABUSE))
        await t.report("closed")
        await _refused(t, "connect", name="ada")
        t.client.tell("quit")
        assert await t.client.program.wait(5.0)
        assert t.client.program.died == "ended with status 0"
        assert len(t.client.of("closed")) == 1

    _play(steps)


def test_own_goaway_is_the_code() -> None:
    async def steps(t: Context) -> None:
        server, _ = await t.member()
        server.send_octets(b"\0\0\0\0\0\x09" + bytes(10), breaks="RW-TYPE-4")
        await server.expect_goaway(Code.UNKNOWN_TYPE)
        await server.close()
        report = await t.report("disconnected")
        assert report.get("code") == Code.UNKNOWN_TYPE

    _play(steps)
