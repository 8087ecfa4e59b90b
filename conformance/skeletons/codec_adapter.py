"""Your codec as `roomwire-check codec` drives it: one long-lived process that answers lines of JSON.

    roomwire-check codec --exec 'python3 codec_adapter.py'

It already knows PING, PONG and OK, so that you see a verdict. Replace `read_body` and `write_body` with calls of your
codec; nothing else must change. Octets are hexadecimal, integers of 64 bits are decimal strings (u64, n64).
"""

import json
import sys
from typing import Any

HEADER = 16
TYPES = {0x0005: "OK", 0x0006: "PING", 0x0007: "PONG"}  # SPEC.md, section 7
NUMBERS = {name: number for number, name in TYPES.items()}


class Refused(Exception):
    """The octets are refused with a code of SPEC.md, section 16."""


class NotYet(Exception):
    """Your codec does not do this yet: the suite reports UNSUPPORTED and goes on."""


def read_body(name: str, body: bytes) -> dict[str, Any]:
    """The fields of a body by their names in SPEC.md, and `fields`, the extension fields."""
    if name in ("PING", "PONG"):
        if len(body) < 8:
            raise Refused("MALFORMED")
        return {"opaque": body[:8].hex(), "fields": read_fields(body[8:])}
    if name == "OK":
        return {"fields": read_fields(body)}
    raise NotYet


def write_body(name: str, value: dict[str, Any]) -> bytes:
    """The octets of a body."""
    fields = b"".join(
        field["type"].to_bytes(2, "big")
        + len(bytes.fromhex(field["value"])).to_bytes(2, "big")
        + bytes.fromhex(field["value"])
        for field in value["fields"]
    )
    if name in ("PING", "PONG"):
        return bytes.fromhex(value["opaque"]) + fields
    if name == "OK":
        return fields
    raise NotYet


def read_fields(octets: bytes) -> list[dict[str, Any]]:
    """Extension fields up to the end of a body (SPEC.md, section 5.3)."""
    fields = []
    while octets:
        length = int.from_bytes(octets[2:4], "big")
        if len(octets) < 4 + length:
            raise Refused("MALFORMED")
        kind = int.from_bytes(octets[:2], "big")
        if kind < 0x8000:
            raise Refused("UNKNOWN_FIELD")
        fields.append({"type": kind, "value": octets[4 : 4 + length].hex()})
        octets = octets[4 + length :]
    return fields


def read(octets: bytes, sender: str, limit: int) -> tuple[dict[str, Any], bytes] | None:
    """The first frame and the octets after it, or None if it is not complete yet. `sender` is "C" or "S"."""
    if len(octets) < HEADER:
        return None
    numbers = [int.from_bytes(octets[at:end], "big") for at, end in ((0, 4), (4, 6), (6, 8), (8, 12), (12, 16))]
    length, kind, flags, request, room = numbers
    if length > limit:
        raise Refused("FRAME_TOO_LARGE")
    if len(octets) < HEADER + length:
        return None
    name = TYPES.get(kind)
    if name is None:
        raise NotYet
    if flags & 0x8000 or (not request if name == "OK" else request or room):
        raise Refused("BAD_HEADER")
    value = read_body(name, octets[HEADER : HEADER + length])
    return {"frame": name, "value": {**value, "flags": flags, "request": request, "room": room}}, octets[
        HEADER + length :
    ]


def decode(request: dict[str, Any]) -> dict[str, Any]:
    """Decodes one whole frame."""
    found = read(bytes.fromhex(request["hex"]), request["from"], request.get("limit", 65536))
    if found is None or found[1]:
        raise Refused("MALFORMED")
    return found[0]


def encode(request: dict[str, Any]) -> dict[str, Any]:
    """Encodes one frame."""
    name, value = request["frame"], request["value"]
    if name not in NUMBERS:
        raise NotYet
    body = write_body(name, value)
    parts = ((len(body), 4), (NUMBERS[name], 2), (value["flags"], 2), (value["request"], 4), (value["room"], 4))
    return {"hex": (b"".join(number.to_bytes(width, "big") for number, width in parts) + body).hex()}


def feed(request: dict[str, Any]) -> dict[str, Any]:
    """Decodes a stream that arrives in chunks."""
    buffer, frames = b"", []
    for chunk in request["chunks"]:
        buffer += bytes.fromhex(chunk)
        try:
            while found := read(buffer, request["from"], request.get("limit", 65536)):
                frames.append(found[0])
                buffer = found[1]
        except Refused as refused:
            return {"frames": frames, "error": str(refused)}
    return {"frames": frames, "need_more": bool(buffer)}


OPERATIONS = {"decode": decode, "encode": encode, "feed": feed}


def main() -> None:
    """Answers requests until the end of standard input."""
    greeting = {"ready": True, "contract": 1, "name": "my codec", "version": "0", "features": sorted(OPERATIONS)}
    print(json.dumps(greeting), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = OPERATIONS[request["op"]](request)
        except (NotYet, KeyError):
            answer = {"unsupported": request["op"]}
        except Refused as refused:
            answer = {"error": str(refused)}
        print(json.dumps({"id": request["id"], **answer}), flush=True)


if __name__ == "__main__":
    main()
