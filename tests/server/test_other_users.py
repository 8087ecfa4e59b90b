"""Files of the server and other users of the machine: who may read them, to whom they belong, and who is told what."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from protocol.frames import Ack
from reference_server.accounts import AccountsError, AccountsFile
from reference_server.cli import main
from reference_server.files import user_name
from reference_server.store.base import StoreUnavailable
from reference_server.store.verify import verify
from tests.server.test_process import running, tree
from tests.server.test_store_commands import filled
from tests.support.accounts import make_accounts
from tests.support.other_user import OTHER, as_other, needs_root, shared
from tests.support.places import ROOT
from tests.support.raw_client import RawClient
from tests.support.stores import DATABASE, EVERYTHING, Driver, opened

__all__ = ["shared"]


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


def owners(directory: Path) -> set[tuple[int, int]]:
    return {(each.stat().st_uid, each.stat().st_gid) for each in (directory, *directory.rglob("*"))}


# --- who may read


@pytest.fixture
def open_umask() -> object:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_files_are_private_in_an_open_directory(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir(mode=0o777)
    with opened(store) as driver:
        driver.store.raise_max_body(65536)
        driver.fill(driver.open("hall"), 20)
        assert {*modes(store)} == {"lock", DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"}
        assert {*modes(store).values()} == {0o600}
        shutil.copytree(store, tmp_path / "older")
    make_accounts(tmp_path / "older" / "accounts.sqlite3")
    for path in (tmp_path / "older").iterdir():
        path.chmod(0o644)  # as versions before this one made them, or a copy
    with opened(tmp_path / "older"):
        assert {*modes(tmp_path / "older").values()} == {0o600}
    make_accounts(store / "accounts.sqlite3")
    (tmp_path / "copy").mkdir(mode=0o777)
    assert main(["backup", str(store), str(tmp_path / "copy")]) == 0
    assert modes(tmp_path / "copy") == {DATABASE: 0o600, "accounts.sqlite3": 0o600}


def test_group_that_the_owner_let_read_may_go_on(tmp_path: Path) -> None:
    (filled(tmp_path) / DATABASE).chmod(0o640)
    with opened(tmp_path) as driver:
        driver.fill(driver.open("hall"), 1)
        assert {modes(tmp_path)[f"{DATABASE}{beside}"] for beside in ("", "-wal", "-shm")} == {0o640}


# --- to whom files belong


@needs_root
def test_files_that_root_makes_belong_to_the_owner_of_the_directory(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.chown(shared, OTHER, OTHER)
    file = make_accounts(shared / "accounts.sqlite3")
    with opened(shared / "rooms") as driver:
        driver.store.raise_max_body(65536)
        driver.fill(driver.open("hall"), 20)
        assert owners(shared) == {(OTHER, OTHER)}
    assert main(["backup", str(shared / "rooms"), str(shared / "copy")]) == 0
    assert main(["renew", str(shared / "rooms")]) == 0
    assert main(["cert", "--output", str(shared)]) == 0
    assert owners(shared) == {(OTHER, OTHER)}
    listed, verified = as_other(("user", "list", "--accounts", file.path), ("verify", shared / "rooms"))
    assert (listed[0], listed[1].count("\n")) == (0, 4)
    assert verified == (0, "sound: 1 rooms, 20 messages, 20 ids\n", "")


@needs_root
def test_user_is_not_made_by_another_than_the_owner_of_the_rooms(shared: Path) -> None:
    store = filled(shared / "store")
    store.chmod(0o777)
    (made,) = as_other(("user", "add", "ada", "--data", store))
    expected = (
        "expected to be made by root, whose rooms are beside it (as root: runuser -u root -- roomwire-server user"
    )
    assert made[:2] == (1, "")
    assert f"{store}/accounts.sqlite3: {expected}" in made[2]
    assert "accounts.sqlite3" not in modes(store)


@needs_root
def test_doctor_makes_nothing_for_root(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in an empty directory of another user, nor where a server was killed."""
    store = shared / "store"
    store.mkdir()
    os.chown(store, OTHER, OTHER)
    doctor = ["doctor", "--port", "0", "--data", str(store)]
    assert main(doctor) == 0
    assert "for a server of theirs, run this command with: runuser -u " in capsys.readouterr().out
    assert list(store.iterdir()) == []
    with opened(shared / "used") as driver:
        driver.fill(driver.open("hall"), 20)
        for name in (DATABASE, f"{DATABASE}-wal"):
            shutil.copyfile(shared / "used" / name, store / name)
    assert main(doctor) == 1
    help = f"belongs to root, and the directory to {user_name(OTHER)}: chown --reference={store} {store}/{DATABASE}\n"
    assert help in capsys.readouterr().out
    for path in store.iterdir():
        os.chown(path, OTHER, OTHER)
    before = tree(store)
    assert main(doctor) == 0
    assert f"1 in {store}" in capsys.readouterr().out
    assert tree(store) == before


@needs_root
def test_file_of_root_in_the_directory_of_another_is_named(shared: Path) -> None:
    filled(shared)
    os.chown(shared, OTHER, OTHER)
    make_accounts(shared / "accounts.sqlite3").path.chmod(0o600)
    os.chown(shared / "accounts.sqlite3", 0, 0)
    renewed, listed = as_other(("renew", shared), ("user", "list", "--data", shared))
    for (status, output, errors), file in ((renewed, "lock"), (listed, "accounts.sqlite3")):
        assert (status, output, errors.count("\n")) == (1, "", 1)
        assert "permission denied" in errors or "unable to open" in errors
        assert "it belongs to root, and this is " in errors
        assert f"as root: chown --reference={shared} {shared}/{file}" in errors


# --- who may only read


def leave_half_written(file: Path) -> None:
    """As `user` leaves the file when it is killed while it writes."""
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 10")
        connection.execute("BEGIN")
        connection.execute(
            "INSERT INTO accounts WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
            " SELECT i, i, x'00', x'00', x'00', 0, 0 FROM n"
        )
        for name in (file.name, f"{file.name}-journal"):
            shutil.copyfile(file.with_name(name), file.with_name(f"{name}.killed"))
    for name in (file.name, f"{file.name}-journal"):
        file.with_name(f"{name}.killed").rename(file.with_name(name))


@needs_root
@pytest.mark.parametrize("left", ["clean", "killed", "killed, without its index"])
def test_user_who_may_only_read_makes_backups(shared: Path, left: str) -> None:
    store = shared / "store"
    driver = Driver("sqlite", store, EVERYTHING)
    driver.store.raise_max_body(65536)
    driver.fill(driver.open("hall"), 20)
    make_accounts(store / "accounts.sqlite3")
    if left != "clean":
        shutil.copytree(store, shared / "killed")  # as if the process were killed now
    driver.store.close()
    if left != "clean":
        store = shared / "killed"
        assert (store / f"{DATABASE}-wal").stat().st_size
    if "index" in left:
        (store / f"{DATABASE}-shm").unlink()
        leave_half_written(store / "accounts.sqlite3")
    for path in (store, *store.iterdir()):
        os.chown(path, 0, OTHER)
        path.chmod(0o750 if path is store else 0o640)
    (shared / "backups").mkdir()
    os.chown(shared / "backups", OTHER, OTHER)
    assert (store / "accounts.sqlite3-journal").exists() == ("index" in left)
    before = {path: path.read_bytes() for path in store.iterdir()}
    copied, verified = as_other(("backup", store, shared / "backups" / "one"), ("verify", store))
    amount = "1 rooms, 20 messages, 20 ids, 4 accounts"
    assert copied == (0, f"copied to {shared}/backups/one and checked: {amount}\n", "")
    assert verified == (0, f"sound: {amount}\n", "")
    assert {path: path.read_bytes() for path in store.iterdir()} == before
    assert [path.name for path in (shared / "backups").iterdir()] == ["one"]


@needs_root
@pytest.mark.skipif(
    not shutil.which("unshare"), reason="unshare not installed (Debian, Ubuntu: apt-get install util-linux)"
)
def test_backup_from_a_file_system_that_is_read_only(shared: Path) -> None:
    """Of a store whose server was killed, by root."""
    with opened(shared / "used") as driver:
        driver.store.raise_max_body(65536)
        driver.fill(driver.open("hall"), 20)
        shutil.copytree(shared / "used", shared / "store")
    (shared / "store" / f"{DATABASE}-shm").unlink()
    bind = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 99'
    commands = '"$0" -m reference_server verify "$1" && "$0" -m reference_server backup "$1" "$1/../copy"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{bind}; {commands}", sys.executable, str(shared / "store")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    if done.returncode == 99 or "unshare failed" in done.stderr:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("sound: 1 rooms, 20 messages, 20 ids\ncopied to ")


@needs_root
def test_checks_beside_a_writing_server_tell_of_no_damage(shared: Path) -> None:
    """Whether the user may read the file `lock`, and whether there is one."""
    store, free = shared / "store", {"ROOMWIRE_PUBLISH_RATE": "1000000", "ROOMWIRE_PUBLISH_BURST": "1000000"}
    filled(store)
    os.chown(store, 0, OTHER)
    store.chmod(0o2750)
    (store / DATABASE).chmod(0o640)
    with running("--data", str(store), environ=free) as child, RawClient(child.port) as ada:
        ref = ada.join("hall").room
        for path in store.glob(f"{DATABASE}*"):
            os.chown(path, 0, OTHER)
        note = " uses the store: its write-ahead log was not checked"
        for lock in ("closed to others", "none"):
            if lock == "none":
                (store / "lock").unlink()
            for _ in range(20):
                ada.send(ada.publish(ref, bytes(1000)))
                ada.expect(Ack)
            for status, output, errors in as_other(*[("verify", store)] * 3):
                assert (status, errors) == (0, ""), output
                assert output.splitlines()[0].endswith(note)
            report = verify(store)
            assert (report.wrong, len(report.notes)) == ([], 1)


# --- what is not made


def test_account_on_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    code = """if True:
        import resource, sys
        from reference_server.cli import main
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        sys.exit(main(["user", "add", "ada", "--data", sys.argv[1]]))
    """
    run = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(run, input="correct horse", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}/accounts.sqlite3: cannot be used: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_old_sqlite_is_named_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sqlite3.sqlite_version_info", (3, 33, 0))
    monkeypatch.setattr("sqlite3.sqlite_version", "3.33.0")
    data = str(tmp_path / "rooms")
    expected = "SQLite: expected version 3.34 or newer, with functions for JSON, found 3.33.0"
    with pytest.raises(StoreUnavailable) as refused:
        Driver("sqlite", Path(data), EVERYTHING)
    assert str(refused.value) == expected
    assert not (tmp_path / "rooms").exists()
    with pytest.raises(AccountsError) as unusable:
        AccountsFile(tmp_path / "accounts.sqlite3").add("ada", "correct horse", created_ms=0)
    assert str(unusable.value) == expected
    (tmp_path / DATABASE).touch()
    assert main(["doctor", "--port", "0", "--data", data]) == 1
    assert expected.replace("SQLite: ", "FAIL  SQLite       ") in capsys.readouterr().out
    assert main(["backup", str(tmp_path), str(tmp_path / "copy")]) == 1
    assert capsys.readouterr().err == f"roomwire-server: {expected}\n"
    assert [path.name for path in tmp_path.iterdir()] == [DATABASE]
