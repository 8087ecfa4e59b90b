"""The suite against servers that do nothing right: none of them may look good, and none may harm the suite."""

import asyncio
import contextlib
import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from conformance.cli import main
from conformance.commands.selftest_server import Handler, serving
from conformance.harness.exit_status import FAILS, UNREACHABLE
from conformance.harness.options import Options
from conformance.harness.verdicts import Result, Verdict
from conformance.server.cases import server_cases
from conformance.server.raw_client import RawClient
from conformance.server.runner import ServerRunner
from conformance.server.target import ServerTarget
from conformance.spec.tables import load
from conformance.wire.log import WireLog
from tests.support import virtual_time

PREFACE = bytes.fromhex("F5525750 01 00 0000")
WELCOME = bytes.fromhex(
    "00000026 0002 0000 00000001 00000000"
    "1122334455667788 03 616461 0000018BCFE56800 00010000 00007530 000927C0 0020 0100 0000"
)


async def closes_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts and closes."""


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads everything, sends nothing, closes when the client does."""
    while await reader.read(65536):
        pass


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads nothing, sends nothing and never closes."""
    await asyncio.Event().wait()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what it receives; even a preface looks right."""
    while data := await reader.read(65536):
        writer.write(data)


async def http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers like a web server."""
    await reader.read(1024)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


async def rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with random octets."""
    chance = random.Random(7)
    while await reader.read(65536):
        writer.write(chance.randbytes(200))


async def rubbish_frames(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends a correct preface, then random octets."""
    await reader.read(65536)
    writer.write(PREFACE + random.Random(8).randbytes(4000))
    await reader.read()


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends a correct preface, then PINGs without end."""
    writer.write(PREFACE)
    ping = bytes.fromhex("00000008 0006 0000 00000000 00000000 0102030405060708") * 20
    while not writer.is_closing():
        writer.write(ping)
        await writer.drain()
        await asyncio.sleep(0)  # so that time passes


async def welcomes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends a preface, and answers everything with WELCOME."""
    await reader.read(65536)
    writer.write(PREFACE)
    while await reader.read(65536):
        writer.write(WELCOME)


async def welcomes_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Completes the handshake and falls silent."""
    await reader.readexactly(8)
    writer.write(PREFACE)
    await reader.read(65536)
    writer.write(WELCOME)
    await reader.read()


async def goes_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends a preface, then answers anything with GOAWAY(MALFORMED) and closes."""
    await reader.read(65536)
    writer.write(PREFACE)
    await reader.read(65536)
    writer.write(bytes.fromhex("0000000C 0008 0000 00000000 00000000 0065 00000000 00000000 0000"))


HANDLERS: tuple[Handler, ...] = (
    closes_at_once,
    silent,
    deaf,
    echo,
    http,
    rubbish,
    rubbish_frames,
    flood,
    welcomes,
    welcomes_once,
    goes_away,
)


def closing(handler: Handler) -> Handler:
    """The handler, after which the connection is closed at once, also where the handler ends by an error."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await handler(reader, writer)
        writer.close()
        await writer.wait_closed()

    return handle


_IMPATIENT = Options(timeout=0.2, patience=0.4, ready=0.4, jobs=40)


# What a server passes that completes the handshake, and then goes away or falls silent.
_HANDSHAKE_ONLY = {
    "server/5.1/answered",
    "server/5.1/highest-version",
    "server/5.1/single-octets",
    "server/5.1/zero-ignored",
    "server/5.3/ignorable-hello",
    "server/5.4/unknown-hello",
    "server/6.1/ignored-before-hello",
    "server/7.1/initial-response-ignored",
    "server/7.2/clock",
    "server/7.2/extension-data",
    "server/7.2/no-extension-unasked",
}


async def _run(handler: Handler) -> list[Result]:
    async with serving(closing(handler)) as port:
        target = ServerTarget("127.0.0.1", port, 1.0)
        return await ServerRunner(target, load(), _IMPATIENT, lambda result: result).run(server_cases())


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
def test_cases_at_a_useless_server(handler: Handler) -> None:
    """A negative case never passes because the server is dead, and no octets of a server break the suite."""
    results = virtual_time.run(_run(handler), iteration=0.001)
    passed = {result.id for result in results if result.verdict is Verdict.PASS}
    assert passed <= _HANDSHAKE_ONLY
    assert [r.reason for r in results if r.verdict is Verdict.HARNESS_ERROR] == []
    assert not any("Traceback" in result.reason for result in results)
    assert any(result.verdict in (Verdict.FAIL, Verdict.CRASH) for result in results)


async def _close_twice() -> None:
    async with serving(closing(deaf)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        peer = RawClient("twice", reader, writer, WireLog(), 1.0)
        peer.write(bytes(2**24))  # more than the server's buffers take, so that closing cannot end
        for _ in range(2):
            await peer.close()


def test_connection_that_is_closed_twice() -> None:
    """A case closes its connections, and so does the end of the case: neither may look like a cancellation."""
    asyncio.run(_close_twice())


def _status(handler: Handler, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Runs the command against a handler that serves in a thread of its own."""
    started: Future[tuple[int, Callable[[], object]]] = Future()

    async def serve() -> None:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        async with serving(closing(handler)) as port:
            started.set_result((port, lambda: loop.call_soon_threadsafe(done.set)))
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, end = started.result(10)
    try:
        status = main(["server", "--connect", f"127.0.0.1:{port}", "--timeout", "0.2", *arguments])
    finally:
        end()
        thread.join()
    return status, capsys.readouterr().out


@pytest.mark.parametrize("handler", [closes_at_once, echo, http, rubbish], ids=lambda h: h.__name__)
def test_command_at_a_useless_server(handler: Handler, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = _status(handler, capsys)
    assert status == UNREACHABLE
    assert "Traceback" not in out


def test_command_at_a_server_that_only_says_hello(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = _status(welcomes_once, capsys, "--format", "json", "-k", "not waits", "-j", "40")
    document = json.loads(out)
    assert status == FAILS
    assert document["exit"] == FAILS
    assert document["counts"]["FAIL"] > 50


def test_run_that_ends_at_the_first_failure(capsys: pytest.CaptureFixture[str]) -> None:
    status, out = _status(welcomes_once, capsys, "--format", "json", "-x", "-j", "1", "--section", "7.13")
    assert status == FAILS
    assert len(json.loads(out)["results"]) == 1
