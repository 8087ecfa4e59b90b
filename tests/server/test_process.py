"""The server as a process: how it starts, what it prints if it cannot, and how it ends."""

import os
import re
import resource
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from protocol.frames import Ack, Error, Goaway, Message, Ping, Pong
from protocol.registry import Code, FieldType, Flag
from reference_server.cli import main
from tests.support.places import ROOT
from tests.support.raw_client import PATIENCE, RawClient

FREE = {"ROOMWIRE_PUBLISH_RATE": "1000000", "ROOMWIRE_PUBLISH_BURST": "1000000"}


def command(*arguments: str, environ: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """`roomwire-server` with these arguments, and of ROOMWIRE_ variables only those in `environ`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROOMWIRE_")}
    kept["XDG_DATA_HOME"] = os.devnull  # no store can be made there: each test names its directory
    return subprocess.Popen(
        [sys.executable, "-m", "reference_server", *arguments],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
        text=True,
        cwd=ROOT,
        env=kept | (environ or {}),
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a process that ends by itself."""
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, output or "", errors or ""


class Child:
    """A running server, which was started with `--port 0`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.line = process.stdout.readline()
        assert "listening on 127.0.0.1:" in self.line, (self.line, process.stderr and process.stderr.read())
        self.port = int(self.line.split("127.0.0.1:")[1].split(";")[0])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> tuple[int, str, str]:
        return ended(self.process)


@contextmanager
def running(*arguments: str, environ: dict[str, str] | None = None, **options: Any) -> Iterator[Child]:
    """A server on a free port, killed at the end if it still runs."""
    process = command("--port", "0", *arguments, environ=environ, **options)
    try:
        yield Child(process)
    finally:
        process.kill()
        process.communicate()


def refused(*arguments: str, status: int = 1, environ: dict[str, str] | None = None) -> str:
    """The line that a server prints when it cannot start."""
    code, output, errors = ended(command(*arguments, environ=environ))
    assert (code, output) == (status, "")
    assert errors.startswith("roomwire-server: ")
    assert errors.count("\n") == 1, errors
    return errors


def made(directory: Path) -> Path:
    """Make a data directory with one message in the room "hall"; its database."""
    with running("--data", str(directory)) as child:
        with RawClient(child.port) as ada:
            ada.send(ada.publish(ada.join("hall").room, b"kept" * 1000))
            ada.expect(Ack)
        child.signal(signal.SIGTERM)
        assert child.ended()[0] == 0
    return directory / "rooms.sqlite3"


# --- starting


def test_start_line_of_a_durable_server(tmp_path: Path) -> None:
    with running("--data", str(tmp_path / "new" / "rooms")) as child:
        assert child.line.startswith("roomwire-server: listening on 127.0.0.1:")
        assert child.line.endswith(f"; rooms are kept in {tmp_path}/new/rooms\n")
        with RawClient(child.port) as ada:
            assert ada.welcome.flags & Flag.DURABLE


def test_start_line_with_memory() -> None:
    with running("--memory") as child:
        assert "gone when the server ends" in child.line
        with RawClient(child.port) as ada:
            assert not ada.welcome.flags & Flag.DURABLE


def test_addresses_of_ipv6_have_brackets() -> None:
    process = command("--host", "::1", "--metrics-host", "::1", "--memory", "--port", "0", "--metrics-port", "0")
    try:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        found = re.search(r"listening on \[::1\]:(\d+); ", said[0])
        assert found is not None
        assert re.search(r"http://\[::1\]:\d+/metrics", said[1])
        with RawClient(int(found[1]), host="::1") as ada:
            values = [field.value for field in ada.welcome.fields if field.type == FieldType.SERVER]
            assert values[0][9:].decode() == f"[::1]:{found[1]}"
        assert "cannot listen on [::1]:" in refused("--host", "::1", "--memory", "--port", found[1])
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("kept", [True, False])
def test_port_in_use(tmp_path: Path, kept: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        store = ("--data", str(tmp_path)) if kept else ("--memory",)
        assert f"cannot listen on 127.0.0.1:{port}: the port is in use" in refused("--port", port, *store)


def test_address_of_another_host() -> None:
    assert "cannot listen on 192.0.2.1:0: " in refused("--host", "192.0.2.1", "--port", "0", "--memory", "--insecure")


@pytest.mark.parametrize("host", ["x" * 64 + ".example", "no such host", "a..b"])
def test_host_that_does_not_exist(host: str) -> None:
    assert f"cannot listen on {host}:0: " in refused("--host", host, "--port", "0", "--memory")


# --- data directories


def test_data_directory_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("text")
    assert str(file) in refused("--port", "0", "--data", str(file))


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_data_directory_without_permission(tmp_path: Path) -> None:
    directory = tmp_path / "closed"
    directory.mkdir(mode=0)
    assert "permission denied" in refused("--port", "0", "--data", str(directory))


def test_data_directory_in_use(tmp_path: Path) -> None:
    with running("--data", str(tmp_path)) as child:
        line = refused("--port", "0", "--data", str(tmp_path))
        assert f"process {child.process.pid} uses it" in line


def test_database_of_another_application(tmp_path: Path) -> None:
    (tmp_path / "rooms.sqlite3").write_bytes(b"certainly not a database" * 1000)
    assert "rooms.sqlite3: expected a sound Roomwire store" in refused("--port", "0", "--data", str(tmp_path))


def test_database_that_is_truncated(tmp_path: Path) -> None:
    database = made(tmp_path)
    os.truncate(database, database.stat().st_size // 2)
    assert "rooms.sqlite3: expected" in refused("--port", "0", "--data", str(tmp_path))


def test_database_with_a_changed_room(tmp_path: Path) -> None:
    with sqlite3.connect(made(tmp_path)) as database:
        database.execute("UPDATE rooms SET head = head + 1")
    database.close()
    said = refused("--port", "0", "--data", str(tmp_path))
    assert "'hall' as it was written" in said
    assert f"roomwire-server verify {tmp_path} says more" in said


def test_database_of_a_newer_version(tmp_path: Path) -> None:
    with sqlite3.connect(made(tmp_path)) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    assert "format 99 of a newer version" in refused("--port", "0", "--data", str(tmp_path))


# --- settings

Told = Callable[..., str]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """The line that the command prints, in this process, about settings that it refuses."""

    def tell(*arguments: str, environ: Mapping[str, str] = MappingProxyType({})) -> str:
        for name in [name for name in os.environ if name.startswith("ROOMWIRE_")]:
            monkeypatch.delenv(name)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        assert main(arguments) == 2
        output, errors = capsys.readouterr()
        assert (output, errors.count("\n")) == ("", 1)
        assert errors.startswith("roomwire-server: ")
        return errors

    return tell


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        (("--port", "65536"), {}, "port: expected 0 to 65535, found 65536"),
        ((), {"ROOMWIRE_PORT": "http"}, "ROOMWIRE_PORT: expected a whole number, found 'http'"),
        ((), {"ROOMWIRE_MEMORY": "perhaps"}, "ROOMWIRE_MEMORY: expected true or false, found 'perhaps'"),
        ((), {"ROOMWIRE_WINDOW": "0"}, "window: expected 1 to 65535 requests, found 0"),
        ((), {"ROOMWIRE_LOG_FORMAT": "xml"}, "log_format: expected one of text, json, found 'xml'"),
        ((), {"ROOMWIRE_MAX_CONNECTIONS": "0"}, "max_connections: expected 1 to"),
        ((), {"ROOMWIRE_HOST": ""}, "host: expected a name or an address, found ''"),
        (("--config", "there-is-none.toml"), {}, "there-is-none.toml: cannot be read: No such file"),
    ],
)
def test_wrong_setting(arguments: tuple[str, ...], environ: dict[str, str], says: str, told: Told) -> None:
    assert says in told(*arguments, environ=environ)


def test_status_of_a_wrong_setting() -> None:
    assert "ROOMWIRE_PORT: expected" in refused(status=2, environ={"ROOMWIRE_PORT": "http"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("window = 'many'", "window: expected int, found 'many'"),
        ("memory = 1", "memory: expected bool, found 1"),
        ("colour = 'red'", "unknown setting 'colour'"),
        ("window = ", "not TOML"),
        ("\ufffd", "not TOML"),
        ("[window]", "window: expected int"),
        ('host = "a\\u0000b"\nmemory = true', "host: expected"),
        ('data = "a\\u0000b"', "data: expected"),
    ],
)
def test_wrong_settings_file(tmp_path: Path, text: str, says: str, told: Told) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    assert says in told("--config", str(file))


def test_option_beats_variable_beats_file(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text(f"data = '{tmp_path}/file'\nwindow = 7\nmax_rooms = 8")
    environ = {"ROOMWIRE_DATA": f"{tmp_path}/variable", "ROOMWIRE_MAX_ROOMS": "9"}
    options = ("--config", str(tmp_path / "server.toml"), "--data", f"{tmp_path}/option")
    with running(*options, environ=environ) as child, RawClient(child.port) as ada:
        assert child.line.endswith("/option\n")
        assert (ada.welcome.window, ada.welcome.max_rooms) == (7, 9)


@pytest.mark.parametrize(
    ("arguments", "says"), [(["--memory"], "gone"), (["--data", "rooms"], "rooms"), ([], "has no home")]
)
def test_user_without_a_home(tmp_path: Path, arguments: list[str], says: str) -> None:
    """A user needs a home only if no directory for the rooms is given. Some users of containers have none."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG")}
    code = (
        "import sys, pwd; pwd.getpwuid = lambda uid: {}[uid]\nfrom reference_server.cli import main; sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": str(ROOT)},
    )
    try:
        if arguments:
            assert says in Child(process).line
        else:
            code_, output, errors = ended(process)
            assert (code_, output, errors.count("\n")) == (2, "", 1)
            assert says in errors
    finally:
        process.kill()
        process.communicate()


# --- doctor


def tree(directory: Path) -> dict[Path, tuple[int, int, bytes]]:
    """All files below a directory: owner, mode and content."""
    found = {}
    for path in (directory, *directory.rglob("*")):
        about = path.stat()
        found[path] = (about.st_uid, about.st_mode, path.read_bytes() if path.is_file() else b"")
    return found


def test_doctor_without_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "used")
    assert main(["backup", str(tmp_path / "used"), str(tmp_path / "copy")]) == 0
    (tmp_path / "empty").mkdir()
    before = tree(tmp_path)
    for name, found in (("used", "1 in "), ("copy", "1 in "), ("empty", "0 in "), ("none", "would be made in ")):
        capsys.readouterr()
        assert main(["doctor", "--port", "0", "--metrics-port", "0", "--data", str(tmp_path / name)]) == 0
        output = capsys.readouterr().out
        assert f"rooms        {found}" in output or found in output
        assert "FAIL" not in output
    assert tree(tmp_path) == before


@pytest.mark.parametrize("wrong", ["host", "certificate", "metrics", "accounts", "no accounts", "rooms"])
def test_doctor_finds_what_run_finds(tmp_path: Path, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--port", "0", "--data", str(tmp_path))
    (tmp_path / "corrupt").write_bytes(b"certainly not a database" * 1000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        if wrong == "rooms":
            (tmp_path / "corrupt").rename(tmp_path / "rooms.sqlite3")
        arguments, what, status = {
            "host": (("--host", "0.0.0.0"), "secrecy", 2),
            "certificate": (("--tls-cert", str(tmp_path / "none.pem")), "TLS", 1),
            "metrics": (("--metrics-port", str(taken.getsockname()[1])), "metrics", 1),
            "accounts": (("--accounts", str(tmp_path / "corrupt")), "accounts", 1),
            "no accounts": (("--accounts", str(tmp_path / "none")), "accounts", 1),
            "rooms": ((), "rooms", 1),
        }[wrong]
        before = tree(tmp_path)
        assert main(["doctor", *data, *arguments]) == 1
        failed = [line.split(None, 2)[1:] for line in capsys.readouterr().out.splitlines() if line.startswith("FAIL")]
        assert tree(tmp_path) == before
        said = refused(*data, *arguments, status=status).removeprefix("roomwire-server: ").rstrip()
        assert failed == [[what, said]]


def test_doctor_with_findings(tmp_path: Path) -> None:
    (tmp_path / "rooms.sqlite3").write_bytes(b"certainly not a database" * 1000)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        arguments = ("doctor", "--port", str(taken.getsockname()[1]), "--data", str(tmp_path))
        code, output, errors = ended(command(*arguments))
    assert (code, errors) == (1, "")
    failed = [line for line in output.splitlines() if line.startswith("FAIL")]
    assert [line.split()[1] for line in failed] == ["port", "rooms"]


def test_doctor_with_a_store_in_use(tmp_path: Path) -> None:
    with running("--data", str(tmp_path)):
        code, output, errors = ended(command("doctor", "--port", "0", "--data", str(tmp_path)))
    assert (code, errors) == (1, "")
    assert "in use" in output


# --- ending


def test_sigterm_without_clients() -> None:
    with running("--memory") as child:
        child.signal(signal.SIGTERM)
        code, _, errors = child.ended()
        assert code == 0
        assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_drains(number: signal.Signals) -> None:
    """RW-DRAIN-2, RW-DRAIN-3, RW-DRAIN-6"""
    with running("--memory") as child, RawClient(child.port) as ada:
        ref = ada.join("hall").room
        child.signal(number)
        draining = ada.expect(Goaway)
        assert (draining.code, draining.retry_ms > 0) == (Code.DRAINING, True)
        ada.send(ada.publish(ref))
        assert ada.expect(Ack).seq == 1
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", child.port)).close()
        ada.send(Goaway(Code.NONE))
        assert ada.goaway().code == Code.SHUTDOWN
        assert child.ended()[0] == 0


def test_drain_time_out_ends_connections() -> None:
    """RW-DRAIN-3"""
    environ = {"ROOMWIRE_DRAIN_MS": "100", "ROOMWIRE_LINGER_MS": "100"}
    with (
        running("--memory", environ=environ) as child,
        RawClient(child.port) as ada,
        RawClient(child.port, hello=False),
    ):
        child.signal(signal.SIGTERM)
        codes = [frame.code for frame in ada.rest() if isinstance(frame, Goaway)]
        assert codes == [Code.DRAINING, Code.SHUTDOWN]
        assert child.ended()[0] == 0


def test_second_signal_ends_at_once() -> None:
    patient = "from reference_server.net import signals; signals.END_SECONDS = 60; "  # on a busy machine
    code = f"{patient}import sys; from reference_server import cli; sys.exit(cli.main(['--memory', '--port', '0']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=os.environ | {"ROOMWIRE_DRAIN_MS": "600000"},
    )  # fmt: skip
    try:
        child = Child(process)
        with RawClient(child.port) as ada:
            child.signal(signal.SIGTERM)
            assert ada.goaway_code() == Code.DRAINING
            child.signal(signal.SIGTERM)
            assert child.ended()[0] == 0
    finally:
        process.kill()
        process.communicate()


def test_sigterm_with_full_queues_loses_no_acknowledged_message(tmp_path: Path) -> None:
    """RW-PROMISE-1, RW-DRAIN-2, RW-MODEL-5"""
    environ = FREE | {"ROOMWIRE_DRAIN_MS": "1000", "ROOMWIRE_LINGER_MS": "500"}
    with (
        running("--data", str(tmp_path), environ=environ) as child,
        RawClient(child.port) as ada,
        RawClient(child.port, buffer=4096) as lazy,
    ):
        lazy.join("hall")
        joined = ada.join("hall")
        ada.send(*(ada.publish(joined.room, bytes(1024)) for _ in range(200)))  # many times the window
        child.signal(signal.SIGTERM)
        frames = ada.rest()
        acked = [frame.seq for frame in frames if isinstance(frame, Ack)]
        seen = [frame.seq for frame in frames if isinstance(frame, Message)]
        assert acked == list(range(1, len(acked) + 1))
        assert seen == list(range(1, len(seen) + 1))
        assert child.ended()[0] == 0
    with running("--data", str(tmp_path), environ=FREE) as child, RawClient(child.port) as ada:
        again = ada.join("hall", epoch=joined.epoch)
        assert (again.epoch, again.start) == (joined.epoch, 1)
        assert again.head >= max(acked, default=0)
        assert [message.seq for message in ada.messages(again.head)] == list(range(1, again.head + 1))


@pytest.mark.parametrize("after", [1, 40, 400])
def test_kill_while_publishing_loses_no_acknowledged_message(tmp_path: Path, after: int) -> None:
    """RW-PROMISE-1, RW-PROMISE-2, RW-PROMISE-3, RW-MODEL-5, RW-DEDUPE-3"""
    sent: dict[int, bytes] = {}
    acked: dict[bytes, int] = {}
    with running("--data", str(tmp_path), environ=FREE) as child, RawClient(child.port) as ada:
        joined = ada.join("hall")
        for _ in range(16):
            publish = ada.publish(joined.room, os.urandom(64))
            sent[publish.request] = publish.id
            ada.send(publish)
        with suppress(ConnectionResetError, BrokenPipeError):
            while frame := ada.frame():
                assert not isinstance(frame, Error)
                if isinstance(frame, Ack):
                    acked[sent[frame.request]] = frame.seq
                    publish = ada.publish(joined.room, os.urandom(64))
                    sent[publish.request] = publish.id
                    ada.send(publish)
                    if len(acked) == after:
                        child.signal(signal.SIGKILL)
        assert child.process.wait(PATIENCE) == -signal.SIGKILL
    assert len(acked) >= after
    with running("--data", str(tmp_path), environ=FREE) as child, RawClient(child.port) as ada:
        again = ada.join("hall", epoch=joined.epoch)
        assert (again.epoch, again.start, again.flags & Flag.GAP) == (joined.epoch, 1, 0)
        stored = {message.id: message.seq for message in ada.messages(again.head)}
        assert acked.items() <= stored.items()
        assert list(stored.values()) == list(range(1, again.head + 1))
        assert set(stored) <= set(sent.values())


def test_full_disk_ends_the_server_with_a_reason(tmp_path: Path) -> None:
    """RW-PROMISE-7: a write that fails is neither acknowledged nor retried."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    acked = 0
    environ = FREE | {"ROOMWIRE_LINGER_MS": "200"}
    with running("--data", str(tmp_path), environ=environ, preexec_fn=limit) as child, RawClient(child.port) as ada:
        joined = ada.join("hall")
        while True:
            ada.send(ada.publish(joined.room, bytes(16_000)))
            frame = ada.frame()
            while isinstance(frame, Message):
                frame = ada.frame()
            if not isinstance(frame, Ack):
                break
            acked = frame.seq
        assert isinstance(frame, Goaway)
        assert frame.code == Code.INTERNAL
        code, _, errors = child.ended()
        assert code == 1
        assert "Traceback" not in errors
        assert errors.splitlines()[-1].startswith("roomwire-server: ")
    assert acked
    with running("--data", str(tmp_path)) as child, RawClient(child.port) as ada:
        assert ada.join("hall", epoch=joined.epoch).head >= acked


# --- overload


def test_descriptors_are_reserved() -> None:
    """RW-CLOSE-7: more silent connections than descriptors do not harm a client that is served."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))

    with running("--memory", preexec_fn=limit) as child, RawClient(child.port) as ada:
        silent = []
        try:
            for _ in range(600):
                silent.append(socket.create_connection(("127.0.0.1", child.port)))
            ada.send(Ping(b"01234567"))
            ada.expect(Pong)
            ended_at_once = [each for each in silent if select.select([each], [], [], 0)[0]]
            assert ended_at_once
            for each in ended_at_once:
                with suppress(ConnectionResetError):
                    assert each.recv(1) == b""
        finally:
            for each in silent:
                each.close()
        child.signal(signal.SIGTERM)
        ada.send(Goaway(Code.NONE))
        code, _, errors = child.ended()
        assert code == 0
        assert [line for line in errors.splitlines() if " INFO " not in line] == []


def test_fault_in_a_callback_is_one_line(tmp_path: Path) -> None:
    code = """if True:
        import asyncio
        from reference_server import cli
        from reference_server.net import listener
        def fault(self): raise ZeroDivisionError("by\\nzero")
        listener.Listener.drain = fault
        cli.main(["--memory", "--port", "0"])
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        child = Child(process)
        assert process.stderr is not None
        child.signal(signal.SIGTERM)
        assert " INFO " in process.stderr.readline()
        fault = process.stderr.readline()
        assert " ERROR " in fault
        assert "ZeroDivisionError" in fault
        with RawClient(child.port) as ada:
            ada.join("hall")
    finally:
        process.kill()
        _, errors = process.communicate()
    assert [line for line in errors.splitlines() if " INFO " not in line] == []
