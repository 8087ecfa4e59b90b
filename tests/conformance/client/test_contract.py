"""The contract of clients: CONTRACT.md, its schema, the suite and the adapter agree."""

import json
import re
from functools import cache
from typing import Any

import pytest

from conformance.client.target import EVENTS, FEATURES
from protocol.registry import Code
from reference_client import adapter
from tests.support.places import ROOT

_CONFORMANCE = ROOT / "conformance"
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}


@cache
def _schema() -> dict[str, Any]:
    text = (_CONFORMANCE / "data" / "contract.schema.json").read_text(encoding="utf-8")
    return json.loads(text)["$defs"]  # type: ignore[no-any-return]


def _section() -> str:
    return (_CONFORMANCE / "CONTRACT.md").read_text(encoding="utf-8").split("\n## Client\n")[1]


def _cells(heading: str) -> list[str]:
    """The first cells of the table under a heading of CONTRACT.md."""
    section = _section().split(f"### {heading}\n")[1].split("\n### ")[0]
    return [line.split("|")[1].strip().strip("`") for line in section.splitlines() if line.startswith("| `")]


def _lines() -> list[dict[str, Any]]:
    """All lines of JSON in the section about clients."""
    return [json.loads(line) for line in re.findall(r"^(?:in|out) +(\{.*)$", _section(), re.MULTILINE)]


def _fits(shape: dict[str, Any], value: Any) -> bool:
    """Whether a value keeps the part of JSON Schema that contract.schema.json uses, and has no member of no name."""
    if "$ref" in shape:
        return _fits(_schema()[shape["$ref"].removeprefix("#/$defs/")], value)
    if "oneOf" in shape:
        return sum(_fits(one, value) for one in shape["oneOf"]) == 1
    kinds = shape.get("type", list(_TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if type(value) not in [_TYPES[kind] for kind in kinds]:
        return False
    if value != shape.get("const", value) or value not in shape.get("enum", [value]):
        return False
    if isinstance(value, str):
        return re.search(shape.get("pattern", ""), value) is not None
    if isinstance(value, int):
        return bool(shape.get("minimum", value) <= value <= shape.get("maximum", value))
    if isinstance(value, list):
        return all(_fits(shape["items"], item) for item in value)
    if isinstance(value, dict):
        known = shape["properties"]
        named = set(shape.get("required", ())) <= value.keys() <= known.keys()
        return named and all(_fits(known[key], item) for key, item in value.items())
    return True


def test_names_agree() -> None:
    """The page, the schema, the suite and the adapter have the same names."""
    events = [report["properties"]["event"]["const"] for report in _schema()["report"]["oneOf"]]
    ops = [command["properties"]["op"]["const"] for command in _schema()["command"]["oneOf"]]
    assert set(_cells("Reports")) == set(events) == EVENTS
    assert _cells("Commands") == ops
    assert set(_cells("Features")) == set(_schema()["greeting"]["properties"]["features"]["examples"][0]) == FEATURES
    assert set(adapter.FEATURES) == FEATURES


def test_lines_fit_the_schema() -> None:
    kinds = {"op": "command", "event": "report", "ready": "greeting"}
    for line in _lines():
        kind = next(name for key, name in kinds.items() if key in line)
        assert _fits(_schema()[kind], line), line


def test_page_shows_each_member_of_each_line() -> None:
    """There is an example of each command and report with all its members."""
    shown: dict[str, set[str]] = {}
    for line in _lines():
        shown.setdefault(line.get("op") or line.get("event", ""), set()).update(line)
    for kind, key in ("command", "op"), ("report", "event"):
        for shape in _schema()[kind]["oneOf"]:
            name, members = shape["properties"][key]["const"], set(shape["properties"])
            missing = members - shown[name]
            assert missing <= {"id"}, f"{name}: {missing}"


def test_codes_of_examples_are_those_of_the_document() -> None:
    """Each example names a code that its frame may carry, and the RETRY of that code."""
    carriers = {"disconnected": "EG", "closed": "EG", "evicted": "V", "error": "E"}
    coded = [line for line in _lines() if "code" in line]
    assert {line["event"] for line in coded} == set(carriers)
    for line in coded:
        code = Code(line["code"])
        assert set(code.carriers) & set(carriers[line["event"]])
        if "again" in line:
            assert line["again"] == code.retry


@pytest.mark.parametrize(
    "line",
    [
        {"event": "closed", "code": "201"},
        {"event": "gap", "room": "lobby", "epoch": 7, "start": "9"},
        {"event": "gap", "room": "lobby", "epoch": "7"},
        {"event": "evicted", "room": "lobby", "code": 601, "again": 1},
        {"event": "left", "room": "lobby", "when": "now"},
        {"event": "dance"},
    ],
    ids=str,
)
def test_wrong_lines_do_not_fit(line: dict[str, Any]) -> None:
    assert not _fits(_schema()["report"], line)
