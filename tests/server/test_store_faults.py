"""What machines and people do to the store of a real server: damage, locks, lost directories, wrong clocks."""

import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.faults.stage import library
from protocol.frames import Ack, Error, Evicted, Join, Message, Ping
from protocol.registry import Code
from tests.server.test_metrics import samples, watched
from tests.server.test_process import Child, command, ended, made, refused, running
from tests.support.raw_client import RawClient
from tests.support.tools import needs

DAY_MS = 86_400_000
YEAR_MS = 365 * DAY_MS
needs_compiler = needs("cc")


def lines_until(child: Child, words: str) -> list[str]:
    """The lines of the log up to one with these words."""
    lines: list[str] = []
    assert child.process.stderr is not None
    while not lines or words not in lines[-1]:
        lines.append(child.process.stderr.readline())
        assert lines[-1], lines
    return lines


def ended_by(child: Child, client: RawClient, number: signal.Signals) -> str:
    """The rest of the log of a server that ends at a signal, as it should; the client leaves it first."""
    client.socket.close()
    child.signal(number)
    code, _, errors = child.ended()
    assert code == 0, errors
    return errors


def test_changed_message_closes_its_room_and_no_other(tmp_path: Path) -> None:
    """Damage is not served, and the other rooms go on."""
    with closing(sqlite3.connect(made(tmp_path))) as database:
        database.executescript("UPDATE messages SET payload = CAST('lost' AS BLOB)")
    arguments = ("--data", str(tmp_path), "--log-level", "error")
    with watched(*arguments) as (child, address), RawClient(child.port) as ada:
        other = ada.join("other")
        joined = ada.join("hall", since=1)
        evicted = ada.expect(Evicted)
        assert (evicted.room, evicted.code, evicted.retry_ms > 0) == (joined.room, Code.ROOM_CLOSED, True)
        for _ in range(2):  # as clients do that come back
            ada.send(Join("hall", 0, 1, request=90))
            error = ada.expect(Error)
            assert (error.code, error.retry_ms > 0) == (Code.UNAVAILABLE, True)
        ada.send(ada.publish(other.room))
        assert ada.expect(Ack).seq == 1
        assert not [frame for frame in ada.unread if isinstance(frame, Message) and frame.room == joined.room]
        assert samples(address)["roomwire_rooms_damaged", ""] == 1
        [line] = ended_by(child, ada, signal.SIGTERM).splitlines()
    assert "a room is damaged" in line
    assert "message 1 of room 'hall' as it was written" in line


def test_transaction_of_another_program_delays_and_loses_nothing(tmp_path: Path) -> None:
    with running("--data", str(tmp_path), "--log-level", "warning") as child, RawClient(child.port) as ada:
        ref = ada.join("hall").room
        with closing(sqlite3.connect(tmp_path / "rooms.sqlite3", isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            first = ada.publish(ref)
            ada.send(first)
            lines_until(child, "another program has locked the store")
            with RawClient(child.port, name="bob") as bob:
                bob.send(bob.publish(bob.join("hall").room))
                error = bob.expect(Error)
                assert (error.code, error.retry_ms > 0) == (Code.UNAVAILABLE, True)
            database.execute("ROLLBACK")
        ack = ada.expect(Ack)
        assert (ack.request, ack.seq) == (first.request, 1)
        ada.send(ada.publish(ref))
        assert ada.expect(Ack).seq == 2
        assert "the store can be written again" in ended_by(child, ada, signal.SIGTERM)


@pytest.mark.parametrize("what", ["directory deleted", "directory replaced", "database deleted", "log deleted"])
def test_store_that_is_taken_away_ends_the_server(tmp_path: Path, what: str) -> None:
    data = tmp_path / "data"
    arguments = ("--data", str(data), "--log-level", "error")
    with running(*arguments, environ={"ROOMWIRE_LINGER_MS": "100"}) as child, RawClient(child.port) as ada:
        ada.send(ada.publish(ada.join("hall").room))
        assert ada.expect(Ack).seq == 1
        if what == "directory replaced":
            shutil.copytree(data, tmp_path / "other")
            data.rename(tmp_path / "old")
            (tmp_path / "other").rename(data)
        elif what == "directory deleted":
            shutil.rmtree(data)
        else:
            (data / ("rooms.sqlite3" if what == "database deleted" else "rooms.sqlite3-wal")).unlink()
        assert ada.goaway_code() == Code.INTERNAL
        code, _, errors = child.ended()
    assert code == 1
    assert "expected the file or directory that this server opened, found" in errors
    assert "Traceback" not in errors


def test_second_server_is_refused_without_the_file_lock(tmp_path: Path) -> None:
    with running("--data", str(tmp_path)) as child, RawClient(child.port) as ada:
        ref = ada.join("hall").room
        (tmp_path / "lock").unlink()
        assert "expected to be the only user" in refused("--port", "0", "--data", str(tmp_path))
        ada.send(ada.publish(ref))
        assert ada.expect(Ack).seq == 1
        ended_by(child, ada, signal.SIGTERM)


def seen_under(
    directory: Path, wrong_ms: int, publish: int = 0, expect: tuple[str, ...] = (), *, sweeps: bool = False
) -> tuple[int, list[Message]]:
    """Run a server with a clock that is ahead by `wrong_ms`; with `sweeps` for long enough that it trims. By how much
    the clock that it told is ahead, and the messages of the room "hall"; `expect` is in its log."""
    setting = directory / "clock.ns"
    setting.write_bytes((wrong_ms * 1_000_000).to_bytes(8, "little", signed=True))
    environ = library.environment(directory, directory / "data", clock=setting) | {"ROOMWIRE_HEARTBEAT_MS": "1000"}
    arguments = ("--data", str(directory / "data"), "--log-level", "warning")
    with running(*arguments, environ=environ) as child, RawClient(child.port) as ada:
        ahead_ms = ada.welcome.now_ms - time.time_ns() // 1_000_000
        joined = ada.join("hall", since=100)
        messages = ada.messages(joined.head + 1 - joined.start)
        for _ in range(publish):
            ada.send(ada.publish(joined.room))
            ada.expect(Ack)
        if sweeps:
            ada.expect(Ping)  # the same sweep trims
        errors = ended_by(child, ada, signal.SIGTERM)
        assert all(words in errors for words in expect), errors
    return ahead_ms, messages


@needs_compiler
def test_wrong_clock_deletes_nothing_and_can_be_corrected(tmp_path: Path) -> None:
    """RW-LIMIT-4, RW-ID-4, with a real process whose wall clock is shifted."""
    assert abs(seen_under(tmp_path, -YEAR_MS, 2)[0] + YEAR_MS) < DAY_MS  # a new store
    ahead_ms, messages = seen_under(tmp_path, 0, 1, ("the clock is ahead of the store",), sweeps=True)
    assert (abs(ahead_ms) < DAY_MS, len(messages)) == (True, 2)
    ahead_ms, messages = seen_under(tmp_path, 30 * DAY_MS, sweeps=True)  # nobody speaks
    assert (abs(ahead_ms - 30 * DAY_MS) < DAY_MS, len(messages)) == (True, 3)
    ahead_ms, messages = seen_under(tmp_path, 0)
    assert (abs(ahead_ms) < DAY_MS, len(messages)) == (True, 3)
    assert len(seen_under(tmp_path, 10 * YEAR_MS, 1, sweeps=True)[1]) == 3
    ahead_ms, messages = seen_under(tmp_path, 0, 0, ("the clock is behind the store", "renew --restamp"))
    assert (abs(ahead_ms - 10 * YEAR_MS) < DAY_MS, len(messages)) == (True, 4)
    code, output, _ = ended(command("renew", "--restamp", str(tmp_path / "data")))
    assert (code, output) == (0, "1 messages have the present time\nevery room has a new epoch\n")
    ahead_ms, messages = seen_under(tmp_path, 0)
    assert (abs(ahead_ms) < DAY_MS, len(messages)) == (True, 4)
    assert messages[-1].time_ms < time.time_ns() // 1_000_000 + DAY_MS


@needs_compiler
def test_disk_that_is_full_at_the_start_is_one_line(tmp_path: Path) -> None:
    data, old = tmp_path / "data", tmp_path / "old"
    made(old)
    for directory, space in ((data, 0), (data, 5_000), (data, 30_000), (old, 100)):
        environ = library.environment(tmp_path, directory, space=space)
        said = refused("--port", "0", "--data", str(directory), environ=environ)
        assert "expected" in said
        assert "full" in said or "no space left" in said
    for directory, head in ((data, 0), (old, 1)):  # when there is space again
        with running("--data", str(directory)) as child, RawClient(child.port) as ada:
            assert ada.join("hall").head == head
