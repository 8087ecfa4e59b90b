"""The fault matrix: a short run of every family on real processes, and broken invariants that must be noticed."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from benchmarks.faults import cli, soak
from benchmarks.faults.families import disk, lazyfs
from benchmarks.faults.stage import ledger
from benchmarks.faults.stage.ledger import Stored
from benchmarks.faults.stage.member import Acknowledged, Member, Segment, check
from benchmarks.faults.stage.results import INVARIANTS, Outcome
from benchmarks.faults.stage.scene import Missing
from tests.support.tools import needs

needs_compiler = needs("cc")
NEEDS_LIBRARY = {"power", "full", "clock", "years", "hung"}


def lacking() -> str:
    """Why this machine cannot use LazyFS, or "" if it can."""
    try:
        lazyfs.find()
    except Missing as error:
        return str(error)
    return ""


needs_lazyfs = pytest.mark.skipif(bool(lacking()), reason=lacking())


@pytest.mark.parametrize(
    "families",
    [
        ("kill", "damage"),
        ("rows", "locks", "taken"),
        ("accounts", "rights", "checks"),
        ("drain", "reset"),
        ("repeat", "slow"),
        ("floods", "storm"),
        ("unread", "cut", "drip"),
    ],
    ids=" ".join,
)
def test_short_runs_break_nothing(families: tuple[str, ...], tmp_path: Path) -> None:
    run(families, tmp_path)


@needs_compiler
def test_machine_faults_break_nothing(tmp_path: Path) -> None:
    run(("power", "full", "clock", "years", "hung"), tmp_path)


@needs_lazyfs
def test_forgetful_file_system_breaks_nothing(tmp_path: Path) -> None:
    run(("lazyfs",), tmp_path)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def run(families: tuple[str, ...], directory: Path) -> None:
    report = directory / "faults.json"
    arguments = ["--only", *families, "--seed", "5", "--json", str(report), "--directory", str(directory)]
    status = cli.main(arguments)
    results = json.loads(report.read_text())["families"]
    assert [each["name"] for each in results] == list(families)
    for each in results:
        assert not any(each["broken"].values()), each["words"]
        assert each["faults"] > 0
        assert each["acknowledged"] > 0
    assert status == 0


def test_every_family_is_tried() -> None:
    tried = {
        "kill",
        "damage",
        "rows",
        "locks",
        "taken",
        "accounts",
        "rights",
        "checks",
        "drain",
        "reset",
        "repeat",
        "slow",
        "floods",
        "storm",
        "unread",
        "cut",
        "drip",
        "lazyfs",
    }
    tried |= NEEDS_LIBRARY
    assert tried == set(cli.FAMILIES)
    assert {name for family in cli.FAMILIES.values() for name in family.checked} == set(INVARIANTS)


@needs_compiler
def test_disk_that_skips_syncs_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAULTS_LIE", "1")
    status = cli.main(["--only", "power", "--seed", "5", "--directory", str(tmp_path)])
    assert status == 1
    assert "power: lost: " in capsys.readouterr().out


CARELESS = """\
import sqlite3

class Careless(sqlite3.Connection):
    def execute(self, sql, *rest):
        return super().execute(sql.replace("synchronous = FULL", "synchronous = OFF"), *rest)

connect = sqlite3.connect
sqlite3.connect = lambda *names, **options: connect(*names, **options, factory=Careless)
"""


@needs_lazyfs
def test_server_that_does_not_sync_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(CARELESS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(lazyfs, "WAYS", ("killed",))
    status = cli.main(["--only", "lazyfs", "--seed", "5", "--directory", str(tmp_path)])
    assert status == 1
    assert "lazyfs: lost: " in capsys.readouterr().out


def test_missing_lazyfs_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAZYFS", "no-such-lazyfs")
    assert cli.main(["--only", "lazyfs", "--directory", str(tmp_path)]) == 0
    assert "lazyfs: not run: no program no-such-lazyfs" in capsys.readouterr().out


def test_lazyfs_commands() -> None:
    said = tomllib.loads(lazyfs.config(Path('/a "place"/commands'), Path("/done")))
    assert said["faults"] == {"fifo_path": '/a "place"/commands', "fifo_path_completed": "/done"}
    crashes = rb"lazyfs::crash::timing=(before|after)::op=(write|fsync)::from_rgx=rooms\.sqlite3(-wal|\$)\n"
    tears = rb"lazyfs::(torn-seq::op=write|torn-op)::file=/stable/rooms\.sqlite3-wal(::parts=[2-4])?::persist=[1-4,]+\n"
    for seed in range(60):
        assert re.fullmatch(crashes, lazyfs.crash(Random(seed)))
        assert re.fullmatch(tears, lazyfs.tear(Random(seed), "/stable"))
        commands = (lazyfs.CLEAR, lazyfs.crash(Random(seed)), lazyfs.tear(Random(seed), "/proc/self/fd/1000"))
        assert max(map(len, commands)) <= 100  # LazyFS reads no more of a command


def member() -> Member:
    """A member that published 7 and 8, and received 7, 8 and 9 at seq 1 to 3."""
    each = Member("ada", 0, "red", lambda: 0, 1, 0)
    each.acked = {7: Acknowledged(1, 1), 8: Acknowledged(1, 2)}
    segment = Segment(1)
    segment.numbers.extend((7, 8, 9))
    each.segments.append(segment)
    each.cursor = (1, 3)
    return each


def stored(numbers: list[int], seqs: list[int] | None = None, times: list[int] | None = None) -> Stored:
    count = len(numbers)
    ids = [number.to_bytes(16, "big", signed=True) for number in numbers]
    return Stored(count, 1, seqs or list(range(1, count + 1)), numbers, ids, times or [0] * count)


def audited(log: Stored, each: Member) -> set[str]:
    outcome = Outcome("test", tuple(INVARIANTS))
    ledger.audit(outcome, log, [each], ended=True)
    return set(outcome.broken)


def test_audit_of_sound_log() -> None:
    assert audited(stored([7, 8, 9]), member()) == set()


@pytest.mark.parametrize(
    ("log", "broken"),
    [
        (stored([7, 9, 8]), {"lost", "order"}),
        (stored([7]), {"lost", "order", "gap"}),
        (stored([7, 8, 9, 7]), {"doubled", "order", "gap"}),
        (stored([7, 8, 9], seqs=[1, 2, 4]), {"seq"}),
        (stored([7, 8, 9], times=[2, 1, 3]), {"order"}),
        (stored([7, 8, 9, 10]), {"gap"}),
        (stored([7, 8, -1]), {"order"}),
    ],
)
def test_audit_of_differing_log(log: Stored, broken: set[str]) -> None:
    assert audited(log, member()) - {"gap"} | (broken & {"gap"}) == broken


def fault_seen(each: Member) -> None:
    each.faults.append("order: seq 5 after 3")


def refused(each: Member) -> None:
    each.refused.append("ERROR(401)")


@pytest.mark.parametrize(("change", "broken"), [(fault_seen, "order"), (refused, "lost")])
def test_member_reports_are_counted(change: Callable[[Member], None], broken: str) -> None:
    each = member()
    change(each)
    assert audited(stored([7, 8, 9]), each) == {broken}


def journal(*records: tuple[int, str, int, bytes]) -> bytes:
    return b"".join(
        disk._RECORD.pack(operation, len(data), offset, name.encode()) + data
        for operation, name, offset, data in records
    )


def test_synced_writes_survive_power_loss(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(
        journal(
            (disk.CREATE, "a", 0, b""),
            (disk.WRITE, "a", 0, b"x" * 1024),
            (disk.SYNC, "a", 0, b""),
            (disk.WRITE, "a", 512, b"y" * 1024),
            (disk.CREATE, "b", 0, b""),
            (disk.WRITE, "b", 0, b"z"),
        )
    )
    seen = set()
    for seed in range(60):
        state = disk.Disk({})
        state.replay(tmp_path / "journal")
        state.cut(Random(seed), tmp_path / str(seed))
        left = (tmp_path / str(seed) / "a").read_bytes()
        assert left[:512] == b"x" * 512
        assert set(left[512:1024]) <= {ord("x"), ord("y")}
        seen.add((left, (tmp_path / str(seed) / "b").exists()))
    assert {left == b"x" * 1024 for left, _ in seen} == {True, False}
    assert {there for _, there in seen} == {True, False}
    assert any(left[512:] == b"x" * 512 + b"y" * 512 for left, _ in seen)  # torn


def test_payload_checks_are_distinct() -> None:
    assert len({check(number) for number in range(1_000)}) == 1_000


def test_plot_shows_every_sample() -> None:
    samples = [soak.Sample(second, 50.0 + second, 20, 100 * second) for second in range(10)]
    text = soak.plot(samples)
    assert text.count("<polyline") == 2
    assert "59.0" in text


def test_soak_is_checked_as_it_runs() -> None:
    outcome = Outcome("soak", tuple(INVARIANTS))
    seen, ada, bob = soak.Seen(), member(), member()
    seen.take([ada, bob], outcome)
    assert not outcome.broken
    assert (outcome.acknowledged, outcome.delivered) == (4, 6)
    ada.acked, ada.cursor = {10: Acknowledged(1, 4), 11: Acknowledged(1, 5), 12: Acknowledged(1, 9)}, (1, 5)
    ada.segments[0].numbers.extend((10, 9))
    seen.take([ada, bob], outcome)
    assert outcome.broken == {"lost": 1}  # 12 may still arrive
    bob.segments[0].numbers.extend((10, 11))
    seen.take([ada, bob], outcome)
    seen.compare(outcome, stored([7, 8, 9, 10, 12]))
    assert outcome.broken == {"lost": 1, "order": 2}
