"""The suite tried on clients that do nothing right: none may look good, and none may harm or hold up the suite."""

import asyncio
import json
import shlex
import sys
from collections.abc import Awaitable, Callable

import pytest

from conformance.cli import main
from conformance.client.cases import client_cases
from conformance.client.runner import ClientRunner
from conformance.client.target import Running
from conformance.harness.exit_status import FAILS, UNREACHABLE, USAGE
from conformance.harness.options import Options
from conformance.harness.verdicts import Result, Verdict
from conformance.spec.tables import load
from conformance.wire.octets import CLIENT_PREFACE, HEADER
from tests.support.client_in_process import InProcess, run_to_the_end

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
    "not an object": "print('[]', flush=True); input()",
    "never connects": f"import sys\n{_GREETING}\nsys.stdin.read()",
    "greets and echoes": f"import sys\n{_GREETING}\nfor line in sys.stdin: print(line, end='', flush=True)",
    "greets and floods": f"import json\n{_GREETING}\nwhile True: print(json.dumps({{'event': 'message'}}), flush=True)",
    "greets and writes rubbish": f"{_GREETING}\nprint('rubbish', flush=True)\ninput()\ninput()",
    "greets and exits": _GREETING,
}


def _command(source: str) -> str:
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(source.replace('{', '{{').replace('}', '}}'))}"


@pytest.mark.parametrize("source", _PROGRAMS.values(), ids=_PROGRAMS.keys())
def test_useless_program_is_not_reached(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["client", "--exec", _command(source), "--timeout", "0.4", "--format", "json"]) == UNREACHABLE
    document = json.loads(capsys.readouterr().out)
    assert document["results"] == []
    assert document["error"]
    assert "Traceback" not in document["error"]


def test_command_that_cannot_be_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["client", "--exec", "/nowhere/no-such-client {host} {port}"]) == UNREACHABLE
    assert main(["client", "--exec", "client {nobody}"]) == USAGE
    assert main(["client", "--exec", "'"]) == USAGE
    assert "Traceback" not in "".join(capsys.readouterr())


def test_client_that_hangs_at_quit(capsys: pytest.CaptureFixture[str]) -> None:
    """It fails the cases about quitting, and holds up no other."""
    source = (
        "import asyncio, sys\nfrom reference_client import adapter\n"
        "class Deaf(adapter.Adapter):\n"
        "    async def run(self, lines):\n"
        "        await super().run(lines)\n"
        "        await asyncio.Event().wait()\n"
        "adapter.Adapter = Deaf\nasyncio.run(adapter._main(sys.argv[1], int(sys.argv[2])))"
    )
    command = f"{_command(source)} {{host}} {{port}}"
    status = main(["client", "--exec", command, "--timeout", "1", "--format", "json", "client/8.5/quit", "client/7.7"])
    results = {r["id"]: r["verdict"] for r in json.loads(capsys.readouterr().out)["results"]}
    assert status == FAILS
    assert results == {"client/7.7/answered": "PASS", "client/7.7/unasked": "PASS", "client/8.5/quit": "FAIL"}


# Clients that get as far as WELCOME, and are of no use from then on.

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter, "Useless"], Awaitable[None]]


class Useless(InProcess):
    """Says that it is ready and connects, by a handshake of constant octets; `talk` is what it does then."""

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
    """GOAWAY(MALFORMED) whatever it is sent; and it obeys and answers every command."""
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


# What a client earns that shakes hands well, and then does nothing.
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
def test_useless_clients_pass_nothing(talk: Talk) -> None:
    """No case about a failure or a limit passes because the client is dead, deaf or shouting."""
    results = asyncio.run(run_to_the_end(_run(talk)))
    assert len(results) == len(client_cases())
    assert {result.id for result in results if result.verdict is Verdict.PASS} <= _HANDSHAKE_ONLY
    assert [result.reason for result in results if result.verdict is Verdict.HARNESS_ERROR] == []
    assert any(result.verdict in (Verdict.FAIL, Verdict.CRASH) for result in results)
