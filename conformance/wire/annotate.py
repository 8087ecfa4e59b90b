"""Octets with the fields that they hold, read by the tables of SPEC.md alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from conformance.spec.tables import BodyField, Spec
from conformance.wire.text import quoted

_INTEGERS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "n64": 8}
_OCTETS = {"o8": 8, "o16": 16}
_COUNTED = {"b16": 2, "b32": 4, "name8": 1, "text8": 1, "text16": 2}
_HEX_SHOWN = 24


class Part(NamedTuple):
    """Octets at an offset, with the name and value of their field. A remark has no octets, and its name is its text."""

    at: int
    octets: bytes
    name: str
    value: str = ""
    remark: bool = False


class _Short(Exception):
    """The octets end inside a field."""


@dataclass
class _Cursor:
    """A place in octets, which `take` moves."""

    octets: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        taken = self.octets[self.at : self.at + count]
        self.at += len(taken)
        if len(taken) < count:
            raise _Short
        return taken

    @property
    def left(self) -> int:
        return len(self.octets) - self.at


def annotate(octets: bytes, spec: Spec) -> list[str]:
    """A line for each field of a sequence of frames, with offset, octets, name and value."""
    return [_line(part) for part in parts(octets, spec)]


def parts(octets: bytes, spec: Spec) -> list[Part]:
    """The fields of a sequence of frames; those of each frame follow a remark with its name."""
    cursor = _Cursor(octets)
    found: list[Part] = []
    try:
        while cursor.left:
            found += _frame(cursor, spec)
    except _Short:
        found.append(_remark(len(octets), "the octets end here, inside a field"))
    return found


def _frame(cursor: _Cursor, spec: Spec) -> Iterator[Part]:
    header, values = [], {}
    for part in spec.bodies["header"]:
        start, value, octets = cursor.at, *_value(cursor, part)
        values[part.name] = int.from_bytes(octets, "big")
        header.append(Part(start, octets, part.name, value))
    row = next((row for row in spec.frames.values() if row.type == values["type"]), None)
    yield _remark(-1, row.name if row else "a frame of unknown type")
    yield from header
    body = _Cursor(cursor.octets[: cursor.at + values["length"]], cursor.at)
    cut = len(body.octets) < cursor.at + values["length"]
    if row is None:
        yield Part(body.at, body.take(body.left), "body")
    else:
        yield from _body(body, spec, spec.bodies[row.name])
    if cut:
        raise _Short
    cursor.at = body.at


def _body(body: _Cursor, spec: Spec, layout: tuple[BodyField, ...]) -> Iterator[Part]:
    try:
        count = 0
        for part in layout:
            if part.type.startswith("entry["):
                for number in range(count):
                    yield from _fields(body, spec.bodies["entry"], f"{part.name}[{number}].")
                continue
            start, value, octets = body.at, *_value(body, part)
            count = int.from_bytes(octets, "big") if part.name == "count" else count
            yield Part(start, octets, part.name, value)
        names = {row.type: row.name for row in spec.fields.values()}
        while body.left:
            kind = int.from_bytes(body.octets[body.at : body.at + 2], "big")
            yield from _fields(body, spec.bodies["field"], f"field {names.get(kind, f'{kind:#06x}')}.")
    except _Short:
        yield _remark(body.at, "the body ends here, inside a field: MALFORMED")


def _fields(body: _Cursor, layout: tuple[BodyField, ...], prefix: str) -> Iterator[Part]:
    for part in layout:
        start, value, octets = body.at, *_value(body, part)
        yield Part(start, octets, prefix + part.name, value)


def _value(cursor: _Cursor, part: BodyField) -> tuple[str, bytes]:
    """A field's value as text, and its octets with those of its length."""
    if part.type in _INTEGERS:
        octets = cursor.take(_INTEGERS[part.type])
        number = int.from_bytes(octets, "big")
        return (f"{number:#06x}" if part.name in ("type", "flags") else str(number)), octets
    if part.type in _OCTETS:
        return "", cursor.take(_OCTETS[part.type])
    width = _COUNTED[part.type]
    length = cursor.take(width)
    content = cursor.take(int.from_bytes(length, "big"))
    text = part.type.startswith(("name", "text"))
    return (quoted(content.decode(errors="replace")) if text else f"{len(content)} octets"), length + content


def _remark(at: int, text: str) -> Part:
    return Part(at, b"", text, remark=True)


def _line(part: Part) -> str:
    if part.remark:
        return f"{part.at if part.at >= 0 else '':6}  {part.name}"
    shown = part.octets[:_HEX_SHOWN].hex(" ") + (" ..." if len(part.octets) > _HEX_SHOWN else "")
    return f"{part.at:6}  {shown:48}  {part.name}{f' = {part.value}' if part.value else ''}"
