"""SPEC.md as data: its requirements, and every table that programs have to agree with.

The document is the only source; this module repeats nothing of it. A duplicate or a malformed entry raises `SpecError`
with its line.
"""

import re
from collections.abc import Container
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, cast

from conformance.files import document
from conformance.spec.markdown import Document, Row, SpecError, read

Binds = Literal["server", "client", "both"]
Level = Literal["MUST", "MUST NOT", "SHOULD", "SHOULD NOT", "MAY"]

REQUIREMENT_ID = re.compile(r"RW-[A-Z]{2,}-[1-9][0-9]*")
KEY_WORD = re.compile(r"\b(MUST NOT|MUST|SHOULD NOT|SHOULD|MAY)\b")
_SUBJECTS: dict[str, Binds] = {"A server": "server", "A client": "client", "An endpoint": "both"}
_REQUIREMENT = re.compile(rf"((A server|A client|An endpoint)\b.*) \[({REQUIREMENT_ID.pattern})\]")


class Requirement(NamedTuple):
    """A sentence that binds servers, clients or both; `text` is the sentence without its id."""

    id: str
    section: str
    binds: Binds
    level: Level
    text: str
    line: int


class FrameRow(NamedTuple):
    """A row of the table of frames. `sender` is "C", "S" or "CS"; `flags` are the names in the low octet."""

    type: int
    name: str
    sender: str
    request: str
    room: str
    seq: bool
    flags: tuple[str, ...]
    extension: str


class BodyField(NamedTuple):
    """A field of a layout, with its type as section 5 names it."""

    name: str
    type: str


class FieldRow(NamedTuple):
    """An extension field that the document defines, and the frames that may have it."""

    type: int
    name: str
    frames: tuple[str, ...]
    repeatable: bool
    value: str


class FlagRow(NamedTuple):
    """A flag with the frames that define it, and whether frames of extensions may have it."""

    name: str
    value: int
    frames: tuple[str, ...]
    extensions: bool


class Transition(NamedTuple):
    """A row of a state table; `action` may be empty."""

    state: str
    event: str
    action: str
    next: str


class LimitRow(NamedTuple):
    """A limit and its range, which is the default alone if the limit is fixed."""

    name: str
    default: int
    low: int
    high: int
    unit: str


class CodeRow(NamedTuple):
    """A code; `carriers` are letters of "EVG" for ERROR, EVICTED and GOAWAY."""

    number: int
    name: str
    carriers: str
    retry: bool
    meaning: str


class JoinRow(NamedTuple):
    """A row of the table below the formula of JOIN."""

    head: int
    oldest: int
    room_epoch: int
    client_epoch: int
    since: int
    start: int
    gap: bool


class NameRow(NamedTuple):
    """Two names, and whether their keys are equal."""

    a: str
    b: str
    same: bool


@dataclass(frozen=True)
class Spec:
    """The whole document.

    The keys of `bodies`, `examples` and `words` are frames, "client preface" and "server preface"; `bodies` has also
    "header", "field" (an extension field) and "entry" (of ROSTER). `words` are the examples in the groups of the
    document: the five fields of the header, then those of the body.
    """

    document: Document
    requirements: dict[str, Requirement]
    frames: dict[str, FrameRow]
    bodies: dict[str, tuple[BodyField, ...]]
    examples: dict[str, bytes]
    words: dict[str, tuple[str, ...]]
    fields: dict[str, FieldRow]
    flags: dict[str, FlagRow]
    transitions: dict[str, tuple[Transition, ...]]
    limits: dict[str, LimitRow]
    codes: dict[str, CodeRow]
    join_table: tuple[JoinRow, ...]
    name_table: tuple[NameRow, ...]

    def named_in(self, section: str) -> list[Requirement]:
        """The requirements that the paragraphs and tables of a section name, each once, in the order of its text."""
        texts = [(part.line, part.text) for part in self.document.paragraphs if part.section == section]
        rows = [row for table in self.document.tables if table.section == section for row in table.rows]
        texts += [(row.line, " ".join(row.values())) for row in rows]
        ids = [id for _, text in sorted(texts) for id in REQUIREMENT_ID.findall(text)]
        return [self.requirements[id] for id in dict.fromkeys(ids)]


@cache
def load() -> Spec:
    """SPEC.md, which is read once. Raises SpecError if something does not fit, OSError if the file is missing."""
    return parse(document().read_text(encoding="utf-8"))


def parse(text: str) -> Spec:
    """Reads a text in the form of SPEC.md. Raises SpecError."""
    document = read(text)
    frames = {row["frame"]: _frame(row) for row in document.table("7", *_FRAME_COLUMNS).rows}
    words = _words(document, frames)
    return Spec(
        document=document,
        requirements=_requirements(document),
        frames=frames,
        bodies=_bodies(document, frames),
        examples={name: bytes.fromhex("".join(parts)) for name, parts in words.items()},
        words=words,
        fields={row["field"]: _field(row) for row in document.table("5.3", *_FIELD_COLUMNS).rows},
        flags={row["flag"]: _flag(row) for row in document.table("5.4", *_FLAG_COLUMNS).rows},
        transitions={
            table: tuple(Transition(*row.values()) for row in document.table(section, *Transition._fields).rows)
            for table, section in (("CLIENT", "8.1"), ("SERVER", "8.2"), ("MEMBERSHIP", "9"), ("PUBLISH", "10.5"))
        },
        limits={row["limit"]: _limit(row) for row in document.table("15", *_LIMIT_COLUMNS).rows},
        codes={row["name"]: _code(row) for row in document.table("16", *_CODE_COLUMNS).rows},
        join_table=tuple(map(_join, document.table("9.1", *_JOIN_COLUMNS).rows)),
        name_table=tuple(map(_names, document.table("12", "a", "b", "same key").rows)),
    )


_FRAME_COLUMNS = ("type", "frame", "from", "request", "room", "SEQ", "flags", "extension")
_FIELD_COLUMNS = ("type", "field", "in", "repeatable", "value")
_FLAG_COLUMNS = ("flag", "value", "in", "meaning")
_LIMIT_COLUMNS = ("limit", "default", "range", "unit")
_CODE_COLUMNS = ("code", "name", "carriers", "RETRY", "meaning")
_JOIN_COLUMNS = ("head", "oldest", "room's epoch", "client epoch", "since", "start", "GAP")


def _requirements(document: Document) -> dict[str, Requirement]:
    found: dict[str, Requirement] = {}
    for paragraph in document.paragraphs:
        # An id in a code span is a mention, and defines nothing.
        if not re.search(r"\[RW-", re.sub(r"`[^`]*`", "", paragraph.text)):
            continue
        match = _REQUIREMENT.fullmatch(paragraph.text)
        level = KEY_WORD.search(match[1]) if match else None
        if not (paragraph.item and match and level):
            raise SpecError(paragraph.line, f"not a requirement, but has an id: {paragraph.text}")
        if match[3] in found:
            raise SpecError(paragraph.line, f"{match[3]} stands in line {found[match[3]].line} already")
        found[match[3]] = Requirement(
            id=match[3],
            section=paragraph.section,
            binds=_SUBJECTS[match[2]],
            level=cast(Level, level[1]),
            text=match[1],
            line=paragraph.line,
        )
    return found


def _bodies(document: Document, frames: Container[str]) -> dict[str, tuple[BodyField, ...]]:
    def layouts(section: str) -> list[tuple[BodyField, ...]]:
        found = document.tables_of(section, "field", "type", "meaning")
        if len(found) != counts.get(section, 1):
            raise SpecError(document.line_of(section), f"has {len(found)} layouts")
        return [tuple(BodyField(row["field"], row["type"]) for row in table.rows) for table in found]

    counts = {"5.1": 2, "7.11": 2}
    client, server = layouts("5.1")
    bodies = {"client preface": client, "server preface": server}
    bodies |= {"header": layouts("5.2")[0], "field": layouts("5.3")[0], "entry": layouts("7.11")[1]}
    empty = {p.section for p in document.paragraphs if "Its body has no fields." in p.text}
    for heading in document.headings:
        frame, section = heading.title, heading.section
        if frame in frames:
            bodies[frame] = () if section in empty else layouts(section)[0]
    return bodies


def _words(document: Document, frames: Container[str]) -> dict[str, tuple[str, ...]]:
    words: dict[str, tuple[str, ...]] = {}
    titles = {heading.section: heading.title for heading in document.headings}
    for block in document.blocks:
        if titles[block.section] == "Preface":
            prefaces = (line.split(":") for line in block.lines)
            words |= {f"{end} preface": tuple(octets.split()) for end, octets in prefaces}
        elif (frame := titles[block.section]) in frames:
            if frame in words:
                raise SpecError(block.line, f"a second example of {frame}")
            words[frame] = tuple(" ".join(block.lines).split())
    return words


def _frame(row: Row) -> FrameRow:
    return FrameRow(
        type=row.number("type"),
        name=row["frame"],
        sender="".join(row.parts("from")),
        request=row["request"],
        room=row["room"],
        seq=row.number("SEQ") == 1,
        flags=row.parts("flags"),
        extension=row["extension"],
    )


def _field(row: Row) -> FieldRow:
    return FieldRow(row.number("type"), row["field"], row.parts("in"), row.yes("repeatable"), row["value"])


def _flag(row: Row) -> FlagRow:
    places = row.parts("in")
    frames = tuple(place for place in places if place.isupper())
    return FlagRow(row["flag"], row.number("value"), frames, "frames of extensions" in places)


def _limit(row: Row) -> LimitRow:
    default = row.number("default")
    match = re.fullmatch(r"(\d+) to (\d+)|fixed", row["range"])
    if not match:
        raise SpecError(row.line, f"not a range: {row['range']}")
    low, high = (int(match[1]), int(match[2])) if match[1] else (default, default)
    return LimitRow(row["limit"], default, low, high, row["unit"])


def _code(row: Row) -> CodeRow:
    return CodeRow(row.number("code"), row["name"], row["carriers"], row.yes("RETRY"), row["meaning"])


def _join(row: Row) -> JoinRow:
    head, oldest, room_epoch, client_epoch, since, start, gap = map(row.number, _JOIN_COLUMNS)
    return JoinRow(head, oldest, room_epoch, client_epoch, since, start, gap == 1)


def _names(row: Row) -> NameRow:
    return NameRow(_name(row, "a"), _name(row, "b"), row.yes("same key"))


def _name(row: Row, column: str) -> str:
    """A name written in parts that are each a code span or U+xxxx."""
    parts = re.findall(r"`([^`]+)`|U\+([0-9A-F]{4,6})|(\S)", row[column])
    if not parts or any(junk for _, _, junk in parts):
        raise SpecError(row.line, f"not a name: {row[column]}")
    return "".join(span or chr(int(code, 16)) for span, code, _ in parts)
