"""The benchmarks run, and their counts add up. Speed is not tested here."""

import json
import re
from collections.abc import Iterator
from dataclasses import fields, replace
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from benchmarks import cli, figures, profiling, runs
from benchmarks.figures import Figure, Results
from benchmarks.loadgen.generator import Generator, Load, LoadFailed
from benchmarks.report import bars, compare, page, plots, tables
from benchmarks.servers import peers
from benchmarks.servers.targets import MEMORY, SQLITE, Target, serve
from benchmarks.settings import Settings
from benchmarks.workloads import codec, durable, growth, latency, stalled, traffic
from protocol.frames import Ack, Message, Publish
from tests.support.places import ROOT
from tests.support.tools import needs

needs_compiler = needs("cc")

SVG = "{http://www.w3.org/2000/svg}"
SHAPE = traffic.Shape("tiny", "2 rooms x 5", 2, 5, 2, 4, (MEMORY,))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Generator:
    return Generator(tmp_path_factory.mktemp("loadgen"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(seconds=0.05, passes=1, connections=100, directory=tmp_path)


@needs_compiler
@pytest.mark.parametrize("target", [MEMORY, SQLITE], ids=lambda target: target.name)
def test_every_member_gets_every_message(program: Generator, settings: Settings, target: Target) -> None:
    load = traffic.measure(SHAPE, target, program, settings)
    assert load.all_publishes > 0
    assert load.all_deliveries == load.all_publishes * SHAPE.members
    assert load.publishes <= load.all_publishes
    assert load.deliveries <= load.all_deliveries
    assert set(traffic.quantities(load)) >= {figures.DELIVERIES, figures.CPU, figures.PER_CORE}


def test_server_that_got_no_time_delivers_nothing() -> None:
    """On a busy machine the measured part of a short run may find the server waiting."""
    idle = Load(**dict.fromkeys((field.name for field in fields(Load)), 0) | {"seconds": 0.05})  # type: ignore[arg-type]
    assert set(traffic.quantities(idle).values()) == {0.0}


@needs_compiler
@pytest.mark.parametrize("peer", [*peers.BROKERS, peers.JETSTREAM], ids=lambda peer: peer.name)
def test_every_member_of_a_peer_gets_every_message(program: Generator, settings: Settings, peer: Target) -> None:
    if reason := peer.missing():
        pytest.skip(reason)
    load = traffic.measure(SHAPE, peer, program, settings)
    receivers = SHAPE.members - (peer is peers.NGIRCD)  # ngIRCd does not echo
    assert load.all_publishes > 0
    assert load.all_deliveries == load.all_publishes * receivers


@needs_compiler
def test_latency_is_measured_at_a_fixed_rate(program: Generator, settings: Settings) -> None:
    for measure_ms in (100, 1_000, 10_000):  # a busy machine needs longer
        with serve(MEMORY, settings) as server:  # the rooms of a load are new
            load = program.load(server, SHAPE.options() | {"rate": 500, "warmup_ms": 10, "measure_ms": measure_ms})
        if load.all_publishes >= 50:
            break
    assert load.all_publishes >= 50
    assert 0 < load.p50_us <= load.p99_us <= load.p999_us <= load.most_us


@needs_compiler
def test_load_with_stalled_member(program: Generator, settings: Settings) -> None:
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
def test_refused_publish_fails_the_load(program: Generator, settings: Settings) -> None:
    limited = replace(MEMORY, environment=MEMORY.environment | {"ROOMWIRE_PUBLISH_BURST": "1"})
    limited.environment["ROOMWIRE_PUBLISH_RATE"] = "1"
    with pytest.raises(LoadFailed, match="frame 0x0004 with code 401"):  # ERROR(RATE_LIMITED)
        traffic.measure(SHAPE, limited, program, settings)


@needs_compiler
def test_used_room_fails_the_load(program: Generator, settings: Settings) -> None:
    options = SHAPE.options() | {"warmup_ms": 0, "measure_ms": 1}
    with serve(MEMORY, settings) as server:
        program.load(server, options)
        with pytest.raises(LoadFailed, match="is not new"):
            program.load(server, options)


def test_missing_compiler_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings
) -> None:
    monkeypatch.setattr(runs, "compiler", lambda: None)
    assert not list(runs.run(["burst", "idle"], settings, lambda _: None))
    assert capsys.readouterr().err == "skipped, no C compiler (cc, or $CC, on Linux): burst idle\n"


def test_sqlite_alone_is_measured(tmp_path: Path) -> None:
    rate, _ = durable.write_directly(tmp_path / "direct.db", 16, 0.01)
    assert rate > 0


def test_hand_written_codec_agrees() -> None:
    for case in codec.cases():  # making the cases compares the encoders
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
    tables.show(results, Console(file=text))
    assert "workload  server  2.000 (1.000 - 3.000)" in text.getvalue()
    tables.write(results, {"python": "3"}, tmp_path / "results.json")
    [series] = json.loads((tmp_path / "results.json").read_text())["series"]
    assert series["values"] == [3.0, 1.0, 2.0]


# --- reports of figures


def results_of(*figures_of: tuple[str, str, str, figures.Quantity, float]) -> Results:
    results = Results()
    for parts in figures_of:
        results.add(Figure(*parts))
    return results


def against(peer: str, *ratios: float) -> Iterator[tuple[str, str, str, figures.Quantity, float]]:
    shape = traffic.ROOMS.text
    yield traffic.GROUP, shape, MEMORY.name, figures.PER_CORE, 3e6
    yield traffic.GROUP, shape, peer, figures.PER_CORE, 2e6
    for ratio in ratios:
        yield traffic.GROUP, shape, peer, figures.ROOMWIRE_TO_THIS, ratio


def outcome(results: Results, text: str) -> bars.Outcome:
    [found] = [found for found in bars.judge(results) if found.bar.text.endswith(text)]
    return found


@pytest.mark.parametrize(("ratios", "verdict"), [((1.5, 1.4, 1.6), "met"), ((1.6, 1.4, 1.4), "missed")])
def test_bar_is_judged_by_median(ratios: tuple[float, ...], verdict: str) -> None:
    found = outcome(results_of(*against(peers.NATS.name, *ratios)), f"{traffic.ROOMS.text}: against NATS")
    assert found.verdict == verdict
    assert found.beside == "deliveries/CPU s: Roomwire, memory 3,000,000, NATS 2,000,000"


def test_bar_without_measurements() -> None:
    assert {found.verdict for found in bars.judge(Results())} == {"not measured"}


def test_curve_bar_is_judged_at_worst_point() -> None:
    text = growth.SILENT.text
    points = {"10": 9.0, "100": 1.1, "1,000": 1.4, "10,000": 1.2}  # the point at 10 is the base
    results = results_of(*((growth.GROUP, text, at, figures.TO_TEN, value) for at, value in points.items()))
    found = outcome(results, text)
    assert (found.verdict, found.found) == ("missed", "1.40 at 1,000")


def test_results_round_trip(tmp_path: Path) -> None:
    results = results_of(*against("NATS", 1.0, 3.0, 2.0))
    tables.write(results, {"python": "3"}, tmp_path / "results.json")
    again = Results()
    assert tables.read(tmp_path / "results.json", again) == {"python": "3"}
    assert again.groups == results.groups


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 7}', '{"format": 1, "series": [{}]}'])
def test_unreadable_results_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "old.json"
    file.write_text(text)
    with pytest.raises(SystemExit) as ended:
        cli.main(["--compare", str(file), "--only", "codec"])
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("quantity", "old", "new", "verdict"),
    [
        (figures.PER_CORE, (1.0, 1.1), (2.0, 2.1), "better"),
        (figures.CPU, (1.0, 1.1), (2.0, 2.1), "worse"),
        (figures.CPU, (1.0, 2.05), (2.0, 2.1), ""),  # the ranges overlap
        (figures.CPU, (1.0,), (1.04,), ""),  # too small a change
        (figures.BUSY, (1.0,), (2.0,), ""),  # neither is better
        (figures.GROWN_MORE, (0.0,), (0.0,), ""),
    ],
)
def test_comparison_of_two_runs(
    quantity: figures.Quantity, old: tuple[float, ...], new: tuple[float, ...], verdict: str
) -> None:
    before = results_of(*(("g", "w", "s", quantity, value) for value in old))
    after = results_of(*(("g", "w", "s", quantity, value) for value in new), ("g", "w", "other", quantity, 1.0))
    [change] = compare.changes(before, after)
    assert change.verdict == verdict


def test_page_of_earlier_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names come from files, so hostile ones must be escaped."""
    hostile = ("<b>group", "<i>workload", "<u>subject", figures.MEMORY, 1.0)
    sizes = ((growth.GROUP, growth.SIZES.text, at, figures.CPU, 2.0) for at in ("16", "65,536"))
    results = results_of(*against("NATS", 1.0), *sizes, hostile)
    tables.write(results, {"python": "3"}, tmp_path / "a.json")
    options = [
        "--report",
        str(tmp_path / "a.html"),
        "--plot",
        str(tmp_path / "a.svg"),
        "--compare",
        str(tmp_path / "a.json"),
    ]
    assert cli.main(["--from", str(tmp_path / "a.json"), *options]) == 0
    assert "0 of 6 series differ" in capsys.readouterr().out
    text = (tmp_path / "a.html").read_text()
    assert "&lt;b&gt;group" in text
    assert not any(tag in text for tag in ("<b>", "<i>", "<u>", "<script", "src=", "href="))
    assert text.count("<svg") == 2
    assert (tmp_path / "a.svg").read_text().startswith("<svg")


def test_plots_show_every_point_at_its_place() -> None:
    row = {"one": figures.Series([1.0]), "ten": figures.Series([10.0]), "hundred": figures.Series([100.0])}
    root = ElementTree.fromstring(plots.dots(plots.Dots("title", "axis", {"row": row}, 10.0)))
    places = [float(dot.attrib["cx"]) for dot in root.iter(f"{SVG}circle") if dot.find(f"{SVG}title") is not None]
    assert len(places) == 3
    assert places[0] < places[1] < places[2]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.2)
    curve = {10: figures.Series([4.0]), 1000: figures.Series([2.0, 1.0, 3.0])}
    root = ElementTree.fromstring(plots.curves(plots.Curves("title", "cost", "members", {"curve": curve})))
    assert len([dot for dot in root.iter(f"{SVG}circle") if dot.find(f"{SVG}title") is not None]) == 2


def test_page_without_measurements() -> None:
    assert page.ratios(Results()) == ""
    assert "<svg" not in page.html(Results(), {}, None)


def test_sample_belongs_to_innermost_stage() -> None:
    stack = [
        "MainThread;main (reference_server/cli.py:1);_run_once (asyncio/base_events.py:1922)",
        "flush (reference_server/core/hub.py:110);Hub._write_out (reference_server/core/hub.py:141)",
        "write (reference_server/net/transport.py:99);_SelectorSocketTransport.write (asyncio/selector_events.py:1071)",
    ]
    idle = "store-reader;run (threading.py:982);SqliteStore._read (reference_server/store/sqlite.py:409) 99"
    samples = profiling.parse([f"{';'.join(stack)} 30", f"{';'.join(stack[:2])} 9", "no_idea (x.py:1) 1", idle, ""])
    assert samples.stages == {
        profiling.WAITING: 99,
        "write sockets": 30,
        "gather and write each client's octets": 9,
        profiling.OTHER: 1,
    }
    assert samples.lines["_SelectorSocketTransport.write (asyncio/selector_events.py:1071)"] == 30
    assert samples.total == 40


@pytest.mark.parametrize("stage", profiling.STAGES, ids=lambda stage: stage.name)
def test_stages_name_functions_and_files_that_exist(stage: profiling.Stage) -> None:
    assert [file for file in stage.files if not (ROOT / file).is_file()] == []
    modules = [path for package in ("protocol", "reference_server") for path in (ROOT / package).rglob("*.py")]
    defined = {name for path in modules for name in re.findall(r"\bdef (\w+)", path.read_text(encoding="utf-8"))}
    assert {name.rpartition(".")[2] for name in stage.functions} - defined == set()


@needs_compiler
def test_latency_growth_and_stalled_are_measured(
    program: Generator, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "PACES", (latency.Pace("tiny", 1, 5, 2, 200, (MEMORY,)),))
    monkeypatch.setattr(stalled, "OPTIONS", stalled.OPTIONS | {"warmup_ms": 50, "payload": 64})
    small = replace(growth.TALKING, points=(1, 10))
    monkeypatch.setattr(growth, "CURVES", (small,))
    results = Results()
    for run in (latency.run, stalled.run, growth.run):
        for figure in run(program, settings):
            results.add(figure)
    assert results.rows(latency.GROUP, "tiny")[MEMORY.name][figures.P99].median > 0
    assert figures.P99_RATIO in results.rows(stalled.GROUP, stalled.WORKLOAD)[stalled.WITH]
    assert list(growth.costs(results, small)) == [1, 10]
    assert results.rows(growth.GROUP, small.text)["10"][figures.TO_TEN].median == 1


def test_failed_pass_is_reported_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: Settings, tmp_path: Path
) -> None:
    figure = Figure("group", "workload", "server", figures.MEMORY, 1.0)
    monkeypatch.setattr(runs, "run", lambda *_: iter((figure, "burst, pass 1: client 3: an ACK too many", figure)))
    assert cli.main(["--json", str(tmp_path / "new.json")]) == 1
    assert "client 3: an ACK too many" in capsys.readouterr().err
    [series] = json.loads((tmp_path / "new.json").read_text())["series"]
    assert series["values"] == [1.0, 1.0]


def test_interrupted_run_keeps_its_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object) -> Iterator[Figure]:
        yield Figure("group", "workload", "server", figures.MEMORY, 1.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "run", interrupted)
    assert cli.main(["--json", str(tmp_path / "new.json")]) == 130
    assert json.loads((tmp_path / "new.json").read_text())["series"]
