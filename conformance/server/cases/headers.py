"""Section 5.2: request, room and SEQ that are not as the table in section 7 says."""

from conformance.server.cases.steps import (
    SERVER,
    MakeOctets,
    expect_fatal,
    expect_hello_fatal,
    goaway,
    hello,
    history,
    join,
    leave,
    ping,
    pong,
    publish,
)
from conformance.server.context import Context
from conformance.wire.octets import b16, frame
from protocol.registry import Code, Flag, FrameType

_REQUIREMENT = "RW-FRAME-6"


_OPEN: list[tuple[str, str, MakeOctets, MakeOctets, str]] = [
    ("ping-request", "PING with a request", lambda p: ping(), lambda p: ping(request=5), ""),
    ("ping-room", "PING with a room", lambda p: ping(), lambda p: ping(room=p.room), ""),
    ("ping-seq", "PING with SEQ", lambda p: ping(), lambda p: ping(flags=Flag.SEQ), ""),
    ("pong-request", "PONG with a request", lambda p: pong(), lambda p: pong(request=5), ""),
    ("pong-room", "PONG with a room", lambda p: pong(), lambda p: pong(room=1), ""),
    ("goaway-request", "GOAWAY with a request", lambda p: goaway(), lambda p: goaway(request=5), ""),
    ("goaway-room", "GOAWAY with a room", lambda p: goaway(), lambda p: goaway(room=p.room), ""),
    (
        "join-no-request",
        "JOIN without a request",
        lambda p: join(p.name),
        lambda p: join(p.name, request=0),
        "",
    ),
    ("join-room", "JOIN with a room", lambda p: join(p.name), lambda p: join(p.name, room=p.room), ""),
    ("join-seq", "JOIN with SEQ", lambda p: join(p.name), lambda p: join(p.name, flags=Flag.SEQ), ""),
    ("leave-no-request", "LEAVE without a request", lambda p: leave(p), lambda p: leave(p, request=0), ""),
    ("leave-no-room", "LEAVE without a room", lambda p: leave(p), lambda p: leave(p, room=0), ""),
    ("leave-seq", "LEAVE with SEQ", lambda p: leave(p), lambda p: leave(p, flags=Flag.SEQ), ""),
    (
        "publish-no-request",
        "PUBLISH without a request",
        lambda p: publish(p),
        lambda p: publish(p, request=0),
        "",
    ),
    ("publish-no-room", "PUBLISH without a room", lambda p: publish(p), lambda p: publish(p, room=0), ""),
    ("publish-seq", "PUBLISH with SEQ", lambda p: publish(p), lambda p: publish(p, flags=Flag.SEQ), ""),
    ("history-no-request", "HISTORY without a request", history, lambda p: history(p, request=0), "history"),
    ("history-no-room", "HISTORY without a room", history, lambda p: history(p, room=0), "history"),
]


def _define_open(path: str, what: str, twin: MakeOctets, broken: MakeOctets, extension: str) -> None:
    async def run(t: Context) -> None:
        await expect_fatal(t, _REQUIREMENT, twin, broken, Code.BAD_HEADER, extension)

    SERVER.add(
        f"5.2/bad-header-{path}",
        [_REQUIREMENT, "RW-CHECK-2"],
        f"The server sends GOAWAY(BAD_HEADER) for {what}.",
        run,
    )


for _row in _OPEN:
    _define_open(*_row)


_HELLO: list[tuple[str, str, bytes]] = [
    ("hello-no-request", "HELLO without a request", hello(request=0)),
    ("hello-room", "HELLO with a room", hello(room=1)),
    ("hello-seq", "HELLO with SEQ", hello(flags=Flag.SEQ)),
    (
        "goaway-early-request",
        "GOAWAY with a request before HELLO",
        frame(FrameType.GOAWAY, bytes(10) + b16(b""), request=1),
    ),
]


def _define_hello(path: str, what: str, broken: bytes) -> None:
    async def run(t: Context) -> None:
        await expect_hello_fatal(t, _REQUIREMENT, broken, Code.BAD_HEADER)

    SERVER.add(
        f"5.2/bad-header-{path}",
        [_REQUIREMENT, "RW-CHECK-2"],
        f"The server sends GOAWAY(BAD_HEADER) for {what}.",
        run,
    )


for _hello in _HELLO:
    _define_hello(*_hello)
