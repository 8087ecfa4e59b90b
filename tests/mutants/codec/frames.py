"""Codec mutants: prefaces, frames, fields, flags and checks (SPEC.md, 5 and 6)."""

from collections.abc import Callable

from conformance.codec.reference import answer
from tests.mutants.codecs import Answer, Change, CodecMutant

_PING = {"frame": "PING", "value": {"opaque": "00" * 8, "fields": [], "flags": 0, "request": 0, "room": 0}}


def _good(request: Answer, given: Answer) -> Answer:
    """The answer to the octets as if they broke no rule."""
    if request["op"] == "feed":
        return {"id": 1, "frames": [*given["frames"], _PING], "need_more": False}
    return {"id": 1, **_PING}


def _bad(request: Answer, given: Answer, code: str) -> Answer:
    frames: Answer = {"frames": []} if request["op"] == "feed" else {}
    return {"id": 1, **frames, "error": code}


def accepts(*codes: str) -> Change:
    """Accepts frames that earn one of these codes."""
    return lambda request, given: _good(request, given) if given.get("error") in codes else given


def recoded(**codes: str) -> Change:
    """Reports other codes."""
    return lambda request, given: (
        {**given, "error": codes.get(given["error"], given["error"])} if "error" in given else given
    )


def _frames(given: Answer) -> list[Answer]:
    return given.get("frames") or ([given] if "value" in given else [])


def refuses(test: Callable[[Answer], bool], code: str) -> Change:
    """Refuses frames that break no rule."""
    return lambda request, given: _bad(request, given, code) if any(map(test, _frames(given))) else given


def _octets(request: Answer) -> bytes:
    return bytes.fromhex("".join(request.get("chunks", [request.get("hex", "")])))


def _length_checked_late(request: Answer, given: Answer) -> Answer:
    """Waits for the body before it checks its length."""
    if given.get("error") == "FRAME_TOO_LARGE":
        return (
            {"id": 1, "frames": [], "need_more": True} if request["op"] == "feed" else _bad(request, given, "MALFORMED")
        )
    return given


def _limit_of_32_mib(request: Answer, given: Answer) -> Answer:
    length = int.from_bytes(_octets(request)[:4], "big")
    return _good(request, given) if given.get("error") == "FRAME_TOO_LARGE" and length < 2**25 else given


def _first_chunk(request: Answer, given: Answer) -> Answer:
    """Reads only the first chunk."""
    if request["op"] == "feed" and len(request["chunks"]) > 1:
        return {**answer({**request, "chunks": request["chunks"][:1]}), "id": 1}
    return given


def _needs_no_more(request: Answer, given: Answer) -> Answer:
    return {**given, "need_more": False} if "need_more" in given else given


def _request_plus_one(request: Answer, given: Answer) -> Answer:
    for frame in _frames(given):
        frame["value"] = {**frame["value"], "request": frame["value"].get("request", 0) + 1}
    return given


def _octet_left_over(request: Answer, given: Answer) -> Answer:
    return {**given, "hex": given["hex"] + "00"} if request["op"] == "encode" and "hex" in given else given


def _reads_past_malformed(request: Answer, given: Answer) -> Answer:
    """Reads on behind a malformed frame."""
    return (
        {**given, "frames": given["frames"] * 2} if given.get("error") == "MALFORMED" and given.get("frames") else given
    )


def _zero_checked(request: Answer, given: Answer) -> Answer:
    tail = _octets(request)[6:8]
    return _bad(request, given, "MALFORMED") if request["op"] == "preface" and tail.strip(b"\0") else given


def _has_field(test: Callable[[int], bool]) -> Callable[[Answer], bool]:
    return lambda frame: any(test(item["type"]) for item in frame["value"].get("fields", ()))


def _ill_formed_text(frame: Answer) -> bool:
    value = frame["value"]
    fields = any(
        b"\xff" in bytes.fromhex(item["value"]) or _ill_formed(item["value"]) for item in value.get("fields", ())
    )
    return fields or any("\ufffd" in text for text in value.values() if isinstance(text, str))


def _ill_formed(text: str) -> bool:
    try:
        return bytes.fromhex(text).decode() is None
    except UnicodeDecodeError:
        return True


_FLAGS = {
    "HELLO": 0,
    "WELCOME": 0x12,
    "ERROR": 1,
    "GOAWAY": 1,
    "JOIN": 0x10,
    "JOINED": 0x30,
    "ROSTER": 0x14,
    "PRESENCE": 2,
    "EVICTED": 1,
    "PUBLISH": 0x20,
    "ACK": 0x10,
    "MESSAGE": 0x8002,
    "HISTORY": 0x10,
    "HISTORY_END": 4,
}


def _unknown_flags(frame: Answer) -> bool:
    value = frame["value"]
    return (frame["frame"] != "UNKNOWN" and bool(value.get("flags", 0) & ~_FLAGS.get(frame["frame"], 0))) or any(
        entry["mflags"] & ~2 for entry in value.get("entries", ())
    )


_KNOWN = frozenset({0x0001, 0x8002, 0x8003, 0x8004})

MUTANTS: tuple[CodecMutant, ...] = (
    # 5.1 Preface
    CodecMutant(
        "preface-zero-checked", "Treats a zero field that is not 0 as MALFORMED.", ("RW-PREFACE-7",), _zero_checked
    ),
    # 5.2 Header
    CodecMutant(
        "body-length-checked-late",
        "Waits for the body before it checks its length.",
        ("RW-FRAME-1", "RW-FRAME-2"),
        _length_checked_late,
    ),
    CodecMutant("max-body-too-high", "Accepts bodies of up to 32 MiB.", ("RW-FRAME-1", "RW-FRAME-2"), _limit_of_32_mib),
    CodecMutant("first-chunk-only", "Reads only the first of several chunks.", ("RW-FRAME-4",), _first_chunk),
    CodecMutant("need-more-missing", "Says that it needs no more octets.", ("RW-FRAME-4",), _needs_no_more),
    CodecMutant("bad-header-accepted", "Accepts frames that earn BAD_HEADER.", ("RW-FRAME-6",), accepts("BAD_HEADER")),
    CodecMutant(
        "request-plus-one",
        "Reads a request number that is too large by one.",
        ("RW-FRAME-7",),
        _request_plus_one,
        only=("codec/*",),
    ),
    CodecMutant("octet-left-over", "Encodes one octet too many.", ("RW-FRAME-7",), _octet_left_over, only=("codec/*",)),
    CodecMutant(
        "malformed-accepted",
        "Accepts frames that earn MALFORMED.",
        ("RW-FRAME-7", "RW-FIELD-3", "RW-FIELD-4", "RW-CHECK-4", "RW-CHECK-6"),
        accepts("MALFORMED"),
    ),
    CodecMutant(
        "frames-after-malformed",
        "Reads on behind a malformed frame.",
        ("RW-FRAME-7", "RW-FRAME-4"),
        _reads_past_malformed,
    ),
    # 5.3 Extension fields
    CodecMutant(
        "unknown-field-refused",
        "Refuses extension fields that it does not know.",
        ("RW-FIELD-1", "RW-GREASE-2"),
        refuses(_has_field(lambda type: type not in _KNOWN), "UNKNOWN_FIELD"),
    ),
    CodecMutant(
        "critical-field-accepted",
        "Accepts critical fields that it does not know.",
        ("RW-FIELD-2",),
        accepts("UNKNOWN_FIELD"),
    ),
    CodecMutant(
        "extension-refused",
        "Refuses the field EXTENSION.",
        ("RW-EXT-3",),
        refuses(_has_field(lambda type: type == 1), "UNKNOWN_FIELD"),
    ),
    # 5.4 Flags
    CodecMutant(
        "unknown-flag-refused",
        "Refuses flags that it does not know.",
        ("RW-FLAG-1",),
        refuses(_unknown_flags, "BAD_HEADER"),
    ),
    # 6.1 Unknown types
    CodecMutant(
        "unknown-request-other-code",
        "Reports UNKNOWN_TYPE where UNKNOWN_REQUEST is due.",
        ("RW-TYPE-1",),
        recoded(UNKNOWN_REQUEST="UNKNOWN_TYPE"),
    ),
    CodecMutant(
        "critical-type-accepted",
        "Accepts critical frames of unknown type.",
        ("RW-TYPE-3", "RW-TYPE-4"),
        accepts("UNKNOWN_TYPE"),
    ),
    CodecMutant(
        "reserved-type-refused",
        "Refuses frames of reserved types.",
        ("RW-GREASE-2",),
        refuses(lambda frame: frame["frame"] == "UNKNOWN", "UNKNOWN_TYPE"),
    ),
    # 6.2 Order of checks
    CodecMutant(
        "checks-other-order",
        "Reports the code of a later check before that of an earlier one.",
        ("RW-CHECK-1",),
        recoded(
            FRAME_TOO_LARGE="UNKNOWN_TYPE",
            UNKNOWN_TYPE="BAD_HEADER",
            UNKNOWN_REQUEST="MALFORMED",
            BAD_HEADER="MALFORMED",
            MALFORMED="UNKNOWN_FIELD",
            UNKNOWN_FIELD="NAME_INVALID",
            NAME_INVALID="RANGE_INVALID",
        ),
    ),
    CodecMutant(
        "range-accepted", "Accepts numbers above 2^53 - 1.", ("RW-CHECK-4",), accepts("RANGE_INVALID", "MALFORMED")
    ),
    CodecMutant(
        "ill-formed-text-refused",
        "Refuses ill-formed UTF-8 in texts.",
        ("RW-CHECK-5",),
        refuses(_ill_formed_text, "MALFORMED"),
    ),
    CodecMutant(
        "ill-formed-name-accepted",
        "Accepts ill-formed UTF-8 in names.",
        ("RW-CHECK-6",),
        accepts("NAME_INVALID", "MALFORMED"),
    ),
)
