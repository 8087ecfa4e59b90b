"""results.json: one run as a document, which the page and the comparison are made from.

Its form is data/results.schema.json, and `format` is the version of that: a reader takes its own version and
no other. All strings are as they came; who shows them escapes them. Beside what standard output has with
`--format json` there are the sentences of SPEC.md, the traces, and how and with what the run was made.
"""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from conformance.files import DATA, document
from conformance.harness.verdicts import Result
from conformance.report import gaps, trace
from conformance.report.terminal import RESULTS_VERSION, Summary, as_json
from conformance.spec.tables import Spec
from conformance.wire.octets import HEADER, decode, read_header, split_frames
from protocol.errors import RemoteProtocolError
from protocol.frames import Hello, Welcome, agent_of
from protocol.registry import FrameType

_SEARCHED = 30  # entries of a trace in which a program may say its name


class ResultsError(ValueError):
    """A file that cannot be read, or is no results.json of this version."""


@dataclass
class About:
    """What a run was, besides its results. `name` and `version` of the implementation may come while it runs."""

    command: tuple[str, ...] = ("roomwire-check",)
    seed: int | None = None
    name: str = ""
    version: str = ""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def greet(self, greeting: Mapping[str, Any]) -> None:
        """Takes name and version from the first line of a program, where nobody said them otherwise."""
        name, version = greeting.get("name"), greeting.get("version")
        if not self.name and isinstance(name, str):
            self.name = name
            self.version = version if isinstance(version, str) else ""


def build(summary: Summary, about: About, spec: Spec) -> dict[str, Any]:
    """The document of a run that has just ended."""
    name = about.name or _agent(summary.results, summary.role) or summary.target
    kills = read_kills()
    return {
        **summary.as_json(),
        "implementation": {"name": name, "version": about.version},
        "suite": {
            "version": suite_version(),
            "spec": sha256(document().read_bytes()).hexdigest()[:16],
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
        },
        "run": {
            "date": about.began.isoformat(timespec="seconds"),
            "seconds": round((datetime.now(UTC) - about.began).total_seconds(), 1),
            "command": list(about.command),
            "seed": about.seed,
        },
        "sections": {heading.section: heading.title for heading in spec.document.headings if heading.section},
        "requirements": _requirements(spec, summary),
        "results": [_result(result, summary.role, spec, kills) for result in summary.results],
    }


def _result(result: Result, role: str, spec: Spec, kills: dict[str, list[str]]) -> dict[str, Any]:
    values = as_json(result)
    del values["wire"]  # the trace says the same, and more
    values["requirements"] = list(result.requirements)
    return {**values, "kills": kills.get(result.id, []), "trace": trace.items(result.trace, role, spec)}


def _requirements(spec: Spec, summary: Summary) -> dict[str, Any]:
    """Those that the role is bound by, or that a case names; `untested` says why nothing checks one."""
    named = {name for result in summary.results for name in (*result.requirements, result.requirement)}
    untestable = gaps.load().untestable
    return {
        item.id: {
            "section": item.section,
            "level": item.level,
            "binds": item.binds,
            "text": item.text,
            "untested": untestable.get(item.id, "") if item.id not in named else "",
        }
        for item in spec.requirements.values()
        if item.id in named or item.binds in (summary.role, "both")
    }


def _agent(results: Iterable[Result], role: str) -> str:
    """What the program calls itself on the wire."""
    sender, kind, name = ("C", FrameType.HELLO, "") if role == "client" else ("S", FrameType.WELCOME, "")
    for entry in (entry for result in results for entry in result.trace[:_SEARCHED]):
        if not name and entry.framed and entry.sender == sender:
            for octets in split_frames(entry.octets)[0]:
                if read_header(octets).type == kind:
                    name = _agent_of(octets, role)
    return name


def _agent_of(octets: bytes, role: str) -> str:
    try:
        frame = decode(read_header(octets), octets[HEADER.size :], "C" if role == "client" else "S")
    except RemoteProtocolError:
        return ""
    return agent_of(frame) or "" if isinstance(frame, (Hello, Welcome)) else ""


def read_kills(path: Path = DATA / "kill_matrix.json") -> dict[str, list[str]]:
    """The broken peers that each case fails on, by case; empty where the matrix was not made."""
    if not path.exists():
        return {}
    kills: dict[str, list[str]] = {}
    for name, peer in json.loads(path.read_text(encoding="utf-8"))["peers"].items():
        for case in peer["kills"]:
            kills.setdefault(case, []).append(name.partition("/")[2])
    return kills


def suite_version() -> str:
    """The version of the distribution, "unknown" where it is not installed."""
    try:
        return metadata.version("roomwire")
    except metadata.PackageNotFoundError:
        return "unknown"


def write(document: dict[str, Any], path: Path) -> None:
    """Writes a document, in ASCII. Raises OSError."""
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="ascii")


def read(path: Path) -> dict[str, Any]:
    """The document in a file, or in results.json of a folder. Raises ResultsError."""
    path = path / "results.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: {error}") from None
    if not isinstance(document, dict) or "format" not in document:
        raise ResultsError(f"{path}: no results of roomwire-check")
    if document["format"] != RESULTS_VERSION:
        raise ResultsError(f"{path}: format {document['format']!r}, this program reads {RESULTS_VERSION}")
    wrong = mismatches(document, json.loads((DATA / "results.schema.json").read_text(encoding="utf-8")))
    if wrong:
        raise ResultsError(f"{path}: {wrong[0]}")
    return cast(dict[str, Any], document)


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def mismatches(value: Any, schema: dict[str, Any], place: str = "results") -> list[str]:
    """Where a value does not fit a schema, of which only the key words that results.schema.json uses are known."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    allowed = tuple(kind for name in kinds for kind in _TYPES[name])
    if allowed and (not isinstance(value, allowed) or isinstance(value, bool)):
        return [f"{place}: expected {' or '.join(kinds)}, found {type(value).__name__}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{place}: {value!r} is not one of {schema['enum']}"]
    wrong: list[str] = []
    if isinstance(value, dict):
        known: dict[str, Any] = schema.get("properties", {})
        wrong += [f"{place}: {name} is missing" for name in schema.get("required", ()) if name not in value]
        for name, item in value.items():
            inner = known.get(name, schema.get("additionalProperties", {}))
            wrong += mismatches(item, inner, f"{place}.{name}") if inner else []
    if isinstance(value, list) and "items" in schema:
        for at, item in enumerate(value):
            wrong += mismatches(item, schema["items"], f"{place}[{at}]")
    return wrong


def names(documents: Sequence[dict[str, Any]]) -> list[str]:
    """What to call the implementations: name and version."""
    about = [document["implementation"] for document in documents]
    return [" ".join(part for part in (item["name"], item["version"]) if part) for item in about]
