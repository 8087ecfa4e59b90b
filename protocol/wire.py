"""The layout of every preface, header, body and extension field, declared once, with construct.

`compiled.py` makes the fast code of these declarations, and SPEC.md's tables are compared with them.
`encode_body` and `decode_body` run them by construct itself: slow, and the reference that the fast code is
held against. A frame is read in three layers, and the first that fails decides the error (SPEC.md, "Order of
checks"): structure, extension fields, values. So a declaration yields plain octets and numbers, and `Text`,
`Name` and `Safe` mark what the layer of values makes of them.

Nothing of construct leaves this module: bodies go in and out as dicts of plain values.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from construct import (
    Bytes,
    Construct,
    ConstructError,
    GreedyBytes,
    GreedyRange,
    Int8ub,
    Int16ub,
    Int32ub,
    Int64ub,
    Prefixed,
    PrefixedArray,
    Renamed,
    Struct,
    Subconstruct,
    Terminated,
    TerminatedError,
)

from protocol.errors import LocalProtocolError, Malformed, NameInvalid, RangeInvalid, UnknownField
from protocol.registry import MAX_SAFE, RULES, FieldType, FrameType, is_ignorable

if TYPE_CHECKING:
    _Node = Construct[Any, Any]
    _Wrapper = Subconstruct[Any, Any, Any, Any]
else:  # construct's classes take type parameters in its stubs only
    _Node, _Wrapper = Construct, Subconstruct


class Text(_Wrapper):
    """Octets of UTF-8 that people read. Never an error: what is ill-formed reads as U+FFFD."""


class Name(_Wrapper):
    """Octets of UTF-8 that name somebody or something, and so must be well-formed."""


class Safe(_Wrapper):
    """A number of at most MAX_SAFE, though its field is wider."""


class Counted(_Wrapper):
    """A count, then so many items."""

    def __init__(self, count: _Node, item: Struct) -> None:
        super().__init__(PrefixedArray(count, item))
        self.count = count
        self.item = item


b8 = Prefixed(Int8ub, GreedyBytes)
b16 = Prefixed(Int16ub, GreedyBytes)
b32 = Prefixed(Int32ub, GreedyBytes)

CLIENT_PREFACE = Struct("magic" / Int32ub, "version_min" / Int8ub, "version_max" / Int8ub, "zero" / Int16ub)
SERVER_PREFACE = Struct("magic" / Int32ub, "version" / Int8ub, "zero1" / Int8ub, "zero2" / Int16ub)

HEADER = Struct("length" / Int32ub, "type" / Int16ub, "flags" / Int16ub, "request" / Int32ub, "room" / Int32ub)

FIELD = Struct("type" / Int16ub, "value" / b16)


def _body(*members: _Node) -> Struct:
    return Struct(*members, "fields" / GreedyRange(FIELD), Terminated)


BODIES: dict[FrameType, Struct] = {
    FrameType.HELLO: _body("name" / Name(b8), "mechanism" / Text(b8), "auth" / b16),
    FrameType.WELCOME: _body(
        "member" / Int64ub,
        "name" / Name(b8),
        "now_ms" / Safe(Int64ub),
        "max_body" / Int32ub,
        "heartbeat_ms" / Int32ub,
        "dedupe_ms" / Int32ub,
        "window" / Int16ub,
        "max_rooms" / Int16ub,
        "auth" / b16,
    ),
    FrameType.AUTH: _body("data" / b16),
    FrameType.ERROR: _body("code" / Int16ub, "retry_ms" / Int32ub, "text" / Text(b16)),
    FrameType.OK: _body(),
    FrameType.PING: _body("opaque" / Bytes(8)),
    FrameType.PONG: _body("opaque" / Bytes(8)),
    FrameType.GOAWAY: _body("code" / Int16ub, "retry_ms" / Int32ub, "jitter_ms" / Int32ub, "text" / Text(b16)),
    FrameType.JOIN: _body("name" / Name(b8), "epoch" / Int64ub, "since" / Safe(Int64ub)),
    FrameType.JOINED: _body(
        "epoch" / Int64ub,
        "head" / Safe(Int64ub),
        "start" / Safe(Int64ub),
        "oldest" / Safe(Int64ub),
        "members" / Int32ub,
        "name" / Name(b8),
    ),
    FrameType.ROSTER: _body(
        "entries" / Counted(Int16ub, Struct("member" / Int64ub, "mflags" / Int8ub, "name" / Name(b8)))
    ),
    FrameType.PRESENCE: _body("kind" / Int8ub, "member" / Int64ub, "name" / Name(b8)),
    FrameType.LEAVE: _body(),
    FrameType.EVICTED: _body("code" / Int16ub, "retry_ms" / Int32ub, "text" / Text(b16)),
    FrameType.PUBLISH: _body("id" / Bytes(16), "ctype" / Int8ub, "payload" / b32),
    FrameType.ACK: _body("seq" / Safe(Int64ub), "time_ms" / Safe(Int64ub)),
    FrameType.MESSAGE: _body(
        "seq" / Safe(Int64ub),
        "time_ms" / Safe(Int64ub),
        "sender" / Int64ub,
        "id" / Bytes(16),
        "ctype" / Int8ub,
        "name" / Name(b8),
        "payload" / b32,
    ),
    FrameType.HISTORY: _body("start" / Safe(Int64ub), "end" / Safe(Int64ub), "limit" / Int16ub),
    FrameType.HISTORY_END: _body("start" / Safe(Int64ub), "end" / Safe(Int64ub), "oldest" / Safe(Int64ub)),
    FrameType.STOP: _body(),
}

VALUES: dict[FieldType, Struct] = {
    FieldType.EXTENSION: Struct("name" / Text(b8), "data" / GreedyBytes),
    FieldType.AGENT: Struct("text" / Text(GreedyBytes)),
    FieldType.SERVER: Struct("id" / Int64ub, "address" / Text(b8), Terminated),
    FieldType.MECHANISM: Struct("text" / Text(GreedyBytes)),
}


def decode_body(type: FrameType, body: bytes) -> dict[str, Any]:
    """The values of a body by name, by construct's own parser; items and `fields` are lists of dicts.

    Raises Malformed, UnknownField, NameInvalid or RangeInvalid, the first that the order of checks finds.
    """
    raw = _parsed(type.name, "fields", BODIES[type], body)
    check_fields(type, [(field["type"], field["value"]) for field in raw["fields"]])
    return _opened(type, BODIES[type], raw)


def encode_body(type: FrameType, values: Mapping[str, Any]) -> bytes:
    """The octets of a body, by construct's own builder, from values as decode_body returns them.

    Raises LocalProtocolError if a value does not fit its field.
    """
    return _built(type.name, BODIES[type], values)


def decode_field(frame: FrameType, type: int, value: bytes) -> dict[str, Any]:
    """The values inside a known extension field. Raises Malformed."""
    known = FieldType(type)
    return _opened(frame, VALUES[known], _parsed(frame.name, known.name, VALUES[known], value, known.name))


def encode_field(type: FieldType, values: Mapping[str, Any]) -> bytes:
    """The octets inside a known extension field. Raises LocalProtocolError if a value does not fit."""
    return _built(type.name, VALUES[type], values)


def check_fields(frame: FrameType, fields: Iterable[tuple[int, bytes]]) -> None:
    """Hold the extension fields of a body, as (type, value), against the registry.

    Raises Malformed for a repeated field that is not declared repeatable, or octets too few or too many
    inside a known one; after that, UnknownField for one that must be understood and is not.
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
                raise Malformed(frame.name, FieldType(kind).name, "one at most", "another")
            seen.add(kind)
        # [RW-FIELD-1]
        elif unknown is None and not is_ignorable(kind):
            unknown = kind
    # [RW-FIELD-2]
    if unknown is not None:
        raise UnknownField(frame.name, f"field {unknown:#06x}", "only known critical fields")


def plain_format(declaration: Struct) -> str:
    """The format for the standard library's struct of a declaration that holds plain numbers only."""
    return ">" + "".join(member.subcon.fmtstr[1:] for member in declaration.subcons)  # type: ignore[attr-defined]


def ill_formed(frame: FrameType, field: str, octets: bytes) -> Malformed | NameInvalid:
    """The error for a name that is not UTF-8: a client may mistype, a server never."""
    # [RW-CHECK-6]
    error = NameInvalid if RULES[frame].sender == "C" else Malformed
    return error(frame.name, field, "well-formed UTF-8", octets.hex())


def out_of_range(frame: FrameType, field: str, number: int) -> Malformed | RangeInvalid:
    """The error for a seq or time above MAX_SAFE."""
    # [RW-CHECK-4]
    error = RangeInvalid if RULES[frame].sender == "C" else Malformed
    return error(frame.name, field, f"at most {MAX_SAFE}", str(number))


def left_over(frame: str, field: str) -> Malformed:
    """The error for octets that no declaration accounts for."""
    # [RW-FRAME-7]
    return Malformed(frame, field, "nothing after the last whole one", "octets left over")


def truncated(frame: str, field: str, expected: int, found: int) -> Malformed:
    """The error for octets that are declared, and missing."""
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
    """The field that an error of construct is about, whose path is "(parsing) -> entries -> items -> name"."""
    path = (getattr(error, "path", None) or "").split(" -> ")[1:]
    return ".".join(part for part in (prefix, *path) if part not in ("", "count", "items"))  # PrefixedArray's


def _members(declaration: Struct) -> Iterator[tuple[str, _Node]]:
    for member in declaration.subcons:
        if isinstance(member, Renamed) and member.name:
            yield member.name, member.subcon


def _opened(frame: FrameType, declaration: Struct, raw: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain numbers and octets to values: the layer after structure and extension fields."""
    return {name: _open(frame, prefix + name, node, raw[name]) for name, node in _members(declaration)}


def _open(frame: FrameType, field: str, node: _Node, raw: Any) -> Any:
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
    """Values to plain numbers and octets."""
    return {name: _close(f"{place}.{name}", node, values[name]) for name, node in _members(declaration)}


def _close(place: str, node: _Node, value: Any) -> Any:
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
