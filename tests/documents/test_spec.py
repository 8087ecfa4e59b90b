"""SPEC.md against the code: numbers, layouts, examples, and rules that are tables.

The tables are written by hand, and so are the values of the examples: neither is generated from what it is compared
with.
"""

import inspect
import re
from itertools import chain
from typing import Any

import pytest
from construct import FormatField, GreedyBytes, Prefixed, Struct

from conformance.files import document
from conformance.spec.tables import BodyField, JoinRow, NameRow, load
from protocol import codec, frames, layout, names, registry, state, wire
from protocol.client import ClientConnection
from protocol.frames import RULES
from protocol.framing import FrameReader
from protocol.registry import CODES, LIMITS, FieldType, Flag, FrameType
from protocol.server import ServerConnection, ServerTimes
from reference_server.core.handlers.join import join_point
from tests.support.example_frames import EXAMPLES

SPEC = load()
TEXT = document().read_text(encoding="utf-8")
DOCUMENT = SPEC.document
PROSE = [paragraph.text for paragraph in DOCUMENT.paragraphs]
CELLS = [cell for table in DOCUMENT.tables for row in table.rows for cell in row.values()]


# The registries of numbers


def test_frames_have_the_numbers_of_the_registry() -> None:
    assert {row.name: row.type for row in SPEC.frames.values()} == {t.name: t.value for t in FrameType}


@pytest.mark.parametrize("frame", FrameType, ids=lambda frame: frame.name)
def test_rule_of_a_frame(frame: FrameType) -> None:
    row, rule = SPEC.frames[frame.name], RULES[frame]
    numbers = {"request": "nonzero", "reply": "nonzero", "HELLO's": "nonzero", "0": "zero"}
    assert rule.sender == row.sender
    assert rule.request == {**numbers, "0 or HISTORY's": "any"}[row.request]
    assert rule.room == {"0": "zero", "ref": "nonzero", "any": "any"}[row.room]
    assert rule.seq == row.seq
    assert rule.flags & ~Flag.SEQ == sum(SPEC.flags[name].value for name in row.flags)
    assert rule.extension == row.extension
    fields = {FieldType[name]: field.repeatable for name, field in SPEC.fields.items() if frame.name in field.frames}
    assert rule.fields == fields


def test_replies_are_those_of_section_6() -> None:
    (text,) = [text for text in PROSE if text.startswith("The final reply to a request is ERROR, or: ")]
    final, parts = text.removeprefix("The final reply to a request is ERROR, or: ").split(". ", 1)
    replies = {
        request: reply
        for reply, requests in re.findall(r"(\w+) to (\w+(?: and \w+)*)", final)
        for request in requests.split(" and ")
    }
    assert replies == {type.name: rule.reply.name for type, rule in by_type() if rule.reply}
    found = re.fullmatch(
        r"(\w+) from a server is an intermediate reply to (\w+); (\w+) with (\w+)'s number is part of \4's reply\.",
        parts,
    )
    assert found
    assert {found[2]: found[1], found[4]: found[3]} == {
        type.name: rule.part.name for type, rule in by_type() if rule.part
    }


def by_type() -> list[tuple[FrameType, frames.Rule]]:
    return [(type, RULES[type]) for type in FrameType]


def test_flags_have_the_values_of_the_registry() -> None:
    values = {name: value for name, value in vars(Flag).items() if name.isupper()}
    assert {row.name: row.value for row in SPEC.flags.values()} == values


def test_fields_have_the_numbers_of_the_registry() -> None:
    assert {row.name: row.type for row in SPEC.fields.values()} == {t.name: t.value for t in FieldType}


def test_codes_are_those_of_the_registry() -> None:
    of_code = {code.name: (code.value, rule.carriers, rule.retry) for code, rule in CODES.items()}
    assert {row.name: (row.number, row.carriers, row.retry) for row in SPEC.codes.values()} == of_code


def test_limits_are_those_of_the_registry() -> None:
    assert {name: row[1:] for name, row in SPEC.limits.items()} == {name: tuple(row) for name, row in LIMITS.items()}
    assert LIMITS["hello_max_body"].default == registry.HELLO_MAX_BODY


def test_reserved_and_private_numbers() -> None:
    rows = {row["use"].split(":")[0]: row["numbers"] for row in DOCUMENT.table("17.1", "numbers", "use").rows}
    formula = re.fullmatch(r"(\w+) \+ (\w+) n, n from 0 to (\d+)", rows["reserved"])
    assert formula
    first, step, last = (int(number, 0) for number in formula.groups())
    assert [first + step * n for n in range(last + 1)] == list(registry.GREASE)

    def numbers(use: str) -> range:
        low, high = (int(number, 0) for number in rows[use].split(" to "))
        return range(low, high + 1)

    every = range(2**16)
    private = [*numbers("private, critical"), *numbers("private, ignorable")]
    assert [number for number in every if registry.is_private(number)] == private
    assert [number for number in every if registry.is_relayed(number)] == list(numbers("for fields"))
    assert not set(registry.GREASE) & {*private, *map(int, FrameType), *map(int, FieldType)}
    assert all(registry.is_ignorable(n) and not registry.is_relayed(n) for n in registry.GREASE)


def test_presence_kinds() -> None:
    kinds = next(
        row["meaning"] for table in DOCUMENT.tables_of("7.12", "field", "type", "meaning") for row in table.rows
    )
    assert kinds == ", ".join(f"{kind.value} {kind.name.lower()}" for kind in registry.PresenceKind)


# Layouts

WIDTHS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "n64": 8, "o8": 8, "o16": 16}
LENGTHS = {"b16": 2, "b32": 4, "name8": 1, "text8": 1, "text16": 2}


def described(declaration: Struct) -> list[BodyField]:
    """The members of a declaration in the terms of SPEC.md, without the extension fields at its end."""
    found: list[BodyField] = []
    for member in declaration.subcons:
        name, node = member.name or "", getattr(member, "subcon", None)
        if isinstance(node, layout.Counted):
            found += [BodyField("count", word(node.count)), BodyField(name, "entry[count]")]
        elif name and name != "fields":
            found.append(BodyField(name, word(node)))
    return found


def word(node: Any) -> str:
    """The name in SPEC.md of the type of a node."""
    match node:
        case layout.Name():
            return word(node.subcon).replace("b", "name")
        case _ if GreedyBytes in (node, getattr(node, "subcon", None)) and not isinstance(node, Prefixed):
            return "the rest"
        case layout.Text():
            return word(node.subcon).replace("b", "text")
        case layout.Enumerated():
            return word(node.subcon)
        case layout.Safe():
            return word(node.subcon).replace("u", "n")
        case Prefixed() if node.subcon is GreedyBytes:
            return f"b{8 * node.lengthfield.sizeof()}"
        case FormatField():
            assert node.fmtstr[0] == ">"
            assert node.fmtstr[1].isupper()
            return f"u{8 * node.sizeof()}"
        case _:
            return f"o{node.sizeof()}"


def test_types_have_the_widths_of_their_table() -> None:
    """A row gives one width for all of its types, or one for each."""
    widths: dict[str, int] = {}
    lengths: dict[str, int] = {}
    for row in DOCUMENT.table("5", "type", "octets", "value").rows:
        types, octets = row.parts("type"), row.parts("octets")
        for type, width in zip(types, octets, strict=True):
            if width.isdecimal():
                widths[type] = int(width)
            else:
                lengths[type] = int(width.removesuffix(" + n"))
                bits = re.search(r"a length n of ([\d or]+) bits", row["value"])
                assert bits
                assert str(8 * lengths[type]) in bits[1].split()
    assert (widths, lengths) == (WIDTHS, LENGTHS)


@pytest.mark.parametrize("frame", FrameType, ids=lambda frame: frame.name)
def test_layout_of_a_body(frame: FrameType) -> None:
    declaration = wire.BODIES[frame]
    members = SPEC.bodies[frame.name]
    assert described(declaration) == list(members)
    # After its members a body has extension fields and nothing else: section 5.3.
    last, end = declaration.subcons[-2:]
    assert (last.name, type(end).__name__) == ("fields", "Terminated")
    attributes = list(inspect.signature(frames.FRAMES[frame]).parameters)
    own = [field.name for field in members if field.name != "count"]
    assert attributes == [*own, "fields", "flags", "request", "room"]


def test_layout_of_a_roster_entry() -> None:
    counted = getattr(wire.BODIES[FrameType.ROSTER].subcons[0], "subcon", None)
    assert isinstance(counted, layout.Counted)
    assert described(counted.item) == list(SPEC.bodies["entry"])
    assert list(frames.RosterEntry.__dataclass_fields__) == [field.name for field in SPEC.bodies["entry"]]


def test_layout_of_header_and_extension_field() -> None:
    assert described(layout.HEADER) == list(SPEC.bodies["header"])
    assert sum(WIDTHS[field.type] for field in SPEC.bodies["header"]) == registry.HEADER_SIZE
    assert described(wire.FIELD) == list(SPEC.bodies["field"])


@pytest.mark.parametrize("field", FieldType, ids=lambda field: field.name)
def test_layout_of_a_field(field: FieldType) -> None:
    value = SPEC.fields[field.name].value
    if value.startswith("UTF-8 text:"):
        members = [("text", "the rest")]
    else:
        members = re.findall(r"`(\w+)`:? (the rest|\w+)", value)
    assert described(layout.VALUES[field]) == members


# Examples


@pytest.mark.parametrize("frame", SPEC.frames)
def test_example_values(frame: str) -> None:
    octets, meant = SPEC.examples[frame], EXAMPLES[FrameType[frame]]
    stream = FrameReader()
    stream.feed(octets)
    raw = stream.next_frame()
    assert raw is not None
    assert stream.buffered == 0
    for sender in SPEC.frames[frame].sender:
        assert codec.decode(raw, "C" if sender == "C" else "S") == meant
    assert codec.encode(meant) == octets


@pytest.mark.parametrize("frame", SPEC.frames)
def test_example_groups(frame: str) -> None:
    meant = EXAMPLES[FrameType[frame]]
    flags, request, room = meant.flags, meant.request, meant.room
    body = [*grouped(SPEC.bodies[frame], meant)]
    header = {"type": meant.TYPE, "flags": flags, "request": request, "room": room}
    header["length"] = sum(map(len, body)) // 2
    words = [number(field, header[field.name]) for field in SPEC.bodies["header"]]
    assert list(SPEC.words[frame]) == [*words, *body]


@pytest.mark.parametrize("frame", SPEC.frames)
def test_example_header_has_a_line_of_its_own(frame: str) -> None:
    titles = {heading.section: heading.title for heading in DOCUMENT.headings}
    (block,) = [block for block in DOCUMENT.blocks if titles[block.section] == frame]
    assert block.lines[0].split() == list(SPEC.words[frame][: len(SPEC.bodies["header"])])


def grouped(fields: tuple[BodyField, ...], values: Any) -> list[str]:
    """The groups of a body as its table gives them: a number, or a length and then the octets that it counts."""
    found: list[str] = []
    for field in fields:
        if field.name == "count":
            found.append(number(field, len(values.entries)))
            continue
        value = getattr(values, field.name)
        if field.type == "entry[count]":
            found += chain.from_iterable(grouped(SPEC.bodies["entry"], entry) for entry in value)
        elif field.type in LENGTHS:
            octets = value.encode() if isinstance(value, str) else value
            found.append(f"{len(octets):0{2 * LENGTHS[field.type]}X}")
            found += [octets.hex().upper()] if octets else []
        else:
            found.append(number(field, value))
    return found


def number(field: BodyField, value: int | bytes) -> str:
    return value.hex().upper() if isinstance(value, bytes) else f"{value:0{2 * WIDTHS[field.type]}X}"


def test_layout_of_prefaces() -> None:
    numbers = {"magic": int.from_bytes(registry.MAGIC), "version_min": 1, "version_max": 1, "version": 1}
    for end in ("client preface", "server preface"):
        words = [number(field, numbers.get(field.name, 0)) for field in SPEC.bodies[end]]
        assert bytes.fromhex("".join(words)) == SPEC.examples[end]
        assert len(SPEC.examples[end]) == registry.PREFACE_SIZE
    magics = [row["meaning"] for table in DOCUMENT.tables for row in table.rows if row.get("field") == "magic"]
    assert magics == [f"`0x{registry.MAGIC.hex().upper()}`"] * 2


def test_prefaces_of_connections() -> None:
    client, server = (
        ClientConnection(frames.Hello("ada", "ANONYMOUS", b"", request=1), 0.0),
        ServerConnection(0.0, ServerTimes()),
    )
    client.transport_up(0.0)
    sent = client.data_to_send(0.0)
    assert sent == SPEC.examples["client preface"]
    assert list(server.receive_data(sent, 0.0)) == []
    sent = server.data_to_send(0.0)
    assert sent == SPEC.examples["server preface"]
    assert list(client.receive_data(sent, 0.0)) == []
    assert client.data_to_send(0.0) == SPEC.examples["HELLO"]


# Rules that are tables


@pytest.mark.parametrize("name", SPEC.transitions)
def test_transitions_are_those_of_the_code(name: str) -> None:
    of_code: tuple[state.Transition, ...] = getattr(state, name)
    assert [tuple(row) for row in SPEC.transitions[name]] == [tuple(row) for row in of_code]


@pytest.mark.parametrize(
    ("name", "state", "accepted"),
    [
        ("CLIENT", "HELLO_SENT", state.CLIENT_ACCEPTS),
        ("SERVER", "WAIT_HELLO", state.SERVER_ACCEPTS["WAIT_HELLO"]),
        ("SERVER", "AUTHENTICATING", state.SERVER_ACCEPTS["AUTHENTICATING"]),
    ],
)
def test_frames_before_welcome_are_those_of_the_transitions(name: str, state: str, accepted: frozenset[int]) -> None:
    events = [re.split(r"\W", row.event)[0] for row in SPEC.transitions[name] if row.state == state]
    assert {FrameType(type).name for type in accepted} == set(events) & SPEC.frames.keys()


@pytest.mark.parametrize("row", SPEC.join_table, ids=str)
def test_join_table(row: JoinRow) -> None:
    found = join_point(row.head, row.oldest, row.room_epoch, row.client_epoch, row.since, 10_000)
    assert found == (row.start, row.gap)


@pytest.mark.parametrize("row", SPEC.name_table, ids=str)
def test_name_table(row: NameRow) -> None:
    assert (names.key(row.a) == names.key(row.b)) == row.same


def test_ignorable_characters_are_those_of_the_code() -> None:
    rows = DOCUMENT.table("12", "from", "to", "what").rows
    found = [tuple(int(row[column].removeprefix("U+"), 16) for column in ("from", "to")) for row in rows]
    assert found == list(names.DEFAULT_IGNORABLE)


def test_blank_characters_are_those_of_the_code() -> None:
    rule = SPEC.requirements["RW-NAME-8"]
    found = re.findall(r"U\+(\w+)", rule.text.partition("strip")[0])
    assert [chr(int(point, 16)) for point in found] == list(names.BLANK)


def test_key_of_an_ascii_name() -> None:
    """An ASCII-only server needs no Unicode tables."""
    for character in map(chr, range(0x20, 0x7F)):
        assert names.key(character) == character.lower()
