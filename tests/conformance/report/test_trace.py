"""Traces: each field of a frame, bounds, and any octets."""

import json

from hypothesis import given
from hypothesis import strategies as st

from conformance.report import results, trace
from conformance.spec.tables import load
from conformance.wire.log import TRACED, WireLog
from conformance.wire.octets import frame
from tests.support.reports import HOSTILE, SCHEMA, log, unsafe


def test_trace_of_a_case() -> None:
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


def test_trace_of_many_octets() -> None:
    full = log(1000)
    assert len(full.newest()) == TRACED
    assert full.newest()[-1].note.startswith("connection")
    codec = WireLog()
    for number in range(100):
        codec.said("codec", "C", json.dumps({"id": number, "op": "feed", "chunks": ["00" * 5000]}))
    items = trace.items(codec.newest(), "codec", load())
    assert len(items) < 50
    assert max(len(json.dumps(item)) for item in items) < 8000


def test_trace_of_a_line_that_nests_deeply() -> None:
    codec = WireLog()
    codec.said("codec", "S", "[" * 100_000)
    [item] = trace.items(codec.newest(), "codec", load())
    assert (item["kind"], item["name"][:3]) == ("line", "[[[")


@given(octets=st.binary(max_size=200), framed=st.booleans(), known=st.sampled_from(sorted(load().frames)))
def test_trace_of_any_octets(octets: bytes, framed: bool, known: str) -> None:
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
