"""Bodies and extension fields by construct itself: slow, and the reference for the fast code.

`compiled.py` generates the fast code from the same declarations, `BODIES`, and tests compare SPEC.md's tables with
them. Values come in and go out as plain dicts; containers of construct stay inside.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from construct import (
    ConstructError,
    GreedyRange,
    Struct,
    Terminated,
    TerminatedError,
)

from protocol.errors import LocalProtocolError, Malformed, NameInvalid, RangeInvalid, UnknownField
from protocol.frames import FRAMES, RULES, Field
from protocol.layout import VALUES, Counted, Name, Node, Safe, Text, members, struct_of
from protocol.registry import MAX_SAFE, FieldType, FrameType, is_ignorable

FIELD = struct_of(Field)

BODIES: dict[FrameType, Struct] = {
    type: Struct(*struct_of(cls).subcons, "fields" / GreedyRange(FIELD), Terminated) for type, cls in FRAMES.items()
}


def decode_body(type: FrameType, body: bytes) -> dict[str, Any]:
    """Return the values of a body by name, parsed by construct. Items and `fields` are lists of dicts.

    Raises Malformed, UnknownField, NameInvalid or RangeInvalid, the first that the order of checks finds.
    """
    raw = _parsed(type.name, "fields", BODIES[type], body)
    check_fields(type, [(field["type"], field["value"]) for field in raw["fields"]])
    return _opened(type, BODIES[type], raw)


def encode_body(type: FrameType, values: Mapping[str, Any]) -> bytes:
    """Return the octets of a body, built by construct from values as `decode_body` returns them.

    Raises LocalProtocolError if a value does not fit its field.
    """
    return _built(type.name, BODIES[type], values)


def decode_field(frame: FrameType, type: int, value: bytes) -> dict[str, Any]:
    """Return the values inside a known extension field. Raises Malformed."""
    known = FieldType(type)
    return _opened(frame, VALUES[known], _parsed(frame.name, known.name, VALUES[known], value, known.name))


def encode_field(type: FieldType, values: Mapping[str, Any]) -> bytes:
    """Return the octets inside a known extension field. Raises LocalProtocolError if a value does not fit."""
    return _built(type.name, VALUES[type], values)


def check_fields(frame: FrameType, fields: Iterable[tuple[int, bytes]]) -> None:
    """Check the extension fields of a body, each as (type, value), by the frame's rule.

    Raises Malformed if a field is repeated that may not be, or if a known field has too few octets or too many. If
    there is no such field, raises UnknownField for a critical field that is not known.
    """
    known = RULES[frame].fields
    seen = set()
    unknown = None
    for kind, value in fields:
        if kind in known:
            # [RW-FIELD-4]
            decode_field(frame, kind, value)
            # [RW-FIELD-3]
            if kind in seen and not known[FieldType(kind)]:
                raise Malformed(frame.name, FieldType(kind).name, "at most one", "another")
            seen.add(kind)
        # [RW-FIELD-1]
        elif unknown is None and not is_ignorable(kind):
            unknown = kind
    # [RW-FIELD-2]
    if unknown is not None:
        raise UnknownField(frame.name, f"field {unknown:#06x}", "only known critical fields")


def ill_formed(frame: FrameType, field: str, octets: bytes) -> Malformed | NameInvalid:
    """The error for a name that is not UTF-8. Of a client it is a refused request, of a server it is fatal."""
    # [RW-CHECK-6]
    error = NameInvalid if RULES[frame].sender == "C" else Malformed
    return error(frame.name, field, "well-formed UTF-8", octets.hex())


def out_of_range(frame: FrameType, field: str, number: int) -> Malformed | RangeInvalid:
    """The error for a seq or a time above MAX_SAFE."""
    # [RW-CHECK-4]
    error = RangeInvalid if RULES[frame].sender == "C" else Malformed
    return error(frame.name, field, f"at most {MAX_SAFE}", str(number))


def left_over(frame: str, field: str) -> Malformed:
    """The error for octets after the end of the layout."""
    # [RW-FRAME-7]
    return Malformed(frame, field, "no octets after the last field", "octets left over")


def truncated(frame: str, field: str, expected: int, found: int) -> Malformed:
    """The error for a field whose octets are missing."""
    # [RW-FRAME-7]
    return Malformed(frame, field, f"{expected} octets", str(found))


_AMOUNTS = re.compile(r"expected (\d+), found (\d+)$")


def _parsed(frame: str, tail: str, declaration: Struct, octets: bytes, prefix: str = "") -> dict[str, Any]:
    try:
        return dict(declaration.parse(octets))
    except TerminatedError:
        raise left_over(frame, tail) from None
    except ConstructError as error:
        field = _place(prefix, error)
        if amounts := _AMOUNTS.search(str(error)):
            raise truncated(frame, field, int(amounts[1]), int(amounts[2])) from None
        raise Malformed(frame, field, found=str(error)) from error


def _built(place: str, declaration: Struct, values: Mapping[str, Any]) -> bytes:
    try:
        return declaration.build(_closed(place, declaration, values))
    except (ConstructError, TypeError, ValueError, AttributeError, KeyError) as error:
        what = str(error).rpartition("\n")[2]  # construct puts the path on a line of its own
        raise LocalProtocolError(f"{_place(place, error)}: {what}") from error


def _place(prefix: str, error: Exception) -> str:
    """The field that an error of construct is about. Its path is like "(parsing) -> entries -> items -> name"."""
    path = (getattr(error, "path", None) or "").split(" -> ")[1:]
    return ".".join(part for part in (prefix, *path) if part not in ("", "count", "items"))  # PrefixedArray's


def _opened(frame: FrameType, declaration: Struct, raw: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn plain numbers and octets into values: the layer after structure and extension fields."""
    return {name: _open(frame, prefix + name, node, raw[name]) for name, node in members(declaration)}


def _open(frame: FrameType, field: str, node: Node, raw: Any) -> Any:
    match node:
        case Name():
            try:
                return raw.decode()
            except UnicodeDecodeError:
                raise ill_formed(frame, field, raw) from None
        case Text():
            return raw.decode(errors="replace")  # [RW-CHECK-5]
        case Safe() if raw > MAX_SAFE:
            raise out_of_range(frame, field, raw)
        case Counted():
            return [_opened(frame, node.item, item, field + ".") for item in raw]
        case GreedyRange():
            return [{"type": field["type"], "value": field["value"]} for field in raw]
    return raw


def _closed(place: str, declaration: Struct, values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn values into plain numbers and octets."""
    return {name: _close(f"{place}.{name}", node, values[name]) for name, node in members(declaration)}


def _close(place: str, node: Node, value: Any) -> Any:
    match node:
        case Name() | Text():
            try:
                return value.encode()
            except (AttributeError, UnicodeEncodeError) as error:
                raise LocalProtocolError(f"{place}: expected text that UTF-8 can hold: {error}") from error
        case Safe() if isinstance(value, int) and value > MAX_SAFE:
            raise LocalProtocolError(f"{place}: expected at most {MAX_SAFE}, found {value}")
        case Counted():
            return [_closed(place, node.item, item) for item in value]
    return value
