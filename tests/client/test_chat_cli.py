"""roomwire-chat as users and scripts run it: real processes, sockets and terminals."""

import asyncio
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol import frames
from reference_client.chat.cli import login_name, main
from reference_client.client import Client
from tests.support.places import ROOT
from tests.support.tiny_server import Peer, TinyServer

LIMIT = 60  # seconds, after which a hanging test fails
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("ROOMWIRE_") and name != "NO_COLOR"},
    "PYTHONPATH": str(ROOT),
    "TERM": "xterm",
    "TZ": "UTC",
}


class Server:
    """A process of the reference server."""

    def __init__(self, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "reference_server", "--port", str(port), *options]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self.process.stdout is not None
        match = re.search(r"127\.0\.0\.1:(\d+)", self.process.stdout.readline())
        assert match is not None
        self.port = int(match[1])
        self.address = f"127.0.0.1:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server("--memory")
    yield server
    server.kill()


def chat(*words: str, text: str | bytes = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run roomwire-chat to its end."""
    return subprocess.run(
        [sys.executable, "-m", "reference_client", *words],
        cwd=ROOT,
        env=ENVIRONMENT | environment,
        input=text.encode() if isinstance(text, str) else text,
        capture_output=True,
        timeout=LIMIT,
    )


class Tty:
    """roomwire-chat on its own pseudo-terminal."""

    def __init__(self, *words: str, **environment: str) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (24, 80))
        self.before = termios.tcgetattr(self.slave)
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "reference_client", *words],
            cwd=ROOT,
            env=ENVIRONMENT | environment,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str) -> str:
        """Wait for output that matches `pattern`; returns the output up to the end of the match."""
        deadline = time.monotonic() + LIMIT
        while (match := re.search(pattern, self.seen)) is None:
            ready, _, _ = select.select([self.master], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{pattern!r} is not in {self.seen!r}"
            self.seen += os.read(self.master, 65536).decode()
        seen, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return seen

    def end(self) -> int:
        status = self.process.wait(LIMIT)
        assert termios.tcgetattr(self.slave) == self.before  # the terminal is restored
        return status

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


Terminals = Callable[..., Tty]


@pytest.fixture
def terminals() -> Iterator[Terminals]:
    """Makes terminals, and closes them after the test."""
    made: list[Tty] = []

    def make(*words: str, **environment: str) -> Tty:
        made.append(Tty(*words, **environment))
        return made[-1]

    yield make
    for terminal in made:
        terminal.close()


# --- by hand


def test_two_people_talk(server: Server, terminals: Terminals) -> None:
    ada = terminals("--name", "ada", server.address, "two people")
    ada.expect("you are in two people, 1 here")
    ada.expect("two people> ")
    bob = terminals("--name", "bob", server.address, "two people", NO_COLOR="1")
    bob.expect("you are in two people, 2 here\r\n")
    ada.expect(r"<bob> joined two people")
    ada.type("good morning\r")
    assert "\x1b[3" not in bob.expect(r"\d\d:\d\d:\d\d <ada> good morning\r\n")
    ada.expect("\x1b\\[\\d+m<ada>\x1b\\[0m good morning\r\n")
    bob.type("/who\r")
    bob.expect(r"\* two people: <ada>, <bob>\r\n")
    bob.type("hallo\r")
    ada.expect("hallo\r\n")
    bob.expect("<bob> hallo\r\n")
    bob.type("/who\r")
    assert "<bob> hallo" not in bob.expect(r"\* two people: <ada>, <bob>\r\n")  # it was shown once
    bob.type("/quit\r")
    assert bob.end() == 0
    ada.expect("<bob> left two people")
    ada.type("\x04")
    assert ada.end() == 0


def test_input_survives_output(server: Server, terminals: Terminals) -> None:
    ada = terminals("--name", "ada", server.address, "typing", NO_COLOR="1")
    ada.expect("typing> ")
    ada.type("half a li")
    ada.expect("typing> half a li")
    assert chat("send", "--server", server.address, "--name", "bob", "typing", "in between").returncode == 0
    ada.expect(r"<bob> in between\r\n")
    ada.expect("typing> half a li")
    ada.type("ne\r")
    ada.expect(r"<ada> half a line\r\n")
    ada.type("\x10")  # history
    ada.expect("typing> half a line")
    ada.type("\x15/room\r")
    ada.expect(r"your rooms: typing \(current\)")
    ada.process.send_signal(signal.SIGINT)
    assert ada.end() == 130


def test_several_rooms(server: Server, terminals: Terminals) -> None:
    ada = terminals("--name", "ada", server.address, "one", "two", NO_COLOR="1")
    ada.expect("you are in two")
    ada.expect("one> ")
    ada.type("first\r")
    ada.expect("one <ada> first\r\n")
    ada.type("/room two\r")
    ada.expect("you speak in two now")
    ada.type("second\r")
    ada.expect("two <ada> second\r\n")
    ada.type("/join three\r")
    ada.expect("three> ")
    ada.type("/leave\r")
    ada.expect("you left three")
    ada.expect("one> ")
    ada.type("/nonsense\r/help\r/history 5\r")
    ada.expect("there is no command /nonsense")
    ada.expect("/quit ")
    ada.expect(r"\| \d\d:\d\d:\d\d <ada> first")
    ada.process.send_signal(signal.SIGTERM)
    assert ada.end() == 130


def test_chat_resumes_after_server_crash(tmp_path: Path, terminals: Terminals) -> None:
    server = Server("--data", str(tmp_path))
    ada = terminals("--name", "ada", server.address, "lobby", NO_COLOR="1")
    ada.expect("you are in lobby")
    ada.type("before\r")
    ada.expect("<ada> before\r\n")
    server.kill()
    ada.expect("not connected: .*trying again in")
    ada.type("meanwhile\r")
    ada.expect("this will be sent later")
    server = Server("--data", str(tmp_path), port=server.port)
    ada.expect("connected again")
    seen = ada.expect("<ada> meanwhile\r\n")
    assert "before" not in seen
    assert "missing" not in seen
    ada.type("/quit\r")
    assert ada.end() == 0
    assert [line[15:] for line in chat("tail", "lobby", "--server", server.address, "--history", "9", "-W", "1")
            .stdout.decode().splitlines()] == ["before", "meanwhile"]  # fmt: skip
    server.kill()


def test_lines_from_a_pipe(server: Server) -> None:
    done = chat("--name", "ada", server.address, "pipe", text="a\n\n//b\n/room\nc")
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert [line[9:] for line in lines if "<ada>" in line] == ["<ada> a", "<ada> /b", "<ada> c"]
    assert done.stderr == b""


def test_pipe_without_a_room(server: Server) -> None:
    done = chat("--server", server.address, text="nobody hears this\n")
    assert done.returncode == 1
    assert "you are in no room" in done.stdout.decode()
    done = chat(server.address, text="/join somewhere\n/history 3\n/leave\n/quit\nnot this\n")
    assert done.returncode == 0
    assert "not this" not in done.stdout.decode()


# --- from scripts


def test_send_and_tail(server: Server) -> None:
    sent = chat("send", "script", "good\nmorning", "--json", "--host", server.address)
    assert sent.returncode == 0
    published = json.loads(sent.stdout)
    assert (published["type"], published["room"], published["seq"]) == ("published", "script", 1)
    sent = chat("send", "script", "-", text="a\n\nb", ROOMWIRE_SERVER=server.address, ROOMWIRE_NAME="bob")
    assert (sent.returncode, sent.stdout, sent.stderr) == (0, b"", b"")

    tail = chat("tail", "script", "--history", "9", "-n", "4", "--json", ROOMWIRE_SERVER=server.address)
    messages = [json.loads(line) for line in tail.stdout.splitlines()]
    assert [message["text"] for message in messages] == ["good\nmorning", "a", "", "b"]
    assert [message["seq"] for message in messages] == [1, 2, 3, 4]
    assert messages[0]["id"] == published["id"]
    assert messages[1]["name"] == "bob"
    assert tail.returncode == 0

    place = f"{published['epoch']}:3"
    for since in ("3", place):
        tail = chat("tail", "script", "--since", since, "-n", "1", ROOMWIRE_SERVER=server.address)
        assert (tail.returncode, tail.stdout[9:]) == (0, b"<bob> b\n")


def test_tail_follows(server: Server) -> None:
    tail = subprocess.Popen(
        [sys.executable, "-m", "reference_client", "tail", "follow", "-n", "2", "--server", server.address],
        cwd=ROOT, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert tail.stderr is not None
    assert "in follow, which has 0 messages" in tail.stderr.readline()
    chat("send", "follow", text="a\nb\nc\n", ROOMWIRE_SERVER=server.address, ROOMWIRE_NAME="ada")
    out, _ = tail.communicate(timeout=LIMIT)
    assert [line[9:] for line in out.splitlines()] == ["<ada> a", "<ada> b"]
    assert tail.returncode == 0


def test_too_few_messages(server: Server) -> None:
    assert chat("tail", "silent", "-W", "0.3", ROOMWIRE_SERVER=server.address).returncode == 5
    chat("send", "few", "one", ROOMWIRE_SERVER=server.address)
    done = chat("tail", "few", "--history", "5", "-W", "60", "-n", "1", ROOMWIRE_SERVER=server.address)
    assert (done.returncode, done.stdout[-4:]) == (0, b"one\n")
    for seconds in ("1", "5", "25"):  # a busy machine needs longer
        done = chat("tail", "few", "--history", "5", "-W", seconds, "-n", "2", ROOMWIRE_SERVER=server.address)
        assert done.returncode == 5
        if done.stdout:
            break
    assert done.stdout.endswith(b"one\n")


def test_peer_text_is_harmless(server: Server) -> None:
    chat("send", "evil", "\x1b[2J\u202egnp.exe\nnext", ROOMWIRE_SERVER=server.address)
    for options in ((), ("--json",)):
        shown = chat("tail", "evil", "--history", "1", "-n", "1", *options, ROOMWIRE_SERVER=server.address).stdout
        assert b"\x1b" not in shown
        assert "\u202e" not in shown.decode()
    shown = chat("tail", "evil", "--history", "1", "-n", "1", ROOMWIRE_SERVER=server.address).stdout
    assert shown.decode().endswith("\\x1b[2J\\u202egnp.exe\n    next\n")


def test_refused(server: Server) -> None:
    done = chat("send", "x", "\udcff", ROOMWIRE_SERVER=server.address)  # not UTF-8
    assert done.returncode == 1
    assert b"PAYLOAD_INVALID" in done.stderr
    done = chat("send", "x", "-", "--json", text="a" * 70_000 + "\nb\n", ROOMWIRE_SERVER=server.address)
    assert done.returncode == 1
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == ["failed", "published"]
    for words in (("send", "\x01", "hi"), ("--name", "\u202e", "send", "x", "hi"), ("send", "x" * 300, "hi")):
        done = chat(*words, ROOMWIRE_SERVER=server.address)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert b"\x01" not in done.stderr


def test_unreachable_server() -> None:
    dead = Server("--memory")
    dead.kill()
    for words in (("send", "x", "hi"), ("tail", "x"), ()):
        done = chat("--server", dead.address, *words)
        assert done.returncode == 3
        assert done.stderr.decode() == f"roomwire-chat: {dead.address} cannot be reached: connection refused\n"
    done = chat("--server", "host.invalid", "send", "x", "hi")
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1


class Mute:
    """A server, in a thread, that never answers a PUBLISH."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._over = asyncio.Event()
        self.port = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        def ignore(peer: Peer, frame: frames.Frame) -> bool:
            return isinstance(frame, frames.Publish)

        self._loop = asyncio.get_running_loop()
        async with TinyServer() as server:
            server.hook = ignore
            self.port = server.port
            self._ready.set()
            await self._over.wait()

    def __enter__(self) -> "Mute":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()


def test_outcome_unknown() -> None:
    with Mute() as server:
        done = chat("send", "lobby", "hi", "-W", "1", "--server", f"127.0.0.1:{server.port}")
        assert done.returncode == 4
        assert "outcome unknown" in done.stderr.decode()


def test_interrupted(server: Server) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        tail = subprocess.Popen(
            [sys.executable, "-m", "reference_client", "tail", "quiet", "--server", server.address],
            cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert tail.stderr is not None
        tail.stderr.readline()
        tail.send_signal(number)
        out, errors = tail.communicate(timeout=LIMIT)
        assert (tail.returncode, out, errors) == (130, b"", b"")


def test_streams_that_are_closed_or_full(server: Server, tmp_path: Path) -> None:
    """A reader that is gone ends `tail` at once, by SIGPIPE; nothing leaves a traceback."""
    chat("send", "head", "-", text="a\nb\nc\n", ROOMWIRE_SERVER=server.address)
    program = f"{shlex.quote(sys.executable)} -m reference_client"
    script = f"""
        {program} tail head --history 3 | grep -m1 '> a'; echo ${{PIPESTATUS[0]}}
        {program} tail head --history 1 -n 1 > /dev/full; echo $?
        {program} send head d >&- 2>&- <&-; echo $?
        {program} tail head --history 1 -n 1 2> /dev/full; echo $?
        {program} $ROOMWIRE_SERVER <&- > {tmp_path}/out; echo $?; tail -n 1 {tmp_path}/out
    """
    done = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=ENVIRONMENT | {"ROOMWIRE_SERVER": server.address},
        capture_output=True, text=True, timeout=LIMIT,
    )  # fmt: skip
    assert [line[9:] if "<" in line else line for line in done.stdout.splitlines()] == [
        f"<{login_name()}> a", "141", "74", "0", f"<{login_name()}> d", "0", "1",
        "! the standard input cannot be read: bad file descriptor",
    ]  # fmt: skip
    assert "the output cannot be written: no space left on device" in done.stderr
    assert all(line.startswith("roomwire-chat: ") for line in done.stderr.splitlines())


def test_hangup_under_nohup(server: Server) -> None:
    tail = subprocess.Popen(
        ["nohup", sys.executable, "-m", "reference_client", "tail", "nohup", "-n", "1", "--server", server.address],
        cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert tail.stderr is not None
    assert b"in nohup" in tail.stderr.readline()
    tail.send_signal(signal.SIGHUP)
    chat("send", "nohup", "still here", ROOMWIRE_SERVER=server.address)
    out, _ = tail.communicate(timeout=LIMIT)
    assert (tail.returncode, out[9:]) == (0, f"<{login_name()}> still here\n".encode())


@pytest.mark.parametrize(
    "words",
    [
        ("tail",),
        ("tail", "x", "-n", "0"),
        ("tail", "x", "-n", "many"),
        ("tail", "x", "-W", "-1"),
        ("tail", "x", "--since", "y"),
        ("tail", "x", "--since", "1" * 20 + ":1"),
        ("send", "x", "y", "z"),
        ("localhost:99999",),
        ("localhost:http",),
        ("--server", "", "send", "x", "y"),
        ("--nonsense",),
    ],
)
def test_wrong_usage(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, errors = capsys.readouterr()
    assert (ended.value.code, out, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("roomwire-chat: ")


def test_status_of_wrong_usage() -> None:
    done = chat("--nonsense")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--help",), "examples:"),
        (("--help",), "exit status"),
        (("send", "--help"), "exit status"),
        (("tail", "-h"), "exit status"),
        (("--name", "x", "--help"), "exit status"),
        (("--version",), "Roomwire/1"),
        (("--print-completion", "bash"), "_shtab"),
    ],
)
def test_help(words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    out, errors = capsys.readouterr()
    assert (ended.value.code or 0, errors) == (0, "")
    assert told in out


def test_library_and_command_interoperate(server: Server) -> None:
    async def talk() -> list[str]:
        async with Client("127.0.0.1", server.port, name="lib") as client:
            room = await client.join("library")
            await room.publish("from the library")
            return [message.text async for message in room.history()]

    assert asyncio.run(talk()) == ["from the library"]
    done = chat("tail", "library", "--history", "1", "-n", "1", ROOMWIRE_SERVER=server.address)
    assert done.stdout.decode().endswith("<lib> from the library\n")
