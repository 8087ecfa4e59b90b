"""protocol.layout: from the annotations of a class to its layout."""

from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any

import pytest
from construct import Int16ub, Struct

from protocol import layout
from protocol.registry import Code


@dataclass
class Item:
    number: layout.U8
    name: layout.Name8


@dataclass
class Whole:
    code: Annotated[layout.U16, Code]
    since: layout.N64
    items: layout.Items16[Item]
    flags: int = field(default=0, kw_only=True)


def node(declaration: Struct, name: str) -> Any:
    return dict(layout.members(declaration))[name]


def test_members_in_order_without_keyword_only_ones() -> None:
    assert [name for name, _ in layout.members(layout.struct_of(Whole))] == ["code", "since", "items"]


def test_layout_parses_what_it_builds() -> None:
    declaration = layout.struct_of(Whole)
    values = {"code": 105, "since": 2**53 - 1, "items": [{"number": 7, "name": b"ada"}]}
    octets = bytes.fromhex("0069 001FFFFFFFFFFFFF 0001 07 03 616461")
    assert declaration.build(values) == octets
    assert declaration.parse(octets) == values


def test_node_of_a_field_type() -> None:
    declaration = layout.struct_of(Whole)
    assert isinstance(node(declaration, "since"), layout.Safe)
    assert node(declaration, "code").subcon is Int16ub


def test_names_of_numbers() -> None:
    named = node(layout.struct_of(Whole), "code")
    assert isinstance(named, layout.Enumerated)
    assert named.names is Code
    assert named.parse(b"\xff\xff") == 65_535  # a number without a name is allowed


def test_items_know_their_class() -> None:
    items = node(layout.struct_of(Whole), "items")
    assert isinstance(items, layout.Counted)
    assert items.cls is Item
    assert items.count is Int16ub
    assert [name for name, _ in layout.members(items.item)] == ["number", "name"]


@pytest.mark.parametrize("annotation", [int, "U8", tuple[Item, ...], None])
def test_annotation_that_is_no_field_type(annotation: Any) -> None:
    with pytest.raises(TypeError, match="is no field type"):
        layout.struct_of(make_dataclass("Wrong", [("number", annotation)]))
