"""Accounts: the file that holds them, what the server does with them, and the commands that change them."""

import contextlib
import io
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from protocol.fields import mechanisms_of
from protocol.frames import Ack, Error, Goaway, Hello, Message, Ok, Stop, Welcome
from protocol.registry import PREFACE_SIZE, Code, Flag
from protocol.scram import MECHANISM, MIN_ITERATIONS, stored_keys
from reference_server.accounts import Account, AccountsError, AccountsFile
from reference_server.cli import main
from reference_server.net.accounts_watch import AGAIN, AccountsWatch
from tests.server.test_process import refused, running
from tests.support.accounts import ADMINS, PASSWORDS, Login, make_accounts
from tests.support.places import ROOT
from tests.support.raw_client import PATIENCE, PREFACE, RawClient
from tests.support.server_in_process import Server, serving


@pytest.fixture
def file(tmp_path: Path) -> AccountsFile:
    return make_accounts(tmp_path / "accounts.sqlite3")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers in this process notice changes of their accounts soon."""
    monkeypatch.setattr("reference_server.net.accounts_watch.ACCOUNTS_SECONDS", 0.02)
    monkeypatch.setattr("reference_server.net.accounts_watch.LOCKED_SECONDS", 0.2)


# --- the file


def test_missing_file_means_no_accounts(tmp_path: Path) -> None:
    file = AccountsFile(tmp_path / "none")
    assert file.version() is None
    assert file.read() is None
    with pytest.raises(AccountsError, match="there is no account Ada"):
        file.remove("Ada")


def test_empty_file_is_a_fault(file: AccountsFile) -> None:
    """It held accounts once: a new one there would be the only one."""
    os.truncate(file.path, 0)
    for use in (file.read, file.check, lambda: file.add("eve", "long enough", created_ms=0)):
        with pytest.raises(AccountsError, match=r"expected accounts .*, found an empty file"):
            use()
    assert file.path.stat().st_size == 0


@pytest.mark.parametrize(
    ("step", "error"), [("_create", sqlite3.Error), ("_add", OSError), ("_add", KeyboardInterrupt)]
)
def test_account_that_is_not_made_leaves_no_file(
    tmp_path: Path, step: str, error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise error("no space left on device")

    file = AccountsFile(tmp_path / "accounts.sqlite3")
    with monkeypatch.context() as patch:
        patch.setattr(AccountsFile, step, fails)
        with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else AccountsError):
            file.add("eve", "long enough", created_ms=0, iterations=MIN_ITERATIONS)
    assert list(tmp_path.iterdir()) == []
    file.add("eve", "long enough", created_ms=0, iterations=MIN_ITERATIONS)
    assert list(tmp_path.iterdir()) == [file.path]


def test_what_a_killed_command_left_is_removed(tmp_path: Path) -> None:
    """By the next one; what a command makes that still runs is not."""
    file = AccountsFile(tmp_path / "accounts.sqlite3")
    source = f"""if True:
        import os, pathlib, sys
        from reference_server.accounts import AccountsFile
        def unfinished():
            print("begun", flush=True)
            sys.stdin.read()
        file = AccountsFile(pathlib.Path({str(file.path)!r}), committing=unfinished)
        file.add("Ada", "long enough", created_ms=0, iterations=4096)
    """
    python = [sys.executable, "-c", source]
    with subprocess.Popen(python, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"begun\n"
        [left] = tmp_path.iterdir()
        file.add("eve", "long enough", created_ms=0, iterations=MIN_ITERATIONS)
        assert sorted(tmp_path.iterdir()) == sorted((left, file.path))
        first.kill()
    file.add("bob", "long enough", created_ms=0)
    assert list(tmp_path.iterdir()) == [file.path]


def test_file_that_another_command_makes_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AccountsFile(tmp_path / "accounts.sqlite3")
    make = AccountsFile._make

    def slow(self: AccountsFile, *arguments: Any) -> Account:
        with monkeypatch.context() as patch:
            patch.setattr(AccountsFile, "_make", make)
            file.add("Ada", "long enough", created_ms=0, iterations=MIN_ITERATIONS)
        return make(self, *arguments)

    monkeypatch.setattr(AccountsFile, "_make", slow)
    file.add("eve", "long enough", created_ms=0, iterations=MIN_ITERATIONS)
    accounts = file.read()
    assert accounts is not None
    assert [account.name for account in accounts.all()] == ["Ada", "eve"]


def test_file_contains_keys_but_no_password(file: AccountsFile) -> None:
    accounts = file.read()
    assert accounts is not None
    assert [account.name for account in accounts.all()] == ["a,b=c", "Ada", "ops", "Zoë"]
    ada = accounts.find("ada")
    assert ada is not None
    assert ada.keys == stored_keys(PASSWORDS["Ada"], ada.keys.salt, MIN_ITERATIONS)
    assert not ada.admin
    content = file.path.read_bytes()
    assert not [p for p in (*PASSWORDS.values(), *ADMINS.values()) if p.encode() in content]
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_unknown_account_has_keys_too(file: AccountsFile) -> None:
    """RW-SCRAM-2: their salt stays the same when the account is made, and when its password changes."""
    accounts = file.read()
    assert accounts is not None
    unknown = accounts.unknown_keys("eve")
    assert unknown == accounts.unknown_keys("eve")
    assert len(unknown.salt) == len(accounts.all()[0].keys.salt)
    assert unknown.salt != accounts.unknown_keys("mallory").salt
    assert file.add("Eve", "long enough", created_ms=0).keys.salt == unknown.salt
    file.set_password("Eve", "another one")
    after = file.read()
    assert after is not None
    eve = after.find("eve")
    assert eve is not None
    assert eve.keys.salt == unknown.salt
    assert {account.keys.iterations for account in after.all()} == {unknown.iterations}


@pytest.mark.parametrize(
    ("name", "password", "said"),
    [
        ("ADA", "long enough", "there is an account ADA already, as Ada"),
        ("ops", "long enough", "there is an account ops already"),
        ("~eve", "long enough", "for guests"),  # RW-SASL-6
        ("\uff5eeve", "long enough", "for guests"),
        ("", "long enough", "not a name"),
        ("a\nb", "long enough", "not a name"),
        ("eve", "short", "at least 8 characters, found 5"),
        ("eve", "", "found none"),
        ("eve", "\udcff long enough", "not UTF-8"),
    ],
)
def test_accounts_that_cannot_be_added(file: AccountsFile, name: str, password: str, said: str) -> None:
    before = file.version()
    with pytest.raises(AccountsError, match=said) as error:
        file.add(name, password, created_ms=0)
    assert "\n" not in str(error.value)
    assert file.version() == before


def test_iterations_are_the_same_for_all_accounts(file: AccountsFile, tmp_path: Path) -> None:
    """RW-SCRAM-2."""
    with pytest.raises(AccountsError, match="the 4096 iterations that all accounts there have, found 5000"):
        file.add("eve", "long enough", created_ms=0, iterations=5000)
    for count in (4095, 2_000_001):
        with pytest.raises(AccountsError, match="expected 4096 to 2000000"):
            AccountsFile(tmp_path / "other").add("eve", "long enough", created_ms=0, iterations=count)
    assert not (tmp_path / "other").exists()


def test_removed_and_missing_accounts(file: AccountsFile) -> None:
    assert file.remove("ZOË").name == "Zoë"
    with pytest.raises(AccountsError, match="there is no account"):
        file.remove("Zoë")
    with pytest.raises(AccountsError, match="there is no account"):
        file.set_password("nobody", "long enough")


def test_every_change_is_another_version(file: AccountsFile) -> None:
    seen = {file.version()}
    file.add("eve", "long enough", created_ms=0)
    seen.add(file.version())
    file.set_password("eve", "another one")
    seen.add(file.version())
    file.remove("eve")
    seen.add(file.version())
    assert len(seen) == 4


def test_other_file_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    before = path.read_bytes()
    expected = "expected accounts of format 1, found the file of another application"
    with pytest.raises(AccountsError, match=expected):
        AccountsFile(path).read()
    with pytest.raises(AccountsError, match=expected):
        AccountsFile(path).add("eve", "long enough", created_ms=0)
    assert path.read_bytes() == before
    path.write_bytes(b"no database, but long enough" * 30)
    with pytest.raises(AccountsError, match="cannot be used"):
        AccountsFile(path).read()


# --- the server


def _refusal(port: int, hello: Hello) -> Error:
    with RawClient(port, hello=False) as raw:
        raw.send(PREFACE)
        raw.octets(PREFACE_SIZE)
        raw.send(hello)
        error = raw.expect(Error)
        assert raw.goaway_code() == error.code  # RW-HELLO-3
        return error


@pytest.mark.parametrize(
    ("name", "account"), [("Ada", "Ada"), ("aDA", "Ada"), ("a,b=c", "a,b=c"), ("ZOE\u0308", "Zoë")]
)
def test_login(file: AccountsFile, name: str, account: str) -> None:
    """RW-SCRAM-5, RW-SCRAM-6, RW-SASL-4: the account is found by its key; WELCOME has its name and VERIFIED."""
    with serving(accounts=str(file.path)) as server, Login(server.port, name, PASSWORDS[account]) as ada:
        assert isinstance(ada.answer, Welcome)
        assert ada.welcome.name == account
        assert ada.welcome.flags & Flag.VERIFIED
        ref = ada.join("lobby").room
        ada.send(ada.publish(ref))
        message = ada.expect(Message)
        assert message.name == account
        assert message.flags & Flag.VERIFIED


def test_failed_logins_look_alike(file: AccountsFile) -> None:
    """RW-SCRAM-2, RW-SASL-2."""
    with serving(accounts=str(file.path)) as server:
        answers = []
        for name in ("Ada", "nobody"):
            with Login(server.port, name, "wrong password") as login:
                answers.append(login.answer)
                assert login.goaway_code() == Code.AUTH_FAILED
        assert answers[0] == answers[1]
        assert isinstance(answers[0], Error)
        assert answers[0].code == Code.AUTH_FAILED
        assert "wrong" in answers[0].text
        assert not server.run(lambda: [peer for peer in server.hub.peers if peer.login])


def test_another_name_in_hello(file: AccountsFile) -> None:
    """RW-SCRAM-5."""
    with serving(accounts=str(file.path)) as server:
        with Login(server.port, "Ada", PASSWORDS["Ada"], hello_name="ops") as login:
            assert isinstance(login.answer, Error)
            assert login.answer.code == Code.AUTH_FAILED
        with Login(server.port, "Ada", PASSWORDS["Ada"], hello_name="ADA") as login:
            assert isinstance(login.answer, Welcome)


@pytest.mark.parametrize(
    ("asked", "granted"), [("eve", "~eve"), ("Ada", "~Ada"), ("~eve", "~eve"), ("x" * 63, "~" + "x" * 63)]
)
def test_guests_have_a_tilde(file: AccountsFile, asked: str, granted: str) -> None:
    """RW-SASL-5."""
    with serving(accounts=str(file.path)) as server, RawClient(server.port, name=asked) as guest:
        assert guest.welcome.name == granted
        assert not guest.welcome.flags & Flag.VERIFIED


def test_guest_whose_name_is_too_long(file: AccountsFile) -> None:
    """RW-SASL-5."""
    with serving(accounts=str(file.path)) as server:
        assert _refusal(server.port, Hello("x" * 64, "ANONYMOUS", b"", request=1)).code == Code.NAME_INVALID


def test_mechanisms(file: AccountsFile) -> None:
    """RW-SASL-1, and RW-SASL-3 if the operator turned ANONYMOUS off."""
    other = Hello("ada", "PLAIN", b"", request=1)
    with serving(accounts=str(file.path)) as server:
        assert mechanisms_of(_refusal(server.port, other)) == ["ANONYMOUS", MECHANISM]
    with serving() as server:
        assert mechanisms_of(_refusal(server.port, other)) == ["ANONYMOUS"]
        scram = _refusal(server.port, Hello("ada", MECHANISM, b"n,,n=ada,r=x", request=1))
        assert scram.code == Code.UNSUPPORTED_MECHANISM
    with serving(accounts=str(file.path), anonymous=False) as server:
        refusal = _refusal(server.port, Hello("ada", "ANONYMOUS", b"", request=1))
        assert refusal.code == Code.UNSUPPORTED_MECHANISM
        assert mechanisms_of(refusal) == [MECHANISM]


def test_password_guesses_are_limited(file: AccountsFile) -> None:
    """RW-SASL-9: as a client sees it. A login that succeeds does not count."""
    with serving(accounts=str(file.path), auth_rate=3, local_limits=True) as server:
        codes = []
        for password in (PASSWORDS["Ada"], "wrong", PASSWORDS["Ada"], "wrong", "wrong", PASSWORDS["Ada"]):
            with Login(server.port, "Ada", password) as login:
                codes.append(login.answer.code if isinstance(login.answer, Error) else 0)
        assert codes == [0, Code.AUTH_FAILED, 0, Code.AUTH_FAILED, Code.AUTH_FAILED, Code.RATE_LIMITED]
        limited = login.answer
        assert isinstance(limited, Error)
        assert 0 < limited.retry_ms <= 20_000
        with RawClient(server.port) as guest:
            assert guest.welcome.name == "~ada"


def _revoked(server: Server, *gone: RawClient) -> None:
    for raw in gone:
        goaway = raw.expect(Goaway)
        assert goaway.code == Code.ACCOUNT_REVOKED
        assert not goaway.flags & Flag.RETRY


def test_connections_end_with_their_account(file: AccountsFile) -> None:
    """RW-SASL-8: after a removal or another password. Other connections stay."""
    with (
        serving(accounts=str(file.path)) as server,
        RawClient(server.port) as guest,
        Login(server.port, "Ada", PASSWORDS["Ada"]) as ada,
        Login(server.port, "Zoë", PASSWORDS["Zoë"]) as zoe,
        Login(server.port, "ops", ADMINS["ops"]) as ops,
    ):
        file.remove("Ada")
        file.set_password("Zoë", "another one")
        file.add("eve", "long enough", created_ms=0)
        _revoked(server, ada, zoe)
        assert isinstance(ops.join("lobby").room, int)
        assert isinstance(guest.join("lobby").room, int)
        server.until(lambda: server.state.accounts is not None and server.state.accounts.find("eve") is not None)
        with Login(server.port, "eve", "long enough") as eve:
            assert isinstance(eve.answer, Welcome)


def vanish(path: Path) -> None:
    path.rename(path.with_name("moved"))


def become_empty(path: Path) -> None:
    os.truncate(path, 0)


def become_rubbish(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"rubbish" * 99)
    other.replace(path)  # at once: the server may look at any time


def become_a_directory(path: Path) -> None:
    other = path.with_name("other")
    other.symlink_to(path.parent, target_is_directory=True)
    other.replace(path)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (vanish, "expected the file of accounts that was there, found none"),
        (become_empty, "found an empty file"),
        (become_rubbish, "cannot be used: file is not a database"),
        (become_a_directory, "cannot be used: is a directory"),
    ],
)
def test_accounts_that_cannot_be_read_leave_the_old_ones_in_use(
    file: AccountsFile, spoil: Callable[[Path], None], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    content = file.path.read_bytes()
    with serving(accounts=str(file.path)) as server:
        spoil(file.path)
        server.until(lambda: not server.state.accounts_current)
        (shout,) = [record for record in caplog.records if record.levelname == "ERROR"]
        assert said in vars(shout)["error"]
        with Login(server.port, "Ada", PASSWORDS["Ada"]) as ada, RawClient(server.port, name="root") as guest:
            assert isinstance(ada.answer, Welcome)
            assert guest.welcome.name == "~root"
        file.path.unlink(missing_ok=True)
        file.path.write_bytes(content)
        file.remove("Ada")
        server.until(lambda: server.state.accounts is not None and server.state.accounts.find("ada") is None)
        assert server.state.accounts_current


def test_accounts_that_nobody_can_read_yet_leave_no_plain_names(tmp_path: Path) -> None:
    """Somebody has made accounts for a server that had none: guests may not have the names of theirs."""
    file = tmp_path / "accounts.sqlite3"
    with serving(data=str(tmp_path)) as server, RawClient(server.port, name="root") as before:
        assert before.welcome.name == "root"
        file.touch()
        server.until(lambda: not server.state.accounts_current)
        with RawClient(server.port, name="root") as guest, Login(server.port, "root", "long enough") as root:
            assert guest.welcome.name == "~root"
            assert isinstance(root.answer, Error)
            assert root.answer.code == Code.AUTH_FAILED
        file.unlink()
        make_accounts(file)
        server.until(lambda: server.state.accounts_current)
        with Login(server.port, "Ada", PASSWORDS["Ada"]) as ada:
            assert isinstance(ada.answer, Welcome)


def test_rooms_go_on_while_the_accounts_are_locked(file: AccountsFile, caplog: pytest.LogCaptureFixture) -> None:
    accounts, free = str(file.path), 10**6
    with (
        serving(accounts=accounts, publish_rate=free, publish_burst=free) as server,
        RawClient(server.port) as bob,
    ):
        ref = bob.join("lobby").room
        with contextlib.closing(sqlite3.connect(file.path, isolation_level=None)) as other:
            other.execute("PRAGMA locking_mode = EXCLUSIVE")  # from the next change on, until it is closed
            assert other.execute("DELETE FROM accounts WHERE name = 'Ada'").rowcount == 1
            deadline = time.monotonic() + 3 * PATIENCE
            while server.run(lambda: server.state.accounts_current):
                assert time.monotonic() < deadline
                bob.send(bob.publish(ref))  # each of these waited for 10 s
                bob.expect(Ack)
            (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
            assert vars(warning)["error"] == f"{file.path}: another program has locked it"
            ada = Login(server.port, "Ada", PASSWORDS["Ada"])
            assert isinstance(ada.answer, Welcome)
        with ada:
            _revoked(server, ada)


def test_trouble_with_accounts_is_logged_again(file: AccountsFile, caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        watch = AccountsWatch(file.path, server.hub, lambda callback: callback(), named=True)
        watch.first()
        file.path.unlink()
        for _ in range(2 * AGAIN + 1):
            server.run(watch.check)
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 3


def test_named_file_of_accounts_must_exist(tmp_path: Path) -> None:
    named = ("--memory", "--port", "0", "--accounts", str(tmp_path / "acounts"))
    said = refused(*named)
    assert f"{tmp_path}/acounts: expected the file of accounts, found none; make it with: " in said
    (tmp_path / "acounts").touch()
    assert "found an empty file" in refused(*named)
    (tmp_path / "accounts.sqlite3").touch()
    assert "found an empty file" in refused("--port", "0", "--data", str(tmp_path))


def test_first_account_while_the_server_runs(tmp_path: Path) -> None:
    with serving(data=str(tmp_path)) as server, RawClient(server.port) as before:
        assert before.welcome.name == "ada"
        make_accounts(tmp_path / "accounts.sqlite3")
        server.until(lambda: server.state.accounts is not None)
        with RawClient(server.port) as after:
            assert after.welcome.name == "~ada"
        assert before.join("lobby").name == "lobby"


def test_account_that_changes_during_the_exchange(file: AccountsFile) -> None:
    with serving(accounts=str(file.path)) as server:
        accounts = file.read()
        assert accounts is not None
        original = server.state.nonce

        def nonce() -> bytes:  # between the challenge and the answer
            server.loop.call_soon(server.hub.use_accounts, None)
            return original()

        server.run(lambda: setattr(server.state, "nonce", nonce))
        with Login(server.port, "Ada", PASSWORDS["Ada"]) as ada:
            assert isinstance(ada.answer, Error)
            assert ada.answer.code == Code.AUTH_FAILED


# --- STOP


def test_stop(file: AccountsFile) -> None:
    """RW-STOP-1, RW-STOP-2."""
    with (
        serving(accounts=str(file.path), drain_ms=200, linger_ms=200) as server,
        RawClient(server.port) as guest,
        Login(server.port, "Ada", PASSWORDS["Ada"]) as ada,
        Login(server.port, "ops", ADMINS["ops"]) as ops,
    ):
        ada.send(Stop(request=2))
        refusal = ada.expect(Error)
        assert (refusal.code, refusal.request) == (Code.FORBIDDEN, 2)
        assert not server.run(lambda: server.state.draining)
        ops.send(Stop(request=2), Stop(request=3))
        assert ops.frame() == Ok(request=2)
        assert [ops.expect(Ok).request, ops.goaway().code] == [3, Code.SHUTDOWN]
        for raw in (guest, ada):
            assert raw.goaway_code() == Code.DRAINING
    assert not server._thread.is_alive()


# --- the commands


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class Commands:
    """`roomwire-server user`, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.terminal = False
        for name in [name for name in os.environ if name.startswith("ROOMWIRE_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("XDG_DATA_HOME", os.devnull)

    def __call__(self, *arguments: str, said: str = "") -> tuple[int, str, str]:
        octets = io.BytesIO(said.encode("utf-8", "surrogateescape"))
        self._monkeypatch.setattr(sys, "stdin", Terminal(octets) if self.terminal else io.TextIOWrapper(octets))
        code = main(["user", *arguments])
        return code, *self._capsys.readouterr()


@pytest.fixture
def user(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(monkeypatch, capsys)


def test_user_commands(user: Commands, tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "rooms"))
    assert user("list", *data)[0::2] == (0, f"no accounts in {tmp_path}/rooms/accounts.sqlite3\n")
    code, out, _ = user("add", "Ada", *data, "--iterations", "4096", said="\ufeffcorrect horse\n")
    assert code == 0
    assert out.startswith("made the account Ada, in ")
    assert "get a ~" in out
    assert user("add", "ops", "--admin", *data, said="battery staple")[:2] == (
        0,
        f"made the account ops, which may stop the server, in {tmp_path}/rooms/accounts.sqlite3\n",
    )
    out = user("list", *data)[1]
    assert [line.split()[1:] for line in out.splitlines()] == [["-", "Ada"], ["admin", "ops"]]
    with running(*data) as child:
        with Login(child.port, "Ada", "correct horse") as ada:
            assert isinstance(ada.answer, Welcome)
            assert user("passwd", "ada", *data, said="another one\r\n")[0] == 0
            assert ada.goaway_code() == Code.ACCOUNT_REVOKED
        with Login(child.port, "Ada", "another one") as ada:
            assert isinstance(ada.answer, Welcome)
            assert user("remove", "ADA", *data)[:2] == (0, "removed the account Ada\n")
            assert ada.goaway_code() == Code.ACCOUNT_REVOKED
        child.process.terminate()
        _, _, log = child.ended()
    assert "another one" not in log
    assert "correct horse" not in log


@pytest.mark.parametrize(
    ("arguments", "said", "code", "error"),
    [
        (("add", "eve"), "", 1, "expected at least 8 characters, found none"),
        (("add", "eve"), "short\n", 1, "expected at least 8 characters, found 5"),
        (("add", "eve"), "\udcff long enough", 1, "expected UTF-8"),
        (("add", "ADA"), "long enough", 1, "there is an account ADA already, as Ada"),
        (("remove", "eve"), "", 1, "there is no account eve"),
        (("passwd", "eve"), "long enough", 1, "there is no account eve"),
        (("add", "~eve"), "long enough", 1, "for guests"),
    ],
)
def test_user_commands_that_fail_say_why(
    user: Commands, file: AccountsFile, arguments: tuple[str, ...], said: str, code: int, error: str
) -> None:
    found, out, errors = user(*arguments, "--accounts", str(file.path), said=said)
    assert (found, out) == (code, "")
    assert error in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("method", "arguments", "says"),
    [
        ("add", ("add", "eve"), "made the account eve"),
        ("set_password", ("passwd", "ada"), "Ada has another password"),
        ("remove", ("remove", "ada"), "removed the account Ada"),
    ],
)
def test_signal_before_a_change_undoes_it_and_after_it_is_ignored(
    user: Commands,
    file: AccountsFile,
    method: str,
    arguments: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command says what became of the change, and does not let a signal come between the two."""
    change, before = getattr(AccountsFile, method), file.version()
    where = (*arguments, "--accounts", str(file.path))

    def signalled(late: bool) -> Callable[..., Account]:
        def changed(self: AccountsFile, *values: Any, **options: Any) -> Account:
            if not late:
                os.kill(os.getpid(), signal.SIGTERM)
            account: Account = change(self, *values, **options)
            os.kill(os.getpid(), signal.SIGTERM)
            return account

        return changed

    monkeypatch.setattr(AccountsFile, method, signalled(late=False))
    ended = "roomwire-server: ended by SIGTERM: nothing was changed\n"
    assert user(*where, said="another one") == (128 + signal.SIGTERM, "", ended)
    assert file.version() == before
    monkeypatch.setattr(AccountsFile, method, signalled(late=True))
    status, out, errors = user(*where, said="another one")
    assert (status, errors) == (0, "")
    assert out.startswith(says)
    assert file.version() != before


def test_user_without_a_file_of_accounts(user: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOMWIRE_MEMORY", "1")
    code, _, errors = user("list")
    assert (code, "--accounts FILE" in errors) == (2, True)
    code, _, errors = user("list", "--config", str(tmp_path / "none.toml"))
    assert (code, errors.count("\n")) == (2, 1)


def test_server_does_not_start_with_a_wrong_accounts_file(tmp_path: Path) -> None:
    path = tmp_path / "accounts"
    path.write_bytes(b"rubbish" * 99)
    assert "accounts: cannot be used" in refused("--port", "0", "--memory", "--accounts", str(path))


def test_password_prompt_is_repeated_at_a_terminal(
    user: Commands, file: AccountsFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = ["another one", "another won", "another one", "another one"]
    user.terminal = True
    monkeypatch.setattr("getpass.getpass", lambda prompt: typed.pop(0))
    arguments = ("passwd", "Ada", "--accounts", str(file.path))
    assert user(*arguments) == (1, "", "roomwire-server: the two passwords differ; nothing was changed\n")
    assert user(*arguments)[0] == 0
    assert not typed
