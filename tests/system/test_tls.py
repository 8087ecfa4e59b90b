"""TLS: the server's handshake and certificate, and when it is required; the checks of the client."""

import asyncio
import contextlib
import datetime
import os
import signal
import socket
import ssl
import stat
import struct
import subprocess
import threading
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any

import pytest
import trustme

from protocol.registry import PREFACE_SIZE, Code
from reference_client.client import Client
from reference_client.errors import Refused, Unreachable
from reference_client.tls import TlsError, client_context
from reference_server import cli
from reference_server.commands import cert
from reference_server.config import Config, ConfigError
from reference_server.net.tls import TlsError as ServerTlsError
from reference_server.net.tls import require_secrecy, server_context
from tests.server.test_process import refused, running
from tests.support.accounts import ADMINS, PASSWORDS, make_accounts
from tests.support.garbage import garbage
from tests.support.raw_client import PATIENCE, PREFACE, RawClient
from tests.support.server_in_process import Server, serving


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that `roomwire-server cert` makes."""
    directory = tmp_path_factory.mktemp("tls")
    assert cli.main(["cert", "--output", str(directory)]) == 0
    return directory


def settings(files: Path) -> dict[str, Any]:
    return {"tls_cert": str(files / "cert.pem"), "tls_key": str(files / "key.pem")}


def context(files: Path, *, alpn: str = "roomwire/1") -> ssl.SSLContext:
    made = ssl.create_default_context(cafile=str(files / "ca.pem"))
    if alpn:
        made.set_alpn_protocols([alpn])
    return made


def tls_socket(port: int, made: ssl.SSLContext) -> ssl.SSLSocket:
    return made.wrap_socket(socket.create_connection(("127.0.0.1", port), PATIENCE), server_hostname="localhost")


# --- the server


def test_handshake(files: Path) -> None:
    """RW-TLS-1: version and protocol. The preface may arrive in the same segment as the end of the handshake."""
    with serving(**settings(files)) as server:
        for _ in range(20):
            with tls_socket(server.port, context(files)) as raw:
                raw.sendall(PREFACE)
                assert raw.version() == "TLSv1.3"
                assert raw.selected_alpn_protocol() == "roomwire/1"
                assert len(raw.recv(PREFACE_SIZE)) == PREFACE_SIZE
        server.until(lambda: not server.hub.peers and not server.listener.open)
        assert not server.state.addresses._handshakes


def test_reset_leaves_nothing_behind(files: Path) -> None:
    """A transport of TLS that is lost does not know any more how much it holds."""
    with serving(**settings(files)) as server:
        for _ in range(5):
            with tls_socket(server.port, context(files)) as raw:
                raw.sendall(PREFACE)
                assert raw.recv(PREFACE_SIZE)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.until(lambda: not server.hub.peers and not server.listener.open)
        assert not server.listener.closing


@pytest.mark.parametrize("alpn", ["", "http/1.1"])
def test_handshake_without_agreed_protocol(files: Path, alpn: str) -> None:
    """RW-TLS-4."""
    with serving(**settings(files)) as server:
        with (
            tls_socket(server.port, context(files, alpn=alpn)) as raw,
            contextlib.suppress(ConnectionResetError, BrokenPipeError),
        ):
            raw.sendall(PREFACE)
            assert raw.recv(1) == b""
        server.until(lambda: not server.listener.open)


def test_older_tls_and_clear_text_are_refused(files: Path) -> None:
    """RW-TLS-1."""
    older = context(files)
    older.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(**settings(files)) as server:
        with pytest.raises(ssl.SSLError):
            tls_socket(server.port, older)
        with RawClient(server.port, hello=False) as raw:
            raw.send(PREFACE)
            assert PREFACE not in raw.octets(100)
        server.until(lambda: not server.listener.open)


def test_stalled_handshake_is_closed_and_others_are_served(files: Path) -> None:
    """RW-HELLO-4, RW-PREFACE-6: the time-outs of the connection cover its TLS handshake."""
    with (
        serving(**settings(files), preface_ms=300) as server,
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as silent,
        socket.create_connection(("127.0.0.1", server.port), PATIENCE) as half,
    ):
        half.sendall(bytes.fromhex("1603010200010001fc0303"))
        with tls_socket(server.port, context(files)) as raw:
            raw.sendall(PREFACE)
            assert raw.recv(1)
        assert silent.recv(1) == b""
        assert half.recv(100)[:1] in (b"", b"\x15")
        server.until(lambda: not server.listener.open)
        assert not server.state.addresses._handshakes


def test_handshakes_are_limited_per_address(files: Path) -> None:
    with serving(**settings(files), address_connections=3, local_limits=True) as server:
        held = [socket.create_connection(("127.0.0.1", server.port), PATIENCE) for _ in range(3)]
        try:
            server.until(lambda: sum(server.state.addresses._handshakes.values()) == 3)
            with (
                socket.create_connection(("127.0.0.1", server.port), PATIENCE) as fourth,
                contextlib.suppress(ConnectionResetError),
            ):
                assert fourth.recv(1) == b""
        finally:
            for one in held:
                one.close()
        server.until(lambda: not server.listener.open and not server.state.addresses._handshakes)


@pytest.mark.parametrize("sent", ["part of hello", "hello", "rubbish", "rubbish after the handshake"])
def test_cut_handshakes_leave_nothing(files: Path, sent: str) -> None:
    """Check 19: no object, also none for the garbage collector, which runs seldom in a server."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context(files).wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    hello = outgoing.read()

    def visit(port: int) -> None:
        if sent.endswith("handshake"):
            raw = socket.socket(fileno=tls_socket(port, context(files)).detach())
        else:
            raw = socket.create_connection(("127.0.0.1", port), PATIENCE)
        with raw:
            raw.sendall({"part of hello": hello[:51], "hello": hello}.get(sent, b"GET / HTTP/1.1\r\n" * 10))

    with serving(**settings(files)) as server:
        visit(server.port)
        server.until(lambda: not server.listener.open)
        with garbage() as found:
            for _ in range(10):
                visit(server.port)
            server.until(lambda: not server.listener.open and not server.state.addresses._handshakes)
            server.run(lambda: None)
            left = found()
    assert not {name for name in left if name in ("SSLProtocol", "MemoryBIO", "_SelectorSocketTransport")}, left


def _serial(server: Server, files: Path) -> int:
    """The serial number of the certificate that the server shows."""
    with tls_socket(server.port, context(files)) as raw:
        certificate = raw.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


def test_certificate_reload(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert cli.main(["cert", "--output", str(tmp_path)]) == 0
    with serving(**settings(tmp_path)) as server:
        first = _serial(server, tmp_path)
        assert cli.main(["cert", "--output", str(tmp_path), "--force"]) == 0
        with pytest.raises(ssl.SSLError):
            _serial(server, tmp_path)  # another authority
        server.run(server.listener.reload_certificate)
        second = _serial(server, tmp_path)
        assert second != first
        (tmp_path / "cert.pem").write_text("rubbish")
        server.run(server.listener.reload_certificate)
        assert "the old one stays" in caplog.text
        assert _serial(server, tmp_path) == second


def test_certificate_reload_by_signal(tmp_path: Path) -> None:
    """SIGHUP: the process keeps running, and logs the reload."""
    assert cli.main(["cert", "--output", str(tmp_path)]) == 0
    named = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with running("--memory", *named) as child:
        child.signal(signal.SIGHUP)
        assert child.process.stderr is not None
        assert "certificate reloaded" in child.process.stderr.readline()
        with tls_socket(child.port, context(tmp_path)) as raw:
            raw.sendall(PREFACE)
            assert raw.recv(1)


def test_reload_signal_without_certificate() -> None:
    """`systemctl reload` may send SIGHUP to a server without a certificate, which keeps running."""
    with running("--memory", stdin=subprocess.DEVNULL) as child:
        child.signal(signal.SIGHUP)
        assert child.process.stderr is not None
        assert "there is no certificate to reload" in child.process.stderr.readline()
        RawClient(child.port).socket.close()


def test_certificate_and_key_after_byte_order_marks(files: Path, tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_bytes(BOM_UTF8 + (files / name).read_bytes())
    with serving(tls_cert=str(tmp_path / "cert.pem"), tls_key=str(tmp_path / "key.pem")) as server:
        assert _serial(server, files)


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("none.pem", "key.pem", "none.pem: cannot be read: no such file"),
        ("ca.pem", "key.pem", "found the key of another certificate"),
        ("key.pem", "key.pem", "expected a certificate and its private key in PEM"),
        ("cert.pem", "", "expected a certificate and its private key in PEM"),
    ],
)
def test_invalid_certificates(files: Path, cert: str, key: str, said: str) -> None:
    names = {"tls_cert": str(files / cert), "tls_key": str(files / key) if key else ""}
    with pytest.raises(ServerTlsError, match=said) as error:
        server_context(Config(**names))  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_clear_text_is_limited_to_this_host(files: Path, host: str) -> None:
    """RW-TLS-2."""
    with pytest.raises(ConfigError, match=f"expected an address of this host alone, found {host}"):
        require_secrecy(Config(host=host))
    require_secrecy(Config(host=host, insecure=True))
    require_secrecy(Config(host=host, tls_cert=str(files / "cert.pem")))
    for local in ("127.0.0.1", "localhost", "::1"):
        require_secrecy(Config(host=local))
    with pytest.raises(ConfigError, match="expected tls_cert with it"):
        require_secrecy(Config(tls_key="key.pem"))


def test_clear_text_on_all_addresses_is_refused() -> None:
    """RW-TLS-2."""
    line = refused("--host", "0.0.0.0", "--port", "0", "--memory", status=2)
    assert "expected an address of this host alone, found 0.0.0.0" in line
    assert "--insecure" in line


def test_cert_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cert", "chat.example", "192.0.2.7", "--days", "3", "--output", str(tmp_path / "a b")]) == 0
    assert stat.S_IMODE((tmp_path / "a b" / "key.pem").stat().st_mode) == 0o600
    capsys.readouterr()
    for arguments, status in (
        (["--output", str(tmp_path / "a b")], 1),
        (["--days", "0", "--output", str(tmp_path / "c")], 2),
        (["no name", "--output", str(tmp_path / "c")], 2),
    ):
        assert cli.main(["cert", *arguments]) == status
        assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "c").exists()
    assert sorted(os.listdir(tmp_path / "a b")) == sorted(cert.FILES)


# --- the client


async def _connected(port: int, host: str = "localhost", **options: object) -> str:
    async with Client(host, port, **{"name": "ada", **options}) as client:  # type: ignore[arg-type]
        room = await client.join("lobby")
        await room.publish("hi")
        return client.name


def test_client_logs_in_over_tls(files: Path, tmp_path: Path) -> None:
    """RW-AUTH-1, RW-SCRAM-4, RW-WELCOME-3: with the right password, without one, and with a wrong one."""
    accounts = str(make_accounts(tmp_path / "accounts").path)
    with serving(**settings(files), accounts=accounts) as server:
        tls = client_context(files / "ca.pem")
        assert asyncio.run(_connected(server.port, tls=tls, password=PASSWORDS["Ada"])) == "Ada"
        (tmp_path / "marked.pem").write_bytes(b"\xef\xbb\xbf# \xc3\xa4\n" + (files / "ca.pem").read_bytes())
        marked = client_context(tmp_path / "marked.pem")  # a byte order mark, and a comment that is not ASCII
        assert asyncio.run(_connected(server.port, tls=marked)) == "~ada"
        with pytest.raises(Refused, match="the name or the password is wrong") as error:
            asyncio.run(_connected(server.port, tls=tls, password="wrong"))
        assert error.value.code == Code.AUTH_FAILED


def test_client_stops_the_server(files: Path, tmp_path: Path) -> None:
    """RW-STOP-2."""
    accounts = str(make_accounts(tmp_path / "accounts").path)

    async def stop(port: int) -> None:
        async with Client("localhost", port, name="ops", password=ADMINS["ops"]) as client:
            await client.stop()

    with serving(accounts=accounts, drain_ms=100, linger_ms=100) as server:
        asyncio.run(stop(server.port))
        server._thread.join(PATIENCE)
        assert not server._thread.is_alive()


def _served_by(directory: Path, authority: trustme.CA, leaf: trustme.LeafCert) -> dict[str, Any]:
    authority.cert_pem.write_to_path(directory / "ca.pem")
    leaf.private_key_and_cert_chain_pem.write_to_path(directory / "all.pem")
    return {"tls_cert": str(directory / "all.pem")}


def test_client_refuses_other_certificates(files: Path, tmp_path: Path) -> None:
    """RW-TLS-5: of another authority or host, or expired. The client sends nothing."""
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    authority = trustme.CA()
    for leaf, said in (
        (authority.issue_cert("elsewhere.example"), "Hostname mismatch"),
        (authority.issue_cert("localhost", not_before=past - datetime.timedelta(days=1), not_after=past), "expired"),
    ):
        with serving(**_served_by(tmp_path, authority, leaf)) as server:
            with pytest.raises(Unreachable, match=said):
                asyncio.run(_connected(server.port, tls=client_context(tmp_path / "ca.pem")))
            assert not server.run(lambda: server.state.counters.accepted)
    with serving(**settings(files)) as server, pytest.raises(Unreachable, match="is not trusted"):
        asyncio.run(_connected(server.port, tls=client_context(tmp_path / "ca.pem")))


def test_client_closes_without_agreed_protocol(files: Path) -> None:
    """RW-TLS-4."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(files / "cert.pem", files / "key.pem")
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            try:
                with made.wrap_socket(connection, server_side=True) as tls:
                    received.append(tls.recv(100))
            except OSError:
                received.append(b"")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unreachable, match="did not agree on roomwire/1"):
            asyncio.run(_connected(listening.getsockname()[1], tls=client_context(files / "ca.pem")))
        thread.join(PATIENCE)
    assert received == [b""]


def test_invalid_authorities(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match="no such file"):
        client_context(tmp_path / "none.pem")
    (tmp_path / "empty.pem").write_text("rubbish")
    with pytest.raises(TlsError, match="no certificates in PEM"):
        client_context(tmp_path / "empty.pem")
