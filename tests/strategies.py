"""hypothesis strategies for every frame, valid in all that a codec checks: body, fields and header.

`frames()` draws any frame, `FRAMES[type]` one of a type; `RAW` draws raw frames that may be anything.
"""

from itertools import chain
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from protocol import frames as f
from protocol.errors import NameInvalid
from protocol.framing import RawFrame
from protocol.names import key, normalise
from protocol.registry import GREASE, MAX_SAFE, RULES, Code, ContentType, FieldType, Flag, FrameType

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
"""Names that every server which does not limit itself to ASCII grants, in the form in which it grants them."""

texts = st.text(st.characters(codec="utf-8"), max_size=60)
"""Text for people: anything that UTF-8 can hold."""

short_octets = st.binary(max_size=80)
payloads = st.binary(max_size=400)
ids = st.binary(min_size=16, max_size=16)

unknown_fields = st.builds(
    f.Field,
    st.one_of(st.sampled_from(GREASE), st.integers(0xC000, 0xFFFF)),
    short_octets,
)
"""Extension fields that nobody knows, and that may be ignored."""

KNOWN_FIELDS: dict[FieldType, SearchStrategy[f.Field]] = {
    FieldType.EXTENSION: st.builds(f.extension, texts, short_octets),
    FieldType.AGENT: st.builds(f.agent, texts),
    FieldType.SERVER: st.builds(f.server_identity, u64, texts),
    FieldType.MECHANISM: st.builds(f.mechanism, texts),
}


def fields(type: FrameType) -> SearchStrategy[tuple[f.Field, ...]]:
    """Extension fields of a frame, in any order, each as often as it may be there."""
    known = [
        st.lists(KNOWN_FIELDS[field], max_size=3 if repeatable else 1)
        for field, repeatable in RULES[type].fields.items()
    ]
    groups = st.tuples(st.lists(unknown_fields, max_size=2), *known)
    return groups.flatmap(lambda group: st.permutations([*chain(*group)])).map(tuple)


def flags(type: FrameType) -> SearchStrategy[int]:
    """Flags of a frame: any of its own, and SEQ where it must be."""
    rule = RULES[type]
    always = Flag.SEQ if rule.seq else 0
    return u16.map(lambda noise: noise & rule.flags | always)


def numbers(type: FrameType) -> dict[str, SearchStrategy[int]]:
    """`request` and `room` of a frame."""
    allowed = {"nonzero": st.integers(1, 2**32 - 1), "zero": st.just(0), "any": u32}
    return {"request": allowed[RULES[type].request], "room": allowed[RULES[type].room]}


codes = st.one_of(st.sampled_from(Code).map(int), u16)
ctypes = st.one_of(st.sampled_from(ContentType).map(int), u8)
entries = st.lists(st.builds(f.RosterEntry, u64, u8, names), max_size=8).map(tuple)

_MEMBERS: dict[FrameType, dict[str, SearchStrategy[Any]]] = {
    FrameType.HELLO: {"name": names, "mechanism": texts, "auth": short_octets},
    FrameType.WELCOME: {
        "member": u64,
        "name": names,
        "now_ms": n64,
        "max_body": u32,
        "heartbeat_ms": u32,
        "dedupe_ms": u32,
        "window": u16,
        "max_rooms": u16,
        "auth": short_octets,
    },
    FrameType.AUTH: {"data": short_octets},
    FrameType.ERROR: {"code": codes, "retry_ms": u32, "text": texts},
    FrameType.OK: {},
    FrameType.PING: {"opaque": st.binary(min_size=8, max_size=8)},
    FrameType.PONG: {"opaque": st.binary(min_size=8, max_size=8)},
    FrameType.GOAWAY: {"code": codes, "retry_ms": u32, "jitter_ms": u32, "text": texts},
    FrameType.JOIN: {"name": names, "epoch": u64, "since": n64},
    FrameType.JOINED: {
        "epoch": u64,
        "head": n64,
        "start": n64,
        "oldest": n64,
        "members": u32,
        "name": names,
    },
    FrameType.ROSTER: {"entries": entries},
    FrameType.PRESENCE: {"kind": u8, "member": u64, "name": names},
    FrameType.LEAVE: {},
    FrameType.EVICTED: {"code": codes, "retry_ms": u32, "text": texts},
    FrameType.PUBLISH: {"id": ids, "ctype": ctypes, "payload": payloads},
    FrameType.ACK: {"seq": n64, "time_ms": n64},
    FrameType.MESSAGE: {
        "seq": n64,
        "time_ms": n64,
        "sender": u64,
        "id": ids,
        "ctype": ctypes,
        "name": names,
        "payload": payloads,
    },
    FrameType.HISTORY: {"start": n64, "end": n64, "limit": u16},
    FrameType.HISTORY_END: {"start": n64, "end": n64, "oldest": n64},
    FrameType.STOP: {},
}


def _built(type: FrameType) -> SearchStrategy[f.Frame]:
    header = {"fields": fields(type), "flags": flags(type), **numbers(type)}
    return st.builds(f.FRAMES[type], **_MEMBERS[type], **header)


FRAMES: dict[FrameType, SearchStrategy[f.Frame]] = {type: _built(type) for type in FrameType}


def frames(sender: str = "CS") -> SearchStrategy[f.Frame]:
    """Any frame that one of `sender` sends."""
    return st.one_of([FRAMES[type] for type, rule in RULES.items() if set(sender) & set(rule.sender)])


RAW: SearchStrategy[RawFrame] = st.builds(
    RawFrame,
    type=st.one_of(st.sampled_from(FrameType).map(int), st.sampled_from(GREASE), u16),
    flags=u16,
    request=st.one_of(st.just(0), u32),
    room=st.one_of(st.just(0), u32),
    body=st.binary(max_size=200),
)
