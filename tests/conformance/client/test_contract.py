"""The contract of clients: CONTRACT.md, its schema, the suite and the adapter agree."""

import json
import re

from conformance.client.target import EVENTS, FEATURES
from reference_client import adapter
from tests.support.places import ROOT

_CONFORMANCE = ROOT / "conformance"


def _lines(heading: str) -> list[str]:
    """The first cells of the table under a heading of CONTRACT.md."""
    section = (_CONFORMANCE / "CONTRACT.md").read_text(encoding="utf-8").split(f"### {heading}\n")[1].split("\n### ")[0]
    return [line.split("|")[1].strip().strip("`") for line in section.splitlines() if line.startswith("| `")]


def test_contract() -> None:
    """The page, the schema, the suite and the adapter have the same names."""
    schema = json.loads((_CONFORMANCE / "data" / "contract.schema.json").read_text(encoding="utf-8"))["$defs"]
    events = [report["properties"]["event"]["const"] for report in schema["report"]["oneOf"]]
    ops = [command["properties"]["op"]["const"] for command in schema["command"]["oneOf"]]
    assert set(_lines("Reports")) == set(events) == EVENTS
    assert _lines("Commands") == ops
    assert set(_lines("Features")) == set(schema["greeting"]["properties"]["features"]["examples"][0]) == FEATURES
    assert set(adapter.FEATURES) == FEATURES
    page = (_CONFORMANCE / "CONTRACT.md").read_text(encoding="utf-8")
    for line in re.findall(r"^(?:in|out) +(\{.*)$", page, re.MULTILINE):
        said = json.loads(line)
        kinds = {"op": "command", "event": "report", "ready": "greeting"}
        kind = next(name for key, name in kinds.items() if key in said)
        shapes = schema[kind].get("oneOf", [schema[kind]])
        fitting = [
            s for s in shapes if all(s["properties"][k].get("const", said[k]) == said[k] for k in kinds if k in said)
        ]
        assert len(fitting) == 1
        assert set(fitting[0]["required"]) <= said.keys() <= fitting[0]["properties"].keys()
