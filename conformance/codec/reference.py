"""`protocol.codec` behind the contract of codecs (CONTRACT.md), as an example and as the suite's first target.

It runs as `python -m conformance.codec.reference`.
"""

import json
import sys
from typing import Any, cast

from conformance.harness.contract import CONTRACT
from conformance.spec.tables import load
from conformance.wire.octets import HEADER, body_values, read_header
from protocol.codec import RawFrame, decode, encode
from protocol.errors import FrameTooLarge, LocalProtocolError, Malformed, RemoteProtocolError
from protocol.frames import FRAMES, Field, Frame, RosterEntry, Unknown
from protocol.registry import MAGIC, PREFACE_SIZE, Code, FrameType, Sender, is_ignorable

_HEADER_VALUES = ("flags", "request", "room")
_PREFACES = {"C": "CLIENT_PREFACE", "S": "SERVER_PREFACE"}
_WIDE = {
    name: frozenset(part.name for part in parts if part.type in ("u64", "n64")) for name, parts in load().bodies.items()
}
"""Fields of 64 bits by frame, which are decimal strings in JSON."""


class _Refused(Exception):
    """The octets are refused with a code."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


def _read(octets: bytes, sender: Sender, limit: int) -> tuple[Frame | Unknown, bytes] | None:
    """The first frame and the octets after it, None while it is not whole. Raises _Refused."""
    if len(octets) < HEADER.size:
        return None
    header = read_header(octets)
    end = HEADER.size + header.length
    try:
        if header.length > limit:
            raise FrameTooLarge
        if len(octets) < end:
            return None
        raw = RawFrame(header.type, header.flags, header.request, header.room, octets[HEADER.size : end])
        frame = decode(raw, sender)
    except RemoteProtocolError as error:
        raise _Refused(error.code) from None
    if isinstance(frame, Unknown):
        if sender == "C" and frame.request:
            raise _Refused(Code.UNKNOWN_REQUEST)
        if not is_ignorable(frame.type):
            raise _Refused(Code.UNKNOWN_TYPE)
    return frame, octets[end:]


def _shown(frame: Frame | Unknown) -> dict[str, Any]:
    header = {name: getattr(frame, name) for name in _HEADER_VALUES}
    if isinstance(frame, Unknown):
        return {"frame": "UNKNOWN", "value": {"type": frame.type, **header, "body": frame.body.hex()}}
    name = frame.TYPE.name
    body = {key: _plain(name, key, value) for key, value in body_values(frame).items()}
    if "entries" in body:
        body = {"count": len(body["entries"]), **body}
    fields = [{"type": item.type, "value": item.value.hex()} for item in frame.fields]
    return {"frame": name, "value": {**body, **header, "fields": fields}}


def _plain(frame: str, name: str, value: Any) -> Any:
    if name == "entries":
        return [
            {key: _plain("entry", key, getattr(entry, key)) for key in ("member", "mflags", "name")} for entry in value
        ]
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if name in _WIDE[frame] else value


def _frame(name: str, value: dict[str, Any]) -> Frame | Unknown:
    """The frame of a value in the form that `_shown` returns."""
    header = {key: value[key] for key in _HEADER_VALUES}
    if name == "UNKNOWN":
        return Unknown(value["type"], bytes.fromhex(value["body"]), **header)
    octets = {part.name for part in load().bodies[name] if part.type in ("o8", "o16", "b16", "b32")}
    body: dict[str, Any] = {}
    for key, item in value.items():
        if key == "entries":
            body[key] = tuple(RosterEntry(int(e["member"]), e["mflags"], e["name"]) for e in item)
        elif key == "fields":
            body[key] = tuple(Field(e["type"], bytes.fromhex(e["value"])) for e in item)
        elif key not in header and key != "count":
            body[key] = bytes.fromhex(item) if key in octets else int(item) if key in _WIDE[name] else item
    return cast(Any, FRAMES[FrameType[name]])(**body, **header)  # type: ignore[no-any-return]


def _decode(request: dict[str, Any]) -> dict[str, Any]:
    octets = bytes.fromhex(request["hex"])
    read = _read(octets, request["from"], request.get("limit", 65536))
    if read is None or read[1]:
        raise _Refused(Malformed.code)
    return _shown(read[0])


def _preface(request: dict[str, Any]) -> dict[str, Any]:
    octets = bytes.fromhex(request["hex"])
    if len(octets) != PREFACE_SIZE or not octets.startswith(MAGIC):
        raise _Refused(Malformed.code)
    if request["from"] == "C":
        return {"frame": _PREFACES["C"], "value": {"version_min": octets[4], "version_max": octets[5]}}
    return {"frame": _PREFACES["S"], "value": {"version": octets[4]}}


def _encode(request: dict[str, Any]) -> dict[str, Any]:
    name, value = request["frame"], request["value"]
    if name in _PREFACES.values():
        versions = [value["version_min"], value["version_max"]] if name == _PREFACES["C"] else [value["version"], 0]
        return {"hex": (MAGIC + bytes([*versions, 0, 0])).hex()}
    return {"hex": encode(_frame(name, value)).hex()}


def _feed(request: dict[str, Any]) -> dict[str, Any]:
    buffer, frames = b"", []
    for chunk in request["chunks"]:
        buffer += bytes.fromhex(chunk)
        try:
            while read := _read(buffer, request["from"], request.get("limit", 65536)):
                frames.append(_shown(read[0]))
                buffer = read[1]
        except _Refused as refused:
            return {"frames": frames, "error": refused.code.name}
    return {"frames": frames, "need_more": bool(buffer)}


_OPS = {"decode": _decode, "preface": _preface, "encode": _encode, "feed": _feed}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The codec's answer to one request."""
    op = _OPS.get(request["op"])
    if op is None:
        return {"id": request["id"], "unsupported": request["op"]}
    try:
        return {"id": request["id"], **op(request)}
    except _Refused as refused:
        return {"id": request["id"], "error": refused.code.name}
    except LocalProtocolError as error:
        return {"id": request["id"], "error": f"cannot encode: {error}"}


def main() -> None:
    """Answers requests until the end of standard input."""
    features = sorted(_OPS)
    greeting = {
        "ready": True,
        "contract": CONTRACT,
        "name": "roomwire reference",
        "version": "1",
        "features": features,
    }
    print(json.dumps(greeting), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
