"""verify, backup and renew: an operator's commands on a store."""

import os
import shutil
import signal
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from zlib import crc32

import pytest

from protocol.frames import Ack
from protocol.registry import Flag
from reference_server.accounts import ACCOUNTS, Account, AccountsFile
from reference_server.cli import main
from reference_server.commands import store as store_commands
from reference_server.store import backup as backup_module
from reference_server.store import snapshot
from reference_server.store import verify as verify_module
from reference_server.store.backup import backup
from reference_server.store.base import StoreCorrupt, StoreTooNew, StoreUnavailable
from reference_server.store.sqlite_files import FORMAT
from reference_server.store.sqlite_tables import Room
from reference_server.store.verify import verify
from tests.server.test_process import command, ended, made, running
from tests.support.raw_client import RawClient
from tests.support.stores import DATABASE, EVERYTHING, Driver, entry, opened


def filled(directory: Path) -> Path:
    """Make a store with 20 messages in each of two rooms, the first five of "hall" trimmed; its directory."""
    with opened(directory) as driver:
        driver.store.raise_max_body(65536)
        for key in ("hall", "other"):
            log = driver.open(key)
            driver.fill(log, 20)
            if key == "hall":
                log.trim(6)
        driver.commit()
    return directory


def change(directory: Path, sql: str) -> None:
    with closing(sqlite3.connect(directory / DATABASE)) as connection:
        connection.executescript(sql)


def id_of(number: int) -> str:
    """The SQL condition for the row of `entry(number)` in the table ids."""
    return f"id = x'{entry(number).id.hex()}'"


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def with_new_checksum(directory: Path, key: str, **values: int) -> None:
    """Change a room's row, with a valid checksum."""
    with closing(sqlite3.connect(directory / DATABASE, isolation_level=None)) as connection:
        names = "key, id, name, head, oldest, octets, ids, last_time_ms, unicode_version, salt"
        row = connection.execute(f"SELECT {names} FROM rooms WHERE key = ?", (key,)).fetchone()
        columns = dict(zip(names.split(", "), row, strict=True)) | values
        room = Room(**columns)
        connection.execute(f"INSERT OR REPLACE INTO rooms VALUES ({','.join('?' * 11)})", room.row())


# --- verify


def test_verify_of_a_sound_store_changes_nothing(tmp_path: Path) -> None:
    before = files(filled(tmp_path))
    report = verify(tmp_path)
    assert (report.wrong, report.notes) == ([], [])
    assert (report.rooms, report.messages, report.ids) == (2, 35, 40)
    assert {name: data for name, data in files(tmp_path).items() if name != "lock"} == {
        name: data for name, data in before.items() if name != "lock"
    }


def test_verify_of_an_empty_store(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    assert verify(tmp_path).wrong == []


WRONG: list[tuple[str, str, str]] = [
    (
        "a hole",
        "DELETE FROM messages WHERE room = 1 AND seq = 10",
        "room 'hall': expected message 10, found 11",
    ),
    (
        "the newest is missing",
        "DELETE FROM messages WHERE room = 1 AND seq = 20",
        "room 'hall': expected messages up to 20, found none from 20 on",
    ),
    (
        "another payload",
        "UPDATE messages SET payload = x'00' WHERE room = 2 AND seq = 3",
        "room 'other', message 3: expected it as it was written, found another checksum",
    ),
    (
        "another type of value",
        "UPDATE messages SET name = 5 WHERE room = 2 AND seq = 3",
        "room 'other', message 3: expected it as it was written, found another checksum",
    ),
    (
        "a message without a room",
        "UPDATE messages SET room = 7 WHERE room = 2 AND seq = 20",
        "message 20 of a room numbered 7: expected a room, found none",
    ),
    (
        "an id without a room",
        f"UPDATE ids SET room = 7 WHERE room = 2 AND {id_of(20)}",
        "of a room numbered 7: expected a room, found none",
    ),
    (
        "an id is missing",
        f"DELETE FROM ids WHERE room = 2 AND {id_of(20)}",
        "room 'other': expected 20 ids, found 19",
    ),
    (
        "an id of another message",
        f"UPDATE ids SET known = (SELECT known FROM ids WHERE room = 2 AND {id_of(4)}) WHERE room = 2 AND {id_of(5)}",
        f"room 'other', id {entry(5).id.hex()}: expected it as it was written, found another checksum",
    ),
    (
        "another type in the row of an id",
        f"UPDATE ids SET known = 5 WHERE room = 2 AND {id_of(5)}",
        f"room 'other', id {entry(5).id.hex()}: expected it as it was written, found another checksum",
    ),
    (
        "the message of an id is missing",
        "DELETE FROM messages WHERE room = 2 AND seq = 5",
        f"room 'other', id {entry(5).id.hex()}: expected its message 5, found none",
    ),
    (
        "another head",
        "UPDATE rooms SET head = 25 WHERE id = 1",
        "expected the entry of room 'hall' as it was written, found another checksum",
    ),
    (
        "a room is missing",
        "DELETE FROM rooms WHERE id = 1",
        "rooms: expected numbers 1 to 2, found none with 1",
    ),
    (
        "another incarnation",
        "UPDATE meta SET incarnation = x'01'",
        "expected the incarnation as it was written, found another checksum or none",
    ),
    (
        "a table is missing",
        "DROP TABLE ids",
        "the tables: expected 'CREATE TABLE ids', found none like it",
    ),
    (
        "a table too many",
        "CREATE TABLE theirs (x)",
        "the tables: expected those of this format only, found 'CREATE TABLE theirs'",
    ),
    (
        "another application",
        "PRAGMA application_id = 1",
        "expected a Roomwire store, found the database of another application",
    ),
    ("an older format", "PRAGMA user_version = 0", f"expected format {FORMAT}, found format 0"),
]


@pytest.mark.parametrize(("sql", "said"), [each[1:] for each in WRONG], ids=[each[0] for each in WRONG])
def test_fault_in_one_row_is_one_line(tmp_path: Path, sql: str, said: str) -> None:
    change(filled(tmp_path), sql)
    lines = verify(tmp_path).wrong
    assert [line for line in lines if said in line], lines
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"head": 19}, "room 'hall': expected 19 as the last message, which is its head, found 20"),
        ({"oldest": 5}, "room 'hall': expected message 5, found 6"),
        ({"oldest": 22}, "room 'hall': expected an oldest message of 1 to 21, found 22"),
        ({"octets": 1}, "room 'hall': expected 1 octets until"),
        ({"last_time_ms": 1}, "octets until 1, found"),
    ],
)
def test_rows_that_contradict_each_other(tmp_path: Path, values: dict[str, int], said: str) -> None:
    with_new_checksum(filled(tmp_path), "hall", **values)
    lines = verify(tmp_path).wrong
    assert [line for line in lines if said in line], lines


def test_ids_that_contradict_their_messages(tmp_path: Path) -> None:
    with closing(sqlite3.connect(filled(tmp_path) / DATABASE, isolation_level=None)) as connection:
        for wanted, seq in ((4, 5), (9, 99)):
            row = connection.execute(f"SELECT * FROM ids WHERE room = 2 AND {id_of(wanted)}").fetchone()
            known = struct.pack(">Q", seq) + row[2][8:-4]
            crc = crc32(struct.pack(">q", 2) + row[1] + known)
            changed = known + struct.pack(">I", crc)
            connection.execute(f"UPDATE ids SET known = ? WHERE room = 2 AND {id_of(wanted)}", (changed,))
    first, second = (entry(number).id.hex() for number in (4, 9))
    assert verify(tmp_path).wrong == [
        f"room 'other', id {first}: expected it at message 5, found {entry(5).id.hex()}",
        f"room 'other', id {second}: expected a message of 1 to 20, found 99",
    ]


def test_message_over_max_body_is_a_fault(tmp_path: Path) -> None:
    with opened(tmp_path) as driver:
        driver.store.raise_max_body(4096)
        driver.fill(driver.open("hall"), 1, bytes(5000))
    assert verify(tmp_path).wrong == ["room 'hall', message 1: expected at most 4096 octets, found 5000"]


def test_many_faults_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "LINES", 3)
    change(filled(tmp_path), "UPDATE messages SET ctype = 9")
    lines = verify(tmp_path).wrong
    assert len(lines) == 4
    assert lines[-1] == "32 more of 35 messages"


def test_damaged_pages_are_reported(tmp_path: Path) -> None:
    data = bytearray((filled(tmp_path) / DATABASE).read_bytes())
    data[4096 * 2 : 4096 * 2 + 200] = bytes(200)
    (tmp_path / DATABASE).write_bytes(data)
    assert verify(tmp_path).wrong[0].startswith(("the file: ", str(tmp_path)))


def test_damaged_write_ahead_log_is_reported(tmp_path: Path) -> None:
    store = tmp_path / "store"
    driver = Driver("sqlite", store, EVERYTHING)
    driver.store.raise_max_body(65536)
    log = driver.open("hall")
    for _ in range(3):
        driver.fill(log, 5)
    copy = Path(shutil.copytree(store, tmp_path / "copy"))  # as if the process were killed now
    driver.store.close()
    assert verify(copy).wrong == []
    wal = bytearray((copy / f"{DATABASE}-wal").read_bytes())
    wal[100] ^= 1
    (copy / f"{DATABASE}-wal").write_bytes(wal)
    assert "expected only the last transaction to be incomplete" in verify(copy).wrong[0]


def test_verify_of_a_missing_or_newer_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="expected a store"):
        verify(tmp_path)
    change(filled(tmp_path), f"PRAGMA user_version = {FORMAT + 1}")
    with pytest.raises(StoreTooNew, match=f"expected format {FORMAT} or older, found format {FORMAT + 1} of a newer"):
        verify(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"something else" * 1000)
    assert verify(tmp_path).wrong[0].endswith("found file is not a database")


def test_server_cannot_start_during_verify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path)
    refusals: list[str] = []

    def start(doing: str) -> None:
        try:
            Driver("sqlite", tmp_path, EVERYTHING)
        except Exception as error:
            refusals.append(str(error))

    verify(tmp_path, start)
    assert refusals
    assert f"found that process {os.getpid()} uses it" in refusals[0]


# --- backup


def epoch(directory: Path, key: str = "hall") -> int:
    """The epoch of a room in a server that starts now."""
    with opened(directory) as driver:
        return driver.open(key).epoch


def test_copy_is_complete_and_gets_new_epochs_each_time(tmp_path: Path) -> None:
    """RW-MODEL-4 at the first start of a copy, RW-MODEL-5 from then on."""
    first = epoch(filled(tmp_path / "store"))
    report = backup(tmp_path / "store", tmp_path / "copy")
    assert (report.rooms, report.messages, report.ids) == (2, 35, 40)
    assert list(files(tmp_path / "copy")) == [DATABASE]
    epochs = []
    for place in ("one", "two"):
        restored = Path(shutil.copytree(tmp_path / "copy", tmp_path / place))
        with opened(restored) as driver:
            log = driver.open("hall")
            assert (log.head, log.oldest, len(driver.read(log))) == (20, 6, 15)
            assert log.lookup(entry(20).id)
            epochs.append(log.epoch)
        assert epoch(restored) == epochs[-1]
    assert len({first, *epochs}) == 3
    assert epoch(tmp_path / "store") == first


def test_backup_includes_the_accounts(tmp_path: Path) -> None:
    accounts = AccountsFile(filled(tmp_path / "store") / "accounts.sqlite3")
    accounts.add("Ada", "long enough", created_ms=0)
    backup(tmp_path / "store", tmp_path / "copy")
    copied = tmp_path / "copy" / "accounts.sqlite3"
    assert copied.stat().st_mode & 0o077 == 0
    assert [account.name for account in found(AccountsFile(copied))] == ["Ada"]
    assert found(AccountsFile(copied)) == found(accounts)


def found(file: AccountsFile) -> list[Account]:
    accounts = file.read()
    assert accounts is not None
    return accounts.all()


def test_backup_of_a_backup(tmp_path: Path) -> None:
    backup(filled(tmp_path / "store"), tmp_path / "copy")
    backup(tmp_path / "copy", tmp_path / "again")
    assert verify(tmp_path / "again").notes == ["a copy: its rooms get new epochs when a server is started with it"]
    assert epoch(tmp_path / "again") != epoch(tmp_path / "store")


def test_backup_during_writes_is_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_module, "PAGES_AT_ONCE", 1)
    with opened(tmp_path / "store") as driver:
        driver.store.raise_max_body(65536)
        log = driver.open("hall")
        driver.fill(log, 20, bytes(2000))
        began = log.head

        def write(doing: str) -> None:
            driver.fill(log, 5)

        report = backup(tmp_path / "store", tmp_path / "copy", write)
        assert log.head > began + 50
        assert (report.rooms, report.messages) == (1, began)
    assert verify(tmp_path / "copy").wrong == []


@pytest.mark.parametrize("spoil", ["row", "version", "log"])
def test_damaged_store_is_not_copied(tmp_path: Path, spoil: str) -> None:
    store = filled(tmp_path / "store")
    if spoil == "log":
        (store / f"{DATABASE}-wal").write_bytes(b"x" * 100)
    else:
        sql = "UPDATE messages SET payload = x'00' WHERE room = 2 AND seq = 3"
        change(store, sql if spoil == "row" else "PRAGMA user_version = 7")
    with pytest.raises(StoreTooNew if spoil == "version" else StoreCorrupt):
        backup(store, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_interrupted_backup_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(doing: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(filled(tmp_path / "store"), tmp_path / "copy", interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("stage", ["copied", "reading"])
def test_signal_ends_a_command_in_one_line(
    tmp_path: Path, stage: str, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While it copies, and while it checks the copy. A second signal changes nothing."""

    def signalled(doing: str) -> None:
        if doing.startswith(stage):
            os.kill(os.getpid(), signal.Signals[name])
            os.kill(os.getpid(), signal.SIGTERM)

    store = filled(tmp_path / "store")
    monkeypatch.setattr(store_commands, "_progress", signalled)
    monkeypatch.setattr(backup_module, "PAGES_AT_ONCE", 1)
    monkeypatch.setattr(snapshot, "STEPS", 1)
    status = 128 + signal.Signals[name]
    assert main(["backup", str(store), str(tmp_path / "copy")]) == status
    assert capsys.readouterr() == ("", f"roomwire-server: ended by {name}: nothing was copied\n")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    if stage == "reading":
        assert main(["verify", str(store)]) == status
        assert capsys.readouterr() == ("", f"roomwire-server: ended by {name}: not all was checked\n")


def test_nohup_is_obeyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_commands, "_progress", lambda doing: os.kill(os.getpid(), signal.SIGHUP))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert main(["backup", str(filled(tmp_path / "store")), str(tmp_path / "copy")]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_ends_a_backup_of_a_process(tmp_path: Path, number: signal.Signals) -> None:
    """The accounts are locked, so that the copy is not complete before the signal."""
    store = filled(tmp_path / "store")
    file = AccountsFile(store / ACCOUNTS)
    file.add("Ada", "correct horse", created_ms=0, iterations=4096)
    with closing(sqlite3.connect(file.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        process = command("backup", str(store), str(tmp_path / "copy"))
        while not list(tmp_path.glob(f".copy-*/{DATABASE}")):
            assert process.poll() is None
        process.send_signal(number)
        said = f"roomwire-server: ended by {number.name}: nothing was copied\n"
        assert ended(process) == (128 + number, "", said)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_backup_names_what_a_killed_one_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, left, other = filled(tmp_path / "store"), tmp_path / ".copy-abcdefgh", tmp_path / ".copy-of-mine"
    for each in (left, other):
        each.mkdir()
    (left / DATABASE).touch()
    assert main(["backup", str(store), str(tmp_path / "copy")]) == 0
    note = f"note: {left} is of another backup, which runs, or was killed; then delete it\ncopied to "
    assert capsys.readouterr().out.startswith(note)
    assert left.exists()


def test_accounts_that_are_empty_or_damaged_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = filled(tmp_path / "store")
    accounts = store / ACCOUNTS
    accounts.touch()
    assert main(["backup", str(store), str(tmp_path / "one")]) == 0
    assert capsys.readouterr().out.startswith(f"note: {accounts} is empty: the copy has no accounts\ncopied to ")
    assert list(files(tmp_path / "one")) == [DATABASE]
    assert "expected accounts (" in verify(store).wrong[0]
    accounts.write_bytes(b"rubbish" * 999)
    assert main(["backup", str(store), str(tmp_path / "two")]) == 1
    assert capsys.readouterr().err == f"roomwire-server: {accounts}: cannot be used: file is not a database\n"
    assert not (tmp_path / "two").exists()


def test_backup_overwrites_nothing(tmp_path: Path) -> None:
    store = filled(tmp_path / "store")
    for name in ("file", "full"):
        place = tmp_path / name
        if name == "file":
            place.write_text("mine")
        else:
            place.mkdir()
            (place / "mine").write_text("")
        with pytest.raises(StoreUnavailable, match="expected a directory that does not exist or is empty"):
            backup(store, place)
    (tmp_path / "empty").mkdir()
    backup(store, tmp_path / "empty")
    backup(store, tmp_path / "not" / "there" / "yet")
    with pytest.raises(StoreUnavailable, match="expected a store"):
        backup(tmp_path / "full", tmp_path / "copy")


# --- the commands


def test_verify_output_and_exit_status(tmp_path: Path) -> None:
    made(tmp_path / "store")
    place = str(tmp_path / "store")
    assert ended(command("verify", place)) == (0, "sound: 1 rooms, 1 messages, 1 ids\n", "")
    change(tmp_path / "store", "UPDATE messages SET sender = 0")
    said = "room 'hall', message 1: expected it as it was written, found another checksum\n"
    assert ended(command("verify", place)) == (1, f"{said}WRONG: 1 rooms, 1 messages, 1 ids\n", "")
    status, output, errors = ended(command("verify", str(tmp_path / "none")))
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert ended(command("verify", environ={"XDG_DATA_HOME": str(tmp_path / "none")}))[0] == 2


def test_verify_includes_the_accounts(tmp_path: Path) -> None:
    made(tmp_path)
    file = AccountsFile(tmp_path / ACCOUNTS)
    file.add("Ada", "correct horse", created_ms=0, iterations=4096)
    file.add("bob", "correct horse", created_ms=0, iterations=4096)
    assert ended(command("verify", str(tmp_path)))[:2] == (0, "sound: 1 rooms, 1 messages, 1 ids, 2 accounts\n")
    with closing(sqlite3.connect(file.path)) as connection, connection:
        connection.execute("UPDATE accounts SET name = 'eve' WHERE key = 'bob'")
    assert verify(tmp_path).wrong == ["account 'bob': expected a name in NFC that has this key, found 'eve'"]
    with closing(sqlite3.connect(file.path)) as connection, connection:
        connection.execute("UPDATE accounts SET stored_key = x'00' WHERE key = 'bob'")
    assert [line.partition(": ")[2] for line in verify(tmp_path).wrong] == [
        "the account 'eve' has keys of a wrong length"
    ]
    file.path.write_bytes(b"\xff" * 4096)
    assert [line.partition(": ")[0] for line in verify(tmp_path).wrong] == [str(file.path)]


def test_backup_of_a_running_server_and_restore(tmp_path: Path) -> None:
    """RW-MODEL-4, as a client sees it."""
    store, copy = tmp_path / "store", tmp_path / "copy"
    with running("--data", str(store)) as child, RawClient(child.port) as ada:
        joined = ada.join("hall")
        for text in (b"one", b"two"):
            ada.send(ada.publish(joined.room, text))
            ada.expect(Ack)
        assert ended(command("verify", str(store)))[0] == 0
        status, output, errors = ended(command("backup", str(store), str(copy)))
        assert (status, output, errors) == (0, f"copied to {copy} and checked: 1 rooms, 2 messages, 2 ids\n", "")
        ada.send(ada.publish(joined.room, b"after the copy"))
        ada.expect(Ack)
    with running("--data", str(copy)) as child, RawClient(child.port) as ada:
        again = ada.join("hall", epoch=joined.epoch, since=3)
        assert (again.head, again.start) == (2, 1)
        assert again.epoch != joined.epoch
        assert again.flags & Flag.GAP
        assert [message.payload for message in ada.messages(2)] == [b"one", b"two"]
        child.signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("backup", "{}/none", "{}/copy"), 1, "expected a store"),
        (("backup", "{}/none"), 2, "TARGET"),
        (("renew", "{}/none"), 1, "expected a store, found none"),
        (("verify", "{}", "{}"), 2, "unrecognized arguments"),
    ],
)
def test_commands_that_fail_say_why(tmp_path: Path, arguments: tuple[str, ...], status: int, says: str) -> None:
    code, output, errors = ended(command(*(each.format(tmp_path) for each in arguments)))
    assert (code, output) == (status, "")
    assert says in errors.splitlines()[-1]


def test_renew_changes_every_epoch(tmp_path: Path) -> None:
    made(tmp_path)
    before = epoch(tmp_path)
    assert ended(command("renew", str(tmp_path))) == (0, "every room has a new epoch\n", "")
    assert epoch(tmp_path) != before


@pytest.mark.parametrize("name", ["run", "doctor", "verify", "backup", "renew"])
def test_help_of_each_command(name: str) -> None:
    status, output, errors = ended(command(name, "--help"))
    assert (status, errors) == (0, "")
    assert output.startswith(f"usage: roomwire-server {name} ")
    assert "exit status: " in output
    assert "examples:\n" in output
