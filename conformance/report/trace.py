"""What went over the wire in a case, as plain values for results.json.

An item is one frame, preface, line of JSON, or event. It has these keys; all but the first four are left out when they
are empty:

    at      seconds since the case began           peer    the connection, for example "A"
    by      "suite", "peer", or "" for an event    kind    "frame", "preface", "octets", "line", "event"
    name    a few words, for example "JOIN"        text    the whole item in one line, escaped
    note    the rule that the suite breaks on purpose
    hex     the first octets                       length  the number of all octets
    fields  [offset, octets, name, value] in the order of the wire; a remark has no octets
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from conformance.harness.contract import parse
from conformance.spec.tables import Spec
from conformance.wire.annotate import Part, parts
from conformance.wire.log import Entry
from conformance.wire.octets import HEADER, read_header, split_frames
from conformance.wire.text import code_name, escape, octets_line, type_name
from protocol.registry import PREFACE_SIZE, FrameType

_OCTETS = 512  # kept of a frame
_FIELDS = 120  # kept of a frame
_TEXT = 400  # characters kept of a text
_LINES = 24  # kept of a codec's case, which may have hundreds of similar ones
_SUITE = {"server": "C", "client": "S", "codec": "C"}
_CODED = {FrameType.ERROR, FrameType.GOAWAY, FrameType.EVICTED}


def items(entries: Sequence[Entry], role: str, spec: Spec) -> list[dict[str, Any]]:
    """The items of a case of this role, oldest first."""
    lines = [entry for entry in entries if entry.line]
    left_out = {id(entry) for entry in lines[:-_LINES]} if role == "codec" else set()
    found = []
    for entry in entries:
        if id(entry) not in left_out:
            found += [_without_nothing(item) for item in _items(entry, _SUITE.get(role, "C"), spec)]
    return found


def _items(entry: Entry, suite: str, spec: Spec) -> Iterator[dict[str, Any]]:
    by = "suite" if entry.sender == suite else "peer"
    base = {"at": round(entry.at, 3), "peer": entry.peer, "by": by}
    if entry.line:
        yield {**base, "kind": "line", **_line(entry.line, spec)}
    elif not entry.octets:
        yield {**base, "by": "", "kind": "event", "name": escape(entry.note)}
    elif not entry.framed:
        preface = entry.note == "preface" or (entry.sender == "C" and len(entry.octets) == PREFACE_SIZE)
        kind = "preface" if preface else "octets"
        yield {**base, "kind": kind, "name": kind, "note": _unless(entry.note, kind), **_octets(entry.octets, ())}
    else:
        frames, rest = split_frames(entry.octets)
        for octets in frames:
            described = {"name": _name(octets), "text": _cut(octets_line(octets, entry.sender))}
            yield {**base, "kind": "frame", **described, "note": entry.note, **_octets(octets, parts(octets, spec))}
        if rest:
            name = f"{len(rest)} octets that are not a whole frame"
            yield {**base, "kind": "octets", "name": name, "note": entry.note, **_octets(rest, parts(rest, spec))}


def _name(octets: bytes) -> str:
    """The name of the frame's type, followed by its code if the body begins with one."""
    kind = read_header(octets).type
    body = octets[HEADER.size :]
    if kind in _CODED and len(body) >= 2:
        return f"{type_name(kind)} {code_name(int.from_bytes(body[:2], 'big'))}"
    return type_name(kind)


def _line(line: str, spec: Spec) -> dict[str, Any]:
    """A line of JSON; the octets in it are those of frames, except for the operation `preface`."""
    said = {"name": _cut(escape(line.strip()), 160), "text": _cut(escape(line.strip()), 1500)}
    try:
        value = parse(line)
        octets = bytes.fromhex(value["hex"] if "hex" in value else "".join(value["chunks"]))
    except (ValueError, TypeError, LookupError):
        return said
    return {**said, **_octets(octets, () if value.get("op") == "preface" else parts(octets, spec))}


def _octets(octets: bytes, known: Iterable[Part]) -> dict[str, Any]:
    fields: list[list[Any]] = []
    for part in known:
        if part.at < 0:
            continue  # the frame's name, which the item already has
        if len(fields) == _FIELDS:
            fields.append([part.at, 0, "and more", ""])
            break
        fields.append([part.at, len(part.octets), part.name, _cut(part.value)])
    return {"hex": octets[:_OCTETS].hex(), "length": len(octets), "fields": fields}


def _without_nothing(item: dict[str, Any]) -> dict[str, Any]:
    first = ("at", "peer", "by", "kind")
    return {key: value for key, value in item.items() if key in first or value}


def _unless(note: str, said: str) -> str:
    return "" if note == said else note


def _cut(text: str, limit: int = _TEXT) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... {len(text)} characters"
