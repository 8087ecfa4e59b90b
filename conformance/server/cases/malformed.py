"""Section 5.2: bodies that are not laid out as their tables say."""

from conformance.server.cases.steps import (
    HISTORY_BODY,
    IGNORABLE,
    SERVER,
    MakeOctets,
    Place,
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
from conformance.wire.octets import b8, b16, frame, u16, u32, u64
from protocol.registry import Code, FrameType

_REQUIREMENT = "RW-FRAME-7"


def _join(body: bytes) -> bytes:
    return frame(FrameType.JOIN, body, request=700)


def _publish(p: Place, body: bytes) -> bytes:
    return frame(FrameType.PUBLISH, body, request=700, room=p.room)


_OPEN: list[tuple[str, str, MakeOctets, MakeOctets, str]] = [
    ("ping-empty", "PING without a body", lambda p: ping(), lambda p: ping(b""), ""),
    ("ping-short", "PING of 7 octets", lambda p: ping(), lambda p: ping(b"1234567"), ""),
    ("ping-long", "PING with an octet left over", lambda p: ping(), lambda p: ping(tail=b"9"), ""),
    ("pong-short", "PONG of 7 octets", lambda p: pong(), lambda p: frame(FrameType.PONG, bytes(7)), ""),
    (
        "goaway-short",
        "GOAWAY that ends in jitter_ms",
        lambda p: goaway(),
        lambda p: frame(FrameType.GOAWAY, bytes(8)),
        "",
    ),
    (
        "goaway-text-beyond",
        "GOAWAY whose text is longer than the body",
        lambda p: goaway(b"bye"),
        lambda p: frame(FrameType.GOAWAY, bytes(10) + u16(4) + b"bye"),
        "",
    ),
    ("join-empty", "JOIN without a body", lambda p: join(p.name), lambda p: _join(b""), ""),
    (
        "join-name-beyond",
        "JOIN whose name is longer than the body",
        lambda p: join(p.name),
        lambda p: _join(b"\xff" + p.name + bytes(16)),
        "",
    ),
    (
        "join-since-short",
        "JOIN that ends inside since",
        lambda p: join(p.name),
        lambda p: _join(b8(p.name) + bytes(15)),
        "",
    ),
    (
        "join-left-over",
        "JOIN with an octet left over",
        lambda p: join(p.name),
        lambda p: join(p.name, tail=b"\0"),
        "",
    ),
    ("leave-left-over", "LEAVE with an octet", lambda p: leave(p), lambda p: leave(p, tail=b"\0"), ""),
    ("publish-empty", "PUBLISH without a body", lambda p: publish(p), lambda p: _publish(p, b""), ""),
    (
        "publish-id-short",
        "PUBLISH that ends inside its id",
        lambda p: publish(p),
        lambda p: _publish(p, p.id[:15]),
        "",
    ),
    (
        "publish-payload-beyond",
        "PUBLISH whose payload is longer than the body",
        lambda p: publish(p),
        lambda p: _publish(p, p.id + b"\0" + u32(3) + b"hi"),
        "",
    ),
    (
        "publish-payload-huge",
        "PUBLISH whose payload says 2^32 - 1",
        lambda p: publish(p),
        lambda p: _publish(p, p.id + b"\0" + u32(2**32 - 1) + b"hi"),
        "",
    ),
    (
        "publish-left-over",
        "PUBLISH with three octets left over",
        lambda p: publish(p),
        lambda p: publish(p, tail=bytes(3)),
        "",
    ),
    (
        "field-header-cut",
        "an extension field that ends inside its length",
        lambda p: ping(tail=u16(IGNORABLE) + u16(0)),
        lambda p: ping(tail=u16(IGNORABLE) + b"\0"),
        "",
    ),
    (
        "field-value-beyond",
        "an extension field whose value is longer than the body",
        lambda p: publish(p, tail=u16(IGNORABLE) + b16(b"ab")),
        lambda p: publish(p, tail=u16(IGNORABLE) + u16(3) + b"ab"),
        "",
    ),
    (
        "history-short",
        "HISTORY that ends inside limit",
        history,
        lambda p: history(p, HISTORY_BODY[:-1]),
        "history",
    ),
    (
        "history-left-over",
        "HISTORY with an octet left over",
        history,
        lambda p: history(p, tail=b"\0"),
        "history",
    ),
]


def _define_open(path: str, what: str, twin: MakeOctets, broken: MakeOctets, extension: str) -> None:
    async def run(t: Context) -> None:
        await expect_fatal(t, _REQUIREMENT, twin, broken, Code.MALFORMED, extension)

    SERVER.add(
        f"5.2/malformed-{path}", [_REQUIREMENT, "RW-CHECK-2"], f"The server sends GOAWAY(MALFORMED) for {what}.", run
    )


for _row in _OPEN:
    _define_open(*_row)


def _hello(body: bytes) -> bytes:
    return frame(FrameType.HELLO, body, request=1)


_HELLO: list[tuple[str, str, bytes]] = [
    ("hello-empty", "HELLO without a body", _hello(b"")),
    ("hello-name-beyond", "HELLO whose name is longer than the body", _hello(b"\xc8ada")),
    (
        "hello-mechanism-beyond",
        "HELLO whose mechanism is longer than the body",
        _hello(b8(b"ada") + b"\x0aANONYMOUS"),
    ),
    ("hello-no-auth", "HELLO that ends before auth", _hello(b8(b"ada") + b8(b"ANONYMOUS"))),
    (
        "hello-auth-beyond",
        "HELLO whose auth is longer than the body",
        _hello(b8(b"ada") + b8(b"ANONYMOUS") + u16(9) + b"x"),
    ),
    ("hello-left-over", "HELLO with an octet left over", hello(tail=b"\0")),
    (
        "hello-field-beyond",
        "HELLO with a field longer than the body",
        hello(tail=u16(IGNORABLE) + u16(500) + u64(0)),
    ),
]


def _define_hello(path: str, what: str, broken: bytes) -> None:
    async def run(t: Context) -> None:
        await expect_hello_fatal(t, _REQUIREMENT, broken, Code.MALFORMED)

    SERVER.add(
        f"5.2/malformed-{path}", [_REQUIREMENT, "RW-CHECK-2"], f"The server sends GOAWAY(MALFORMED) for {what}.", run
    )


for _early in _HELLO:
    _define_hello(*_early)
