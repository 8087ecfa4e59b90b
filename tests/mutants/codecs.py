"""Codecs that break one rule each: the reference codec in this process, some of whose answers are others."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from conformance.codec.context import Context
from conformance.codec.reference import answer
from conformance.codec.target import CodecTarget
from conformance.harness.case import Case
from conformance.harness.verdicts import CaseEnd, Failed, Unsupported
from conformance.wire.log import WireLog

Answer = dict[str, Any]
Change = Callable[[Answer, Answer], Answer]
"""From a request and the right answer to the one that is given."""


@dataclass(frozen=True)
class BrokenCodec:
    """A codec with one behaviour changed; `breaks` are the requirements that it does not keep any more.

    With `everything` all cases are tried on it, not only those that name these.
    """

    name: str
    breaks: tuple[str, ...]
    change: Change
    everything: bool = False


class _InProcess(CodecTarget):
    """A codec that needs no process."""

    def __init__(self, change: Change) -> None:
        self.said = []
        self._change = change

    async def ask(self, request: Answer, log: WireLog) -> Answer:
        request = {"id": 1, **request}
        return self._change(request, answer(request))


_PING = {"frame": "PING", "value": {"opaque": "00" * 8, "fields": [], "flags": 0, "request": 0, "room": 0}}

ALL: list[BrokenCodec] = []


def broken(name: str, change: Change, *breaks: str, everything: bool = False) -> None:
    """Declares a broken codec."""
    ALL.append(BrokenCodec(name, breaks, change, everything))


def _good(request: Answer, given: Answer) -> Answer:
    """The answer to octets as if nothing were wrong with them."""
    if request["op"] == "feed":
        return {"id": 1, "frames": [*given["frames"], _PING], "need_more": False}
    return {"id": 1, **_PING}


def _bad(request: Answer, given: Answer, code: str) -> Answer:
    frames: Answer = {"frames": []} if request["op"] == "feed" else {}
    return {"id": 1, **frames, "error": code}


def accepts(*codes: str) -> Change:
    """Takes what earns one of these codes."""
    return lambda request, given: _good(request, given) if given.get("error") in codes else given


def calls(**codes: str) -> Change:
    """Has other codes."""
    return lambda request, given: (
        {**given, "error": codes.get(given["error"], given["error"])} if "error" in given else given
    )


def _frames(given: Answer) -> list[Answer]:
    return given.get("frames") or ([given] if "value" in given else [])


def refuses(test: Callable[[Answer], bool], code: str) -> Change:
    """Refuses frames that are fine."""
    return lambda request, given: _bad(request, given, code) if any(map(test, _frames(given))) else given


def _octets(request: Answer) -> bytes:
    return bytes.fromhex("".join(request.get("chunks", [request.get("hex", "")])))


def _waits(request: Answer, given: Answer) -> Answer:
    """Wants the body before it judges its length."""
    if given.get("error") == "FRAME_TOO_LARGE":
        return (
            {"id": 1, "frames": [], "need_more": True} if request["op"] == "feed" else _bad(request, given, "MALFORMED")
        )
    return given


def _one_less(request: Answer, given: Answer) -> Answer:
    length = int.from_bytes(_octets(request)[:4], "big")
    return _good(request, given) if given.get("error") == "FRAME_TOO_LARGE" and length < 2**25 else given


def _in_pieces(request: Answer, given: Answer) -> Answer:
    """Reads the first piece alone."""
    if request["op"] == "feed" and len(request["chunks"]) > 1:
        return {**answer({**request, "chunks": request["chunks"][:1]}), "id": 1}
    return given


def _always_whole(request: Answer, given: Answer) -> Answer:
    return {**given, "need_more": False} if "need_more" in given else given


def _forgets_number(request: Answer, given: Answer) -> Answer:
    for frame in _frames(given):
        frame["value"] = {**frame["value"], "request": frame["value"].get("request", 0) + 1}
    return given


def _longer(request: Answer, given: Answer) -> Answer:
    return {**given, "hex": given["hex"] + "00"} if request["op"] == "encode" and "hex" in given else given


def _goes_on(request: Answer, given: Answer) -> Answer:
    """Reads on behind a frame that is malformed."""
    return (
        {**given, "frames": given["frames"] * 2} if given.get("error") == "MALFORMED" and given.get("frames") else given
    )


def _zero(request: Answer, given: Answer) -> Answer:
    tail = _octets(request)[6:8]
    return _bad(request, given, "MALFORMED") if request["op"] == "preface" and tail.strip(b"\0") else given


def _field(test: Callable[[int], bool]) -> Callable[[Answer], bool]:
    return lambda frame: any(test(item["type"]) for item in frame["value"].get("fields", ()))


def _text(frame: Answer) -> bool:
    value = frame["value"]
    fields = any(b"\xff" in bytes.fromhex(item["value"]) or _ill(item["value"]) for item in value.get("fields", ()))
    return fields or any("\ufffd" in text for text in value.values() if isinstance(text, str))


def _ill(text: str) -> bool:
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


def _flags(frame: Answer) -> bool:
    value = frame["value"]
    return (frame["frame"] != "UNKNOWN" and bool(value.get("flags", 0) & ~_FLAGS.get(frame["frame"], 0))) or any(
        entry["mflags"] & ~2 for entry in value.get("entries", ())
    )


_KNOWN = frozenset({0x0001, 0x8002, 0x8003, 0x8004})

broken("forgets the number of the request", _forgets_number, "RW-FRAME-7", everything=True)
broken("encodes an octet more", _longer, "RW-FRAME-7", everything=True)
broken("reads the first piece alone", _in_pieces, "RW-FRAME-4")
broken("never needs more", _always_whole, "RW-FRAME-4")
broken("reads on behind what is malformed", _goes_on, "RW-FRAME-7", "RW-FRAME-4")
broken("wants the fields zero to be 0", _zero, "RW-PREFACE-7")
broken("waits for bodies that are too long", _waits, "RW-FRAME-1", "RW-FRAME-2")
broken("has another limit", _one_less, "RW-FRAME-1", "RW-FRAME-2")
broken("accepts any header", accepts("BAD_HEADER"), "RW-FRAME-6")
broken(
    "accepts malformed bodies",
    accepts("MALFORMED"),
    "RW-FRAME-7",
    "RW-FIELD-3",
    "RW-FIELD-4",
    "RW-CHECK-4",
    "RW-CHECK-6",
)
broken(
    "refuses unknown fields",
    refuses(_field(lambda type: type not in _KNOWN), "UNKNOWN_FIELD"),
    "RW-FIELD-1",
    "RW-GREASE-2",
)
broken("accepts unknown fields", accepts("UNKNOWN_FIELD"), "RW-FIELD-2")
broken("refuses unknown flags", refuses(_flags, "BAD_HEADER"), "RW-FLAG-1")
broken("does not answer unknown requests", calls(UNKNOWN_REQUEST="UNKNOWN_TYPE"), "RW-TYPE-1")
broken("accepts unknown types", accepts("UNKNOWN_TYPE"), "RW-TYPE-3", "RW-TYPE-4")
broken("refuses reserved types", refuses(lambda frame: frame["frame"] == "UNKNOWN", "UNKNOWN_TYPE"), "RW-GREASE-2")
broken("refuses extensions", refuses(_field(lambda type: type == 1), "UNKNOWN_FIELD"), "RW-EXT-3")
broken(
    "checks in another order",
    calls(
        FRAME_TOO_LARGE="UNKNOWN_TYPE", UNKNOWN_TYPE="BAD_HEADER", UNKNOWN_REQUEST="MALFORMED", BAD_HEADER="MALFORMED",
        MALFORMED="UNKNOWN_FIELD", UNKNOWN_FIELD="NAME_INVALID", NAME_INVALID="RANGE_INVALID",
    ),
    "RW-CHECK-1",
)  # fmt: skip
broken("accepts any number", accepts("RANGE_INVALID", "MALFORMED"), "RW-CHECK-4")
broken("wants texts to be UTF-8", refuses(_text, "MALFORMED"), "RW-CHECK-5")
broken("accepts names that are no UTF-8", accepts("NAME_INVALID", "MALFORMED"), "RW-CHECK-6")


def cases_for(codec: BrokenCodec, cases: Sequence[Case]) -> list[Case]:
    """Those that are tried on it."""
    return [case for case in cases if codec.everything or set(case.requirements) & set(codec.breaks)]


def trial(codec: BrokenCodec, cases: Sequence[Case]) -> dict[str, str]:
    """How cases end on a codec: in the words of `broken_servers.trial`."""
    return asyncio.run(_trial(codec, cases))


async def _trial(codec: BrokenCodec, cases: Sequence[Case]) -> dict[str, str]:
    return {case.id: await _end(case, Context(_InProcess(codec.change))) for case in cases}


async def _end(case: Case, context: Context) -> str:
    try:
        await case.run(context)
    except Failed as failure:
        return f"kill {failure.requirement or case.requirements[0]}"
    except Unsupported as end:
        return f"unsupported: {end}"
    except CaseEnd as end:
        return f"no verdict: {type(end).__name__}: {end}"
    return "pass"
