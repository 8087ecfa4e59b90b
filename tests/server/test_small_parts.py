"""Small parts of the reference server: clock, limits, join point, messages, settings, logs, sweeps."""

import io
import json
import logging
import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.fuzz import strategies
from protocol.codec import decode, encode
from protocol.frames import Field, Publish
from protocol.framing import FrameReader
from protocol.registry import LIMITS, MAX_SAFE, Code
from reference_server import logs
from reference_server.config import Config, ConfigError, load
from reference_server.core.clock import ServerClock
from reference_server.core.counters import Counters
from reference_server.core.handlers.join import join_point
from reference_server.core.handlers.publish import Publication
from reference_server.core.hub import SWEPT_AT_ONCE
from reference_server.core.limits import AddressBook, Rates, Spent, TokenBucket, is_local
from reference_server.core.messages import content_digest, message_octets, pack_fields
from reference_server.store.base import MESSAGE, Record, Repeat
from reference_server.store.progress import Progress
from tests.support.hub_network import HubNetwork
from tests.support.places import ROOT

seqs = st.integers(0, 30)


@given(head=seqs, trimmed=seqs, epoch=st.integers(1, 3), client=st.integers(0, 3), since=st.integers(0, 40), cap=seqs)
def test_join_point_leaves_no_silent_gap(
    head: int, trimmed: int, epoch: int, client: int, since: int, cap: int
) -> None:
    oldest = min(trimmed, head) + 1
    start, gap = join_point(head, oldest, epoch, client, since, cap)
    assert oldest <= start <= head + 1
    assert head + 1 - start <= cap
    if client == epoch and not gap:
        assert start == since + 1  # exactly after the cursor: no message twice, none missed
    if client not in (0, epoch):
        assert gap
    if client == 0:
        assert not gap
        assert head + 1 - start <= since


def test_clock_does_not_step_back() -> None:
    """RW-ID-4: neither below the stored times, nor with the wall clock."""
    clock = ServerClock(wall_ms=1000, progress=Progress(5000), span_ms=1000, now=10.0)
    assert clock.ms(10.0) == 5000
    assert clock.ms(11.5) == 6500


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_bucket_gives_at_most_rate_and_burst(pauses: list[float], rate: int, burst: int) -> None:
    bucket = TokenBucket(burst, 0.0)
    now, taken = 0.0, 0
    for pause in pauses:
        now += pause
        wait_ms = bucket.take(rate, burst, now)
        taken += not wait_ms
        assert taken <= burst + rate * now + 1e-6
        if wait_ms:
            # RW-LIMIT-1: after this time there is a token.
            assert TokenBucket.take(copy_of(bucket), rate, burst, now + wait_ms / 1000 + 1e-6) == 0


def copy_of(bucket: TokenBucket) -> TokenBucket:
    other = TokenBucket(0, 0.0)
    other._tokens, other._time = bucket._tokens, bucket._time
    return other


RATES = Rates((20, 100), (2, 20), (10, 50))


def book(connections: int = 2, rooms_per_minute: int = 2, *, local: bool = False) -> AddressBook:
    return AddressBook(connections, rooms_per_minute, 2, RATES, local=local)


def used(count: int, now: float) -> Spent:
    """What a connection that joined `count` times has used."""
    bucket = TokenBucket(20, now)
    assert not any(bucket.take(2, 20, now) for _ in range(count))
    return Spent(join=bucket)


def test_addresses_are_counted_and_forgotten() -> None:
    addresses = book()
    assert [addresses.connect("192.0.2.1") for _ in range(3)] == [True, True, False]
    for _ in range(3):
        addresses.disconnect("192.0.2.1", Spent(), 0.0)
    assert addresses.connect("192.0.2.1")
    assert [bool(addresses.create_room("192.0.2.1", 0.0)) for _ in range(3)] == [False, False, True]
    addresses.sweep(120.0)
    assert not addresses._rooms


def test_new_connection_takes_over_what_the_last_used() -> None:
    """RW-LIMIT-3: once, for the same address, until the rates have recovered."""
    addresses = book(connections=10)
    for count in (5, 20):
        addresses.connect("192.0.2.1")
        addresses.disconnect("192.0.2.1", used(count, 0.0), 0.0)
    assert addresses.take_over("192.0.2.2") == Spent()
    taken = [addresses.take_over("192.0.2.1").join for _ in range(3)]
    assert [bucket and bucket.take(2, 20, 0.0) for bucket in taken] == [500, 0, None]
    addresses.connect("192.0.2.1")
    addresses.disconnect("192.0.2.1", used(20, 0.0), 0.0)
    addresses.sweep(9.9)
    assert addresses._spent
    addresses.sweep(10.1)
    assert not addresses._spent
    assert addresses.take_over("192.0.2.1") == Spent()


def test_memory_of_used_rates_is_bounded() -> None:
    addresses = book(connections=4)
    for _ in range(100):
        addresses.connect("192.0.2.1")
        left = addresses.take_over("192.0.2.1")
        addresses.disconnect("192.0.2.1", left if left.join else used(20, 0.0), 0.0)
    assert sum(map(len, addresses._spent.values())) == 1


def test_ipv6_addresses_of_one_network_are_one() -> None:
    addresses = book()
    assert [addresses.connect(f"2001:db8::{n}") for n in range(3)] == [True, True, False]
    assert addresses.connect("2001:db8:0:1::1")
    assert addresses.connect("192.0.2.1")
    assert [addresses.connect("::ffff:192.0.2.1") for _ in range(2)] == [True, False]
    for n in range(3):
        addresses.disconnect(f"2001:db8::{n + 7}", Spent(), 0.0)
    assert addresses.connect("2001:db8::9")


def test_failed_logins_are_limited_per_address() -> None:
    """RW-SASL-9: a minute's failures may come at once, and a login that succeeds does not count."""
    addresses = AddressBook(9, 9, 3, RATES)
    for _ in range(10):
        assert addresses.login("192.0.2.1", 0.0) == 0
        addresses.logged_in("192.0.2.1")
    assert [addresses.login("192.0.2.1", 0.0) for _ in range(4)] == [0, 0, 0, 20_000]
    assert addresses.login("192.0.2.2", 0.0) == 0
    assert addresses.login("192.0.2.1", 20.0) == 0
    addresses.logged_in("192.0.2.9")  # has not tried
    addresses.sweep(200.0)
    assert not addresses._logins


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("", True),
        ("192.0.2.1", False),
        ("fe80::1%eth0", False),
    ],
)
def test_local_addresses_are_limited_only_with_local_limits(address: str, local: bool) -> None:
    assert is_local(address) == local
    assert [book(connections=0).connect(address), book(connections=0, local=True).connect(address)] == [local, False]


fields = st.lists(st.builds(Field, st.integers(0x8021, 0xFFFF), strategies.short_octets), max_size=5).map(tuple)


@given(strategies.n64, st.booleans(), strategies.payloads, fields)
def test_message_of_a_record(seq: int, verified: bool, payload: bytes, given_fields: tuple[Field, ...]) -> None:
    packed = pack_fields(Publish(bytes(16), 0, b"", fields=given_fields))
    record = Record(seq, 5, MESSAGE, 7, bytes(16), 1, "ada", verified, payload, packed)
    reader = FrameReader(2**24)
    reader.feed(message_octets(record, 9))
    raw = reader.next_frame()
    assert raw is not None
    message = decode(raw, "S")
    assert (message.seq, message.payload, message.room) == (seq, payload, 9)  # type: ignore[union-attr]
    assert encode(message) == message_octets(record, 9)


contents = st.tuples(
    st.integers(0, 2), st.binary(max_size=3), st.binary(max_size=3), st.sampled_from(["", "ada", "bob"])
)


@given(contents, contents)
def test_content_digests_differ(one: tuple[int, bytes, bytes, str], other: tuple[int, bytes, bytes, str]) -> None:
    assert (content_digest(*one) == content_digest(*other)) == (one == other)


# --- settings


def test_stronger_source_of_a_setting_wins(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("port = 1\nwindow = 2\nmax_rooms = 3\n")
    environ = {"ROOMWIRE_WINDOW": "20", "ROOMWIRE_PORT": "10", "ROOMWIRE_MEMORY": "yes"}
    config = load({"port": 100, "host": None}, environ, file)
    assert (config.port, config.window, config.max_rooms, config.memory) == (100, 20, 3, True)


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("prot = 1", {}, "unknown setting 'prot'"),
        ("port = 'x'", {}, "port: expected int, found 'x'"),
        ("window = 0", {}, "window: expected 1 to 65535 requests, found 0"),
        ("port = ", {}, "not TOML"),
        ("", {"ROOMWIRE_PORT": "seven"}, "ROOMWIRE_PORT: expected a whole number, found 'seven'"),
        ("", {"ROOMWIRE_MEMORY": "maybe"}, "ROOMWIRE_MEMORY: expected true or false, found 'maybe'"),
        ("log_format = 'xml'", {}, "log_format: expected one of text, json, found 'xml'"),
    ],
)
def test_bad_setting_is_named(tmp_path: Path, text: str, environ: dict[str, str], said: str) -> None:
    file = tmp_path / "server.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said.replace("(", "\\(")):
        load({}, environ, file)


def test_ports_of_a_service_are_ignored() -> None:
    """Kubernetes sets them beside Services called roomwire and roomwire-metrics."""
    environ = {"ROOMWIRE_PORT": "tcp://10.96.12.7:7117", "ROOMWIRE_METRICS_PORT": "udp://[fd00::7]:9117"}
    assert load({}, environ | {"ROOMWIRE_PORT_7117_TCP": "tcp://10.96.12.7:7117"}, None) == Config()
    assert load({"port": 7200}, environ, None).port == 7200


def test_settings_of_the_container() -> None:
    found = re.findall(r"(ROOMWIRE_\w+)=(\S+)", (ROOT / "examples" / "Containerfile").read_text())
    assert load({}, dict(found), None) == Config(host="0.0.0.0", data="/rooms")


def test_settings_after_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("\ufeffwindow = 7\n", encoding="utf-8")
    assert load({}, {}, file).window == 7


def test_defaults_of_limits_are_those_of_the_registry() -> None:
    config = Config()
    for name, limit in LIMITS.items():
        if hasattr(config, name):
            assert getattr(config, name) == limit.default <= MAX_SAFE


# --- logs


@contextmanager
def logged(format: str) -> Iterator[io.StringIO]:
    """What is logged meanwhile. Restores what pytest has set up for logs and warnings."""
    stream = io.StringIO()
    lines = SimpleNamespace(put=lambda line: stream.write(line + "\n"))
    top, server = logging.getLogger(), logging.getLogger("roomwire")
    handlers, levels = top.handlers, (top.level, server.level)
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.configure(format, "info", lines)
        try:
            yield stream
        finally:
            logging.captureWarnings(False)
            top.handlers = handlers
            top.setLevel(levels[0])
            server.setLevel(levels[1])
            sys.excepthook, threading.excepthook, sys.unraisablehook = hooks


@pytest.mark.parametrize("format", ["text", "json"])
@given(text=st.text())
def test_log_event_is_one_line_with_any_text(format: str, text: str) -> None:
    with logged(format) as stream:
        logging.getLogger("roomwire.test").info("client connected", extra={"client": text})
    line = stream.getvalue()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    if format == "json":
        assert json.loads(line)["client"] == text


@pytest.mark.parametrize(
    ("client", "shown"),
    [
        ("ada", "ada"),
        ("\x1b[2Jada", '"\\x1b[2Jada"'),
        ('ada" peer=203.0.113.9', '"ada\\" peer=203.0.113.9"'),
        ("ada\\", '"ada\\\\"'),
        ("x=y", '"x=y"'),
        ("", '""'),
    ],
)
def test_log_value_cannot_imitate_another(client: str, shown: str) -> None:
    with logged("text") as stream:
        logging.getLogger("roomwire.test").info("client connected", extra={"client": client, "after": 1})
    assert stream.getvalue().endswith(f" client connected client={shown} after=1\n")


def test_uncaught_exception_is_one_log_event() -> None:
    """So are warnings of Python, logs of libraries and exceptions of threads."""

    def fail() -> None:
        raise ZeroDivisionError("by\nzero")

    with logged("json") as stream:
        warnings.warn("be\nwarned", stacklevel=1)
        logging.getLogger("asyncio").warning("slow\ncallback")
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert "be\nwarned" in events[0]["message"]
    assert events[1]["message"] == "slow\ncallback"
    assert "ZeroDivisionError: by\nzero" in events[2]["exception"]
    assert [event["level"] for event in events] == ["warning", "warning", "critical"]


def test_sweep_pauses_between_many_peers() -> None:
    """Other work need not wait until all peers were looked at. A peer that ends during a pause is skipped."""
    network = HubNetwork(preface_ms=1000)
    hub = network.hub
    assert hub is not None
    for _ in range(2 * SWEPT_AT_ONCE):
        network.connect()
    early = set(hub.peers)
    network.time += 2.0
    sweep = hub.sweep()
    next(sweep)
    network.tick()
    assert len(hub.peers) == SWEPT_AT_ONCE  # RW-PREFACE-6
    gone = next(iter(hub.peers))
    gone.lost(network.time)
    late = network.connect()
    assert list(sweep) == [None]
    network.tick()
    assert len(early & hub.peers) == 0
    assert not late.ended


def test_publish_that_is_walked_again_takes_one_token() -> None:
    """A store that shares its rooms asks again. The rate's answer stays, and a repeat costs no token (RW-LIMIT-1)."""
    config = Config(publish_rate=1, publish_burst=2)
    state: Any = SimpleNamespace(config=config, store=SimpleNamespace(busy=False), counters=Counters())
    peer: Any = SimpleNamespace(state=state, publish_bucket=None, publish_cost=0)
    member: Any = SimpleNamespace(refused=False)

    def made() -> Publication:
        frame: Any = SimpleNamespace(request=1, flags=0)
        entry: Any = None
        return Publication(peer, member, frame, entry, 10.0)

    first, second, third = made(), made(), made()
    assert [first.admit(0), first.admit(0), second.admit(0)] == [None, None, None]
    refused = third.admit(0)
    assert refused is not None
    assert refused.code == Code.RATE_LIMITED
    first.settle(Repeat(1, 1))
    assert third.admit(0) == refused
    assert made().admit(0) is None
    assert made().admit(0) is not None
