"""What both roles hold every frame to: its flags, and the code of a frame that has one."""

from collections.abc import Callable
from typing import cast

from conformance.wire.text import code_name, frame_line
from protocol.frames import RULES, Error, Evicted, Frame, Goaway, Unknown
from protocol.registry import CODES, GREASE, Code, Flag

Breach = Callable[[str, str, str], None]
"""Takes a requirement, what was expected and what was found."""


def judge_flags(frame: Frame | Unknown, breach: Breach) -> None:
    """Judges the flags of a frame that the program under test sent."""
    if frame.flags & Flag.SEQ and frame.flags & Flag.EPHEMERAL:
        breach("RW-FLAG-2", "SEQ or EPHEMERAL, not both", frame_line(frame))
    if isinstance(frame, Unknown):
        if frame.type in GREASE and frame.flags & Flag.SEQ:
            breach("RW-GREASE-1", "no SEQ in a frame of reserved type", frame_line(frame))
        return
    rule = RULES[frame.TYPE]
    if frame.flags & ~(rule.flags | (Flag.SEQ if rule.seq else 0)):
        breach("RW-FLAG-1", "0 in flags that the frame does not define", frame_line(frame))


def judge_code(frame: Error | Goaway | Evicted, breach: Breach) -> None:
    """Judges whether a code is in a frame that carries it, with RETRY as the table of codes says."""
    if frame.code not in CODES:
        return
    rule, name = CODES[cast(Code, frame.code)], code_name(frame.code)
    carrier = {Error: "E", Evicted: "V", Goaway: "G"}[type(frame)]
    if carrier not in rule.carriers:
        breach("RW-CODE-1", f"{name} in its carriers ({rule.carriers})", frame_line(frame))
    if bool(frame.flags & Flag.RETRY) != rule.retry:
        breach("RW-ERROR-1", f"RETRY {'set' if rule.retry else 'clear'} for {name}", frame_line(frame))
