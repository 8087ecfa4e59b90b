"""A log that nobody reads, a disk that does not answer, an event loop that is stuck: what the server still does."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from protocol.frames import Ack, Goaway
from protocol.registry import Code
from reference_server import lines
from reference_server.accounts import AccountsFile
from reference_server.core.disk import STUCK_SECONDS, DiskWatch
from reference_server.lines import LineWriter
from reference_server.store.base import Retention
from reference_server.store.memory import MemoryStore
from reference_server.store.sqlite import SqliteStore
from reference_server.streams import UNWRITTEN
from tests.server.test_metrics import get, samples
from tests.server.test_process import Child, command, ended, running
from tests.support.places import ROOT
from tests.support.raw_client import PATIENCE, RawClient

# --- a log that nobody reads


def test_unread_log_delays_nobody() -> None:
    """The pipe is full after some connections. Publishes are still acknowledged, and SIGTERM drains."""
    with running("--memory", pipesize=4096) as child, RawClient(child.port) as ada:
        room = ada.join("hall").room
        for _ in range(80):
            RawClient(child.port, name="a" * 60).socket.close()
            ada.send(ada.publish(room))
            ada.expect(Ack)
        child.signal(signal.SIGTERM)
        assert ada.goaway_code() == Code.DRAINING
        ada.send(Goaway(Code.NONE))
        assert child.process.wait(PATIENCE) == 0  # and the log is still unread


@contextmanager
def piped() -> Iterator[tuple[LineWriter, int]]:
    """A LineWriter on a pipe of one page, and the end that reads. The thread ends with the process."""
    reading, writing = os.pipe()
    os.set_blocking(writing, True)
    writer = LineWriter(writing)
    writer.tell = lambda count: f"{count} dropped"
    try:
        yield writer, reading
    finally:
        os.close(reading)


def reading_lines(descriptor: int) -> Iterator[str]:
    """Lines as they come."""
    rest = b""
    while more := os.read(descriptor, 4096):
        *whole, rest = (rest + more).split(b"\n")
        yield from (line.decode() for line in whole)


def read_lines(descriptor: int, until: str) -> list[str]:
    """Read whole lines up to and with the line `until`."""
    seen = []
    for line in reading_lines(descriptor):
        seen.append(line)
        if line == until:
            break
    return seen


def test_dropped_lines_are_counted_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MOST_OCTETS", 100_000)
    with piped() as (writer, reading):
        for number in range(5_000):
            writer.put(f"{number:099}")
        assert not writer.finish(0.0)
        assert writer.dropped >= 5_000 - (2 * 100_000 + 65_536) // 100  # waiting, being written, in the pipe
        numbers, told = [], 0
        for line in reading_lines(reading):
            if line.endswith(" dropped"):
                told += int(line.split()[0])
            else:
                numbers.append(int(line))
            if len(numbers) + told == 5_000:
                break
        assert told == writer.dropped
        assert numbers == sorted(set(numbers))
        writer.put("more")
        assert read_lines(reading, "more") == ["more"]
        assert writer.finish(PATIENCE)


def test_lines_that_could_not_be_written_are_told() -> None:
    writer = LineWriter(os.open("/dev/full", os.O_WRONLY))
    errors: list[OSError] = []
    writer.tell, writer.failed = "{} dropped".format, errors.append
    writer.put("one")
    assert writer.finish(PATIENCE)
    reading, writing = os.pipe()
    os.dup2(writing, writer._descriptor)  # there is space again
    writer.put("two")
    assert read_lines(reading, "1 dropped") == ["two", "1 dropped"]
    assert (writer.dropped, [error.strerror for error in errors]) == (1, ["No space left on device"])
    for each in (reading, writing, writer._descriptor):
        os.close(each)


# --- standard streams that are closed, full, or without a reader


def unwritable(kind: str) -> int:
    """A descriptor that nothing can be written to."""
    if kind == "full":
        return os.open("/dev/full", os.O_WRONLY)
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def started(kind: str, *arguments: str) -> subprocess.Popen[bytes]:
    """`roomwire-server`, neither standard output nor standard error of which can be written."""
    command = [sys.executable, "-m", "reference_server", *arguments]
    if kind == "closed":
        return subprocess.Popen(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command], cwd=ROOT)
    stream = unwritable(kind)
    try:
        return subprocess.Popen(command, stdout=stream, stderr=stream, cwd=ROOT)
    finally:
        os.close(stream)


def listening(port: int, process: subprocess.Popen[bytes]) -> int:
    """The port, once the process listens on it."""
    while True:
        assert process.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return port
        time.sleep(0.02)


@pytest.mark.parametrize("kind", ["closed", "full", "gone"])
def test_server_without_standard_streams_serves(kind: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = started(kind, "--port", str(port), "--data", str(tmp_path))
    try:
        with RawClient(listening(port, process)) as ada:
            ada.send(ada.publish(ada.join("hall").room))
            ada.expect(Ack)
            process.send_signal(signal.SIGTERM)
            assert ada.goaway_code() == Code.DRAINING
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


COMMANDS = (["--help"], ["user", "add", "ada"], ["user", "list"], ["doctor", "--port", "0"], ["verify"], ["cert"])


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_end_by_sigpipe_without_a_reader(arguments: list[str], tmp_path: Path) -> None:
    """As other programs do: no other status means that the reader is gone."""
    assert ended(told(arguments, tmp_path, "gone")) == (-signal.SIGPIPE, "", "")


def test_command_on_a_full_disk_has_a_status_of_its_own(tmp_path: Path) -> None:
    line = "roomwire-server: standard output cannot be written: no space left on device\n"
    assert ended(told(["doctor", "--port", "0"], tmp_path, "full")) == (UNWRITTEN, "", line)


def told(arguments: list[str], directory: Path, kind: str) -> subprocess.Popen[str]:
    """A command about a data directory, and a standard output that cannot be written."""
    if arguments[:2] == ["user", "list"]:
        AccountsFile(directory / "accounts.sqlite3").add("bob", "a password", created_ms=0, iterations=4096)
    if arguments == ["verify"]:
        SqliteStore(directory, Retention(), lambda callback: None, lambda error: None).close()
    place = {"--help": [], "verify": [str(directory)], "cert": ["--output", str(directory)]}
    where = place.get(arguments[0], ["--data", str(directory)])
    stream = unwritable(kind)
    try:
        process = command(*arguments, *where, stdout=stream, stdin=subprocess.PIPE)
    finally:
        os.close(stream)
    assert process.stdin is not None
    process.stdin.write("a password\n")
    return process


# --- a disk that does not answer, an event loop that is stuck

HUNG = """if True:
    import sys, threading
    from reference_server import cli
    from reference_server.core import disk
    from reference_server.metrics import http
    from reference_server.net import listener, signals
    from reference_server.store.sqlite_tables import Writer
    http.PATIENCE_SECONDS = disk.STUCK_SECONDS = 0.2
    listener.DISK_SECONDS = listener.CLOSE_SECONDS = signals.END_SECONDS = 0.2
    def hang(*_): threading.Event().wait()
    {name} = hang
    cli.main(sys.argv[1:])
"""


@contextmanager
def hung(name: str, directory: Path) -> Iterator[Child]:
    """A server whose function `name` never returns. Nobody reads its log, and the pipe of the log is small."""
    arguments = ["--data", str(directory), "--port", "0", "--metrics-port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-c", HUNG.format(name=name), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, pipesize=4096, cwd=ROOT, env=os.environ | {"ROOMWIRE_DRAIN_MS": "100", "ROOMWIRE_LINGER_MS": "100"},
    )  # fmt: skip
    try:
        yield Child(process)
    finally:
        process.kill()
        process.communicate()


def test_hung_disk_is_told_and_ends_with_the_drain(tmp_path: Path) -> None:
    with hung("Writer.commit", tmp_path) as child, RawClient(child.port) as ada:
        address = metrics_of(child)
        ada.send(ada.publish(ada.join("hall").room))
        while get(address, "/healthz") != (503, "stuck\n"):
            pass
        now = samples(address)
        assert now["roomwire_commit_oldest_seconds", ""] >= 0.2
        assert now["roomwire_serving", ""] == 0
        child.signal(signal.SIGTERM)
        assert ada.goaway_code() == Code.DRAINING
        status, _, errors = child.ended()
    assert status == 1
    assert "the disk does not answer" in errors
    assert "expected the last commit to end within" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    with running("--data", str(tmp_path)) as child, RawClient(child.port) as ada:
        assert ada.join("hall").head == 0


@pytest.mark.parametrize("name", ["Writer.commit", "listener.Listener._watch_disk"])
def test_second_signal_ends_a_server_that_hangs(name: str, tmp_path: Path) -> None:
    """Also while the loop or the disk is stuck, and nobody reads the log."""
    with hung(name, tmp_path) as child:
        address = metrics_of(child)
        if name.startswith("Writer"):
            with RawClient(child.port) as ada:
                ada.send(ada.publish(ada.join("hall").room))
                for _ in range(60):
                    RawClient(child.port, name="a" * 60).socket.close()
        while get(address, "/healthz") != (503, "stuck\n"):
            pass
        child.signal(signal.SIGTERM)
        child.signal(signal.SIGTERM)
        child.signal(signal.SIGINT)
        assert child.process.wait(PATIENCE) == 1


def metrics_of(child: Child) -> str:
    """The address of the metrics of a server that was just started."""
    assert child.process.stdout is not None
    line = child.process.stdout.readline()
    return line.strip().removeprefix("roomwire-server: metrics on http://").removesuffix("/metrics")


def test_signal_before_the_server_serves_ends_it(tmp_path: Path) -> None:
    code = HUNG.format(name="listener.Listener.start").replace(
        "def hang(*_): ", "def hang(*_): print('', flush=True); "
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "--memory", "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 128 + signal.SIGTERM
    process.communicate()


def test_sigint_drains_a_server_that_a_shell_started_in_the_background() -> None:
    """Such a shell starts it with SIGINT ignored."""
    with running("--memory", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) as child:
        child.signal(signal.SIGINT)
        assert child.process.wait(PATIENCE) == 0


def test_disk_watch_on_commits_and_questions(caplog: pytest.LogCaptureFixture) -> None:
    store = Silent()
    watch = DiskWatch(store)
    watch.commit_begun(10.0, 3)
    watch.commit_begun(12.0, 5)
    assert watch.oldest_commit_seconds(13.0) == 3.0
    assert watch.commits_ended(2) == []
    assert watch.oldest_commit_seconds(13.0) == 3.0
    assert watch.commits_ended(4) == [10.0]
    assert watch.oldest_commit_seconds(13.0) == 1.0
    assert not watch.stuck(13.0)
    assert watch.stuck(12.0 + STUCK_SECONDS)
    assert watch.commits_ended(5) == [12.0]
    assert watch.commits_ended(5) == []
    assert not watch.stuck(12.0 + STUCK_SECONDS)
    for now in (20.0, 21.0, 20.0 + STUCK_SECONDS, 27.0):
        watch.watch(now)
    assert len(store.asked) == 1
    assert watch.stuck(27.0)
    assert watch.oldest_commit_seconds(27.0) == 0.0
    store.asked.pop()([])
    watch.watch(28.0)
    assert not watch.stuck(28.0)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


class Silent(MemoryStore):
    """A store that answers when the test does."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Callable[[list[str]], None]] = []

    def keys(self, after: str, limit: int, done: Callable[[list[str]], None]) -> None:
        self.asked.append(done)
