"""Metrics and health over HTTP."""

import asyncio
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from protocol.frames import Ack, Error, Goaway, Message
from protocol.registry import Code
from reference_server.core.counters import Counters, Histogram
from reference_server.core.disk import DiskWatch
from reference_server.core.hub import Hub
from reference_server.metrics import families, http
from reference_server.store.memory import MemoryStore
from tests.server.test_process import Child, command, refused, running
from tests.support.raw_client import PATIENCE, RawClient

Samples = dict[tuple[str, str], float]


def get(address: str, path: str, method: str = "GET") -> tuple[int, str]:
    """Status and body."""
    request = urllib.request.Request(f"http://{address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(address: str) -> Samples:
    """All samples, as Prometheus' own parser reads them, by name and the values of their sorted labels."""
    status, text = get(address, "/metrics")
    assert status == 200
    return {
        (sample.name, ",".join(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@contextmanager
def watched(*arguments: str) -> Iterator[tuple[Child, str]]:
    """A server, and the address of its metrics."""
    with running("--metrics-port", "0", *arguments) as child:
        assert child.process.stdout is not None
        line = child.process.stdout.readline()
        yield child, line.strip().removeprefix("roomwire-server: metrics on http://").removesuffix("/metrics")


def test_metrics_after_some_traffic(tmp_path: Path) -> None:
    with watched("--data", str(tmp_path)) as (child, address), RawClient(child.port) as ada:
        hall = ada.join("hall").room
        with RawClient(child.port, name="bob") as bob:
            bob.join("hall")
            sent = ada.publish(hall)
            ada.send(sent, sent)
            for _ in range(2):
                ada.expect(Ack)
            bob.expect(Message)
            ada.send(ada.publish(hall + 9))
            assert ada.expect(Error).code == Code.NOT_JOINED
            now = samples(address)
            assert now["roomwire_connections", ""] == now["roomwire_members", ""] == 2
            bob.send(b"\xff\xff\xff\xff" + bytes(12))
            assert bob.goaway_code() == Code.FRAME_TOO_LARGE
        ada.join("other")
        ada.send(Goaway(Code.NONE))
        ada.rest()
        now = samples(address)
    expected = {
        "serving": 1, "connections": 0, "rooms": 0, "rooms_stored": 1, "members": 0, "members_behind": 0,
        "connections_accepted_total": 2, "joins_total": 3, "publishes_total": 1, "publishes_repeated_total": 1,
        "deliveries_total": 2, "evictions_total": 0, "commit_messages_sum": 1, "commit_seconds_count": 1,
    }  # fmt: skip
    assert {name: now[f"roomwire_{name}", ""] for name in expected} == expected
    assert now["roomwire_errors_total", "NOT_JOINED,PUBLISH"] == 1
    assert now["roomwire_goaways_total", "server,FRAME_TOO_LARGE"] == 1
    assert now["roomwire_goaways_total", "client,NONE"] == 1
    assert now["roomwire_store_bytes", "rooms.sqlite3-wal"] > 0
    assert now["roomwire_tick_seconds_count", ""] > 0
    assert now["process_open_fds", ""] > 0


def test_lag_of_a_member_that_does_not_read() -> None:
    with (
        watched("--memory") as (child, address),
        RawClient(child.port) as ada,
        RawClient(child.port, buffer=4096) as bob,
    ):
        hall = ada.join("hall").room
        bob.join("hall")
        for _ in range(100):  # the burst
            ada.send(ada.publish(hall, bytes(60_000)))
            ada.expect(Ack)
        now = samples(address)
    assert now["roomwire_members_behind", ""] == 1
    assert 0 < now["roomwire_lag_messages_max", ""] < 100
    assert now["roomwire_publishes_total", ""] == 100


def test_health_while_serving_and_draining() -> None:
    with watched("--memory") as (child, address), RawClient(child.port) as ada:
        assert get(address, "/healthz") == (200, "serving\n")
        child.signal(signal.SIGTERM)
        assert ada.goaway_code() == Code.DRAINING
        assert get(address, "/healthz") == (503, "draining\n")
        assert samples(address)["roomwire_serving", ""] == 0
        ada.send(Goaway(Code.NONE))
        assert child.ended()[0] == 0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop in this process may answer late, as on a busy machine."""
    monkeypatch.setattr(http, "PATIENCE_SECONDS", PATIENCE)


@contextmanager
def looped(hub: Hub) -> Iterator[str]:
    """The metrics of `hub`, whose loop runs on a thread of its own: their address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    watcher = http.MetricsServer(hub, loop, "127.0.0.1", 0)
    try:
        yield watcher.address
    finally:
        watcher.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def hub_like(health: str, rooms: object = MappingProxyType({})) -> Hub:
    state = SimpleNamespace(rooms=rooms, counters=Counters(), now=0.0)
    return SimpleNamespace(state=state, health=health, disk=DiskWatch(MemoryStore()))  # type: ignore[return-value]


def test_health_of_a_failed_or_stuck_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE_SECONDS", 0.05)
    loop = asyncio.new_event_loop()
    watcher = http.MetricsServer(hub_like("failed"), loop, "127.0.0.1", 0)
    try:
        assert get(watcher.address, "/healthz") == (503, "stuck\n")
        assert get(watcher.address, "/metrics") == (503, "stuck\n")
        monkeypatch.setattr(http, "PATIENCE_SECONDS", PATIENCE)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        try:
            assert get(watcher.address, "/healthz") == (503, "failed\n")
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
    finally:
        watcher.close()
        loop.close()


def test_other_paths_methods_and_rubbish() -> None:
    with watched("--memory") as (_, address):
        assert get(address, "/")[0] == 404
        assert get(address, "/metrics", "POST")[0] == 405
        assert get(address, "/healthz", "HEAD") == (200, "")
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as raw:
            raw.sendall(b"\x00\xff" * 50 + b"\r\n\r\n")
            assert raw.recv(100)  # an error page
        assert get(address, "/healthz") == (200, "serving\n")


def test_dripping_requests_keep_nobody_else_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """More connections than may be open send a part of a request: the oldest is ended, and a new one is answered."""
    with looped(hub_like("serving")) as address, ExitStack() as held:
        host, port = address.split(":")
        dripping = [
            held.enter_context(socket.create_connection((host, int(port)), PATIENCE)) for _ in range(3 * http.AT_ONCE)
        ]
        for each in dripping[-http.AT_ONCE :]:
            each.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert [each.recv(1) for each in dripping[: 2 * http.AT_ONCE]] == [b""] * 2 * http.AT_ONCE
        assert get(address, "/healthz") == (200, "serving\n")
        monkeypatch.setattr(http, "REQUEST_SECONDS", 0.05)
        with socket.create_connection((host, int(port)), PATIENCE) as slow:
            slow.sendall(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
            assert slow.recv(1) == b""


def test_health_without_threads_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with looped(hub_like("serving")) as address:
        monkeypatch.setattr(threading.Thread, "start", refuse)
        for _ in range(2 * http.AT_ONCE):
            assert get(address, "/healthz") == (200, "serving\n")
        monkeypatch.undo()


def test_metrics_port_in_use() -> None:
    with watched("--memory") as (_, address):
        said = refused("--memory", "--port", "0", "--metrics-port", address.split(":")[1])
        assert said == f"roomwire-server: cannot listen on {address}: the port is in use\n"


def test_metrics_port_is_closed_by_default() -> None:
    process = command("--port", "0", "--memory")
    try:
        Child(process)
        inodes = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"}
        links = [str(each.readlink()) for each in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert sum(link.startswith("socket:[") and link[8:-1] in inodes for link in links) == 1
    finally:
        process.kill()
        process.communicate()


def test_survey_of_many_members_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "AT_ONCE", 10)
    rooms = {
        str(n): SimpleNamespace(
            log=SimpleNamespace(head=5), delivered=1, members={m: SimpleNamespace(cursor=m) for m in range(4)}
        )
        for n in range(10)
    }

    async def run() -> tuple[families.Survey, int]:
        turns = 0
        task = asyncio.ensure_future(families.survey(hub_like("serving", rooms)))
        while not task.done():
            turns += 1
            await asyncio.sleep(0)
        return task.result(), turns

    found, turns = asyncio.run(run())
    assert (found.members, found.behind, found.farthest, found.deliveries) == (40, 40, 5, 10)
    assert turns >= 5


def test_histogram_bounds() -> None:
    histogram = Histogram((1, 2, 4))
    for value in (0.5, 1, 1.5, 4, 5, 100):
        histogram.observe(value)
    assert histogram.counts == [2, 1, 1, 2]
    assert histogram.total == 112


def test_unknown_numbers_of_peers_are_one_label() -> None:
    counters = Counters()
    for code in range(1000, 2000):
        counters.goaway("client", code)
        counters.error(code, Code.UNKNOWN_REQUEST)
    assert counters.goaways == {("client", "UNKNOWN"): 1000}
    assert counters.errors == {("UNKNOWN", "UNKNOWN_REQUEST"): 1000}
