"""The layouts of SPEC.md, section 5: field types for annotations, prefaces, header and extension fields.

A member of a frame is annotated with its field type: `since: N64` is an `int` to a type checker, and `struct_of` finds
in the annotation the node of construct that reads and builds it.

A frame is read in three layers, and the first that fails decides the error (SPEC.md, "Order of checks"): structure,
extension fields, values. So the nodes yield plain octets and numbers, and `Text`, `Name`, `Safe` and `Enumerated` mark
what the layer of values makes of them.
"""

from collections.abc import Iterator
from dataclasses import fields
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

from construct import (
    Bytes,
    Construct,
    GreedyBytes,
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
)

from protocol.registry import FieldType

if TYPE_CHECKING:
    Node = Construct[Any, Any]
    _Wrapper = Subconstruct[Any, Any, Any, Any]
else:  # construct's classes take type parameters in its stubs only
    Node, _Wrapper = Construct, Subconstruct


# --- Nodes that construct does not have


class Text(_Wrapper):
    """Octets of UTF-8 for people. Never an error: what is ill-formed reads as U+FFFD."""


class Name(_Wrapper):
    """Octets of UTF-8 that are a name, and so must be well-formed."""


class Safe(_Wrapper):
    """A number of at most MAX_SAFE, though its field is wider."""


class Enumerated(_Wrapper):
    """A number for which `names` has names. Other numbers are allowed."""

    def __init__(self, number: Node, names: type[IntEnum]) -> None:
        super().__init__(number)
        self.names = names


class Counted(_Wrapper):
    """A count, then so many items, each an object of the class `cls`."""

    def __init__(self, count: Node, cls: type) -> None:
        self.item = struct_of(cls)
        super().__init__(PrefixedArray(count, self.item))
        self.count = count
        self.cls = cls


# --- Field types

b8 = Prefixed(Int8ub, GreedyBytes)
b16 = Prefixed(Int16ub, GreedyBytes)
b32 = Prefixed(Int32ub, GreedyBytes)

U8 = Annotated[int, Int8ub]
U16 = Annotated[int, Int16ub]
U32 = Annotated[int, Int32ub]
U64 = Annotated[int, Int64ub]
N64 = Annotated[int, Safe(Int64ub)]
O8 = Annotated[bytes, Bytes(8)]
O16 = Annotated[bytes, Bytes(16)]
B16 = Annotated[bytes, b16]
B32 = Annotated[bytes, b32]
Name8 = Annotated[str, Name(b8)]
Text8 = Annotated[str, Text(b8)]
Text16 = Annotated[str, Text(b16)]

_Item = TypeVar("_Item")
Items16 = Annotated[tuple[_Item, ...], Int16ub]
"""A count of 16 bits, then so many items: `Items16[RosterEntry]`."""


def struct_of(cls: type) -> Struct:
    """Return the layout of a dataclass's members, in their order. Keyword-only members are not laid out.

    Raises TypeError for a member whose annotation is no field type.
    """
    return Struct(*(member.name / _node(member.type) for member in fields(cls) if not member.kw_only))


def members(declaration: Struct) -> Iterator[tuple[str, Node]]:
    """Yield the name and the node of each member of a layout that has a name."""
    for member in declaration.subcons:
        if isinstance(member, Renamed) and member.name:
            yield member.name, member.subcon


def _node(annotation: Any) -> Node:
    """The node of a field type. `Annotated[U16, Code]` is a U16 whose numbers Code names."""
    if get_origin(annotation) is not Annotated:
        raise TypeError(f"{annotation!r} is no field type")
    value, node, *names = get_args(annotation)
    if get_origin(value) is tuple:
        return Counted(node, get_args(value)[0])
    return Enumerated(node, *names) if names else node


# --- What surrounds a body, and what is inside the extension fields of SPEC.md

CLIENT_PREFACE = Struct("magic" / Int32ub, "version_min" / Int8ub, "version_max" / Int8ub, "zero" / Int16ub)
SERVER_PREFACE = Struct("magic" / Int32ub, "version" / Int8ub, "zero1" / Int8ub, "zero2" / Int16ub)

HEADER = Struct("length" / Int32ub, "type" / Int16ub, "flags" / Int16ub, "request" / Int32ub, "room" / Int32ub)

VALUES: dict[FieldType, Struct] = {
    FieldType.EXTENSION: Struct("name" / Text(b8), "data" / GreedyBytes),
    FieldType.AGENT: Struct("text" / Text(GreedyBytes)),
    FieldType.SERVER: Struct("id" / Int64ub, "address" / Text(b8), Terminated),
    FieldType.MECHANISM: Struct("text" / Text(GreedyBytes)),
}
"""What is inside a known extension field, to its end."""


def plain_format(declaration: Struct) -> str:
    """The format for the standard library's struct of a declaration that holds plain numbers only."""
    return ">" + "".join(member.subcon.fmtstr[1:] for member in declaration.subcons)  # type: ignore[attr-defined]
