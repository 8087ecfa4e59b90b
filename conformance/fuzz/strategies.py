"""hypothesis strategies for every frame, for frames that break one named rule, for streams, and for scripts.

`frames()` draws any frame that a codec accepts, `FRAMES[type]` one of a type, and `RAW` raw frames with any values.
`broken_frames()` draws octets that are wrong in one way, with the rule and the code. `streams()` draws valid octets in
any pieces, and `scripts()` steps of several connections for `server.player.Player`.
"""

import unicodedata
from dataclasses import dataclass
from itertools import chain, pairwise
from random import Random
from typing import Any

from construct import Bytes, FormatField, GreedyBytes, Prefixed, Struct
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from conformance.fuzz.server.broken_frames import BROKEN, Bench, Breakage
from conformance.fuzz.server.generate import Profile, script
from conformance.fuzz.server.steps import Step
from protocol import frames as f
from protocol import layout
from protocol.codec import RawFrame, encode
from protocol.errors import NameInvalid
from protocol.names import key, normalise
from protocol.registry import GREASE, MAX_SAFE, FieldType, Flag, FrameType
from protocol.wire import BODIES, encode_field

u8 = st.integers(0, 2**8 - 1)
u16 = st.integers(0, 2**16 - 1)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
n64 = st.one_of(st.integers(0, 1000), st.integers(0, MAX_SAFE))


def _is_name(text: str) -> bool:
    try:
        return bool(key(text)) and normalise(text) == text
    except NameInvalid:
        return False


names = st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=16).filter(_is_name)
"""Names that every server grants unless it takes only ASCII, in the form in which it grants them."""

texts = st.text(st.characters(codec="utf-8"), max_size=60)
"""Text for people: anything that UTF-8 can encode."""

short_octets = st.binary(max_size=80)
payloads = st.binary(max_size=400)
ids = st.binary(min_size=16, max_size=16)

unknown_fields = st.builds(
    f.Field,
    st.one_of(st.sampled_from(GREASE), st.integers(0xC000, 0xFFFF)),
    short_octets,
)
"""Extension fields that no endpoint knows, and that each may ignore."""


def value(node: Any) -> SearchStrategy[Any]:
    """Values of one field, from the node that declares it. Raises TypeError for a node of another kind."""
    match node:
        case layout.Name():
            return names
        case layout.Text():
            return texts
        case layout.Safe():
            return n64
        case layout.Enumerated():
            return st.one_of(st.sampled_from(node.names).map(int), value(node.subcon))
        case layout.Counted():
            return st.lists(st.builds(node.cls, **members(node.item)), max_size=8).map(tuple)
        case FormatField():
            return st.integers(0, 2 ** (8 * node.sizeof()) - 1)
        case Bytes():
            return st.binary(min_size=node.sizeof(), max_size=node.sizeof())
        case Prefixed():
            return payloads if node.lengthfield.sizeof() == 4 else short_octets
        case _ if node is GreedyBytes:
            return short_octets
    raise TypeError(f"no values for {node!r}")


def members(declaration: Struct) -> dict[str, SearchStrategy[Any]]:
    """Values of each field of a declaration, without the extension fields at the end of a body."""
    return {name: value(node) for name, node in layout.members(declaration) if name != "fields"}


def _known_field(type: FieldType) -> SearchStrategy[f.Field]:
    values = st.fixed_dictionaries(members(layout.VALUES[type]))
    return values.map(lambda drawn: f.Field(type, encode_field(type, drawn)))


KNOWN_FIELDS = {type: _known_field(type) for type in FieldType}


def fields(type: FrameType) -> SearchStrategy[tuple[f.Field, ...]]:
    """Extension fields of a frame, in any order, each as often as the frame may have it."""
    known = [
        st.lists(KNOWN_FIELDS[field], max_size=3 if repeatable else 1)
        for field, repeatable in f.RULES[type].fields.items()
    ]
    groups = st.tuples(st.lists(unknown_fields, max_size=2), *known)
    return groups.flatmap(lambda group: st.permutations([*chain(*group)])).map(tuple)


def flags(type: FrameType) -> SearchStrategy[int]:
    """Flags of a frame: any of its own, and SEQ where it must be."""
    rule = f.RULES[type]
    always = Flag.SEQ if rule.seq else 0
    return u16.map(lambda noise: noise & rule.flags | always)


def numbers(type: FrameType) -> dict[str, SearchStrategy[int]]:
    """`request` and `room` of a frame."""
    allowed = {"nonzero": st.integers(1, 2**32 - 1), "zero": st.just(0), "any": u32}
    return {"request": allowed[f.RULES[type].request], "room": allowed[f.RULES[type].room]}


def _built(type: FrameType) -> SearchStrategy[f.Frame]:
    header = {"fields": fields(type), "flags": flags(type), **numbers(type)}
    return st.builds(f.FRAMES[type], **members(BODIES[type]), **header)


FRAMES: dict[FrameType, SearchStrategy[f.Frame]] = {type: _built(type) for type in FrameType}


def frames(sender: str = "CS") -> SearchStrategy[f.Frame]:
    """Any frame that one of `sender` sends."""
    return st.one_of([FRAMES[type] for type, cls in f.FRAMES.items() if set(sender) & set(cls.RULE.sender)])


RAW: SearchStrategy[RawFrame] = st.builds(
    RawFrame,
    type=st.one_of(st.sampled_from(FrameType).map(int), st.sampled_from(GREASE), u16),
    flags=u16,
    request=st.one_of(st.just(0), u32),
    room=st.one_of(st.just(0), u32),
    body=st.binary(max_size=200),
)


# --- at the edges

edge_names = st.one_of(
    st.sampled_from(
        (
            "x" * 64, "\u00e9" * 32, "\U0001f980" * 16, "e\u0301" * 32, "a\u0301\u0301", "\u1e9e", "\ufb01", "\u2460",
            "~", "~ada", "a b", "\u0130", "\u03c2", "a\u0345b", "\uac00\u1100\u1161", "\u3392", "-", "\u00bd",
        )
    ),
    st.text(st.characters(categories=("L", "M", "N", "P", "S")), min_size=1, max_size=64).filter(
        lambda text: _is_name(normalised(text))
    ),
)  # fmt: skip
"""Names that are only just allowed: of 64 octets after NFC, with marks, or with the same key as others."""


def normalised(text: str) -> str:
    """Returns the text in NFC."""
    return unicodedata.normalize("NFC", text)


# --- frames that are wrong in one way


@dataclass(frozen=True)
class BrokenFrame:
    """Octets of a client that break one rule. `breakage` names the rule and the code that they earn."""

    breakage: Breakage
    octets: bytes


def broken_frames(*, fatal: bool | None = None, max_body: int = 65_536) -> SearchStrategy[BrokenFrame]:
    """Frames that are wrong on an open connection: with `fatal` those that end it, with False those that do not."""
    picked = [breakage for breakage in BROKEN.values() if fatal is None or breakage.fatal == fatal]

    def made(breakage: Breakage, random: Random, request: int, room: int, id: bytes) -> BrokenFrame:
        return BrokenFrame(breakage, breakage.make(Bench(random, request, room, id, max_body)))

    random = st.randoms(use_true_random=False)
    return st.builds(made, st.sampled_from(picked), random, st.integers(1, 2**31), st.integers(0, 2**31), ids)


# --- streams and scripts


def slices(octets: bytes) -> SearchStrategy[list[bytes]]:
    """The octets in any pieces."""
    cuts = st.lists(st.integers(0, len(octets)), max_size=40).map(sorted)
    return cuts.map(lambda at: [octets[i:j] for i, j in pairwise([0, *at, len(octets)])])


def streams(sender: str, most: int = 8) -> SearchStrategy[list[bytes]]:
    """Valid frames of one sender as octets, in any pieces."""
    whole = st.lists(frames(sender), max_size=most).map(lambda drawn: b"".join(map(encode, drawn)))
    return whole.flatmap(slices)


def scripts(profile: Profile | None = None) -> SearchStrategy[list[Step]]:
    """Scripts of several connections (see `server.generate`)."""
    return st.randoms(use_true_random=False).map(lambda random: script(random, profile))
