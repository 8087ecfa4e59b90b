"""The results of a run, and results.json, from which the page and the comparison are made.

data/results.schema.json describes the file, and `format` is its version: a reader accepts its own version only.
Strings are stored unescaped; what shows them escapes them. In addition to the output of `--format json` the file has
the sentences of SPEC.md, the traces, and how the run was made.
"""

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from conformance.files import DATA, document
from conformance.harness import input_file
from conformance.harness.exit_status import UsageError
from conformance.harness.verdicts import Result
from conformance.report import gaps, trace
from conformance.report.profile import Profile, profile
from conformance.spec.tables import Spec
from conformance.wire.octets import HEADER, decode, read_header, split_frames
from protocol.errors import RemoteProtocolError
from protocol.fields import agent_of
from protocol.frames import Hello, Welcome
from protocol.registry import FrameType

RESULTS_VERSION = 1
_SEARCHED = 30  # entries of a trace that may hold the name of the program


class ResultsError(UsageError):
    """A file that cannot be read, or is not a results.json of this version."""


@dataclass
class Summary:
    """A whole run: its results, its stale baseline entries, and its exit status.

    `known` is the number of cases that the suite has for the role; 0 stands for those that were selected.
    """

    role: str
    target: str
    results: Sequence[Result]
    stale: Sequence[str] = ()
    error: str = ""
    status: int = 0
    selected: int = 0
    known: int = 0
    seed: int | None = None
    counts: Counter[str] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = Counter(result.verdict.value for result in self.results)

    @property
    def profile(self) -> Profile:
        """The parts of the protocol that the run has shown."""
        verdicts = {result.id: result.verdict.value for result in self.results}
        return profile(self.role, verdicts, self.known or self.selected)

    def as_json(self) -> dict[str, Any]:
        """The summary as plain values, without the results."""
        return {
            "format": RESULTS_VERSION,
            "role": self.role,
            "target": self.target,
            "selected": self.selected,
            "known": self.known or self.selected,
            "profile": self.profile.as_json(),
            "seed": self.seed,
            "counts": dict(sorted(self.counts.items())),
            "stale": list(self.stale),
            "error": self.error,
            "exit": self.status,
        }


def as_json(result: Result) -> dict[str, Any]:
    """A result as plain values, without its trace."""
    values = asdict(replace(result, trace=()))
    del values["trace"]
    values["verdict"] = result.verdict.value
    return values


@dataclass
class About:
    """How a run was made. `name` and `version` are the implementation's, and may become known during the run."""

    command: tuple[str, ...] = ("roomwire-check",)
    seed: int | None = None
    name: str = ""
    version: str = ""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def greet(self, greeting: Mapping[str, Any]) -> None:
        """Takes name and version from the first line of a program, unless --name gives a name."""
        name, version = greeting.get("name"), greeting.get("version")
        if not self.name and isinstance(name, str):
            self.name = name
            self.version = version if isinstance(version, str) else ""


def build(summary: Summary, about: About, spec: Spec) -> dict[str, Any]:
    """results.json of a run that has just ended."""
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
    del values["wire"]  # the trace holds all of it
    values["requirements"] = list(result.requirements)
    return {**values, "kills": kills.get(result.id, []), "trace": trace.items(result.trace, role, spec)}


def _requirements(spec: Spec, summary: Summary) -> dict[str, Any]:
    """The requirements that bind the role or that a case names; `untested` says why nothing checks one."""
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
    """The name that the program gives itself on the wire, or ""."""
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
    """For each case the mutants that it kills; empty if there is no matrix."""
    if not path.exists():
        return {}
    kills: dict[str, list[str]] = {}
    for name, peer in json.loads(path.read_text(encoding="utf-8"))["peers"].items():
        for case in peer["kills"]:
            kills.setdefault(case, []).append(name.partition("/")[2])
    return kills


def suite_version() -> str:
    """The version of the distribution, or "unknown" if it is not installed."""
    try:
        return metadata.version("roomwire")
    except metadata.PackageNotFoundError:
        return "unknown"


def write(document: dict[str, Any], path: Path) -> None:
    """Writes results.json in ASCII. Raises OSError."""
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="ascii")


def read(path: Path) -> dict[str, Any]:
    """Reads a results.json, given as a file or by its folder. Raises ResultsError."""
    path = path / "results.json" if path.is_dir() else path
    try:
        document = input_file.from_json(input_file.text(path))
    except ValueError as error:
        raise ResultsError(f"{path}: {error}") from None
    if not isinstance(document, dict) or "format" not in document:
        raise ResultsError(f"{path}: not results of roomwire-check")
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
    """The places where a value does not fit a schema that uses only the key words of results.schema.json."""
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
    """The names of the implementations, with their versions."""
    about = [document["implementation"] for document in documents]
    return [" ".join(part for part in (item["name"], item["version"]) if part) for item in about]
