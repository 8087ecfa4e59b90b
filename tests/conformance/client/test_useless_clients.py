"""The suite against clients that do nothing right: none may look good, and none may harm or delay the suite."""

import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable

import pytest

from conformance.cli import main
from conformance.client.cases import client_cases
from conformance.client.runner import ClientRunner
from conformance.client.target import Running
from conformance.harness.exit_status import UNREACHABLE
from conformance.harness.options import Options
from conformance.harness.verdicts import Result, Verdict
from conformance.spec.tables import load
from conformance.wire.octets import CLIENT_PREFACE, HEADER
from tests.support import virtual_time
from tests.support.client_in_process import InProcess, run_to_the_end
from tests.support.suite import PYTHON

_GREETING = """print('{"ready": true, "contract": 1, "name": "useless", "features": ["reconnect"]}', flush=True)"""
_PROGRAMS = {
    "exits at once": "import sys; sys.exit(3)",
    "dies": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "silent": "import sys; sys.stdin.read()",
    "echo": "import sys\nfor line in sys.stdin: print(line, end='', flush=True)",
    "rubbish": "print('Welcome to my chat client!\\n> ', flush=True); input()",
    "octets": "import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\x00\\n'); sys.stdout.flush(); sys.stdin.read()",
    "no line": "import sys\nwhile True: sys.stdout.write('x' * 65536)",
    "other contract": """print('{"ready": true, "contract": 99}', flush=True); input()""",
    "nests": "print('[' * 100_000, flush=True); input()",
    "not an object": "print('[]', flush=True); input()",
    "never connects": f"import sys\n{_GREETING}\nsys.stdin.read()",
    "greets and echoes": f"import sys\n{_GREETING}\nfor line in sys.stdin: print(line, end='', flush=True)",
    "greets and floods": f"import json\n{_GREETING}\nwhile True: print(json.dumps({{'event': 'message'}}), flush=True)",
    "greets and writes rubbish": f"{_GREETING}\nprint('rubbish', flush=True)\ninput()\ninput()",
    "greets and nests": f"{_GREETING}\nprint('[' * 100_000, flush=True)\ninput()\ninput()",
    "greets and exits": _GREETING,
}


def _command(source: str) -> str:
    return f"{PYTHON} -c {shlex.quote(source.replace('{', '{{').replace('}', '}}'))}"


@pytest.mark.parametrize("source", _PROGRAMS.values(), ids=_PROGRAMS.keys())
def test_command_at_a_useless_program(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["client", "--exec", _command(source), "--timeout", "0.4", "--format", "json"]) == UNREACHABLE
    document = json.loads(capsys.readouterr().out)
    assert document["results"] == []
    assert document["error"]
    assert "Traceback" not in document["error"]


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, "Useless"], Awaitable[None]]


class Useless(InProcess):
    """Greets, connects with a handshake of constant octets, and then does what `talk` does."""

    talk: Talk

    async def _serve(self, host: str, port: int) -> None:
        self._write(
            json.dumps({"ready": True, "contract": 1, "features": ["reconnect", "presence", "repeat", "rejoin"]})
        )
        command = json.loads(await self.stdin.reader.readline())
        name = command["name"].encode()
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(CLIENT_PREFACE)
            await reader.readexactly(8)
            body = bytes([len(name)]) + name + b"\x09ANONYMOUS\x00\x00"
            writer.write(HEADER.pack(len(body), 1, 0, 1, 0) + body)
            header = HEADER.unpack(await reader.readexactly(16))
            await reader.readexactly(header[0])
            self._write(json.dumps({"event": "connected", "id": command["id"], "name": command["name"]}))
            await type(self).talk(reader, writer, self)
        finally:
            writer.transport.abort()


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: Useless) -> None:
    await reader.read()


async def _closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: Useless) -> None:
    for event in ("disconnected", "closed"):
        client._write(json.dumps({"event": event}))
    writer.close()
    await client.stdin.reader.read()


async def _echoes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: Useless) -> None:
    while data := await reader.read(65536):
        writer.write(data)


async def _goes_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: Useless) -> None:
    """Sends GOAWAY(MALFORMED), and then reports success for every command."""
    writer.write(bytes.fromhex("0000000C 0008 0000 00000000 00000000 0065 00000000 00000000 0000"))
    client._write(json.dumps({"event": "disconnected", "code": 101}))
    while line := await client.stdin.reader.readline():
        id = json.loads(line)["id"]
        for report in ({"event": "joined"}, {"event": "published"}, {"event": "left"}, {"unsupported": "x"}):
            client._write(json.dumps({"id": id, **report}))


async def _floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: Useless) -> None:
    while True:
        client._write(json.dumps({"event": "message", "room": "lobby", "seq": "1"}))
        await asyncio.sleep(0)


# What a client passes that completes the handshake, and then does nothing.
_HANDSHAKE_ONLY = {
    "client/5.1/waits-for-preface",
    "client/5.1/zero-fields-ignored",
    "client/5.2/full-welcome",
    "client/7.1/hello",
    "client/7.2/fields",
    "client/7.2/limits-out-of-range",
    "client/7.2/name-granted",
    "client/12/name-as-given",
}


async def _run(talk: Talk) -> list[Result]:
    class Kind(Useless):
        pass

    Kind.talk = staticmethod(talk)

    async def launch(host: str, port: int) -> Running:
        return Kind(host, port)

    options = Options(timeout=0.2, ready=2.0, jobs=64)
    return await ClientRunner(launch, load(), options, lambda result: result).run(client_cases())


@pytest.mark.parametrize("talk", [_silent, _closes, _echoes, _goes_away, _floods], ids=lambda talk: talk.__name__)
def test_cases_at_a_useless_client(talk: Talk) -> None:
    """No case about a failure or a limit passes because the client is dead, deaf or flooding."""
    results = virtual_time.run(run_to_the_end(_run(talk)), iteration=0.001)
    assert len(results) == len(client_cases())
    assert {result.id for result in results if result.verdict is Verdict.PASS} <= _HANDSHAKE_ONLY
    assert [result.reason for result in results if result.verdict is Verdict.HARNESS_ERROR] == []
    assert any(result.verdict in (Verdict.FAIL, Verdict.CRASH) for result in results)
