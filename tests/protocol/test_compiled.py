"""protocol.compiled against construct itself: the same values, octets and refusals."""

import ast
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, fields, make_dataclass
from functools import cache
from typing import Annotated, Any

import construct as c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.fuzz.strategies import FRAMES, ids, payloads, u8, u16
from protocol import compiled, layout, wire
from protocol import frames as f
from protocol.codec import RawFrame, encode
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import RULES
from protocol.registry import HEADER_SIZE, MAX_SAFE, Code, Flag, FrameType
from tests.support.example_frames import WITH_FIELDS

TYPES = pytest.mark.parametrize("type", FrameType, ids=lambda type: type.name)
OF_EACH_TYPE = settings(max_examples=40)  # that is a thousand in all
HEADER_MEMBERS = {"flags", "request", "room"}


def outcome(read: Callable[[FrameType, bytes], dict[str, Any]], type: FrameType, body: bytes) -> Any:
    """The values, or the error with its arguments."""
    try:
        return read(type, body)
    except RemoteProtocolError as error:
        return error.__class__, error.args


def fast(type: FrameType, body: bytes) -> dict[str, Any]:
    """The values of a body by the compiled decoder, in the form that the reference returns."""
    rule = RULES[type]
    request, room = (int(wanted == "nonzero") for wanted in (rule.request, rule.room))
    frame = compiled.DECODERS[type](RawFrame(type, Flag.SEQ if rule.seq else 0, request, room, body))
    return of_body(frame)


def of_body(frame: f.Frame) -> dict[str, Any]:
    """The members of a frame's body, as the reference returns them."""
    return {name: value for name, value in members(frame).items() if name not in HEADER_MEMBERS}


def members(of: Any) -> dict[str, Any]:
    """What `asdict` makes of it, in a third of the time, and with lists for tuples."""
    values = {name: getattr(of, name) for name in names(of.__class__)}
    return {
        name: [members(item) for item in value] if isinstance(value, tuple) else value for name, value in values.items()
    }


@cache
def names(of: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(of))


def same(type: FrameType, body: bytes) -> None:
    assert outcome(fast, type, body) == outcome(wire.decode_body, type, body), body.hex()


@TYPES
@OF_EACH_TYPE
@given(data=st.data())
def test_same_octets_and_values(type: FrameType, data: st.DataObject) -> None:
    frame = data.draw(FRAMES[type])
    values = of_body(frame)
    body = encode(frame)[HEADER_SIZE:]
    assert body == wire.encode_body(type, values)
    assert wire.decode_body(type, body) == fast(type, body) == values


@pytest.mark.parametrize("type", compiled.PACKERS)
@OF_EACH_TYPE
@given(data=st.data())
def test_packer_gives_the_octets_of_the_encoder(type: FrameType, data: st.DataObject) -> None:
    frame = data.draw(FRAMES[type])
    values = [getattr(frame, piece.name) for piece in compiled.PIECES[type]]
    octets = [value.encode() if isinstance(value, str) else value for value in values]
    fields = encode(f.Ok(fields=frame.fields))[HEADER_SIZE:]
    packed = compiled.PACKERS[type](*octets, fields, frame.flags, frame.request, frame.room)
    assert packed == encode(frame)


@TYPES
def test_same_outcome_for_every_truncation(type: FrameType) -> None:
    body = encode(WITH_FIELDS[type])[HEADER_SIZE:]
    for size in range(len(body) + 1):
        same(type, body[:size])


@TYPES
def test_same_outcome_for_every_single_octet_change(type: FrameType) -> None:
    body = encode(WITH_FIELDS[type])[HEADER_SIZE:]
    for place, octet in enumerate(body):
        for other in range(256):
            if other != octet:
                same(type, body[:place] + bytes([other]) + body[place + 1 :])


@TYPES
def test_same_outcome_for_every_inserted_octet(type: FrameType) -> None:
    body = encode(WITH_FIELDS[type])[HEADER_SIZE:]
    for place in range(len(body) + 1):
        for octet in (0, 1, 0x7F, 0xFF):
            same(type, body[:place] + bytes([octet]) + body[place:])


@TYPES
@OF_EACH_TYPE
@given(data=st.data())
def test_same_outcome_for_damaged_frames(type: FrameType, data: st.DataObject) -> None:
    body = bytearray(encode(data.draw(FRAMES[type]))[HEADER_SIZE:])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(body)))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    same(type, bytes(body))


@given(st.sampled_from(FrameType), st.binary(max_size=120))
def test_same_outcome_for_any_octets(type: FrameType, body: bytes) -> None:
    same(type, body)


AROUND = st.one_of(st.sampled_from([-1, 0, 255, 256, 65535, 65536, 2**32, MAX_SAFE, MAX_SAFE + 1, 2**64]), u16)
ANY_NAME = st.text(max_size=260)


@given(
    st.one_of(
        st.builds(f.Publish, st.one_of(ids, st.binary(max_size=20)), AROUND, payloads),
        st.builds(f.Message, AROUND, AROUND, AROUND, ids, u8, ANY_NAME, payloads),
        st.builds(f.Error, AROUND, AROUND, ANY_NAME),
        st.builds(f.Roster, st.lists(st.builds(f.RosterEntry, AROUND, AROUND, ANY_NAME), max_size=3).map(tuple)),
        st.builds(f.Leave, fields=st.lists(st.builds(f.Field, AROUND, payloads), max_size=3).map(tuple)),
    )
)
def test_same_refusals_of_values(frame: f.Frame) -> None:
    def octets(build: Callable[[], bytes]) -> bytes | str:
        try:
            return build()
        except LocalProtocolError as error:
            return str(error)

    assert octets(lambda: encode(frame)[HEADER_SIZE:]) == octets(lambda: wire.encode_body(frame.TYPE, asdict(frame)))


def test_decoded_frames_are_frozen() -> None:
    """Decoders fill an object of an open class, and change its class to the frozen one, for items too."""
    frame = WITH_FIELDS[FrameType.ROSTER]
    octets = encode(frame)[HEADER_SIZE:]
    decoded: Any = compiled.DECODERS[FrameType.ROSTER](RawFrame(FrameType.ROSTER, frame.flags, 0, 5, octets))
    assert decoded == frame
    for value, name in (
        (decoded, "entries"),
        (decoded, "room"),
        (decoded.entries[0], "member"),
        (decoded.fields[0], "type"),
    ):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, 1)


@pytest.mark.parametrize("name", ["Message", "RosterEntry"])
def test_open_class_sets_members_like_any_object(name: str) -> None:
    """With the methods of a frozen base, decoding takes 2 to 4 times as long."""
    cls = compiled._namespace[f"_Open{name}"]
    assert (cls.__init__, cls.__setattr__, cls.__delattr__) == (object.__init__, object.__setattr__, object.__delattr__)


# --- The walk


def item(name: str, node: Any) -> type:
    """A class of items with one member."""
    return make_dataclass("Item", [(name, Annotated[int, node])])


TAIL = ("fields" / c.GreedyRange(wire.FIELD), c.Terminated)


@pytest.mark.parametrize(
    "node",
    [
        c.VarInt,
        c.Int16ul,
        c.Int8sb,
        c.Int24ub,
        c.Float64b,
        c.Flag,
        c.Const(b"x"),
        c.Padding(1),
        c.Optional(c.Int8ub),
        c.Array(2, c.Int8ub),
        c.GreedyRange(c.Int8ub),
        c.GreedyBytes,
        c.CString("utf8"),
        c.PascalString(c.Int8ub, "utf8"),
        c.Bytes(lambda this: 1),
        c.Prefixed(c.VarInt, c.GreedyBytes),
        c.Prefixed(c.Int8ub, c.GreedyRange(c.Int8ub)),
        c.Prefixed(c.Int8ub, c.GreedyBytes, includelength=True),
        c.Prefixed(layout.Safe(c.Int64ub), c.GreedyBytes),
        c.Prefixed(c.Bytes(1), c.GreedyBytes),  # type: ignore[arg-type]
        c.PrefixedArray(c.Int8ub, c.Int8ub),
        c.Enum(c.Int8ub, a=1),
        c.Struct("a" / c.Int8ub),
        c.Rebuild(c.Int8ub, 1),
        layout.Name(c.Int8ub),
        layout.Text(c.GreedyBytes),
        layout.Text(layout.Name(layout.b8)),
        layout.Safe(layout.b8),
        layout.Safe(c.Bytes(8)),
        layout.Enumerated(c.VarInt, Code),
        layout.Safe(layout.Enumerated(layout.b8, Code)),
        layout.Counted(c.VarInt, item("a", c.Int8ub)),
        layout.Counted(c.Int8ub, item("a", c.VarInt)),
        layout.Counted(c.Int8ub, item("a", layout.Counted(c.Int8ub, item("b", c.Int8ub)))),
    ],
    ids=str,
)
def test_unknown_node(node: Any) -> None:
    with pytest.raises(TypeError):
        compiled.walk_body(c.Struct("x" / node, *TAIL))


@pytest.mark.parametrize(
    "declaration",
    [
        c.Struct(c.Int8ub, *TAIL),
        c.Struct("_x" / c.Int8ub, *TAIL),
        c.Struct("flags" / c.Int8ub, *TAIL),
        c.Struct("x" / c.Int8ub, "x" / c.Int8ub, *TAIL),
        c.Struct("x" / c.Int8ub, "y" / layout.Counted(c.Int8ub, item("x", c.Int8ub)), *TAIL),
        c.Struct(("x" / c.Int8ub) * (lambda value, context: None), *TAIL),
        c.Struct(c.Renamed(c.Int8ub, "x", newparsed=lambda value, context: None), *TAIL),
        c.Struct("x" / c.Int8ub, "y" / c.Int8ub),
        c.Struct("x" / c.Int8ub, "fields" / c.GreedyRange(wire.FIELD), "y" / c.Int8ub),
        c.Struct("x" / c.Int8ub, "other" / c.GreedyRange(wire.FIELD), c.Terminated),
        c.Struct("x" / c.Int8ub, "fields" / c.GreedyRange(c.Int8ub), c.Terminated),
        c.Struct("x" / c.Int8ub, "fields" / c.GreedyRange(wire.FIELD, discard=True), c.Terminated),
    ],
    ids=str,
)
def test_unusable_declaration(declaration: c.Struct) -> None:
    with pytest.raises(TypeError):
        compiled.walk_body(declaration)


def test_pieces() -> None:
    pieces = compiled.walk_body(wire.BODIES[FrameType.MESSAGE])
    assert [(piece.name, piece.kind, piece.format, piece.mark) for piece in pieces] == [
        ("seq", "number", "Q", layout.Safe),
        ("time_ms", "number", "Q", layout.Safe),
        ("sender", "number", "Q", None),
        ("id", "octets", "16s", None),
        ("ctype", "number", "B", None),
        ("name", "prefixed", "B", layout.Name),
        ("payload", "prefixed", "L", None),
    ]


def test_source_has_all_functions() -> None:
    functions = {node.name for node in ast.parse(compiled.source()).body if isinstance(node, ast.FunctionDef)}
    expected = {f"{action}_{type.name}" for action in ("encode", "decode") for type in FrameType}
    packers = {f"pack_{type.name}" for type in FrameType if type != FrameType.ROSTER}
    assert functions == {*expected, *packers, "read_fields", "write_fields"}


def test_fixed_members_are_read_in_one_call() -> None:
    source = compiled.source()
    assert "seq, time_ms, sender, id, ctype, _size = _read_QQQ16sBB(body, 0)\n" in source
    assert "seq, time_ms = _read_QQ(body, 0)\n" in source
