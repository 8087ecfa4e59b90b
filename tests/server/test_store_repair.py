"""Repairing a damaged store, giving space back, and correcting times."""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from reference_server.cli import main
from reference_server.commands import store as store_commands
from reference_server.store import repair as repair_module
from reference_server.store import snapshot
from reference_server.store import verify as verify_module
from reference_server.store.base import Record, Retention, StoreLocked, StoreUnavailable
from reference_server.store.repair import repair
from reference_server.store.sqlite_files import lock_if_free
from reference_server.store.upkeep import restamp, trim
from reference_server.store.verify import verify
from tests.server.test_process import ended
from tests.support.places import ROOT
from tests.support.stores import DATABASE, EVERYTHING, T0, Driver, entry, frame_size, frames, opened, propose

Epochs = dict[str, int]


def filled(directory: Path, count: int = 20) -> Epochs:
    """A store with messages in two rooms, the first five of "hall" trimmed; the rooms' epochs."""
    with opened(directory) as driver:
        driver.store.raise_max_body(65536)
        logs = [driver.open(key) for key in ("hall", "other")]
        for log in logs:
            driver.fill(log, count)
        logs[0].trim(6)
        driver.commit()
        return {log.key: log.epoch for log in logs}


def change(directory: Path, sql: str) -> None:
    with closing(sqlite3.connect(directory / DATABASE)) as connection:
        connection.executescript(sql)


def read(driver: Driver, key: str) -> list[Record]:
    return driver.read(driver.open(key), limit=10_000)


def seqs(driver: Driver, key: str) -> list[int]:
    return [each.seq for each in read(driver, key)]


@pytest.mark.parametrize(
    ("sql", "kept", "head"),
    [
        ("UPDATE messages SET payload = 'x' WHERE room = 1 AND seq = 18", range(6, 18), 17),
        ("UPDATE messages SET payload = 'x' WHERE room = 1 AND seq = 7", range(8, 21), 20),
        ("DELETE FROM messages WHERE room = 1 AND seq = 10", range(11, 21), 20),
        ("UPDATE messages SET seq = 30 WHERE room = 1 AND seq = 20", range(6, 20), 19),
        ("DELETE FROM messages WHERE room = 1", range(0), 20),
        ("UPDATE ids SET known = x'00' WHERE room = 1 AND id > zeroblob(1)", range(6, 21), 20),
    ],
    ids=["near the head", "near the oldest", "hole", "other place", "all messages", "ids"],
)
def test_longest_run_of_a_room_is_kept(tmp_path: Path, sql: str, kept: range, head: int) -> None:
    epochs = filled(tmp_path)
    change(tmp_path, sql)
    before = (tmp_path / DATABASE).read_bytes()
    done = repair(tmp_path, "now")
    assert verify(tmp_path).wrong == []
    assert (done.kept / DATABASE).read_bytes() == before
    assert [line.partition(":")[0] for line in done.lines] == ["room 'hall'"]
    with opened(tmp_path) as driver:
        hall, other = driver.open("hall"), driver.open("other")
        assert seqs(driver, "hall") == list(kept)
        assert (hall.head, hall.oldest) == (head, kept.start if kept else head + 1)
        assert seqs(driver, "other") == list(range(1, 21))
        assert hall.epoch != epochs["hall"]
        assert (other.epoch, other.known) == (epochs["other"], 20)
        driver.fill(hall, 3)
        assert [each.seq for each in driver.read(hall)] == [*kept, head + 1, head + 2, head + 3]
    assert verify(tmp_path).wrong == []


def test_room_without_its_entry_is_taken_out(tmp_path: Path) -> None:
    """Its key is not known, so every room gets a new epoch: it may be one that is made again."""
    epochs = filled(tmp_path)
    change(tmp_path, "UPDATE rooms SET name = 'x' WHERE id = 1")
    done = repair(tmp_path, "now")
    assert done.all_new
    assert verify(tmp_path).wrong == []
    with opened(tmp_path) as driver:
        hall, other = driver.open("hall"), driver.open("other")
        assert (hall.head, seqs(driver, "other")) == (0, list(range(1, 21)))
        assert not {hall.epoch, other.epoch} & set(epochs.values())


def test_damaged_entry_of_the_server_is_repaired(tmp_path: Path) -> None:
    epochs = filled(tmp_path)
    change(tmp_path, "UPDATE server SET clock = 'x'")
    assert [line.partition("expected ")[2] for line in verify(tmp_path).wrong] == [
        "the server's entry as it was written, found another checksum or none"
    ]
    repair(tmp_path, "now")
    assert verify(tmp_path).wrong == []
    with opened(tmp_path) as driver:
        assert {key: driver.open(key).epoch for key in epochs} == epochs


def test_damaged_log_leaves_what_stands_before(tmp_path: Path) -> None:
    with opened(tmp_path / "open") as driver:
        for _ in range(3):
            driver.fill(driver.open("hall"), 3)
        shutil.copytree(tmp_path / "open", tmp_path / "copy")
    log = tmp_path / "copy" / f"{DATABASE}-wal"
    ends = [offset for offset, end in frames(tmp_path / "copy") if end]
    data = bytearray(log.read_bytes())
    data[ends[-2] + 100] ^= 1
    log.write_bytes(data)
    assert ends[-1] + frame_size(bytes(data)) == len(data)
    done = repair(tmp_path / "copy", "now")
    assert done.all_new
    assert (done.kept / f"{DATABASE}-wal").read_bytes() == data
    with opened(tmp_path / "copy") as driver:
        assert seqs(driver, "hall") == [1, 2, 3]


def test_damage_anywhere_can_be_repaired(tmp_path: Path) -> None:
    """What is kept is what was written, whatever octets are damaged behind the first page."""
    filled(tmp_path / "sound", 60)
    with opened(tmp_path / "sound") as driver:
        expected = {key: {each.seq: each for each in read(driver, key)} for key in ("hall", "other")}
    data = (tmp_path / "sound" / DATABASE).read_bytes()
    chance, repaired = random.Random(7), 0
    for number in range(12):
        directory = tmp_path / str(number)
        shutil.copytree(tmp_path / "sound", directory)
        damaged = bytearray(data)
        at = chance.randrange(4096, len(data))
        damaged[at : at + chance.choice((1, 30, 3000))] = chance.randbytes(min(len(data) - at, chance.choice((1, 30))))
        (directory / DATABASE).write_bytes(damaged[: len(data)].ljust(len(data), b"\0"))
        if verify(directory).wrong:
            repair(directory, "now")
            repaired += 1
        assert verify(directory).wrong == [], number
        with opened(directory) as driver:
            for key, records in expected.items():
                assert all(each == records[each.seq] for each in read(driver, key))
    assert repaired > 3


def test_repair_while_the_store_is_in_use_is_refused(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path), pytest.raises(StoreLocked):
        repair(tmp_path, "now")
    assert not (tmp_path / "damaged-now").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_repaired_files_belong_to_the_owner_of_their_directory(tmp_path: Path) -> None:
    """Root repairs, trims and renews; the server is another user."""
    filled(tmp_path)
    change(tmp_path, "DELETE FROM messages WHERE room = 1 AND seq = 10")
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534)
    repair(tmp_path, "now")
    trim(tmp_path, 0)
    restamp(tmp_path, T0)
    found = {str(path.relative_to(tmp_path)): path.stat().st_uid for path in tmp_path.rglob("*")}
    assert found == dict.fromkeys((DATABASE, "lock", "damaged-now", f"damaged-now/{DATABASE}"), 65534)
    assert (tmp_path / DATABASE).stat().st_mode & 0o777 == 0o600


def test_repair_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    change(tmp_path, "DELETE FROM messages WHERE room = 1 AND seq = 10")
    before = (tmp_path / DATABASE).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reference_server.store.repair.write_meta", full)
    with pytest.raises(Exception, match="no space left on device"):
        repair(tmp_path, "now")
    assert (tmp_path / DATABASE).read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_dir()) == ["damaged-now"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_signal_ends_a_repair_in_one_line(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It changes nothing; while the repaired store is checked, the line says that it is repaired."""
    filled(tmp_path)
    change(tmp_path, "DELETE FROM messages WHERE room = 1 AND seq = 10")
    before, status = (tmp_path / DATABASE).read_bytes(), 128 + signal.Signals[name]
    salvage, check = repair_module._Salvage.run, verify_module.verify
    monkeypatch.setattr(snapshot, "STEPS", 1)

    def signalled_while_copying(self: Any, *arguments: Any) -> int:
        os.kill(os.getpid(), signal.Signals[name])
        return salvage(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(repair_module._Salvage, "run", signalled_while_copying)
        assert main(["verify", "--repair", str(tmp_path)]) == status
    assert capsys.readouterr() == ("", f"roomwire-server: ended by {name}: nothing was changed\n")
    assert (tmp_path / DATABASE).read_bytes() == before
    assert not [each for each in tmp_path.iterdir() if each.is_dir()]

    def signalled_after_the_repair(*arguments: Any) -> Any:
        if [*tmp_path.glob("damaged-*")]:
            os.kill(os.getpid(), signal.Signals[name])
        return check(*arguments)

    monkeypatch.setattr(store_commands, "verify", signalled_after_the_repair)
    assert main(["verify", "--repair", str(tmp_path)]) == status
    [kept] = tmp_path.glob("damaged-*")
    said = f"repaired, but not checked again; the damaged files are in {kept}"
    assert capsys.readouterr().err == f"roomwire-server: ended by {name}: {said}\n"
    assert check(tmp_path).wrong == []


def test_repair_that_is_killed_leaves_no_store_without_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server takes it for what it is, and the damaged files are still there."""
    with opened(tmp_path) as driver:
        driver.fill(driver.open("room"), 5)
        for name in (DATABASE, f"{DATABASE}-wal"):
            shutil.copyfile(tmp_path / name, tmp_path / f"{name}.kept")
    for name in (DATABASE, f"{DATABASE}-wal"):
        (tmp_path / f"{name}.kept").replace(tmp_path / name)

    class Killed(BaseException):
        pass

    def kill(self: Path, target: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", kill)
        with pytest.raises(Killed):
            repair(tmp_path, "first")
    for attempt in (lambda: Driver("sqlite", tmp_path, EVERYTHING), lambda: repair(tmp_path, "second")):
        with pytest.raises(StoreUnavailable, match="whose repair was killed"):
            attempt()
    for file in (tmp_path / "damaged-first").iterdir():
        shutil.copyfile(file, tmp_path / file.name)
    repair(tmp_path, "third")
    with opened(tmp_path) as driver:
        assert len(driver.read(driver.open("room"))) == 5


def test_repair_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    filled(tmp_path)
    change(tmp_path, "DELETE FROM messages WHERE room = 1 AND seq = 10")
    left = tmp_path / ".repair-abcdefgh"
    left.mkdir()
    (left / DATABASE).write_bytes(b"unfinished")
    with lock_if_free(tmp_path):  # it still runs
        assert main(["verify", "--repair", str(tmp_path)]) == 2
    assert left.exists()
    assert main(["verify", "--repair", str(tmp_path)]) == 0
    assert not left.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_a_trim_within_a_call_of_sqlite(tmp_path: Path, number: signal.Signals) -> None:
    """Another program has locked the store, so that the call lasts until the signal."""
    filled(tmp_path)
    before = (tmp_path / DATABASE).read_bytes()
    source = f"""if True:
        import sqlite3
        from reference_server.cli import main
        from reference_server.commands import store
        def locked(*arguments):
            print("begun", flush=True)
            with sqlite3.connect({str(tmp_path / DATABASE)!r}, timeout=99) as connection:
                connection.execute("VACUUM")
        store.trim = locked
        main(["trim", {str(tmp_path)!r}])
    """
    with closing(sqlite3.connect(tmp_path / DATABASE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        process = subprocess.Popen(
            [sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        status, _, errors = ended(process)
    said = "the store is whole; what was deleted stays so, and trim can be run again"
    assert (status, errors) == (128 + number, f"roomwire-server: ended by {number.name}: {said}\n")
    assert (tmp_path / DATABASE).read_bytes() == before


def test_space_of_deleted_messages_is_given_back(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.store.raise_max_body(65536)
        driver.fill(driver.open("hall"), 1_000, b"payload" * 200)
        driver.fill(driver.open("other"), 3)
    size = (tmp_path / DATABASE).stat().st_size
    done = trim(tmp_path, T0 + 951)
    assert (done.messages, done.before) == (953, size)
    assert done.after == (tmp_path / DATABASE).stat().st_size < size // 5
    assert verify(tmp_path).wrong == []
    with opened(tmp_path) as driver:
        assert seqs(driver, "hall") == list(range(951, 1_001))
        assert (driver.open("other").head, driver.open("other").oldest) == (3, 4)
        assert driver.open("hall").known == 1_000


def test_times_of_the_future_are_corrected(tmp_path: Path) -> None:
    year_ms = 31_557_600_000
    with opened(tmp_path) as driver:
        driver.store.raise_max_body(65536)
        log = driver.open("hall")
        driver.fill(log, 3)
        times = [(number, T0 + year_ms + number) for number in (4, 5)]
        propose(log, *[entry(number, time_ms=time_ms, id_ms=time_ms) for number, time_ms in times])
        driver.fill(driver.open("other"), 2)
        epochs = {key: driver.open(key).epoch for key in ("hall", "other")}
    assert restamp(tmp_path, T0 + 100) == 2
    assert verify(tmp_path).wrong == []
    with opened(tmp_path) as driver:
        log = driver.open("hall")
        assert [each.time_ms for each in driver.read(log)] == [T0 + 1, T0 + 2, T0 + 3, T0 + 100, T0 + 100]
        assert (driver.store.last_time_ms, driver.store.progress.time_ms) == (T0 + 100, T0 + 100)
        assert log.known == 3
        assert all(driver.open(key).epoch != epoch for key, epoch in epochs.items())


def test_commands_say_what_they_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    filled(tmp_path)
    assert main(["verify", "--repair", str(tmp_path)]) == 0
    assert "sound: 2 rooms, 35 messages, 40 ids" in capsys.readouterr().out
    change(tmp_path, "DELETE FROM messages WHERE room = 1 AND seq = 10")
    assert main(["verify", str(tmp_path)]) == 1
    capsys.readouterr()
    assert main(["verify", "--repair", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "room 'hall': kept messages 11 to 20 of 6 to 20, and 20 of 20 ids\n" in said
    assert f"repaired: 2 rooms, 30 messages, 40 ids; the damaged files are in {tmp_path / 'damaged-'}" in said
    assert main(["trim", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("0 messages were deleted; ")
    assert main(["trim", "--older-than", "7", str(tmp_path)]) == 0  # T0 is in 2023
    assert capsys.readouterr().out.startswith("30 messages were deleted; ")
    assert main(["renew", "--restamp", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "0 messages have the present time\nevery room has a new epoch\n"
    for arguments in (["trim", str(tmp_path / "none")], ["renew", "--restamp", str(tmp_path / "none")]):
        assert main(arguments) == 1
        assert "expected a store" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["trim", "--older-than", "-1", str(tmp_path)])


def test_many_messages_are_trimmed_in_portions(tmp_path: Path) -> None:
    """Others' commits go in between, so none waits for all of it."""
    with opened(tmp_path, Retention(messages=1_000)) as driver:
        driver.store.raise_max_body(65536)
        log, other = driver.open("hall"), driver.open("other")
        driver.fill(log, 6_000)
        driver.retain(log, T0, oldest=5_001)
        stored = []
        for number in range(1, 4):
            propose(other, entry(number))
            driver.commit()
            with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
                stored.append(connection.execute("SELECT count(*) FROM messages WHERE room = 1").fetchone()[0])
        assert stored == sorted(stored, reverse=True)
        assert stored[0] > 1_000
        assert [each.seq for each in driver.read(log, limit=2)] == [5_001, 5_002]
    with opened(tmp_path, EVERYTHING) as driver:
        assert (driver.open("hall").oldest, driver.open("hall").known) == (5_001, 6_000)
    assert verify(tmp_path).wrong == []
