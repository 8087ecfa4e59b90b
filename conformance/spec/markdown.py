"""Reads SPEC.md as Markdown: headings, tables, paragraphs, list items and code, each with section and line.

It reads only the Markdown that this document uses: headings with `#` and numbers before their titles, pipe tables,
fenced code, and list items of one paragraph. Anchors are dropped, and links within the document become their texts.
Lines count from 1.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

_HEADING = re.compile(r"(#+) (?:(?:Appendix )?((?:\d+|[A-Z])(?:\.\d+)*)\.? )?(.+)")
_ITEM = re.compile(r"- |\d+\. ")
_ANCHOR = re.compile(r'<a id="[^"]*"></a>')
_LINK = re.compile(r"\[([^\[\]]*)\]\(#[^()]*\)")
_RULE = re.compile(r"\|(?: *:?-+:? *\|)+")


class SpecError(ValueError):
    """SPEC.md has something that does not fit; the message begins with its line."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(f"SPEC.md:{line}: {problem}")
        self.line = line


class Heading(NamedTuple):
    """A heading; `section` is its number (7.4), the letter of an appendix, or ""."""

    section: str
    title: str
    text: str
    level: int
    line: int


class Paragraph(NamedTuple):
    """A paragraph or, with `item`, a list item without its mark. Its lines are joined by spaces."""

    section: str
    line: int
    text: str
    item: bool


class Block(NamedTuple):
    """Fenced code, line by line."""

    section: str
    line: int
    lines: tuple[str, ...]


class Row(dict[str, str]):
    """A row of a table with its line; it maps columns to cells."""

    def __init__(self, line: int, columns: tuple[str, ...], cells: tuple[str, ...]) -> None:
        if len(cells) != len(columns):
            raise SpecError(line, f"{len(cells)} cells in a table of {len(columns)} columns")
        super().__init__(zip(columns, cells, strict=True))
        self.line = line

    def number(self, column: str) -> int:
        """The cell as a number, which is hexadecimal after 0x. Raises SpecError."""
        try:
            return int(self[column], 0)
        except ValueError:
            raise SpecError(self.line, f"not a number: {self[column]}") from None

    def yes(self, column: str) -> bool:
        """Whether the cell says yes; an empty cell says no. Raises SpecError."""
        if self[column] not in ("yes", "no", ""):
            raise SpecError(self.line, f"neither yes nor no: {self[column]}")
        return self[column] == "yes"

    def parts(self, column: str) -> tuple[str, ...]:
        """The parts of the cell between commas."""
        return tuple(part.strip() for part in self[column].split(",") if part.strip())


class Table(NamedTuple):
    """A table; `caption` is the paragraph before it in the same section, or ""."""

    section: str
    line: int
    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Document:
    """The parts of a Markdown text, each kind in the order of the text."""

    headings: tuple[Heading, ...]
    paragraphs: tuple[Paragraph, ...]
    tables: tuple[Table, ...]
    blocks: tuple[Block, ...]

    def tables_of(self, section: str, *columns: str) -> list[Table]:
        """The tables of a section that have exactly these columns."""
        return [table for table in self.tables if (table.section, table.columns) == (section, columns)]

    def table(self, section: str, *columns: str) -> Table:
        """The table of a section with these columns. Raises SpecError unless there is exactly one."""
        found = self.tables_of(section, *columns)
        if len(found) != 1:
            line = found[1].line if found else self.line_of(section)
            raise SpecError(line, f"section {section} has {len(found)} tables with the columns {columns}")
        return found[0]

    def line_of(self, section: str) -> int:
        """The line of a section's heading, 0 if there is none."""
        return next((heading.line for heading in self.headings if heading.section == section), 0)


def plain(text: str) -> str:
    """The text without anchors, and with the texts of links in place of links within the document."""
    return _LINK.sub(r"\1", _ANCHOR.sub("", text))


def read(text: str) -> Document:
    """Reads a whole document. Raises SpecError for a malformed table or code without an end."""
    headings: list[Heading] = []
    paragraphs: list[Paragraph] = []
    tables: list[Table] = []
    blocks: list[Block] = []
    section, caption = "", ""
    lines = text.splitlines()
    at = 0
    while at < len(lines):
        line, number = lines[at], at + 1
        at += 1
        if not line.strip():
            continue
        if heading := _HEADING.fullmatch(line):
            section, caption = heading[2] or "", ""
            title = heading[3].strip()
            headings.append(Heading(section, title, line.lstrip("# "), len(heading[1]), number))
        elif line.startswith("```"):
            start = at
            while at < len(lines) and lines[at] != "```":
                at += 1
            if at == len(lines):
                raise SpecError(number, "code that does not end")
            blocks.append(Block(section, number, tuple(lines[start:at])))
            at += 1
        elif line.startswith("|"):
            start = at - 1
            while at < len(lines) and lines[at].startswith("|"):
                at += 1
            tables.append(_table(section, caption, start + 1, lines[start:at]))
        else:
            item = _ITEM.match(line)
            parts = [line[item.end() :] if item else line]
            while at < len(lines) and _continues(lines[at]):
                parts.append(lines[at].strip())
                at += 1
            caption = plain(" ".join(part.strip() for part in parts))
            paragraphs.append(Paragraph(section, number, caption, item is not None))
    return Document(tuple(headings), tuple(paragraphs), tuple(tables), tuple(blocks))


def _continues(line: str) -> bool:
    """Whether a line belongs to the paragraph or list item before it."""
    return bool(line.strip()) and not (line.startswith(("|", "```", "#")) or _ITEM.match(line))


def _table(section: str, caption: str, line: int, lines: list[str]) -> Table:
    if len(lines) < 2 or not _RULE.fullmatch(lines[1]):
        raise SpecError(line, "a table without a rule below its head")
    columns = _cells(lines[0])
    rows: list[Row] = []
    for at, text in enumerate(lines[2:], start=line + 2):
        row = Row(at, columns, _cells(text))
        if row in rows:
            raise SpecError(at, "a row that the table has already")
        rows.append(row)
    return Table(section, line, caption, columns, tuple(rows))


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in plain(line).strip().strip("|").split("|"))
