"""What the suite's own ends send: octets are made and read back once, and nothing is broken undeclared."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import pytest

from conformance.client.invariants import CaseInvariants
from conformance.client.raw_server import RawServer
from conformance.harness import connection
from conformance.harness.verdicts import HarnessFault
from conformance.server.raw_client import RawClient
from conformance.wire import clock
from conformance.wire.log import WireLog
from conformance.wire.octets import HEADER, encode, frame, read_header
from protocol.frames import Ack, Goaway, Hello, Join, Message, Ping, Pong, Publish, Unknown, Welcome
from protocol.registry import HELLO_MAX_BODY, Code, FrameType
from tests.support import virtual_time

End = RawClient | RawServer
PING = Ping(b"12345678")
HELLO = Hello("ada", "ANONYMOUS", b"", request=1)
WELCOME = Welcome(1, "ada", 0, 65536, 5_000, 0, 32, 8, b"", request=1)
MESSAGE = Message(1, 2, 3, bytes(16), 1, "bob", b"x", room=5)


@contextlib.asynccontextmanager
async def _connected(role: str) -> AsyncIterator[tuple[End, WireLog, asyncio.StreamReader]]:
    """An end of the suite, its log, and what the other end gets."""
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda *pair: accepted.put_nowait(pair), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    other_reader, other_writer = await accepted.get()
    log = WireLog()
    end: End
    if role == "client":
        end = RawClient("A", reader, writer, log, 5.0)
    else:
        end = RawServer("A", reader, writer, log, 5.0, CaseInvariants())
    try:
        yield end, log, other_reader
    finally:
        await end.close()
        other_writer.close()
        server.close()


def _with(role: str, act: Callable[[End], Any]) -> tuple[bytes, WireLog]:
    """The octets that came of an act, and the log."""

    async def run() -> tuple[bytes, WireLog]:
        async with _connected(role) as (end, log, other):
            act(end)
            await end.close()
            return await asyncio.wait_for(other.read(), 5), log

    return asyncio.run(run())


@pytest.mark.parametrize("role", ["client", "server"])
def test_frame_is_encoded_and_read_back_once(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("encode", "decode", "split_frames"):
        whole = getattr(connection, name)

        def counting(*args: Any, name: str = name, whole: Callable[..., Any] = whole) -> Any:
            calls.append(name)
            return whole(*args)

        monkeypatch.setattr(connection, name, counting)
    octets, log = _with(role, lambda end: end.send(PING))
    assert octets == encode(PING)
    assert [entry.octets for entry in log.entries if entry.framed] == [octets]
    assert calls == ["encode", "decode"]
    calls.clear()
    octets, _ = _with(role, lambda end: end.send_octets(encode(PING) * 2))
    assert octets == encode(PING) * 2
    assert calls == ["split_frames", "decode", "decode"]


@pytest.mark.parametrize("role", ["client", "server"])
def test_slices_are_logged_as_one_write(role: str) -> None:
    whole = encode(PING)
    octets, log = _with(role, lambda end: end.send_octets(whole, slices=(whole[:3], whole[3:])))
    assert octets == whole
    assert [entry.octets for entry in log.entries if entry.framed] == [whole]


UNDECLARED = {
    "client": {
        "half a frame": encode(PING)[:-1],
        "half a frame behind a whole one": encode(PING) + encode(PING)[:9],
        "a header": frame(FrameType.PING, b"12345678", request=1),
        "a body": frame(FrameType.PING, b"1234567"),
        "a critical type": frame(0x0777, b""),
        "a request of unknown type": frame(0x8777, b"", request=1),
        "a body above the limit": frame(0x8777, bytes(HELLO_MAX_BODY + 1)),
    },
    "server": {
        "half a frame": encode(PING)[:-1],
        "half a frame behind a whole one": encode(PING) + encode(PING)[:9],
        "a header": frame(FrameType.PING, b"12345678", request=1),
        "a body": frame(FrameType.PING, b"1234567"),
        "a critical type": frame(0x0777, b""),
        "no SEQ": frame(FrameType.MESSAGE, encode(MESSAGE)[16:], room=5),
    },
}


@pytest.mark.parametrize(("role", "what"), [(role, what) for role, octets in UNDECLARED.items() for what in octets])
def test_breach_that_is_not_declared_is_a_fault(role: str, what: str) -> None:
    octets = UNDECLARED[role][what]
    with pytest.raises(HarnessFault, match="declares nothing"):
        _with(role, lambda end: end.send_octets(octets))
    sent, log = _with(role, lambda end: end.send_octets(octets, breaks="RW-FRAME-7"))
    assert sent == octets
    assert [entry.note for entry in log.entries if entry.framed] == ["breaks RW-FRAME-7"]


@pytest.mark.parametrize("role", ["client", "server"])
def test_declared_requirement_exists(role: str) -> None:
    with pytest.raises(HarnessFault, match="RW-NONE-1"):
        _with(role, lambda end: end.send(PING, breaks="RW-NONE-1"))


@pytest.mark.parametrize("role", ["client", "server"])
def test_value_that_fits_no_field_is_a_fault(role: str) -> None:
    with pytest.raises(HarnessFault, match="cannot encode"):
        _with(role, lambda end: end.send(Ping(b"nine octets")))


@pytest.mark.parametrize("value", [Join("", 0, 0, request=1), Publish(bytes(16), 9, b"", request=1, room=1)])
def test_refused_request_needs_no_declaration(value: Join | Publish) -> None:
    octets, _ = _with("client", lambda end: end.send(value))
    assert octets == encode(value)


def test_client_remembers_what_it_asks() -> None:
    def act(end: End) -> None:
        assert isinstance(end, RawClient)
        end.send(Hello("ada", "ANONYMOUS", b"", request=1))
        end.send_octets(frame(FrameType.JOIN, b"\xff", request=2), breaks="RW-FRAME-7")
        assert end.invariants.outstanding == {1: FrameType.HELLO, 2: FrameType.JOIN}
        assert not end.said_goaway
        end.send(Goaway(Code.NONE))
        assert end.said_goaway

    _with("client", act)


def test_server_remembers_what_it_says() -> None:
    def act(end: End) -> None:
        assert isinstance(end, RawServer)
        end.invariants.outstanding = {3: Publish(bytes(16), 1, b"x", request=3, room=5)}
        end.send_octets(frame(FrameType.ACK, b"\xff", request=3), breaks="RW-FRAME-7")
        assert end.invariants.outstanding.keys() == {3}, "what the client cannot read answers nothing"
        end.send(Ack(1, 2, request=3, room=5), Pong(b"12345678"), Unknown(0x8777))
        assert end.invariants.outstanding == {}

    _with("server", act)


def _alive(role: str, act: Callable[[End], Any]) -> list[float]:
    """The seconds after WELCOME at which octets come within four heartbeats, after an act."""

    async def run() -> list[float]:
        async with _connected(role) as (end, _, other):
            if isinstance(end, RawServer):
                end.send(WELCOME)
            else:
                end.send(HELLO)
                end._frame(read_header(encode(WELCOME)), encode(WELCOME)[HEADER.size :])
            act(end)
            began, times = clock.now(), list[float]()
            while (left := began + 4 * WELCOME.heartbeat_ms / 1000 - clock.now()) > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(other.read(4096), left)
                    times.append(clock.now() - began)
            return times

    return virtual_time.run(run())


def _quiet(end: End) -> None:
    end.answers_pings = False


@pytest.mark.parametrize("role", ["client", "server"])
def test_own_end_keeps_the_heartbeat(role: str) -> None:
    """It sends something in every H, though nothing comes, also where the case has it read nothing."""
    for act in (lambda end: None, lambda end: end.pause()):
        times = _alive(role, act)
        assert all(after - before < WELCOME.heartbeat_ms / 2000 for before, after in pairwise([*times, 20.0])), times


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize(
    "act",
    [
        _quiet,
        lambda end: end.send(Goaway(Code.NONE)),
        lambda end: end.send_octets(encode(PING)[:9], breaks="RW-FRAME-5"),
    ],
    ids=["silent", "goaway", "half"],
)
def test_own_end_sends_nothing_where_it_must_not(role: str, act: Callable[[End], Any]) -> None:
    assert len(_alive(role, act)) <= 1
