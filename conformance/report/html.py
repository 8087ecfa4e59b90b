"""The report as one self-contained HTML page, for one run or several side by side.

The page is made from results.json alone, with the template data/page.html, its style and its script. Every string is
escaped before the template sees it, and the template escapes for HTML. Traces are compressed data in the page and are
drawn when the reader unfolds them, so that a page of many cases stays small and fast. A content security policy
admits the page's own style and script, by their hashes, and no request.
"""

import json
import re
import shlex
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from zlib import compress

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from markupsafe import escape as markup_escape

from conformance.files import DATA
from conformance.harness.verdicts import ACCEPTED, Verdict
from conformance.report.causes import FOLDED, by_cause
from conformance.report.compare import rank
from conformance.report.profile import UNKNOWN, headline
from conformance.report.results import names
from conformance.wire.text import escape

_VERDICTS = [verdict.value for verdict in Verdict]
_ENDINGS = {1: "Does not conform", 3: "Not reachable", 4: "Fault of the suite", 5: "Nothing to test"}
_ACCOUNT = ("verdict", "requirement", "expected", "got", "reason")
_TRACE_KEYS = ("at", "peer", "by", "kind", "name", "text", "note", "hex", "length", "fields")


def render(documents: Sequence[dict[str, Any]]) -> str:
    """The page for the results of one run or more. Raises ValueError for none."""
    if not documents:
        raise ValueError("a page needs at least one run")
    runs = [clean(document) for document in documents]
    titles = names(runs)
    environment = Environment(
        loader=FileSystemLoader(DATA), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["sentence"] = _sentence
    style, script = (Markup((DATA / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    cases = list(_cases(runs))
    sections = {name: title for run in runs for name, title in run["sections"].items()}
    return environment.get_template("page.html").render(
        title=", ".join(titles),
        runs=[_run(run, title) for run, title in zip(runs, titles, strict=True)],
        sections=[(name, sections.get(name, "")) for name in dict.fromkeys(case["section"] for case in cases)],
        titles={case["section"]: sections.get(case["section"], "") for case in cases},
        cases=cases,
        verdicts=_totals(runs),
        roles=sorted({case["role"] for case in cases}),
        matrix=_matrix(runs, sections),
        traces=[(run["trace"], _data(run["items"])) for case in cases for run in case["runs"] if run and run["items"]],
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def clean(value: Any) -> Any:
    """A copy of a value whose strings have control and bidirectional characters escaped, but not line feeds."""
    if isinstance(value, str):
        return value if value.isprintable() else "\n".join(map(escape, value.split("\n")))
    if isinstance(value, list):
        return list(map(clean, value))
    if isinstance(value, dict):
        return dict(zip(map(clean, value), map(clean, value.values()), strict=True))
    return value


@dataclass(frozen=True)
class _Run:
    """The summary of one run at the top of the page.

    `mood` is "ok", "part" or "bad", and colours the `ending`. `profile` has each part of the protocol, and whether the
    run has shown it.
    `share` holds the bar's parts: x, width (of 100), verdict. `failed` is the number of cases that do not pass,
    `causes` are their groups, and `folded` those of the results that need no more than a reason.
    """

    name: str
    role: str
    mood: str
    ending: str
    profile: list[tuple[str, bool]]
    counts: list[tuple[str, int]]
    share: list[tuple[float, float, str]]
    facts: list[tuple[str, str]]
    command: str
    problems: list[str]
    failed: int
    causes: list[list[dict[str, Any]]]
    folded: list[list[dict[str, Any]]]


def _run(run: dict[str, Any], name: str) -> _Run:
    total = max(1, len(run["results"]))
    counts = _counted([run])
    share, at = [], 0.0
    for verdict, count in counts:
        share.append((round(at, 3), round(100 * count / total, 3), verdict))
        at += 100 * count / total
    suite, how, found = run["suite"], run["run"], run.get("profile", UNKNOWN)
    facts = [
        ("Date", how["date"]),
        ("Duration", f"{how['seconds']} s"),
        ("Cases", f"{len(run['results'])} of {run['selected']} selected, of {run.get('known', run['selected'])}"),
        ("Seed", "" if how["seed"] is None else str(how["seed"])),
        ("Suite", f"roomwire {suite['version']}, Python {suite['python']}, {suite['platform']}"),
        ("SPEC.md", f"sha256 {suite['spec']}"),
    ]
    failed = [result for result in run["results"] if result["verdict"] not in ACCEPTED]
    folded = [result for result in run["results"] if result["verdict"] in FOLDED]
    return _Run(
        name=name,
        role=run["role"],
        mood="bad" if run["exit"] else "part" if found["partial"] else "ok",
        ending=_ending(run["exit"], found),
        profile=[(part, True) for part in found["shown"]] + [(part, False) for part in found["missing"]],
        counts=counts,
        share=share,
        facts=[(label, value) for label, value in facts if value],
        command=shlex.join(how["command"]),
        problems=[run["error"]] * bool(run["error"]) + [f"stale baseline entry: {name}" for name in run["stale"]],
        failed=len(failed),
        causes=by_cause(failed, lambda item: tuple(item[key] for key in _ACCOUNT)),
        folded=by_cause(folded, lambda item: (item["verdict"], "", "", "", item["reason"])),
    )


def _ending(status: int, found: dict[str, Any]) -> str:
    claim = headline(status, found)
    return claim[:1].upper() + claim[1:] if claim else _ENDINGS.get(status, f"Ended with status {status}")


def _counted(runs: Iterable[dict[str, Any]]) -> list[tuple[str, int]]:
    counts = Counter(result["verdict"] for run in runs for result in run["results"])
    return sorted(counts.items(), key=lambda item: _VERDICTS.index(item[0]) if item[0] in _VERDICTS else 99)


def _totals(runs: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """For each verdict, the number of cases that have it in any run."""
    cases = {(result["id"], result["verdict"]) for run in runs for result in run["results"]}
    counts = Counter(verdict for _, verdict in cases)
    return [(verdict, counts[verdict]) for verdict, _ in _counted(runs)]


def _cases(runs: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """The cases of all runs by section, each with its outcome in each run, or None."""
    results = [{result["id"]: result for result in run["results"]} for run in runs]
    every = {id: result for found in reversed(results) for id, result in found.items()}
    known = {name: item for run in runs for name, item in run["requirements"].items()}
    for at, (id, result) in enumerate(sorted(every.items(), key=lambda item: _by_section(item[1]["section"]))):
        yield {
            "id": id,
            "role": id.split("/", 1)[0],
            "section": result["section"],
            "summary": result["summary"],
            "requirements": [(name, known.get(name, {}).get("text", "")) for name in result["requirements"]],
            "kills": sorted({kill for found in results for kill in found.get(id, {}).get("kills", ())}),
            "runs": [_outcome(found.get(id), f"t{at}-{number}") for number, found in enumerate(results)],
            "verdicts": sorted({found[id]["verdict"] for found in results if id in found}),
            "differs": len({found.get(id, {}).get("verdict") for found in _of_role(id, runs, results)}) > 1,
        }


def _of_role(id: str, runs: Sequence[dict[str, Any]], results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The results of the runs of this case's role."""
    return [found for run, found in zip(runs, results, strict=True) if run["role"] == id.split("/", 1)[0]]


def _outcome(result: dict[str, Any] | None, trace: str) -> dict[str, Any] | None:
    if result is None:
        return None
    entries = result["trace"]
    lines = sum(item["kind"] == "line" for item in entries)
    frames = sum(item["kind"] not in ("line", "event") for item in entries)
    said = [
        f"{count} {what}{'' if count == 1 else 's'}" for count, what in ((frames, "frame"), (lines, "line")) if count
    ]
    return {
        **result,
        "ok": result["verdict"] in ACCEPTED,
        "trace": trace,
        "items": entries,
        "size": ", ".join(said),
        "elsewhere": result["requirement"] not in result["requirements"],
    }


def _matrix(runs: Sequence[dict[str, Any]], sections: dict[str, str]) -> list[dict[str, Any]]:
    """The requirements by section, each with its worst verdict in each run."""
    cells: list[dict[str, list[str]]] = []
    for run in runs:
        cells.append({})
        for result in run["results"]:
            for name in result["requirements"]:
                # A case that fails judges one requirement; one that passes covers all that it names.
                if result["verdict"] == Verdict.PASS or name == result["requirement"]:
                    cells[-1].setdefault(name, []).append(result["verdict"])
    known = {name: item for run in reversed(runs) for name, item in run["requirements"].items()}
    groups: dict[str, list[dict[str, Any]]] = {}
    for name, item in known.items():
        row = {"id": name, **item, "cells": [_cell(column.get(name, [])) for column in cells]}
        groups.setdefault(item["section"], []).append(row)
    ordered = sorted(groups.items(), key=lambda group: _by_section(group[0]))
    return [{"section": section, "title": sections.get(section, ""), "rows": rows} for section, rows in ordered]


def _cell(verdicts: list[str]) -> tuple[str, int, int] | None:
    """The worst verdict, the number of cases that passed, and the number of cases."""
    if not verdicts:
        return None
    return max(verdicts, key=rank), verdicts.count(Verdict.PASS), len(verdicts)


def _by_section(section: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (10**6, part) for part in section.split(".")]


def _sentence(text: str) -> Markup:
    """A sentence of SPEC.md as HTML, with text between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(markup_escape(text))))


def _data(items: Iterable[dict[str, Any]]) -> Markup:
    """A trace as a string of JSON: base64 of deflated JSON, rows in the order of _TRACE_KEYS."""
    rows = [[item.get(key, "") for key in _TRACE_KEYS] for item in items]
    octets = json.dumps(rows, separators=(",", ":")).encode("ascii")
    return Markup(f'"{b64encode(compress(octets, 9)).decode()}"')


def _hash(text: str) -> str:
    """The source expression of a content security policy that admits this text inline."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
