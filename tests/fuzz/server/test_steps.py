"""The steps of a script as values, and the frames that break a rule."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from conformance.fuzz import strategies
from conformance.fuzz.server.broken_frames import BROKEN, HANDSHAKES
from conformance.fuzz.server.steps import ITEMS, Step
from conformance.spec.tables import load
from conformance.wire.octets import HEADER, decode, read_header
from protocol import codec
from protocol.codec import RawFrame
from protocol.errors import RemoteProtocolError
from protocol.frames import Frame, Unknown
from protocol.registry import Code


@given(strategies.scripts())
def test_steps_as_json(steps: list[Step]) -> None:
    assert [Step.from_json(step.to_json()) for step in steps] == steps


@pytest.mark.parametrize("value", [{"do": "dance"}, {"do": "send", "items": ["dance"]}, {"do": "send", "dance": 1}])
def test_unknown_steps(value: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Step.from_json(value)


def test_simpler_steps() -> None:
    step = Step("send", 1, 1, "", tuple(ITEMS), 8, True, 60)
    simpler = list(step.simpler())
    assert step not in simpler
    assert len(simpler) > len(ITEMS)


@given(strategies.broken_frames())
def test_broken_frames(broken: strategies.BrokenFrame) -> None:
    """Both codecs refuse a frame with its code, or accept it where only a server can tell."""
    header = read_header(broken.octets)
    [code] = broken.breakage.codes
    assert broken.breakage.requirement in load().requirements
    if code is Code.FRAME_TOO_LARGE:
        assert header.length > 65_536
        return
    body = broken.octets[HEADER.size :]
    assert len(body) == header.length
    raw = RawFrame(header.type, header.flags, header.request, header.room, body)
    said: list[Code | None] = []
    readers: list[Callable[[], Frame | Unknown]] = [lambda: decode(header, body, "C"), lambda: codec.decode(raw, "C")]
    for read in readers:
        try:
            frame = read()
            said.append(Code.UNKNOWN_REQUEST if header.request else Code.UNKNOWN_TYPE)
            if not isinstance(frame, Unknown):
                said[-1] = None
        except RemoteProtocolError as error:
            said.append(error.code)
    assert said[0] == said[1]
    by_server = {Code.UNEXPECTED, Code.NOT_JOINED, Code.NAME_INVALID, Code.UNKNOWN_REQUEST}
    assert said[0] == code or (said[0] is None and code in by_server)


def test_requirements_of_broken_frames() -> None:
    known = load().requirements
    assert all(breakage.requirement in known for breakage in BROKEN.values())
    assert all(handshake.requirement in known for handshake in HANDSHAKES.values())
