"""Fast encoders and decoders, generated at import from the declarations of the frames.

A walk over each construct tree writes plain Python around `struct.Struct` and slices. `source()` returns it. A node
that the walk does not know raises TypeError at import, so no node is skipped silently.

The layers and the errors are those of `wire.decode_body`, and tests compare the two.
"""

import builtins
import linecache
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from struct import Struct
from struct import error as StructError
from typing import Any

import construct

from protocol import layout, wire
from protocol.errors import LocalProtocolError, Malformed
from protocol.frames import FRAMES, HEADER_MEMBERS, RULES, Field, Frame, Rule
from protocol.framing import RawFrame, check_header
from protocol.registry import MAX_SAFE, Flag, FrameType


@dataclass(frozen=True, slots=True)
class Piece:
    """One member of a declaration.

    `kind` is "number", "octets" (a fixed number of them), "prefixed" (octets after their length) or "counted" (items of
    the class `cls` after their number). `format` is struct's, for the member, or for the length or number before it.
    """

    name: str
    kind: str
    format: str
    mark: type | None = None
    items: tuple["Piece", ...] = ()
    cls: type = object

    @property
    def size(self) -> int:
        return Struct(">" + self.format).size


def walk(declaration: construct.Struct) -> tuple[Piece, ...]:
    """Return the pieces of a declaration. Raises TypeError for a member that this module can't compile."""
    members: list[Any] = declaration.subcons
    for member in members:
        if not member.name or member.name.startswith("_") or member.parsed:
            raise TypeError(f"{member!r} can't be compiled: no name, a leading underscore, or a hook")
    return tuple(_piece(member.name, member.subcon) for member in members)


def walk_body(declaration: construct.Struct) -> tuple[Piece, ...]:
    """Return the pieces of a body without its extension fields, which must follow as `wire.py` declares them."""
    *members, tail, end = declaration.subcons
    fields: Any = getattr(tail, "subcon", None)
    if tail.name != "fields" or not isinstance(fields, construct.GreedyRange) or fields.discard:
        raise TypeError(f"{declaration!r} has no extension fields")
    if fields.subcon is not wire.FIELD or end is not construct.Terminated:
        raise TypeError(f"{declaration!r} does not end with its extension fields")
    pieces = walk(construct.Struct(*members))
    names = [*HEADER_MEMBERS, *(inner.name for piece in pieces for inner in (piece, *piece.items))]
    if len(set(names)) < len(names):
        raise TypeError(f"{declaration!r} uses a name twice")
    return pieces


def _piece(name: str, node: Any) -> Piece:
    match node:
        case layout.Text() | layout.Name() | layout.Safe():
            inner = _piece(name, node.subcon)
            if not inner.mark and inner.kind == ("number" if isinstance(node, layout.Safe) else "prefixed"):
                return Piece(name, inner.kind, inner.format, type(node))
        case construct.FormatField() if node.fmtstr in (">B", ">H", ">L", ">Q"):
            return Piece(name, "number", node.fmtstr[1])
        case construct.Bytes() if isinstance(node.length, int):
            return Piece(name, "octets", f"{node.length}s")
        case construct.Prefixed() if node.subcon is construct.GreedyBytes and not node.includelength:
            return Piece(name, "prefixed", _number(name, node.lengthfield))
        case layout.Counted():
            items = walk(node.item)
            if all(item.kind != "counted" for item in items):  # the loops share their variables
                return Piece(name, "counted", _number(name, node.count), items=items, cls=node.cls)
        case layout.Enumerated():
            return _piece(name, node.subcon)
    raise TypeError(f"{name}: {node!r} can't be compiled")


def _number(name: str, node: Any) -> str:
    piece = _piece(name, node)
    if piece.kind != "number" or piece.mark:
        raise TypeError(f"{name}: {node!r} is no plain number")
    return piece.format


# --- Emitting. Variables that are no members begin with an underscore, so that no member has the same name.

DECODER = """
def decode_{type}(raw):
    _, flags, request, room, body = raw
    if {violation}:
        check_header(raw)
    {read}
    fields = () if len(body) == {end} else read_fields({type}, body, {end})
    {open}
    {make}
    return _made
"""

ENCODER = """
def encode_{type}(frame):
    try:
        {prepare}
        _fields = write_fields(frame.fields) if frame.fields else b""
        return {whole}
    except UNFIT as _error:
        raise unfit(frame, _error) from None
"""

PACKER = """
def pack_{type}({arguments}):
    return {whole}
"""

FIELDS = """
def read_fields(frame, body, _at):
    if _at > len(body):
        raise missing(frame, body)
    _fields = []
    try:
        while _at < len(body):
            {read}
            _fields.append((type, value))
    except StructError:
        raise left_over(frame.name, "fields") from None
    if _at > len(body):
        raise left_over(frame.name, "fields")
    check_fields(frame, _fields)
    return tuple([Field(*_field) for _field in _fields])


def write_fields(fields):
    _items = []
    for _item in fields:
        {write}
    return b"".join(_items)
"""


def _fill(template: str, **parts: str | list[str]) -> str:
    """Return the template with its parts. A part that is a list of lines gets the indentation of its place."""
    lines: list[str] = []
    for line in template.split("\n"):
        block = parts.get(line.strip("{ }")) if line.endswith("}") else None
        if isinstance(block, list):
            lines += [line[: line.index("{")] + inner for inner in block]
        else:
            lines.append(line.format(**parts))
    return "\n".join(lines)


def _indent(lines: Iterable[str]) -> list[str]:
    return ["    " + line for line in lines]


def _read(pieces: Iterable[Piece], base: str = "") -> tuple[list[str], str]:
    """Return lines that read the pieces as plain numbers and octets from `body`, and the place where they end.

    They begin at the variable `base`, or at 0. Pieces of fixed size are read in one call, together with the length that
    follows them.
    """
    lines: list[str] = []
    names: list[str] = []
    format = ""
    offset = 0  # of the next piece, from `base`

    def here() -> str:
        return f"{base} + {offset}" if base and offset else base or str(offset)

    for piece in (*pieces, None):
        if piece is not None:
            names.append({"prefixed": "_size", "counted": "_count"}.get(piece.kind, piece.name))
            format += piece.format
            if piece.kind in ("number", "octets"):
                continue
        if names:
            target = ", ".join(names) if len(names) > 1 else f"({names[0]},)"
            lines.append(f"{target} = _read_{format}(body, {here()})")
            offset += Struct(">" + format).size
            names, format = [], ""
        if piece is None:
            break
        if piece.kind == "prefixed":
            start = "_start" if base else here()
            lines += [f"_start = {here()}"] if base else []
            lines += [f"_at = {start} + _size", f"{piece.name} = body[{start}:_at]"]
        else:
            item, end = _read(piece.items, "_at")
            item += [f"_at = {end}"] if end != "_at" else []
            item.append(f"{piece.name}.append({_tuple(piece.items)})")
            lines += [f"_at = {here()}", f"{piece.name} = []", "for _ in range(_count):", *_indent(item)]
        base, offset = "_at", 0
    return lines, here()


def _tuple(pieces: Iterable[Piece]) -> str:
    names = [piece.name for piece in pieces]
    return f"({', '.join(names)}{',' * (len(names) == 1)})"


def _open(frame: str, pieces: Iterable[Piece], prefix: str = "") -> list[str]:
    """Return lines that turn plain numbers and octets into values, each in its own variable."""
    lines: list[str] = []
    for piece in pieces:
        name = piece.name
        arguments = f'{frame}, "{prefix}{name}", {name}'
        if piece.mark is layout.Name:
            lines += ["try:", f"    {name} = {name}.decode()", "except UnicodeDecodeError:"]
            lines += [f"    raise ill_formed({arguments}) from None"]
        elif piece.mark is layout.Text:
            lines += [f'{name} = {name}.decode("utf-8", "replace")']
        elif piece.mark is layout.Safe:
            lines += [f"if {name} > MAX_SAFE:", f"    raise out_of_range({arguments})"]
        elif piece.kind == "counted":
            item = _open(frame, piece.items, f"{name}.") + _make(piece.cls, piece.items)
            lines += ["_items = []", f"for {_tuple(piece.items)} in {name}:"]
            lines += [*_indent([*item, "_items.append(_made)"]), f"{name} = tuple(_items)"]
    return lines


def _make(cls: type, pieces: Iterable[Piece], *more: str) -> list[str]:
    """Return lines that make an object in `_made`.

    The __init__ of a frozen dataclass calls object.__setattr__ for each field, which takes 1.1 us for a MESSAGE. An
    unfrozen class with the same slots takes 0.2 us; at the end the object changes its class.
    """
    stores = [f"_made.{name} = {name}" for name in (*(piece.name for piece in pieces), *more)]
    return [f"_made = _Open{cls.__name__}()", *stores, f"_made.__class__ = {cls.__name__}"]


def _violation(rule: Rule) -> str:
    """Return the condition under which a header breaks the rule."""
    tests = {"nonzero": "not {} or ", "zero": "{} or ", "any": ""}
    numbers = tests[rule.request].format("request") + tests[rule.room].format("room")
    return f"{numbers}{'not ' * rule.seq}flags & {Flag.SEQ:#06x}"


def _write(pieces: Iterable[Piece], source: str, format: str = "", *arguments: str) -> tuple[list[str], list[str]]:
    """Return lines that prepare the values of `source`, and the expressions whose octets make up the whole.

    The first expression begins with `arguments`, packed by `format`.
    """
    lines: list[str] = []
    parts: list[str] = []
    values = list(arguments)
    for piece in pieces:
        name = piece.name
        format += piece.format
        lines.append(f"{name} = {source}.{name}")
        if piece.kind in ("number", "octets"):
            wrong = f"len({name}) != {piece.size}" if piece.kind == "octets" else f"{name} > MAX_SAFE"
            if piece.kind == "octets" or piece.mark is layout.Safe:  # struct itself cuts and pads octets
                lines += [f"if {wrong}:", f"    raise ValueError({name})"]
            values.append(name)
            continue
        values.append(f"len({name})")
        parts.append(f"_pack_{format}({', '.join(values)})")
        format, values = "", []
        if piece.kind == "prefixed":
            lines[-1] += ".encode()" if piece.mark else ""
            parts.append(name)
        else:
            item, octets = _write(piece.items, "_item")
            lines += ["_items = []", f"for _item in {name}:"]
            lines += _indent([*item, f"_items.append({' + '.join(octets)})"])
            parts.append("*_items")
    if format:
        parts.append(f"_pack_{format}({', '.join(values)})")
    return lines, parts


def _decoder(type: FrameType, pieces: tuple[Piece, ...]) -> str:
    read, end = _read(pieces)
    if read:
        read = ["try:", *_indent(read), "except StructError:"]
        read.append(f"    raise missing({type.name}, body) from None")
    make = _make(FRAMES[type], pieces, *HEADER_MEMBERS)
    lines = {"read": read, "open": _open(type.name, pieces), "make": make}
    return _fill(DECODER, type=type.name, violation=_violation(RULES[type]), end=end, **lines)


def _encoder(type: FrameType, pieces: tuple[Piece, ...]) -> str:
    prepare, whole = _whole(type, pieces, "frame.")
    return _fill(ENCODER, type=type.name, prepare=prepare, whole=whole)


def _packer(type: FrameType, pieces: tuple[Piece, ...]) -> str:
    """The packer takes values instead of a frame. A frame with items has none."""
    if any(piece.kind == "counted" for piece in pieces):
        return ""
    arguments = ", ".join([*(piece.name for piece in pieces), "_fields", "flags", "request", "room"])
    return _fill(PACKER, type=type.name, arguments=arguments, whole=_whole(type, pieces, "")[1])


def _whole(type: FrameType, pieces: tuple[Piece, ...], source: str) -> tuple[list[str], str]:
    """Return lines that prepare the members of a frame, and the expression for all of its octets."""
    lengths = [str(sum(piece.size for piece in pieces))]
    for piece in pieces:
        lengths += [f"len({piece.name})"] if piece.kind == "prefixed" else []
        lengths += ["sum(map(len, _items))"] if piece.kind == "counted" else []
    lengths.append("len(_fields)")
    header = [" + ".join(lengths), f"{type:#06x}", f"{source}flags", f"{source}request", f"{source}room"]
    format = "".join(piece.format for piece in walk(layout.HEADER))
    prepare, parts = _write(pieces, "frame", format, *header)
    return prepare, f"{parts[0]} + _fields" if len(parts) == 1 else f'b"".join(({", ".join(parts)}, _fields))'


def _fields() -> str:
    read, end = _read(walk(wire.FIELD), "_at")
    assert end == "_at"
    write, octets = _write(walk(wire.FIELD), "_item")
    return _fill(FIELDS, read=read, write=[*write, f"_items.append({' + '.join(octets)})"])


PIECES: dict[FrameType, tuple[Piece, ...]] = {type: walk_body(body) for type, body in wire.BODIES.items()}


def source() -> str:
    """Return the Python that is generated from the declarations."""
    emitted = [emit(type, pieces) for type, pieces in PIECES.items() for emit in (_decoder, _encoder, _packer)]
    return "\n".join([_fields(), *filter(None, emitted)])


# --- What the emitted code calls when something is wrong

UNFIT = (StructError, ValueError, TypeError, AttributeError)
"""What Python raises for values that do not fit their fields."""


def missing(type: FrameType, body: bytes) -> Malformed:
    """The error for a body that ends before its last member. It names the first member that lacks octets."""
    try:
        _skip(type, PIECES[type], body, 0)
    except Malformed as error:
        return error
    raise AssertionError(f"nothing is missing in {type.name}: {body.hex()}")


def _skip(type: FrameType, pieces: Iterable[Piece], body: bytes, at: int, prefix: str = "") -> int:
    for piece in pieces:
        sizes = [piece.size]
        for size in sizes:
            if len(body) - at < size:
                raise wire.truncated(type.name, prefix + piece.name, size, len(body) - at)
            amount = int.from_bytes(body[at : at + size], "big")
            at += size
            if piece.kind == "prefixed" and len(sizes) == 1:
                sizes.append(amount)
        if piece.kind == "counted":
            for _ in range(amount):
                at = _skip(type, piece.items, body, at, f"{prefix}{piece.name}.")
    return at


def unfit(frame: Frame, error: Exception) -> LocalProtocolError:
    """The error for a frame that can't be encoded. If its body is the cause, the text is that of the reference."""
    try:
        wire.encode_body(frame.TYPE, asdict(frame))
    except LocalProtocolError as reason:
        return reason
    except UNFIT as reason:
        error = reason
    return LocalProtocolError(f"{frame.TYPE.name}: {error}")


def _unfrozen(cls: Any) -> type:
    """A class with the memory layout of the frozen dataclass `cls`, whose members are set as those of any object."""
    plain = {name: getattr(object, name) for name in ("__init__", "__setattr__", "__delattr__")}
    return builtins.type(cls.__name__, cls.__bases__, {"__slots__": cls.__slots__, **plain})


def _compile() -> dict[str, Any]:
    text = source()
    name = "<compiled from protocol/wire.py>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)  # for tracebacks and debuggers
    namespace: dict[str, Any] = {"StructError": StructError, "UNFIT": UNFIT, "MAX_SAFE": MAX_SAFE}
    items = [piece.cls for pieces in PIECES.values() for piece in pieces if piece.items]
    for cls in (*FRAMES.values(), *items):
        namespace |= {cls.__name__: cls, f"_Open{cls.__name__}": _unfrozen(cls)}
    for action, format in set(re.findall(r"\b_(read|pack)_(\w+)", text)):
        packed = Struct(">" + format)
        namespace[f"_{action}_{format}"] = packed.unpack_from if action == "read" else packed.pack
    helpers = (check_header, wire.check_fields, wire.ill_formed, wire.left_over, wire.out_of_range)
    namespace |= {helper.__name__: helper for helper in (*helpers, missing, unfit, Field)}
    namespace |= {type.name: type for type in FrameType}
    exec(compile(text, name, "exec"), namespace)
    return namespace


_namespace = _compile()

DECODERS: dict[FrameType, Callable[[RawFrame], Frame]] = {type: _namespace[f"decode_{type.name}"] for type in FrameType}
"""By type: from a raw frame of that type to a Frame. They check the header too, and raise like codec.decode."""

ENCODERS: dict[type, Callable[[Any], bytes]] = {FRAMES[type]: _namespace[f"encode_{type.name}"] for type in FrameType}
"""By class: from a Frame to its octets, header included. They raise LocalProtocolError."""

PACKERS: dict[FrameType, Callable[..., bytes]] = {
    type: _namespace[f"pack_{type.name}"] for type in FrameType if f"pack_{type.name}" in _namespace
}
"""By type: from the members of the body, then extension fields as octets, flags, request and room, to all octets.

They are for frames that are sent so often that making a Frame would cost the most. Names and texts are octets here, and
nothing but struct checks the values, so these must come from a decoder.
"""
