"""The benchmarks run, and what they count adds up. How fast anything is, is not asked here."""

import json
from dataclasses import fields, replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import cli, codec, durable, figures, generator, peers, report, traffic
from benchmarks.figures import Figure, Results
from benchmarks.generator import Generator, LoadFailed
from benchmarks.settings import Settings
from benchmarks.targets import MEMORY, SQLITE, Target, serve
from protocol.frames import Ack, Message, Publish

needs_compiler = pytest.mark.skipif(generator.compiler() is None, reason="no C compiler for benchmarks/loadgen")

SHAPE = traffic.Shape("tiny", "2 rooms x 5", 2, 5, 2, 4, (MEMORY,))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Generator(tmp_path_factory.mktemp("loadgen"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(seconds=0.05, passes=1, connections=(100,), directory=tmp_path)


@needs_compiler
@pytest.mark.parametrize("target", [MEMORY, SQLITE], ids=lambda target: target.name)
def test_every_member_gets_every_message(program: Generator, settings: Settings, target: Target) -> None:
    load = traffic.measure(SHAPE, target, program, settings)
    assert load.all_publishes > 0
    assert load.all_deliveries == load.all_publishes * SHAPE.members
    assert load.publishes <= load.all_publishes
    assert load.deliveries <= load.all_deliveries
    assert set(traffic.quantities(load)) >= {figures.DELIVERIES, figures.CPU, figures.PER_CORE}


@needs_compiler
@pytest.mark.parametrize("peer", [*peers.BROKERS, peers.JETSTREAM], ids=lambda peer: peer.name)
def test_every_member_of_a_peer_gets_every_message(program: Generator, settings: Settings, peer: Target) -> None:
    if reason := peer.missing():
        pytest.skip(reason)
    load = traffic.measure(SHAPE, peer, program, settings)
    receivers = SHAPE.members - (peer is peers.NGIRCD)  # which does not echo
    assert load.all_publishes > 0
    assert load.all_deliveries == load.all_publishes * receivers


@needs_compiler
def test_latency_is_measured_at_a_fixed_rate(program: Generator, settings: Settings) -> None:
    with serve(MEMORY, settings) as server:
        load = program.load(server, SHAPE.options() | {"rate": 500, "warmup_ms": 10, "measure_ms": 100})
    assert load.all_publishes >= 50
    assert 0 < load.p50_us <= load.p99_us <= load.p999_us <= load.most_us


@needs_compiler
def test_a_member_that_never_reads_is_not_waited_for(program: Generator, settings: Settings) -> None:
    with serve(MEMORY, settings) as server:
        load = program.load(server, SHAPE.options() | {"deaf": 1, "warmup_ms": 10, "measure_ms": 50})
    assert load.all_publishes > 0


@needs_compiler
def test_connections_are_held(program: Generator, settings: Settings) -> None:
    with serve(MEMORY, settings) as server:
        before = server.resident_octets()
        with program.connections(server, {"rooms": 0, "members": 100}):
            assert server.resident_octets() >= before
        with (
            pytest.raises(LoadFailed, match="unknown option"),
            program.connections(server, {"nonsense": 1}),
        ):
            pass


@needs_compiler
def test_a_refusal_is_a_failure(program: Generator, settings: Settings) -> None:
    limited = replace(MEMORY, environment=MEMORY.environment | {"ROOMWIRE_PUBLISH_BURST": "1"})
    limited.environment["ROOMWIRE_PUBLISH_RATE"] = "1"
    with pytest.raises(LoadFailed, match="frame 0x0004 with code 401"):  # ERROR(RATE_LIMITED)
        traffic.measure(SHAPE, limited, program, settings)


@needs_compiler
def test_a_room_that_is_not_new_is_a_failure(program: Generator, settings: Settings) -> None:
    options = SHAPE.options() | {"warmup_ms": 0, "measure_ms": 1}
    with serve(MEMORY, settings) as server:
        program.load(server, options)
        with pytest.raises(LoadFailed, match="is not new"):
            program.load(server, options)


def test_without_a_compiler_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    monkeypatch.setattr(generator, "compiler", lambda: None)
    assert not list(cli.run(["burst", "idle"], settings, lambda _: None))
    assert capsys.readouterr().err == "skipped, no C compiler (cc, or $CC, on Linux): burst idle\n"


def test_sqlite_alone_is_measured(tmp_path: Path) -> None:
    rate, _ = durable.write_directly(tmp_path / "direct.db", 16, 0.01)
    assert rate > 0


def test_codec_by_hand_is_right() -> None:
    for case in codec.cases():  # encoders are compared when the cases are made
        made, by_hand = case.codec(), case.hand()
        if isinstance(made, Publish | Message | Ack):
            assert by_hand == tuple(getattr(made, field.name) for field in fields(made) if field.name != "fields")
        else:
            assert by_hand == made


def test_report_tells_medians_with_ranges(tmp_path: Path) -> None:
    results = Results()
    for value in (3.0, 1.0, 2.0):
        results.add(Figure("group", "workload", "server", figures.CPU, value))
    text = StringIO()
    report.show(results, Console(file=text))
    assert "workload  server  2.000 (1.000 - 3.000)" in text.getvalue()
    report.write(results, {"python": "3"}, tmp_path / "results.json")
    [series] = json.loads((tmp_path / "results.json").read_text())["series"]
    assert series["values"] == [3.0, 1.0, 2.0]
