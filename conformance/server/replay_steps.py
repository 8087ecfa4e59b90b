"""What the steps of a replay file have to be, so that an odd file is refused before anything is sent."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from protocol.registry import Code, FrameType

_Test = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**64


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _hex(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"([0-9a-f]{2})*", value) is not None


def _frame(value: Any) -> bool:
    return isinstance(value, str) and value in FrameType.__members__


def _code(value: Any) -> bool:
    return type(value) is int and value in set(Code)


def _limits(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_number, value.values()))


_STEPS: Mapping[str, Mapping[str, _Test]] = {
    "connect": {"peer": _text, "buffer": _size},
    "preface": {"peer": _text},
    "send": {"peer": _text, "hex": _hex, "slices": lambda value: isinstance(value, list) and all(map(_size, value))},
    "write": {"peer": _text},
    "receive": {"peer": _text, "hex": lambda value: _hex(value) and len(value) >= 32},
    "pause": {"peer": _text, "paused": _truth},
    "eof": {"peer": _text},
    "close": {"peer": _text, "abort": _truth},
    "expect": {"peer": _text},
    "server": {"limits": _limits},
    "restart": {"limits": _limits},
    "drain": {},
}
"""The members that each step must have."""

_OTHERS: Mapping[str, _Test] = {
    "hex": _hex,
    "breaks": _text,
    "requirement": _text,
    "reply": _number,
    "code": _code,
    "frame": _frame,
    "goaway": _code,
    "closed": _truth,
    "message": lambda value: _hex(value) and len(value) == 32,
    "room": lambda value: value is None or _number(value),
    "within": lambda value: value is None or (type(value) in (int, float) and 0 <= value < 10**6),
}
"""Members that a step may have besides."""


def wrong(steps: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with the first step that cannot be taken, with its number; "" if all can be."""
    peers: set[str] = set()
    for number, step in enumerate(steps, 1):
        do = step.get("do")
        needed = _STEPS.get(do) if isinstance(do, str) else None
        if needed is None:
            return f'step {number}: expected one of {", ".join(_STEPS)} as its "do", found {do!r}'
        for name, test in {**{name: test for name, test in _OTHERS.items() if name in step}, **needed}.items():
            if not test(step.get(name)):
                return f"step {number}, {do}: {name!r} is missing or malformed"
        if do == "connect":
            peers.add(step["peer"])
        elif "peer" in step and step["peer"] not in peers:
            return f"step {number}, {do}: the peer {step['peer']!r} has not connected"
        if do == "expect" and "goaway" in step and "closed" not in step:
            return f"step {number}, {do}: 'closed' is missing"
    return ""
