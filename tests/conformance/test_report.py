"""The report of a run: its files fit their forms, show nothing as a peer sent it, and can be compared."""

import json
import re
import shlex
import sys
import unicodedata
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.cli import main
from conformance.files import DATA
from conformance.harness.exit_status import CONFORMS, FAILS, UNREACHABLE, USAGE
from conformance.harness.verdicts import Verdict
from conformance.report import html as page
from conformance.report import results, trace
from conformance.report.compare import compare
from conformance.report.junit import badge, junit
from conformance.spec.tables import load
from conformance.wire.log import TRACED, WireLog
from conformance.wire.octets import frame
from tests.support.reports import HOSTILE, SENT, document, log

EVERY = list(Verdict)
SCHEMA = json.loads((DATA / "results.schema.json").read_text(encoding="utf-8"))
CODEC = f"{shlex.quote(sys.executable)} -m conformance.codec.reference"
PING = "codec/7.6/decode/ping-client"


class Outline(HTMLParser):
    """The elements of a page with their attributes, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, str] = {}
        self._in: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._in = tag if tag in ("script", "style") else None
        self._id = dict(attributes).get("id") or tag

    def handle_data(self, data: str) -> None:
        if self._in:
            self.data[self._id] = self.data.get(self._id, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def unsafe(text: str) -> set[str]:
    """Characters that control something or are none, but for the end of a line."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp")} - {"\n"}


def test_run_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made" / "here"
    arguments = ["codec", "--exec", CODEC, "codec/7.6", "--report", str(folder), "--seed", "77"]
    assert main(arguments) == CONFORMS
    assert {path.name for path in folder.iterdir()} == {"index.html", "results.json", "junit.xml", "badge.json"}
    found = results.read(folder)
    assert found["run"]["command"] == ["roomwire-check", *arguments]
    assert found["run"]["seed"] == 77
    assert found["implementation"]["name"] == "roomwire reference"
    ping = next(result for result in found["results"] if result["id"] == PING)
    assert ping["verdict"] == "PASS"
    assert ping["sentence"] == load().requirements[ping["requirement"]].text
    assert [item["by"] for item in ping["trace"]] == ["suite", "peer"]
    assert [field[2] for field in ping["trace"][0]["fields"] if field[0] == 16] == ["opaque"]
    assert PING in (folder / "index.html").read_text(encoding="utf-8")
    assert capsys.readouterr().err == ""


def test_target_that_does_not_start(tmp_path: Path) -> None:
    command = f"{shlex.quote(sys.executable)} -c pass"
    assert main(["codec", "--exec", command, "--report", str(tmp_path)]) == UNREACHABLE
    found = results.read(tmp_path)
    assert found["error"]
    assert found["results"] == []
    assert "Not reachable" in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "badge.json").read_text(encoding="utf-8"))["message"] == "not tested"
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().get("errors") == "1"


def test_folder_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["codec", "--exec", CODEC, PING, "--report", str(tmp_path / "file")]) == USAGE
    assert "PASS" not in capsys.readouterr().out


def test_results_fit_the_schema(tmp_path: Path) -> None:
    found = document(EVERY)
    assert results.mismatches(found, SCHEMA) == []
    results.write(found, tmp_path / "results.json")
    assert results.read(tmp_path) == json.loads(json.dumps(found))
    assert (tmp_path / "results.json").read_bytes().isascii()
    assert {result["verdict"] for result in found["results"]} == set(Verdict)
    assert found["implementation"]["name"] == "tidy/1.0"
    assert all(name in found["requirements"] for result in found["results"] for name in result["requirements"])
    assert not any(item["untested"] for name, item in found["requirements"].items() if name == "RW-MODEL-1")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["results", 0, "verdict"], 3, "results.results[0].verdict: expected string"),
        (["results", 0, "trace", 0, "by"], "moon", "'moon' is not one of"),
        (["results", 0, "trace", 0, "at"], True, "expected number"),
        (["results"], {}, "results.results: expected array"),
        (["run", "seed"], "1", "expected integer or null"),
        (["run"], {}, "results.run: date is missing"),
        (["counts", "PASS"], None, "expected integer"),
        (["format"], 2, "format 2, this program reads 1"),
    ],
)
def test_other_documents_are_refused(tmp_path: Path, path: list[Any], value: Any, said: str) -> None:
    found = json.loads(json.dumps(document([Verdict.PASS])))
    inner = found
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    (tmp_path / "results.json").write_text(json.dumps(found), encoding="ascii")
    with pytest.raises(results.ResultsError, match=re.escape(said)):
        results.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "nothing", "[" * 100_000, '{"format": {}}', "\0"])
def test_files_that_are_no_results(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "file"
    path.write_text(text, encoding="utf-8")
    assert main(["compare", str(path), str(path)]) == USAGE
    assert main(["report", str(path), "--output", str(tmp_path / "out")]) == USAGE
    assert main(["report", str(tmp_path / "absent"), "--output", str(tmp_path / "out")]) == USAGE
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_traces_say_each_field() -> None:
    items = trace.items(log().newest(), "server", load())
    hello = next(item for item in items if item.get("name") == "HELLO")
    assert hello["by"] == "suite"
    assert bytes.fromhex(hello["hex"])[16] == len(HOSTILE[:20])
    assert [part[2] for part in hello["fields"]] == [
        *("length", "type", "flags", "request", "room"),
        *(part.name for part in load().bodies["HELLO"]),
    ]
    assert sum(part[1] for part in hello["fields"]) == hello["length"]
    assert {item["kind"] for item in items} == {"frame", "preface", "octets", "line", "event"}
    long = next(item for item in items if item.get("note") == "breaks RW-FRAME-7")
    assert (long["length"], len(long["hex"])) == (3016, 1024)
    assert [item["by"] for item in trace.items(log().newest(), "client", load())][:2] == ["peer", "suite"]


def test_traces_are_bounded() -> None:
    full = log(1000)
    assert len(full.newest()) == TRACED
    assert full.newest()[-1].note.startswith("connection")
    codec = WireLog()
    for number in range(100):
        codec.said("codec", "C", json.dumps({"id": number, "op": "feed", "chunks": ["00" * 5000]}))
    items = trace.items(codec.newest(), "codec", load())
    assert len(items) < 50
    assert max(len(json.dumps(item)) for item in items) < 8000


@given(octets=st.binary(max_size=200), framed=st.booleans(), known=st.sampled_from(sorted(load().frames)))
def test_traces_of_any_octets(octets: bytes, framed: bool, known: str) -> None:
    row = load().frames[known]
    wire = WireLog()
    wire.add("A", "S", octets, "note", framed=framed)
    wire.add("A", "C", frame(row.type, octets))
    wire.said("A", "S", octets.decode("latin-1"))
    wire.said("A", "S", json.dumps({"hex": octets.hex(), "op": "feed"}))
    items = trace.items(wire.newest(), "server", load())
    item_schema = SCHEMA["properties"]["results"]["items"]["properties"]["trace"]
    assert results.mismatches(items, item_schema) == []
    assert unsafe(json.dumps(items, ensure_ascii=False)) == set()


def test_junit(tmp_path: Path) -> None:
    found = document(EVERY)
    found["stale"] = ["server/1/gone"]
    root = ElementTree.fromstring(junit(found))
    suite = root[0]
    assert {name: int(root.get(name, "")) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": len(EVERY) + 1,
        "failures": 2,
        "errors": 5,
        "skipped": 2,
    }
    ends = {case.get("name"): [child.tag for child in case] for case in suite}
    verdicts = {result["id"]: result["verdict"] for result in found["results"]}
    assert {verdicts[name] for name, tags in ends.items() if tags == ["failure"]} == {"FAIL", "XPASS"}
    assert ends["run"] == ["error"]
    assert unsafe(junit(found)) == set()


def test_badge() -> None:
    assert badge(document([Verdict.PASS] * 3)) == {
        "schemaVersion": 1,
        "label": "Roomwire server",
        "message": "conforms, 3 of 3 passed",
        "color": "brightgreen",
        "isError": False,
    }
    failing = badge(document([Verdict.PASS, Verdict.FAIL, Verdict.WARN]))
    assert (failing["message"], failing["color"]) == ("1 of 3 failed", "red")


def test_page_shows_nothing_as_it_came() -> None:
    text = page.render([document(EVERY, name=HOSTILE), document(EVERY[:3], name=HOSTILE[::-1])])
    assert unsafe(text) == set()
    outline = Outline(text)
    assert "owned" in text
    assert outline.all("img") == []
    assert not [name for _, attributes in outline.elements for name in attributes if name.startswith("on")]
    scripts = outline.all("script")
    assert [script for script in scripts if script.get("type") != "application/json"] == [{}]
    for script in scripts[:-1]:
        shown = json.loads(outline.data[str(script["id"])])
        assert unsafe("".join(str(value) for item in shown for value in item)) == set()
    links = [
        attributes[name] or "" for _, attributes in outline.elements for name in ("href", "src") if name in attributes
    ]
    assert {link[:5] for link in links if not link.startswith("#")} == {"data:"}


def test_page_admits_its_own_script_only() -> None:
    outline = Outline(page.render([document(EVERY)]))
    (policy,) = (meta["content"] for meta in outline.all("meta") if meta.get("http-equiv"))
    assert policy
    assert policy.startswith("default-src 'none'")
    for tag in ("script", "style"):
        digest = b64encode(sha256(outline.data[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not [name for _, attributes in outline.elements for name in attributes if name == "style"]


def test_page_has_all_there_is() -> None:
    found = document(EVERY, seed=4711)
    found["results"][0]["kills"] = ["counts-from-zero"]
    text = page.render([found])
    outline = Outline(text)
    ids = {attributes.get("id") for _, attributes in outline.elements}
    assert {result["id"] for result in found["results"]} <= ids
    assert found["requirements"].keys() <= ids
    for expected in ("4711", "Does not conform", "counts-from-zero", "2026-01-02T03:04:05+00:00", "tidy/1.0"):
        assert expected in text
    with pytest.raises(ValueError, match="at least one"):
        page.render([])


def test_kills_by_case(tmp_path: Path) -> None:
    path = tmp_path / "kill_matrix.json"
    assert results.read_kills(path) == {}
    peers = {"server/is-deaf": {"breaks": [], "kills": ["a", "b"]}, "server/is-rude": {"breaks": [], "kills": ["b"]}}
    path.write_text(json.dumps({"version": 1, "peers": peers}), encoding="utf-8")
    assert results.read_kills(path) == {"a": ["is-deaf"], "b": ["is-deaf", "is-rude"]}
    assert all(isinstance(names, list) for names in results.read_kills().values())


def test_clean_keeps_lines() -> None:
    assert page.clean({"a\u202e": ["x\ny\x1b", 3, None, 0.5]}) == {"a\\u202e": ["x\ny\\x1b", 3, None, 0.5]}
    assert page.clean(page.clean(HOSTILE)) == page.clean(HOSTILE)


def test_compare() -> None:
    before = document([Verdict.PASS, Verdict.FAIL, Verdict.PASS, Verdict.XFAIL, Verdict.UNSUPPORTED, Verdict.PASS])
    after = document([Verdict.FAIL, Verdict.PASS, Verdict.PASS, Verdict.FAIL, Verdict.INFO])
    new = {**after["results"][0], "id": "server/3/new", "verdict": "UNHEARD_OF"}
    after["results"].append(new)
    ids = [result["id"] for result in before["results"]]
    assert [(item.case, item.change, item.before, item.after) for item in compare(before, after)] == [
        (ids[0], "worse", "PASS", "FAIL"),
        (ids[5], "gone", "PASS", ""),
        (ids[1], "better", "FAIL", "PASS"),
        (ids[3], "changed", "XFAIL", "FAIL"),
        (ids[4], "changed", "UNSUPPORTED", "INFO"),
        ("server/3/new", "new", "", "UNHEARD_OF"),
    ]
    assert compare(before, before) == []


def test_compare_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad, other = (tmp_path / name for name in ("good", "bad", "other"))
    for path, verdicts in ((good, [Verdict.PASS] * 2), (bad, [Verdict.PASS, Verdict.CRASH])):
        results.write(document(verdicts, name=HOSTILE), path)
    results.write({**document([Verdict.PASS]), "role": "codec"}, other)
    assert main(["compare", str(good), str(good)]) == CONFORMS
    assert main(["compare", str(bad), str(good)]) == CONFORMS
    capsys.readouterr()
    assert main(["compare", str(good), str(bad)]) == FAILS
    out = capsys.readouterr().out
    assert "PASS -> CRASH" in out
    assert unsafe(out) == set()
    assert main(["compare", str(good), str(bad), "--format", "json"]) == FAILS
    assert [item["change"] for item in json.loads(capsys.readouterr().out)] == ["worse"]
    assert main(["compare", str(good), str(other)]) == USAGE


def test_report_of_several(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, verdicts in (("one", [Verdict.PASS] * 3), ("two", [Verdict.FAIL] * 2)):
        (tmp_path / name).mkdir()
        results.write(document(verdicts, name=name), tmp_path / name / "results.json")
    output = tmp_path / "both"
    assert main(["report", str(tmp_path / "one"), str(tmp_path / "two" / "results.json"), "--output", str(output)]) == 0
    assert capsys.readouterr().out.strip() == str(output / "index.html")
    outline = Outline((output / "index.html").read_text(encoding="utf-8"))
    cases = [item for item in outline.all("details") if item.get("class") == "case"]
    assert len(cases) == 3
    assert all("data-differs" in case for case in cases)
    assert [case["data-verdicts"] for case in cases] == ["FAIL PASS", "FAIL PASS", "PASS"]


def test_octets_of_a_peer_are_hostile() -> None:
    """What the tests above rely on."""
    assert len(unsafe(SENT.decode())) > 5
    assert b"<script>" in SENT
