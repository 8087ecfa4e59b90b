"""When two values of a frame are the same, by appendix B of SPEC.md."""

import json
import re
from typing import Any, NamedTuple

from protocol.frames import RULES
from protocol.registry import Flag, FrameType

_VERIFIED = 0x02
_REPLACED = re.compile("\ufffd+")


class Difference(NamedTuple):
    """What a value has to be and what it is, each behind its path."""

    expected: str
    found: str


def differences(frame: str, expected: Any, found: Any) -> list[Difference]:
    """How a decoded value differs from a vector's.

    A decoder may drop flags that its frame does not define, and show invalid UTF-8 as one U+FFFD or several.
    """
    return list(_compare("", expected, _forgiven(frame, expected, found)))


def _forgiven(frame: str, expected: Any, found: Any) -> Any:
    if not isinstance(found, dict) or not isinstance(expected, dict):
        return found
    found = dict(found)
    if found.get("flags") == expected.get("flags", 0) & _defined(frame):
        found["flags"] = expected.get("flags")
    entries, wanted = found.get("entries"), expected.get("entries")
    if isinstance(entries, list) and isinstance(wanted, list) and len(entries) == len(wanted):
        found["entries"] = [_forgiven_entry(a, b) for a, b in zip(wanted, entries, strict=True)]
    return found


def _forgiven_entry(expected: Any, found: Any) -> Any:
    if isinstance(found, dict) and found.get("mflags") == expected["mflags"] & _VERIFIED:
        return {**found, "mflags": expected["mflags"]}
    return found


def _defined(frame: str) -> int:
    if frame not in FrameType.__members__:
        return Flag.SEQ | Flag.EPHEMERAL
    rule = RULES[FrameType[frame]]
    return rule.flags | (Flag.SEQ if rule.seq else 0)


def _compare(path: str, expected: Any, found: Any) -> list[Difference]:
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = [*expected, *(key for key in found if key not in expected)]
        missing = object()
        wrong: list[Difference] = []
        for key in keys:
            a, b = expected.get(key, missing), found.get(key, missing)
            place = f"{path}.{key}" if path else str(key)
            if a is missing or b is missing:
                wrong.append(Difference(*(f"{place} {'absent' if x is missing else 'there'}" for x in (a, b))))
            else:
                wrong += _compare(place, a, b)
        return wrong
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [
            d for at, (a, b) in enumerate(zip(expected, found, strict=True)) for d in _compare(f"{path}[{at}]", a, b)
        ]
    if isinstance(expected, str) and isinstance(found, str):
        same = _REPLACED.sub("\ufffd", expected) == _REPLACED.sub("\ufffd", found)
    else:
        same = type(expected) is type(found) and expected == found
    return [] if same else [Difference(f"{path} {json.dumps(expected)}", f"{path} {json.dumps(found)}")]
