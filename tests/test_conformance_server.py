"""The suite against the reference server, and against the same server behind a proxy that breaks one rule.

A case that cannot fail proves nothing: each of these proxies changes one thing that the server says, and the
case that is about it has to notice.
"""

import asyncio
import contextlib
import json
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from conformance.cases import Case
from conformance.cli import main
from conformance.octets import HEADER, Header, decode, encode, frame, read_header
from conformance.options import Options
from conformance.process import Program
from conformance.runner import ServerRunner
from conformance.server_cases import server_cases
from conformance.session import CONFORMS
from conformance.spec import load
from conformance.target import LaunchedServer, ServerTarget
from conformance.verdicts import Result, Verdict
from protocol.frames import (
    Ack,
    Error,
    Frame,
    Goaway,
    HistoryEnd,
    Joined,
    Message,
    Pong,
    Presence,
    Roster,
    Unknown,
    Welcome,
    extension,
)
from protocol.registry import Code, Flag

_SERVER = f"{shlex.quote(sys.executable)} -m reference_server.cli --port {{port}}"
_OPTIONS = Options(timeout=1.0, patience=1.0, jobs=8)

Change = Callable[[Frame | Unknown], list[Frame | Unknown]]


@pytest.mark.parametrize("store", ["--memory", "--data {dir}"])
def test_reference_server_conforms(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"{_SERVER} {store}"
    status = main(["server", "--exec", command, "--format", "json", "-k", "not waits and not slow and not 8.6/ends"])
    document = json.loads(capsys.readouterr().out)
    failures = {r["id"]: (r["expected"], r["got"], r["reason"]) for r in document["results"] if r["verdict"] == "FAIL"}
    assert failures == {}
    assert status == CONFORMS, document["counts"]
    assert document["counts"]["PASS"] > 350


def _case(id: str) -> Case:
    return next(case for case in server_cases() if case.id == id)


@contextlib.asynccontextmanager
async def _behind(change: Change) -> AsyncIterator[ServerTarget]:
    """The reference server, each frame of which goes through `change`."""
    server = LaunchedServer(f"{_SERVER} --memory", 15.0)
    await server.start()

    async def downstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(8))
        while True:
            header: Header = read_header(await reader.readexactly(HEADER.size))
            body = await reader.readexactly(header.length)
            changed = change(decode(header, body, "S"))
            writer.write(b"".join(map(encode, changed)))

    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.write_eof()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(server.host, server.port)
        sending = asyncio.create_task(upstream(reader, there[1]))
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await downstream(there[0], writer)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            for end in (writer, there[1]):
                end.transport.abort()

    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.get_running_loop().create_task(connected(reader, writer)))

    proxy = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield ServerTarget("127.0.0.1", proxy.sockets[0].getsockname()[1], 15.0)
    finally:
        proxy.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.stop()


def _try(change: Change, *ids: str) -> list[Result]:
    async def run() -> list[Result]:
        async with _behind(change) as target:
            return await ServerRunner(target, load(), _OPTIONS, lambda result: result).run([*map(_case, ids)])

    return asyncio.run(run())


def _as_it_is(value: Frame | Unknown) -> list[Frame | Unknown]:
    return [value]


def _of(kind: type, change: Callable[..., Frame | Unknown | None]) -> Change:
    """Changes frames of one kind; None leaves them out."""

    def changed(value: Frame | Unknown) -> list[Frame | Unknown]:
        if not isinstance(value, kind):
            return [value]
        other = change(value)
        return [] if other is None else [other]

    return changed


def _recoded(old: Code, new: Code) -> Change:
    return _of(Error, lambda f: replace(f, code=new) if f.code == old else f)


def _late_ack() -> Change:
    held: list[Frame | Unknown] = []

    def changed(value: Frame | Unknown) -> list[Frame | Unknown]:
        if isinstance(value, Ack):
            held.append(value)
            return []
        if isinstance(value, Message) and held:
            return [value, held.pop()]
        return [value]

    return changed


_HISTORY = (extension("history"),)

_BROKEN: list[tuple[str, str, Change]] = [
    ("server/7.15/echo", "RW-MESSAGE-1", _of(Message, lambda f: None)),
    ("server/7.15/echo", "RW-PROMISE-11", _late_ack()),
    ("server/7.15/echo", "RW-ACK-2", _of(Message, lambda f: replace(f, time_ms=f.time_ms + 1))),
    ("server/7.15/content-octets", "RW-PUBLISH-4", _of(Message, lambda f: replace(f, payload=f.payload[:-1]))),
    ("server/7.15/content-octets", "RW-CURSOR-2", _of(Message, lambda f: replace(f, seq=f.seq + 1))),
    ("server/7.7/same-opaque", "RW-PING-1", _of(Pong, lambda f: replace(f, opaque=bytes(8)))),
    ("server/5.3/relayed", "RW-FIELD-5", _of(Message, lambda f: replace(f, fields=f.fields[::-1]))),
    ("server/5.3/critical-join", "RW-FIELD-2", _recoded(Code.UNKNOWN_FIELD, Code.NAME_INVALID)),
    ("server/6.1/request-critical", "RW-TYPE-1", _recoded(Code.UNKNOWN_REQUEST, Code.FORBIDDEN)),
    ("server/7.9/already-joined", "RW-ERROR-4", _of(Error, lambda f: replace(f, room=0))),
    ("server/10.3/preceded", "RW-ERROR-1", _of(Error, lambda f: replace(f, flags=0))),
    ("server/10.2/repeat", "RW-DEDUPE-1", _of(Ack, lambda f: replace(f, flags=0))),
    ("server/10.2/repeat", "RW-ACK-2", _of(Ack, lambda f: replace(f, time_ms=1) if f.flags else f)),
    ("server/9.1/behind", "RW-CURSOR-2", _of(Joined, lambda f: replace(f, start=f.head + 1))),
    ("server/9.1/other-epoch", "RW-CURSOR-1", _of(Joined, lambda f: replace(f, flags=0))),
    ("server/9.3/left-by-leave", "RW-PRESENCE-3", _of(Presence, lambda f: replace(f, kind=3) if f.kind == 2 else f)),
    ("server/9.3/joined", "RW-PRESENCE-2", _of(Presence, lambda f: None if f.kind == 1 else f)),
    ("server/9.3/roster", "RW-ROSTER-2", _of(Roster, lambda f: replace(f, flags=0))),
    ("server/9.3/roster", "RW-ROSTER-1", _of(Roster, lambda f: replace(f, entries=f.entries[1:]))),
    ("server/7.18/limited", "RW-HISTORY-5", _of(HistoryEnd, lambda f: replace(f, flags=f.flags ^ Flag.MORE))),
    ("server/7.18/all", "RW-HISTORY-6", _of(HistoryEnd, lambda f: replace(f, end=f.end - 1))),
    ("server/5.2/bad-header-ping-room", "RW-FRAME-6", _of(Goaway, lambda f: replace(f, code=Code.MALFORMED))),
    ("server/5.2/malformed-join-empty", "RW-FRAME-7", _of(Goaway, lambda f: None)),
    ("server/8.5/goaway-answered", "RW-CLOSE-3", _of(Goaway, lambda f: None)),
    ("server/7.2/members-differ", "RW-WELCOME-1", _of(Welcome, lambda f: replace(f, member=1))),
    (
        "server/7.2/no-extension-unasked",
        "RW-WELCOME-2",
        _of(Welcome, lambda f: replace(f, fields=(extension("history"),))),
    ),
    ("server/7.1/welcome", "RW-WELCOME-4", _of(Welcome, lambda f: replace(f, max_body=4095))),
    ("server/7.1/welcome", "RW-FLAG-1", _of(Welcome, lambda f: replace(f, flags=0x0040))),
]


@pytest.mark.parametrize(("id", "requirement", "change"), _BROKEN, ids=[f"{id}-{name}" for id, name, _ in _BROKEN])
def test_case_notices_a_broken_rule(id: str, requirement: str, change: Change) -> None:
    [result] = _try(change, id)
    assert (result.verdict, result.requirement) == (Verdict.FAIL, requirement), (
        result.expected,
        result.got,
        result.reason,
    )
    assert result.wire
    assert result.sentence == load().requirements[requirement].text
    assert result.command.endswith(id)


def test_proxy_that_changes_nothing_passes() -> None:
    results = _try(_as_it_is, *{id for id, _, _ in _BROKEN})
    assert {result.verdict for result in results} == {Verdict.PASS}


def test_dying_server_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies in the middle of a case: CRASH, and the next case finds it started again."""
    cases = [_case("server/7.15/echo"), _case("server/7.7/same-opaque")]
    killed = False
    target = LaunchedServer(f"{_SERVER} --memory", 15.0)

    async def murderous(context: object) -> None:
        nonlocal killed
        killed = True
        target.program.send_signal(signal.SIGKILL)
        await cases[0].run(context)

    async def run() -> list[Result]:
        try:
            await target.start()
            runner = ServerRunner(target, load(), replace(_OPTIONS, jobs=1), lambda result: result)
            return await runner.run([replace(cases[0], run=murderous), cases[1]])
        finally:
            await target.stop()

    crashed, after = asyncio.run(run())
    assert killed
    assert crashed.verdict is Verdict.CRASH
    assert "SIGKILL" in crashed.reason
    assert after.verdict is Verdict.PASS


def test_program_keeps_the_end_of_its_stderr() -> None:
    async def run() -> tuple[str, str]:
        source = "import sys; sys.stderr.write('x' * 100000 + 'the end'); sys.exit(3)"
        program = await Program.start([sys.executable, "-c", source], {})
        assert await program.wait(10)
        await program.stop()
        return program.died, program.stderr

    died, stderr = asyncio.run(run())
    assert died == "ended with status 3"
    assert stderr == "" or stderr.endswith("the end")
    assert frame(6)[:4] == bytes(4)
